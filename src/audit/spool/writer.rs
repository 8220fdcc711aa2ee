//! What is written to a node, and what still has to be.

use super::super::{Event, Kind};
use super::line::with_line;
use super::node::Node;
use super::segments::{Position, Segment, Segments};
use super::{AuditError, AuditSettings, Durability};
use crate::types::RequestId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How much a spool writes and keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A segment of this size is full.
    pub(super) segment_bytes: u64,
    /// How many terminal lines wait in memory while the spool cannot be written.
    pub(super) queued_lines: usize,
    /// How often a segment is looked up again, in case something moved it away.
    pub(super) look: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, queued_lines: 10_000, look: Duration::from_secs(1) }
    }
}

/// A terminal line that could not be written yet.
struct Queued {
    request: RequestId,
    line: Box<[u8]>,
}

/// A node, its segments, and the requests that are open in them.
pub(super) struct Writer {
    pub(super) settings: AuditSettings,
    /// Lost lines that no `gap` has told of.
    pub(super) unreported: u64,
    node: Node,
    limits: Limits,
    segments: Segments,
    /// Where each request without a written terminal line started.
    open: HashMap<RequestId, Position>,
    queue: VecDeque<Queued>,
}

impl Writer {
    pub(super) fn new(node: Node, settings: AuditSettings, limits: Limits) -> Result<Self, AuditError> {
        // Segments may have been removed: their numbers are not used again.
        let segments = Segments::at_end(&node.directory, limits, node.open_since().segment)?;
        Ok(Self { settings, unreported: 0, node, limits, segments, open: HashMap::new(), queue: VecDeque::new() })
    }

    /// Writes the terminal lines that an earlier holder of the node did not.
    pub(super) fn recover(&mut self) -> Result<(), AuditError> {
        for (position, start) in self.node.unfinished()? {
            let mut aborted = Event { event: Kind::Aborted, reason: Some("process_died".to_owned()), ..start };
            let line = with_line(&mut aborted, |_, line| line.into());
            self.open.insert(aborted.request_id.clone(), position);
            self.queue.push_back(Queued { request: aborted.request_id, line });
        }
        self.segments.open()?;
        self.flush()?;
        self.set_open_since()
    }

    pub(super) fn start(&mut self, request: &RequestId, line: &[u8]) -> Result<Arc<Segment>, AuditError> {
        self.flush()?;
        let (position, segment) = self.append(line)?;
        // A second attempt of one request leaves the first one's place.
        self.open.entry(request.clone()).or_insert(position);
        Ok(segment)
    }

    pub(super) fn finish(&mut self, request: &RequestId, line: &[u8]) -> Result<(), AuditError> {
        self.flush()?;
        self.append(line)?;
        self.open.remove(request);
        Ok(())
    }

    /// Keeps a terminal line that could not be written, unless too many wait.
    pub(super) fn keep(&mut self, request: &RequestId, line: &[u8]) -> bool {
        let room = self.queue.len() < self.limits.queued_lines;
        if room {
            self.queue.push_back(Queued { request: request.clone(), line: line.into() });
        }
        room
    }

    /// Tries whether writing works, with what waits or else with an empty line.
    pub(super) fn probe(&mut self) -> Result<Arc<Segment>, AuditError> {
        match self.flush()? {
            Some(segment) => Ok(segment),
            None => Ok(self.append(b"\n\n")?.1),
        }
    }

    /// Writes what waits and leaves a record of what is open.
    pub(super) fn close(&mut self) -> Result<(), AuditError> {
        self.flush()?;
        if self.settings.durability == Durability::Disk {
            let segment = self.segments.open()?;
            segment.sync().map_err(AuditError::at(segment.path()))?;
        }
        self.set_open_since()
    }

    /// Writes what waits: it comes before any new line.
    fn flush(&mut self) -> Result<Option<Arc<Segment>>, AuditError> {
        let mut last = None;
        while let Some(queued) = self.queue.pop_front() {
            match self.append(&queued.line) {
                Ok((_, segment)) => last = Some(segment),
                Err(error) => {
                    self.queue.push_front(queued);
                    return Err(error);
                }
            }
            self.open.remove(&queued.request);
        }
        if self.unreported > 0 {
            let mut gap = Event::new(Kind::Gap, RequestId::generate());
            gap.count = Some(self.unreported);
            let line: Box<[u8]> = with_line(&mut gap, |_, line| line.into());
            last = Some(self.append(&line)?.1);
            self.unreported = 0;
        }
        Ok(last)
    }

    fn append(&mut self, line: &[u8]) -> Result<(Position, Arc<Segment>), AuditError> {
        let appended = self.segments.append(line)?;
        if appended.rotated
            && let Err(error) = self.set_open_since_before(appended.position)
        {
            // The older record stays true.
            tracing::warn!("{error}");
        }
        Ok((appended.position, appended.segment))
    }

    fn set_open_since(&self) -> Result<(), AuditError> {
        self.set_open_since_before(self.segments.end())
    }

    fn set_open_since_before(&self, end: Position) -> Result<(), AuditError> {
        let position = self.open.values().copied().min().unwrap_or(end).min(end);
        if position == self.node.open_since() { Ok(()) } else { self.node.set_open_since(position) }
    }
}
