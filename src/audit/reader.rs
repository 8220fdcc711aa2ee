//! Reading the record back, for `audit tail` and `audit query`: all nodes' segments, merged by time.

mod lines;
#[cfg(test)]
mod tests;

use super::{Event, layout};
use crate::types::UnixSeconds;
use jiff::Timestamp;
use lines::{LastLines, Lines};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
pub struct Reader {
    directory: PathBuf,
    /// For each node, where the next new line begins.
    places: BTreeMap<u32, Place>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    segment: u32,
    offset: u64,
}

impl Reader {
    /// A reader of everything under `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), places: BTreeMap::new() }
    }

    /// The events that match, by time. A line that cannot be read (cut off by a crash) is skipped.
    ///
    /// # Errors
    /// When files cannot be read, or the status filter is neither `404` nor `4xx`.
    pub fn query(&self, filter: &Filter) -> io::Result<Vec<Event>> {
        let wanted = Wanted::new(filter)?;
        let mut events = Vec::new();
        for (_, node) in layout::nodes(&self.directory)? {
            for (_, path) in layout::segments(&node)? {
                let Some(file) = open(&path)? else { continue };
                if wanted.may_be_in(&file)? {
                    let mut lines = Lines::from(file, 0)?;
                    while let Some(line) = lines.next()? {
                        events.extend(parse(line).filter(|event| wanted.matches(event)));
                    }
                }
            }
        }
        sort(&mut events);
        Ok(events)
    }

    /// The last `count` events; the reader then stands at the end.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn tail(&mut self, count: usize) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for (number, node) in layout::nodes(&self.directory)? {
            let mut of_node = VecDeque::new();
            let mut place = None;
            for (segment, path) in layout::segments(&node)?.into_iter().rev() {
                let Some(file) = open(&path)? else { continue };
                let mut lines = LastLines::of(file)?;
                if place.is_none() {
                    let begin = lines.whole()?;
                    // What follows the last newline: nothing, a whole line that lacks its newline, or a part of one.
                    let last = lines.next()?.unwrap_or_default();
                    let event = parse(&last);
                    let read = if event.is_some() { last.len() as u64 } else { 0 };
                    place = Some(Place { segment, offset: begin + read });
                    of_node.extend(event.filter(|_| count > 0));
                }
                while of_node.len() < count
                    && let Some(line) = lines.next()?
                {
                    if let Some(event) = parse(&line) {
                        of_node.push_front(event);
                    }
                }
                if of_node.len() >= count {
                    break;
                }
            }
            self.places.insert(number, place.unwrap_or_default());
            events.extend(of_node);
        }
        sort(&mut events);
        events.drain(..events.len().saturating_sub(count));
        Ok(events)
    }

    /// What was written since the last `tail` or `follow`, new segments and nodes included; the first time everything.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn follow(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for (number, node) in layout::nodes(&self.directory)? {
            let place = self.places.entry(number).or_default();
            // A segment is finished once a newer one is there, so the list comes before the reading.
            for (segment, path) in layout::segments(&node)? {
                if segment < place.segment {
                    continue;
                }
                let Some(file) = open(&path)? else { continue };
                if segment > place.segment || file.metadata()?.len() < place.offset {
                    *place = Place { segment, offset: 0 };
                }
                let mut lines = Lines::from(file, place.offset)?;
                while let Some(line) = lines.next()? {
                    // A line without an end may still be growing; nothing is cut off in it once it can be read.
                    let event = parse(line);
                    if line.ends_with(b"\n") || event.is_some() {
                        place.offset += line.len() as u64;
                    }
                    events.extend(event);
                }
            }
        }
        sort(&mut events);
        Ok(events)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        // Removed since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

/// Stable: lines of one time stay in the order of their files.
fn sort(events: &mut [Event]) {
    events.sort_by(|a, b| a.time.cmp(&b.time));
}

/// A filter, understood.
struct Wanted<'a> {
    filter: &'a Filter,
    since: Option<(String, UnixSeconds)>,
    status: Option<std::ops::RangeInclusive<u16>>,
}

impl<'a> Wanted<'a> {
    fn new(filter: &'a Filter) -> io::Result<Self> {
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
        let since = filter.since.map(|since| {
            // Nothing was recorded before the first or after the last time that can be written.
            let time = Timestamp::from_second(since.max(0)).unwrap_or(Timestamp::MAX);
            (layout::format_time(time), since)
        });
        let status = filter.status.as_deref().map(|text| {
            parse_status(text).ok_or_else(|| invalid(format!("status {text:?} is not valid; use one like 404 or 4xx")))
        });
        Ok(Self { filter, since, status: status.transpose()? })
    }

    /// A segment that was last written before the time has nothing for us.
    fn may_be_in(&self, file: &File) -> io::Result<bool> {
        const CLOCK_SLACK: i64 = 60;
        let Some((_, since)) = &self.since else { return Ok(true) };
        Ok(file.metadata()?.mtime().saturating_add(CLOCK_SLACK) >= *since)
    }

    fn matches(&self, event: &Event) -> bool {
        let Filter { agent, connection, host, tenant, .. } = self.filter;
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        self.since.as_ref().is_none_or(|(since, _)| event.time >= *since)
            && is(agent, &event.agent)
            && (is(connection, &event.connection) || is(connection, &event.connection_id))
            && host.as_ref().is_none_or(|host| event.host.as_ref().is_some_and(|had| had.eq_ignore_ascii_case(host)))
            && is(tenant, &event.tenant)
            && self.status.as_ref().is_none_or(|wanted| event.status.is_some_and(|status| wanted.contains(&status)))
    }
}

fn parse_status(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let [first @ b'1'..=b'9', rest @ ..] = text.as_bytes() else { return None };
    match rest {
        [b'x' | b'X', b'x' | b'X'] => {
            let class = u16::from(first - b'0') * 100;
            Some(class..=class + 99)
        }
        [b'0'..=b'9', b'0'..=b'9'] => text.parse().ok().map(|status| status..=status),
        _ => None,
    }
}
