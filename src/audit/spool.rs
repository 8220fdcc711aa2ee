//! The durable spool: this process's own segment files.

mod commit;
mod line;
mod node;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

use super::{Event, layout};
use commit::{Commits, Work};
use line::with_line;
use node::Node;
use parking_lot::Mutex;
use segments::{Segment, make_directory};
use std::borrow::BorrowMut;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use writer::{Limits, Writer};

/// What happens when the spool cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// New requests are refused with 503 `audit_unavailable`.
    #[default]
    Block,
    /// Requests go on; a `gap` line with the count is written when writing works again.
    DropWithGapRecord,
}

/// How durable a line is before the dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Written to the kernel: survives kill -9.
    #[default]
    Process,
    /// Synced to disk (group commit): survives power loss.
    Disk,
}

/// `[audit]` of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditSettings {
    /// What happens when the spool cannot be written.
    pub on_full: OnFull,
    /// How durable a line is.
    pub durability: Durability,
}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file could not be opened, locked, written or synced.
    #[error("audit file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl AuditError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.display().to_string(), source }
    }
}

/// The spool of one process: the first free `node-N` directory, held by flock. Share by `Arc`.
pub struct Spool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Takes the first free node directory under `directory` (made 0700), and writes `aborted` lines (reason
    /// `process_died`) for requests that an earlier process left without a terminal line, in other free nodes too.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(directory: &Path, settings: AuditSettings) -> Result<Self, AuditError> {
        Self::open_with(directory, settings, Limits::default())
    }

    fn open_with(directory: &Path, settings: AuditSettings, limits: Limits) -> Result<Self, AuditError> {
        make_directory(directory).map_err(AuditError::at(directory))?;
        let node = Node::take_first(directory)?;
        recover_others(directory, node.number, limits);
        let shared = Arc::new(Shared {
            node: node.number,
            writer: Mutex::new(Writer::new(node, settings, limits)?),
            lost: AtomicU64::new(0),
            commits: Commits::new(),
        });
        if let Err(error) = shared.writer.lock().recover() {
            if settings.on_full == OnFull::Block {
                return Err(error);
            }
            shared.failed(&error);
        }
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        });
        Ok(Self { thread: Some(thread.map_err(AuditError::at(directory))?), shared })
    }

    /// Changes the settings, on reload.
    pub fn set_settings(&self, settings: AuditSettings) {
        self.shared.writer.lock().settings = settings;
    }

    /// Which `node-N` this process holds.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.shared.node
    }

    /// Writes a `start` line and returns when it is as durable as the settings ask. An error means: do not dial, and
    /// refuse with [`Spool::finish`] as for any other reason. A caller that stops waiting finishes too.
    ///
    /// # Errors
    /// [`AuditError`], only with [`OnFull::Block`].
    pub async fn start(&self, mut event: impl BorrowMut<Event>) -> Result<(), AuditError> {
        match with_line(event.borrow_mut(), |event, line| self.shared.start(event, line))? {
            Some(segment) => self.shared.synced(segment).await,
            None => Ok(()),
        }
    }

    /// Writes a terminal line. Never fails the request: what cannot be written is counted, retried and told by a `gap`.
    pub fn finish(&self, mut event: Event) {
        with_line(&mut event, |event, line| self.shared.finish(event, line));
    }

    /// Whether the last write worked, for `/readyz`.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.commits.is_healthy()
    }

    /// How many lines were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.commits.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit thread panicked");
        }
        if let Err(error) = self.shared.writer.lock().close() {
            tracing::warn!("{error}");
        }
    }
}

/// What the callers and the thread have in common.
struct Shared {
    node: u32,
    writer: Mutex<Writer>,
    lost: AtomicU64,
    commits: Commits,
}

impl Shared {
    /// Gives the segment to wait for, if the line has to be on disk.
    fn start(&self, event: &Event, line: &[u8]) -> Result<Option<Arc<Segment>>, AuditError> {
        let mut writer = self.writer.lock();
        match writer.start(&event.request_id, line) {
            Ok(segment) if writer.settings.durability == Durability::Disk => Ok(Some(segment)),
            Ok(_) => {
                self.worked();
                Ok(None)
            }
            Err(error) => self.start_failed(&mut writer, error).map(|()| None),
        }
    }

    async fn synced(&self, segment: Arc<Segment>) -> Result<(), AuditError> {
        match self.commits.synced(Arc::clone(&segment)).await {
            Ok(()) => Ok(()),
            Err(error) => self.start_failed(&mut self.writer.lock(), AuditError::at(segment.path())(error)),
        }
    }

    fn start_failed(&self, writer: &mut Writer, error: AuditError) -> Result<(), AuditError> {
        self.failed(&error);
        match writer.settings.on_full {
            OnFull::Block => Err(error),
            OnFull::DropWithGapRecord => {
                self.lose(writer);
                Ok(())
            }
        }
    }

    fn finish(&self, event: &Event, line: &[u8]) {
        let mut writer = self.writer.lock();
        match writer.finish(&event.request_id, line) {
            // On disk is more than this write says.
            Ok(()) if writer.settings.durability == Durability::Disk => {}
            Ok(()) => self.worked(),
            Err(error) => {
                self.failed(&error);
                if !writer.keep(&event.request_id, line) {
                    self.lose(&mut writer);
                }
            }
        }
    }

    fn lose(&self, writer: &mut Writer) {
        writer.unreported += 1;
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn worked(&self) {
        if self.commits.set_healthy(true) {
            tracing::info!("the audit record is written again");
        }
    }

    fn failed(&self, error: &dyn Display) {
        if self.commits.set_healthy(false) {
            tracing::error!("the audit record cannot be written: {error}; make room or repair the disk");
        }
    }

    /// The life of the thread.
    fn run(&self) {
        loop {
            match self.commits.next() {
                Work::Sync(batch) => match batch.sync() {
                    Ok(()) => self.worked(),
                    Err(error) => self.failed(&error),
                },
                Work::Retry => match self.retry() {
                    Ok(()) => self.worked(),
                    Err(error) => self.failed(&error),
                },
                Work::Stop => return,
            }
        }
    }

    fn retry(&self) -> Result<(), AuditError> {
        let (segment, durability) = {
            let mut writer = self.writer.lock();
            (writer.probe()?, writer.settings.durability)
        };
        if durability == Durability::Disk {
            segment.sync().map_err(AuditError::at(segment.path()))?;
        }
        Ok(())
    }
}

/// A process that has died may not come back under its number, so the others' nodes are put in order too.
fn recover_others(directory: &Path, own: u32, limits: Limits) {
    let nodes = layout::nodes(directory).map_err(AuditError::at(directory));
    let recovered = nodes.and_then(|nodes| {
        for (number, _) in nodes.into_iter().filter(|&(number, _)| number != own) {
            if let Some(node) = Node::take(directory, number)? {
                Writer::new(node, AuditSettings::default(), limits)?.recover()?;
            }
        }
        Ok(())
    });
    if let Err(error) = recovered {
        tracing::warn!("{error}");
    }
}
