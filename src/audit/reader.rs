//! Reading the record back, for `audit tail` and `audit query`: all nodes' segments, merged by time.

use super::Event;
use crate::types::UnixSeconds;
use std::path::Path;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Not before.
    pub since: Option<UnixSeconds>,
    /// The agent.
    pub agent: Option<String>,
    /// The connection's name or id.
    pub connection: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// `404` or `4xx`.
    pub status: Option<String>,
    /// Within this tenant.
    pub tenant: Option<String>,
}

/// Reads segments.
pub struct Reader(());

impl Reader {
    /// A reader of everything under `directory`.
    #[must_use]
    pub fn new(_directory: &Path) -> Self {
        todo!()
    }

    /// The events that match, by time. A line that cannot be read (cut off by a crash) is skipped.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn query(&self, _filter: &Filter) -> std::io::Result<Vec<Event>> {
        todo!()
    }

    /// The last `count` events; the reader then stands at the end.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn tail(&mut self, _count: usize) -> std::io::Result<Vec<Event>> {
        todo!()
    }

    /// What was written since the last `tail` or `follow`, new segments and nodes included.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn follow(&mut self) -> std::io::Result<Vec<Event>> {
        todo!()
    }
}
