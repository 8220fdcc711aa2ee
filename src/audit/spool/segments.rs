//! The segment files of one node: append-only, never truncated or rewritten.

use super::super::layout;
use super::AuditError;
use super::writer::Limits;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A byte of the node's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// An open segment file. Share by `Arc`: a sync may still want it after the next one was begun.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    /// After a failed sync the kernel may have dropped the pages: what was written is not to be trusted.
    failed: AtomicBool,
    entry_synced: AtomicBool,
}

impl Segment {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, failed: AtomicBool::new(false), entry_synced: AtomicBool::new(false) }
    }

    /// Makes everything that was written so far survive power loss, the file's directory entry included.
    pub(super) fn sync(&self) -> io::Result<()> {
        let result = self.file.sync_data().and_then(|()| {
            if !self.entry_synced.load(Ordering::Relaxed) {
                File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
                self.entry_synced.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a line went.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) position: Position,
    pub(super) segment: Arc<Segment>,
    /// A new segment was begun for it.
    pub(super) rotated: bool,
}

/// The newest segment of a node, opened when it is needed.
#[derive(Debug)]
pub(super) struct Segments {
    directory: PathBuf,
    limits: Limits,
    number: u32,
    current: Option<Arc<Segment>>,
    size: u64,
    /// The last line has no newline.
    torn: bool,
    looked: Instant,
}

impl Segments {
    /// Goes on at the newest segment there is, and not before `at_least`.
    pub(super) fn at_end(directory: &Path, limits: Limits, at_least: u32) -> Result<Self, AuditError> {
        let newest =
            layout::segments(directory).map_err(AuditError::at(directory))?.pop().map_or(1, |(number, _)| number);
        Ok(Self {
            directory: directory.to_owned(),
            limits,
            number: newest.max(at_least).max(1),
            current: None,
            size: 0,
            torn: false,
            looked: Instant::now(),
        })
    }

    /// Where the next line goes, unless it begins a segment.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.number, offset: self.size }
    }

    /// Opens the segment if it is not open.
    pub(super) fn open(&mut self) -> Result<Arc<Segment>, AuditError> {
        if let Some(current) = &self.current {
            return Ok(Arc::clone(current));
        }
        let path = self.directory.join(layout::segment_name(self.number));
        let opened = (|| {
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
            let size = file.metadata()?.len();
            let mut last = [b'\n'];
            if size > 0 {
                file.read_exact_at(&mut last, size - 1)?;
            }
            Ok((file, size, last[0] != b'\n'))
        })();
        let (file, size, torn) = opened.map_err(AuditError::at(&path))?;
        let segment = Arc::new(Segment::new(file, path));
        (self.size, self.torn, self.looked) = (size, torn, Instant::now());
        self.current = Some(Arc::clone(&segment));
        Ok(segment)
    }

    /// Appends a line, which has a newline at both ends.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<Appended, AuditError> {
        self.look();
        let mut segment = self.open()?;
        let rotated = segment.failed.load(Ordering::Relaxed)
            || (self.size > 0 && self.size + line.len() as u64 - 1 > self.limits.segment_bytes);
        if rotated {
            self.next();
            segment = self.open()?;
        }
        let position = self.end();
        let line = if self.torn { line } else { &line[1..] };
        let (written, result) = write_all(&segment.file, line);
        self.size += written as u64;
        self.torn = false;
        if let Err(error) = result {
            // What the file ends with now is read when it is opened again.
            self.current = None;
            // A line that lacks only its newline can be read, so it counts.
            if written + 1 < line.len() {
                return Err(AuditError::at(segment.path())(error));
            }
        }
        Ok(Appended { position, segment, rotated })
    }

    fn next(&mut self) {
        self.number += 1;
        self.current = None;
        (self.size, self.torn) = (0, false);
    }

    /// A segment that was renamed or removed is not written any more; one that was cut is shorter than thought.
    fn look(&mut self) {
        let Some(current) = &self.current else { return };
        if self.looked.elapsed() < self.limits.look {
            return;
        }
        self.looked = Instant::now();
        let Ok(ours) = current.file.metadata() else { return };
        let there = std::fs::metadata(&current.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            self.size = self.size.min(ours.len());
        } else {
            self.next();
        }
    }
}

/// One write for a line, unless the kernel takes only a part. Says how much was written.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Makes a directory that only its owner can enter, and what is missing above it.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
