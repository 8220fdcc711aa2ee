//! What is told of records that fail the integrity check, and of a store that went back to an earlier state.

use super::Home;
use crate::audit::{Event, Kind};
use crate::proxy::Plane;
use crate::store::Failed;
use crate::types::RequestId;
use parking_lot::Mutex;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The highest generation that a server saw, in a file beside the audit record: a store that was put back while nothing
/// ran shows by it. `INSTALL-ID GENERATION`, rewritten as a whole.
pub(super) struct Counter {
    path: PathBuf,
    install_id: String,
    written: Mutex<i64>,
}

impl Counter {
    pub(super) fn of(home: &Home, install_id: &str) -> Self {
        let path = home.audit().join("store-counter");
        let counter = Self { path, install_id: install_id.to_owned(), written: Mutex::new(0) };
        *counter.written.lock() = counter.highest().unwrap_or_default();
        counter
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was remembered for this install.
    pub(super) fn highest(&self) -> Option<i64> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (install_id, generation) = text.trim_end().split_once(' ')?;
        if install_id == self.install_id { generation.parse().ok() } else { None }
    }

    /// Remembers a generation if it is higher than what is remembered, by whichever server.
    pub(super) fn remember(&self, generation: i64) {
        let mut written = self.written.lock();
        if generation > *written && self.highest().is_none_or(|highest| generation > highest) {
            self.write(generation);
        }
        *written = generation.max(*written);
    }

    fn write(&self, generation: i64) {
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| writeln!(file, "{} {generation}", self.install_id))
            .and_then(|()| std::fs::rename(&temporary, &self.path));
        if let Err(error) = written {
            tracing::warn!("the store's counter could not be remembered in {}: {error}", self.path.display());
        }
    }
}

/// Tells what was found when the server started.
pub(super) fn at_start(plane: &Plane, counter: &Counter) {
    report(plane, &plane.loader.failed_at_start());
    let generation = plane.loader.snapshot().generation;
    match counter.highest() {
        Some(highest) if generation < highest => {
            tracing::warn!(
                from = highest,
                to = generation,
                "the store is an earlier state than the one that was last served (change {generation}, it was \
                 {highest}): a backup was restored, or somebody put an old file in its place; tokens that were revoked \
                 since may work again"
            );
            went_back(plane, highest, generation);
            // Told once: from here on this state counts.
            *counter.written.lock() = generation;
            counter.write(generation);
        }
        _ => counter.remember(generation),
    }
}

/// One audit event for each record that fails; the store has put them on the log.
pub(super) fn report(plane: &Plane, failed: &[Failed]) {
    plane.metrics.integrity_failed(failed.len());
    for failed in failed {
        let mut event = Event::new(Kind::IntegrityFailure, RequestId::generate());
        event.record = Some(format!("{} {}", failed.kind, failed.id));
        event.reason = Some(failed.reason.code().to_owned());
        event.tenant = Some(failed.tenant.clone()).filter(|tenant| !tenant.is_empty());
        match failed.kind {
            "connection" => {
                event.connection = Some(failed.name.clone()).filter(|name| !name.is_empty());
                event.connection_id = Some(failed.id.clone());
            }
            "token" => event.token_id = Some(failed.id.clone()),
            _ => {}
        }
        plane.spool.finish(event);
    }
}

/// The audit event of a store that is an earlier state than before.
pub(super) fn went_back(plane: &Plane, from: i64, to: i64) {
    let mut event = Event::new(Kind::IntegrityFailure, RequestId::generate());
    event.record = Some(format!("store {from} to {to}"));
    event.reason = Some("store_went_back".to_owned());
    plane.spool.finish(event);
}
