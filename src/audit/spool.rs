//! The durable spool: this process's own segment files.

use super::Event;
use std::path::Path;

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
        source: std::io::Error,
    },
}

/// The spool of one process: the first free `node-N` directory, held by flock. Share by `Arc`.
pub struct Spool(());

impl Spool {
    /// Takes the first free node directory under `directory` (made 0700), and writes `aborted` lines (reason
    /// `process_died`) for requests that an earlier process left without a terminal line.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(_directory: &Path, _settings: AuditSettings) -> Result<Self, AuditError> {
        todo!()
    }

    /// Changes the settings, on reload.
    pub fn set_settings(&self, _settings: AuditSettings) {
        todo!()
    }

    /// Which `node-N` this process holds.
    #[must_use]
    pub fn node(&self) -> u32 {
        todo!()
    }

    /// Writes a `start` line and returns when it is as durable as the settings ask. An error means: do not dial.
    ///
    /// # Errors
    /// [`AuditError`], only with [`OnFull::Block`].
    pub async fn start(&self, _event: Event) -> Result<(), AuditError> {
        todo!()
    }

    /// Writes a terminal line. Never fails the request: what cannot be written is counted, retried and told by a `gap`.
    pub fn finish(&self, _event: Event) {
        todo!()
    }

    /// Whether the last write worked, for `/readyz`.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        todo!()
    }

    /// How many lines were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        todo!()
    }
}
