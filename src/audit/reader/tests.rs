#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::audit::Kind;
use crate::types::RequestId;
use std::fs::{self, OpenOptions};
use std::io::Write;
use tempfile::TempDir;

/// An audit directory that the test writes by hand.
struct Audit(TempDir);

impl Audit {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn reader(&self) -> Reader {
        Reader::new(self.0.path())
    }

    fn append(&self, node: u32, segment: u32, text: &str) {
        let node = self.0.path().join(layout::node_name(node));
        fs::create_dir_all(&node).unwrap();
        let path = node.join(layout::segment_name(segment));
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Lines at these seconds.
    fn events(&self, node: u32, segment: u32, seconds: impl IntoIterator<Item = i64>) {
        for second in seconds {
            self.append(node, segment, &(line(second, |_| {}) + "\n"));
        }
    }
}

fn at(second: i64) -> String {
    layout::format_time(Timestamp::from_second(second).unwrap())
}

fn line(second: i64, set: impl FnOnce(&mut Event)) -> String {
    let mut event = Event::new(Kind::End, RequestId::generate());
    event.time = at(second);
    set(&mut event);
    serde_json::to_string(&event).unwrap()
}

/// The seconds of events, to compare.
fn seconds(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.time.parse::<Timestamp>().unwrap().as_second()).collect()
}

