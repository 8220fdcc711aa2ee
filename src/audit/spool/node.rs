//! A node directory: held by flock, and what an earlier holder left open in it.

use super::super::{Event, Kind, layout};
use super::AuditError;
use super::segments::{Position, make_directory};
use crate::types::RequestId;
use rustix::fs::{FlockOperation, flock};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More servers than one home has.
const NODES: u32 = 10_000;

/// The file that says before which position no request is open.
const OPEN_SINCE: &str = "open-since";

/// A node directory that this process holds until the value is dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u32,
    pub(super) directory: PathBuf,
    _lock: File,
}

impl Node {
    /// Takes the first free node directory, making it if needed.
    pub(super) fn take_first(audit: &Path) -> Result<Self, AuditError> {
        for number in 1..=NODES {
            if let Some(node) = Self::take(audit, number)? {
                return Ok(node);
            }
        }
        Err(AuditError::at(audit)(io::Error::other("every node directory is taken")))
    }

    /// Takes a node directory, or gives `None` when another holder has it.
    pub(super) fn take(audit: &Path, number: u32) -> Result<Option<Self>, AuditError> {
        let directory = audit.join(layout::node_name(number));
        make_directory(&directory).map_err(AuditError::at(&directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(AuditError::at(&path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { number, directory, _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(AuditError::at(&path)(error.into())),
        }
    }

    /// The recorded position before which no request is open. Without a readable file: the beginning.
    pub(super) fn open_since(&self) -> Position {
        std::fs::read(self.directory.join(OPEN_SINCE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Records that no request which began before `position` is open. That stays true, so an older record only makes
    /// recovery read more.
    pub(super) fn set_open_since(&self, position: Position) -> Result<(), AuditError> {
        let new = self.directory.join("open-since.new");
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(&position)?)?;
            std::fs::rename(&new, self.directory.join(OPEN_SINCE))
        })();
        written.map_err(AuditError::at(&new))
    }

    /// The requests that have a `start` and no terminal line, in the order of their starts, with where they started.
    pub(super) fn unfinished(&self) -> Result<Vec<(Position, Event)>, AuditError> {
        let since = self.open_since();
        let mut open: HashMap<String, (Position, Box<[u8]>)> = HashMap::new();
        for (number, path) in layout::segments(&self.directory).map_err(AuditError::at(&self.directory))? {
            if number < since.segment {
                continue;
            }
            let offset = if number == since.segment { since.offset } else { 0 };
            scan(&path, number, offset, &mut open).map_err(AuditError::at(&path))?;
        }
        let mut unfinished: Vec<_> = open
            .into_values()
            .filter_map(|(position, line)| Some((position, serde_json::from_slice(&line).ok()?)))
            .collect();
        unfinished.sort_unstable_by_key(|(position, _)| *position);
        Ok(unfinished)
    }
}

/// Just enough of a line.
#[derive(serde::Deserialize)]
struct Head<'a> {
    event: Kind,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
}

fn scan(
    path: &Path,
    segment: u32,
    mut offset: u64,
    open: &mut HashMap<String, (Position, Box<[u8]>)>,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    // A file that is shorter than the record says is not the one that was recorded.
    let length = file.metadata()?.len();
    if length < offset {
        offset = 0;
    }
    file.seek(SeekFrom::Start(offset))?;
    // What is no file has no length, and may have no end.
    let mut lines = BufReader::with_capacity(1 << 16, file.take(length - offset));
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if let Ok(head) = serde_json::from_slice::<Head<'_>>(&line)
            && RequestId::parse(&head.request_id).is_ok()
        {
            match head.event {
                Kind::Start => {
                    let position = Position { segment, offset };
                    open.entry(head.request_id.into_owned()).or_insert_with(|| (position, line.as_slice().into()));
                }
                Kind::End | Kind::Denied | Kind::Aborted => {
                    open.remove(head.request_id.as_ref());
                }
                Kind::Gap | Kind::IntegrityFailure => {}
            }
        }
        offset += read as u64;
    }
}
