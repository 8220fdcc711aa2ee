//! Where the record lies: `node-N/segment-000001.jsonl`, and how its times are written.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use std::io;
use std::path::{Path, PathBuf};

static TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// RFC 3339, UTC, microseconds: of one width, so that the order of the texts is the order of the times.
pub(super) fn format_time(time: Timestamp) -> String {
    TIME.timestamp_to_string(&time)
}

pub(super) fn node_name(number: u32) -> String {
    format!("node-{number}")
}

pub(super) fn segment_name(number: u32) -> String {
    format!("segment-{number:06}.jsonl")
}

/// The node directories, lowest number first. A missing directory has none.
pub(super) fn nodes(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    numbered(directory, "node-", "")
}

/// The segments of a node, oldest first. A missing directory has none.
pub(super) fn segments(node: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    numbered(node, "segment-", ".jsonl")
}

fn numbered(directory: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix));
        if let Some(digits) = digits
            && digits.bytes().all(|b| b.is_ascii_digit())
            && let Ok(number) = digits.parse::<u32>()
        {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