#[test]
fn nodes_and_segments_are_merged_by_time() {
    let audit = Audit::new();
    assert!(audit.reader().query(&Filter::default()).unwrap().is_empty());
    audit.events(1, 1, [1, 4]);
    audit.events(1, 2, [6]);
    audit.events(2, 1, [2, 5]);
    // By number, not by name.
    audit.events(10, 999_999, [3]);
    audit.events(10, 1_000_000, [7]);
    audit.append(3, 1, "\n\nnonsense\n{}\n{\"time\":\"x\"\n[1]\n\0\n");
    fs::write(audit.0.path().join("node-x"), "").unwrap();
    fs::write(audit.0.path().join("node-1/open-since"), "{}").unwrap();
    assert_eq!(seconds(&audit.reader().query(&Filter::default()).unwrap()), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(seconds(&audit.reader().tail(3).unwrap()), [5, 6, 7]);
    assert_eq!(seconds(&audit.reader().tail(100).unwrap()), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn filters_narrow() {
    let audit = Audit::new();
    let mut number = 0;
    let mut add = |set: &dyn Fn(&mut Event)| {
        number += 1;
        audit.append(1, 1, &(line(number, set) + "\n"));
    };
    add(&|event| event.status = Some(200));
    add(&|event| {
        event.status = Some(404);
        event.agent = Some("claude".to_owned());
    });
    add(&|event| {
        event.status = Some(499);
        event.connection = Some("work".to_owned());
        event.connection_id = Some("con_1".to_owned());
    });
    add(&|event| event.host = Some("api.test".to_owned()));
    add(&|event| {
        event.tenant = Some("acme".to_owned());
        event.agent = Some("claude".to_owned());
    });
    let some = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    let cases: [(&str, Filter, &[i64]); 15] = [
        ("nothing", none(), &[1, 2, 3, 4, 5]),
        ("since", Filter { since: Some(4), ..none() }, &[4, 5]),
        ("since long ago", Filter { since: Some(i64::MIN), ..none() }, &[1, 2, 3, 4, 5]),
        ("since never", Filter { since: Some(i64::MAX), ..none() }, &[]),
        ("status", Filter { status: some("404"), ..none() }, &[2]),
        ("class", Filter { status: some("4xx"), ..none() }, &[2, 3]),
        ("class in capitals", Filter { status: some("2XX"), ..none() }, &[1]),
        ("no such class", Filter { status: some("5xx"), ..none() }, &[]),
        ("agent", Filter { agent: some("claude"), ..none() }, &[2, 5]),
        ("agents are spelled exactly", Filter { agent: some("Claude"), ..none() }, &[]),
        ("connection", Filter { connection: some("work"), ..none() }, &[3]),
        ("connection id", Filter { connection: some("con_1"), ..none() }, &[3]),
        ("host", Filter { host: some("API.test"), ..none() }, &[4]),
        ("tenant", Filter { tenant: some("acme"), ..none() }, &[5]),
        ("two", Filter { tenant: some("acme"), agent: some("claude"), ..none() }, &[5]),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(seconds(&audit.reader().query(&filter).unwrap()), expected, "{name}");
    }
    for status in ["", "4", "40x", "4x4", "xxx", "0xx", "4xxx", "-40", "４xx", "+04"] {
        let error = audit.reader().query(&Filter { status: some(status), ..none() }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{status:?}");
    }
}

#[test]
fn segments_from_before_are_not_read() {
    let audit = Audit::new();
    audit.events(1, 1, [1_000, 2_000]);
    audit.events(1, 2, [3_000]);
    let old = fs::File::open(audit.0.path().join("node-1/segment-000001.jsonl")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_000)).unwrap();
    let query = |since| seconds(&audit.reader().query(&Filter { since: Some(since), ..Filter::default() }).unwrap());
    assert_eq!(query(1_500), [2_000, 3_000]);
    assert_eq!(query(2_001), [3_000]);
    assert_eq!(query(2_500), [3_000]);
}

#[test]
fn following_sees_new_lines_segments_and_nodes() {
    let audit = Audit::new();
    let mut reader = audit.reader();
    assert!(reader.tail(10).unwrap().is_empty());
    audit.events(1, 1, [1, 2, 3]);
    assert_eq!(seconds(&reader.follow().unwrap()), [1, 2, 3]);
    assert!(reader.follow().unwrap().is_empty());

    audit.events(1, 1, [4]);
    audit.events(1, 2, [5]);
    audit.events(1, 3, [7]);
    audit.events(2, 1, [6]);
    assert_eq!(seconds(&reader.follow().unwrap()), [4, 5, 6, 7]);
    assert!(reader.follow().unwrap().is_empty());

    let mut late = audit.reader();
    assert!(late.tail(0).unwrap().is_empty());
    audit.events(2, 1, [8]);
    assert_eq!(seconds(&late.follow().unwrap()), [8]);
    assert_eq!(seconds(&reader.follow().unwrap()), [8]);
    assert_eq!(seconds(&audit.reader().follow().unwrap()), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_growing_line_is_shown_once_and_whole() {
    let whole = line(2, |_| {}) + "\n";
    for cut in 1..whole.len() {
        let audit = Audit::new();
        audit.events(1, 1, [1]);
        audit.append(1, 1, &whole[..cut]);
        let mut reader = audit.reader();
        let mut seen = seconds(&reader.tail(10).unwrap());
        seen.extend(seconds(&reader.follow().unwrap()));
        audit.append(1, 1, &whole[cut..]);
        audit.events(1, 1, [3]);
        seen.extend(seconds(&reader.follow().unwrap()));
        assert_eq!(seen, [1, 2, 3], "cut at {cut}");
    }
}

#[test]
fn a_torn_line_hides_nothing_after_it() {
    let audit = Audit::new();
    audit.events(1, 1, [1]);
    audit.append(1, 1, "{\"time\":\"20");
    let mut reader = audit.reader();
    assert_eq!(seconds(&reader.tail(10).unwrap()), [1]);
    audit.append(1, 1, "\n");
    audit.events(1, 1, [2]);
    audit.append(1, 1, "{\"ti");
    audit.events(1, 2, [3]);
    assert_eq!(seconds(&reader.follow().unwrap()), [2, 3]);
    assert_eq!(seconds(&audit.reader().query(&Filter::default()).unwrap()), [1, 2, 3]);
}

#[test]
fn the_last_lines_are_found_across_chunks_and_segments() {
    let audit = Audit::new();
    // Lines of many lengths, some longer than a chunk.
    for second in 0..400 {
        let size = usize::try_from(second * 37 % 1_000).unwrap() * if second % 97 == 0 { 200 } else { 1 };
        let text = line(second, |event| event.path = Some("x".repeat(size))) + "\n";
        audit.append(1, u32::try_from(second / 150).unwrap() + 1, &text);
    }
    for count in [0, 1, 2, 99, 100, 101, 250, 399, 400, 500] {
        let mut reader = audit.reader();
        let first = 400 - i64::try_from(count.min(400)).unwrap();
        assert_eq!(seconds(&reader.tail(count).unwrap()), (first..400).collect::<Vec<_>>(), "{count}");
        assert!(reader.follow().unwrap().is_empty(), "{count}");
    }
}
