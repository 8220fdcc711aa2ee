#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::audit::Kind;
use crate::types::RequestId;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BLOCK: AuditSettings = AuditSettings { on_full: OnFull::Block, durability: Durability::Process };
const DROP: AuditSettings = AuditSettings { on_full: OnFull::DropWithGapRecord, durability: Durability::Process };
const DISK: AuditSettings = AuditSettings { on_full: OnFull::Block, durability: Durability::Disk };

fn small() -> Limits {
    Limits { segment_bytes: 16 << 10, ..Limits::default() }
}

fn event(kind: Kind, id: &RequestId) -> Event {
    let mut event = Event::new(kind, id.clone());
    event.agent = Some("claude".to_owned());
    event.connection = Some("github-work".to_owned());
    event.host = Some("api.github.com".to_owned());
    event.method = Some("GET".to_owned());
    event
}

async fn run_one(spool: &Spool) {
    let id = RequestId::generate();
    spool.start(event(Kind::Start, &id)).await.unwrap();
    tokio::task::yield_now().await;
    spool.finish(event(Kind::End, &id));
}

/// Every line of every segment of a node, as bytes.
fn lines_of(node: &Path) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for (_, path) in layout::segments(node).unwrap() {
        lines.extend(fs::read(path).unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// The lines that can be read, of all nodes.
fn events(audit: &Path) -> Vec<Event> {
    let nodes = layout::nodes(audit).unwrap();
    let lines = nodes.iter().flat_map(|(_, node)| lines_of(node));
    lines.filter_map(|line| serde_json::from_slice(&line).ok()).collect()
}

/// How many starts and how many terminal lines each request has.
fn counts(events: &[Event]) -> BTreeMap<String, (u32, u32)> {
    let mut counts = BTreeMap::<_, (u32, u32)>::new();
    for event in events.iter().filter(|event| event.event != Kind::Gap) {
        let (starts, terminals) = counts.entry(event.request_id.to_string()).or_default();
        *(if event.event == Kind::Start { starts } else { terminals }) += 1;
    }
    counts
}

fn assert_each_once(audit: &Path) -> usize {
    let counts = counts(&events(audit));
    for (id, count) in &counts {
        assert_eq!(*count, (1, 1), "{id}");
    }
    counts.len()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_500_at_once_has_one_start_and_one_end() {
    for (settings, limits) in [(BLOCK, Limits::default()), (BLOCK, small()), (DISK, small())] {
        let audit = TempDir::new().unwrap();
        let spool = Arc::new(Spool::open_with(audit.path(), settings, limits).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let spool = Arc::clone(&spool);
            tasks.spawn(async move { run_one(&spool).await });
        }
        tasks.join_all().await;
        assert!(spool.is_healthy());
        assert_eq!(spool.lost(), 0);
        let node = audit.path().join("node-1");
        assert_eq!(lines_of(&node).len(), 1000);
        assert_eq!(assert_each_once(audit.path()), 500);
        let segments = layout::segments(&node).unwrap();
        for (_, path) in &segments {
            let metadata = fs::metadata(path).unwrap();
            assert!(metadata.len() <= limits.segment_bytes);
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(segments.len() > 1, limits.segment_bytes == small().segment_bytes);
        assert_eq!(fs::metadata(&node).unwrap().permissions().mode() & 0o777, 0o700);
        for file in ["lock", "open-since"] {
            assert_eq!(fs::metadata(node.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }
}

#[tokio::test]
async fn a_line_begins_with_time_event_and_request() {
    let audit = TempDir::new().unwrap();
    let spool = Spool::open(audit.path(), BLOCK).unwrap();
    let id = RequestId::generate();
    spool.start(event(Kind::Start, &id)).await.unwrap();
    let line = String::from_utf8(lines_of(&audit.path().join("node-1")).remove(0)).unwrap();
    let rest = line.strip_prefix("{\"time\":\"").unwrap();
    assert_eq!(rest.find('"').unwrap(), "2026-01-01T00:00:00.000000Z".len());
    assert!(rest[rest.find('"').unwrap()..].starts_with(&format!("\",\"event\":\"start\",\"request_id\":\"{id}\",")));
}

/// One line as it is written, without its newlines, and the event after the cut.
fn line_of(event: &mut Event) -> String {
    let line = with_line(event, |_, line| line.to_vec());
    String::from_utf8(line[1..line.len() - 1].to_vec()).unwrap()
}

#[test]
fn hostile_texts_are_one_harmless_line() {
    let cases = [
        ("new lines", "a\r\nb\n{\"event\":\"end\"}".to_owned(), "a\\r\\nb\\n{\\\"event\\\":\\\"end\\\"}"),
        ("terminal escapes", "\x1b[2J\x1b]0;x\x07".to_owned(), "\\u001b[2J\\u001b]0;x\\u0007"),
        ("nul and del", "a\0b\x7f".to_owned(), "a\\u0000b\\u007f"),
        ("C1 controls", "\u{80}\u{9b}31m\u{9f}\u{a0}".to_owned(), "\\u0080\\u009b31m\\u009f\u{a0}"),
        (
            "bidirectional marks",
            "\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{61c}é".to_owned(),
            "\\u200e\\u200f\\u202a\\u202e\\u2066\\u2069\\u061cé",
        ),
        ("line separators", "\u{85}\u{2028}\u{2029}".to_owned(), "\\u0085\\u2028\\u2029"),
        ("invalid UTF-8", String::from_utf8_lossy(b"a\xff\xc3b").into_owned(), "a\u{fffd}\u{fffd}b"),
        ("neighbours stay", "~\u{200b}\u{2065}\u{206a}😀".to_owned(), "~\u{200b}\u{2065}\u{206a}😀"),
    ];
    for (name, text, written) in cases {
        let mut event = event(Kind::Denied, &RequestId::generate());
        event.path = Some(text.clone());
        let line = line_of(&mut event);
        assert!(line.contains(&format!("\"path\":\"{written}\"")), "{name}: {line}");
        assert!(!line.contains('\n'), "{name}");
        let back: Event = serde_json::from_str(&line).unwrap();
        assert_eq!(back.path, Some(text), "{name}");
    }
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let mut event = event(Kind::Denied, &RequestId::generate());
    event.host = Some("x".repeat(10 << 10));
    event.path = Some(format!("x{}", "é".repeat(5 << 10)));
    event.method = Some("y".repeat(2048));
    event.query_keys = vec!["k".repeat(1500), "é".repeat(1500), "lost".to_owned()];
    let back: Event = serde_json::from_str(&line_of(&mut event)).unwrap();
    assert_eq!(back, event);
    assert_eq!(back.host.unwrap().len(), 2048);
    assert_eq!(back.path.unwrap().len(), 2047);
    assert_eq!(back.method.unwrap().len(), 2048);
    assert_eq!(back.query_keys.iter().map(String::len).collect::<Vec<_>>(), [1500, 548]);

    event.query_keys = vec![String::new(); 100_000];
    assert!(line_of(&mut event).len() < 30_000);
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was(text in "(?s).{0,300}", key in any::<String>()) {
        let mut event = event(Kind::End, &RequestId::generate());
        event.agent = Some(text.clone());
        event.path = Some(text);
        event.query_keys = vec![key];
        let line = line_of(&mut event);
        prop_assert!(!line.chars().any(|character| character.is_control()));
        prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }
}

#[tokio::test]
async fn each_process_has_the_first_free_node() {
    let audit = TempDir::new().unwrap();
    let open = || Spool::open(audit.path(), BLOCK).unwrap();
    let (one, two) = (open(), open());
    assert_eq!((one.node(), two.node()), (1, 2));
    drop(one);
    assert_eq!(open().node(), 1);
    assert_eq!(open().node(), 1);
    drop(two);
    assert_eq!(layout::nodes(audit.path()).unwrap().len(), 2);
}

#[tokio::test]
async fn what_an_earlier_process_left_open_is_aborted_once() {
    let audit = TempDir::new().unwrap();
    let (left, done, second) = (RequestId::generate(), RequestId::generate(), RequestId::generate());
    {
        let one = Spool::open_with(audit.path(), BLOCK, small()).unwrap();
        let two = Spool::open_with(audit.path(), BLOCK, small()).unwrap();
        one.start(event(Kind::Start, &left)).await.unwrap();
        one.start(event(Kind::Start, &left)).await.unwrap();
        two.start(event(Kind::Start, &second)).await.unwrap();
        // Far behind, in other segments.
        for _ in 0..200 {
            run_one(&one).await;
        }
        one.finish(event(Kind::Denied, &done));
    }
    let node = audit.path().join("node-1");
    let since = fs::read_to_string(node.join("open-since")).unwrap();
    assert!(since.starts_with("{\"segment\":1,"), "{since}");

    drop(Spool::open_with(audit.path(), BLOCK, small()).unwrap());
    let since = fs::read_to_string(node.join("open-since")).unwrap();
    assert!(!since.starts_with("{\"segment\":1,"), "{since}");
    drop(Spool::open_with(audit.path(), BLOCK, small()).unwrap());

    let aborted: Vec<_> = events(audit.path()).into_iter().filter(|event| event.event == Kind::Aborted).collect();
    assert_eq!(aborted.iter().map(|event| &event.request_id).collect::<Vec<_>>(), [&left, &second]);
    for had in aborted {
        assert_eq!(had.reason.as_deref(), Some("process_died"));
        let expected = event(Kind::Aborted, &had.request_id);
        assert_eq!(
            (had.agent, had.connection, had.host, had.method),
            (expected.agent, expected.connection, expected.host, expected.method)
        );
    }
}

#[tokio::test]
async fn a_torn_line_is_left_alone() {
    let audit = TempDir::new().unwrap();
    let id = RequestId::generate();
    {
        let spool = Spool::open(audit.path(), BLOCK).unwrap();
        spool.start(event(Kind::Start, &id)).await.unwrap();
    }
    let segment = audit.path().join("node-1/segment-000001.jsonl");
    let torn = line_of(&mut event(Kind::End, &id));
    // Cut at any byte; only a line that lacks nothing but its newline counts.
    for cut in [1, torn.len() / 2, torn.len() - 1, torn.len()] {
        let here = TempDir::new().unwrap();
        let copy = here.path().join("node-1/segment-000001.jsonl");
        fs::create_dir(here.path().join("node-1")).unwrap();
        let before = [fs::read(&segment).unwrap(), torn.as_bytes()[..cut].to_vec()].concat();
        fs::write(&copy, &before).unwrap();
        let spool = Spool::open(here.path(), BLOCK).unwrap();
        run_one(&spool).await;
        assert!(fs::read(&copy).unwrap().starts_with(&before), "{cut}");
        assert_eq!(assert_each_once(here.path()), 2, "{cut}");
        let aborted = events(here.path()).iter().any(|event| event.event == Kind::Aborted);
        assert_eq!(aborted, cut < torn.len(), "{cut}");
    }
}

/// Puts a device in the place of the first segment: `/dev/full` takes no byte, `/dev/null` cannot be synced.
fn with_device(device: &str, settings: AuditSettings, limits: Limits) -> (TempDir, PathBuf, Spool) {
    let audit = TempDir::new().unwrap();
    let segment = audit.path().join("node-1/segment-000001.jsonl");
    fs::create_dir(audit.path().join("node-1")).unwrap();
    symlink(device, &segment).unwrap();
    let spool = Spool::open_with(audit.path(), settings, limits).unwrap();
    (audit, segment, spool)
}

#[tokio::test]
async fn a_full_disk_refuses_starts_and_keeps_ends() {
    let (audit, segment, spool) = with_device("/dev/full", BLOCK, Limits::default());
    let id = RequestId::generate();
    let error = spool.start(event(Kind::Start, &id)).await.unwrap_err().to_string();
    assert!(error.contains("segment-000001.jsonl: No space left"), "{error}");
    assert!(!spool.is_healthy());
    spool.finish(event(Kind::Denied, &id));
    assert!(spool.start(event(Kind::Start, &id)).await.is_err());
    assert_eq!(spool.lost(), 0);

    fs::remove_file(&segment).unwrap();
    run_one(&spool).await;
    assert!(spool.is_healthy());
    let kinds: Vec<_> = events(audit.path()).iter().map(|event| event.event).collect();
    assert_eq!(kinds, [Kind::Denied, Kind::Start, Kind::End]);
}

#[tokio::test]
async fn a_spool_recovers_without_a_request() {
    for waiting in [true, false] {
        let (audit, segment, spool) = with_device("/dev/full", BLOCK, Limits::default());
        let id = RequestId::generate();
        assert!(spool.start(event(Kind::Start, &id)).await.is_err());
        if waiting {
            spool.finish(event(Kind::Denied, &id));
        }
        assert!(!spool.is_healthy());
        fs::remove_file(&segment).unwrap();
        until("healthy again", || spool.is_healthy()).await;
        assert_eq!(events(audit.path()).len(), usize::from(waiting));
    }
}

#[tokio::test]
async fn lost_lines_are_told_by_a_gap() {
    let limits = Limits { queued_lines: 2, ..Limits::default() };
    let (audit, segment, spool) = with_device("/dev/full", DROP, limits);
    for _ in 0..5 {
        run_one(&spool).await;
    }
    // Five starts, and the ends that found no room in memory.
    assert_eq!(spool.lost(), 8);
    assert!(!spool.is_healthy());
    fs::remove_file(&segment).unwrap();
    run_one(&spool).await;
    run_one(&spool).await;
    let events = events(audit.path());
    let kinds: Vec<_> = events.iter().map(|event| event.event).collect();
    assert_eq!(kinds, [Kind::End, Kind::End, Kind::Gap, Kind::Start, Kind::End, Kind::Start, Kind::End]);
    assert_eq!(events[2].count, Some(8));
    assert_eq!(spool.lost(), 8);
}

#[tokio::test]
async fn settings_change_while_it_runs() {
    let (_audit, _segment, spool) = with_device("/dev/full", BLOCK, Limits::default());
    let id = RequestId::generate();
    assert!(spool.start(event(Kind::Start, &id)).await.is_err());
    spool.set_settings(DROP);
    assert!(spool.start(event(Kind::Start, &id)).await.is_ok());
    spool.set_settings(BLOCK);
    assert!(spool.start(event(Kind::Start, &id)).await.is_err());
}

#[tokio::test]
async fn a_failed_sync_refuses_the_start_and_begins_a_segment() {
    let (audit, _segment, spool) = with_device("/dev/null", DISK, Limits::default());
    let id = RequestId::generate();
    assert!(spool.start(event(Kind::Start, &id)).await.is_err());
    assert!(!spool.is_healthy());
    spool.finish(event(Kind::Denied, &id));
    run_one(&spool).await;
    until("healthy again", || spool.is_healthy()).await;
    let second = fs::read_to_string(audit.path().join("node-1/segment-000002.jsonl")).unwrap();
    assert_eq!(second.lines().count(), 3, "{second}");
}

/// A file system of 64 KiB, or `None` where this user may not mount one.
struct Tiny(TempDir);

impl Tiny {
    fn mount() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"]).arg(directory.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_and_is_freed_loses_nothing() {
    let Some(tiny) = Tiny::mount() else {
        #[expect(clippy::print_stderr, reason = "a test that did nothing says so")]
        {
            eprintln!("skipped: a_disk_that_fills_up_and_is_freed_loses_nothing needs to mount a tmpfs");
        }
        return;
    };
    let audit = tiny.0.path().join("audit");
    let spool = Spool::open(&audit, BLOCK).unwrap();
    let filler = tiny.0.path().join("filler");
    fs::write(&filler, vec![0; 32 << 10]).unwrap();
    let mut refused = 0;
    let mut open = Vec::new();
    while refused < 20 {
        let id = RequestId::generate();
        // A part of the line may be written: the next one has to stay readable.
        match spool.start(event(Kind::Start, &id)).await {
            Ok(()) => open.push(id),
            Err(_) => {
                refused += 1;
                spool.finish(event(Kind::Denied, &id));
                // Some that were admitted end while nothing can be written.
                if let Some(id) = open.pop() {
                    spool.finish(event(Kind::End, &id));
                }
            }
        }
    }
    assert!(!spool.is_healthy() && open.len() > 10);
    fs::remove_file(&filler).unwrap();
    run_one(&spool).await;
    assert!(spool.is_healthy());
    assert_eq!(spool.lost(), 0);
    let admitted = open.len() + 20 + 1;
    for id in open {
        spool.finish(event(Kind::End, &id));
    }
    let counts = counts(&events(&audit));
    assert!(counts.values().all(|&(starts, terminals)| starts <= 1 && terminals == 1), "{counts:?}");
    assert_eq!(counts.values().filter(|(starts, _)| *starts == 1).count(), admitted);
    assert_eq!(counts.len(), admitted + 20);
}

#[tokio::test]
async fn a_segment_that_was_moved_away_is_not_written_any_more() {
    let audit = TempDir::new().unwrap();
    let limits = Limits { look: Duration::ZERO, ..Limits::default() };
    let spool = Spool::open_with(audit.path(), BLOCK, limits).unwrap();
    run_one(&spool).await;
    let node = audit.path().join("node-1");
    fs::rename(node.join("segment-000001.jsonl"), audit.path().join("kept")).unwrap();
    run_one(&spool).await;
    assert_eq!(fs::read_to_string(audit.path().join("kept")).unwrap().lines().count(), 2);
    assert_eq!(fs::read_to_string(node.join("segment-000002.jsonl")).unwrap().lines().count(), 2);
    drop(spool);
    // Nor are numbers used again.
    fs::remove_file(node.join("segment-000002.jsonl")).unwrap();
    run_one(&Spool::open(audit.path(), BLOCK).unwrap()).await;
    assert_eq!(fs::read_to_string(node.join("segment-000002.jsonl")).unwrap().lines().count(), 2);
}

/// Where a child that is to be killed writes.
const CHILD: &str = "NEXUS_TEST_AUDIT_CHILD";

/// Not a test by itself: what the killed child runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_under_load() {
    let Some(audit) = std::env::var_os(CHILD) else { return };
    let limits = Limits { segment_bytes: 64 << 10, ..Limits::default() };
    let spool = Arc::new(Spool::open_with(Path::new(&audit), BLOCK, limits).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let spool = Arc::clone(&spool);
        tasks.spawn(async move {
            loop {
                run_one(&spool).await;
            }
        });
    }
    tasks.join_all().await;
}

fn spawn_child(audit: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "audit::spool::tests::child_under_load"]).env(CHILD, audit);
    child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn after_kill_9_every_start_has_exactly_one_terminal_line() {
    let audit = TempDir::new().unwrap();
    let node = audit.path().join("node-1");
    let size = || {
        let segments = layout::segments(&node).unwrap_or_default();
        segments.iter().map(|(_, path)| fs::metadata(path).map_or(0, |metadata| metadata.size())).sum::<u64>()
    };
    let mut aborted = 0;
    for round in 1..=5 {
        let before = size();
        let mut child = spawn_child(audit.path());
        until("the child writes", || size() > before + round * (40 << 10)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let spool = Spool::open(audit.path(), BLOCK).unwrap();
        assert_eq!(spool.node(), 1);
        drop(spool);
        assert!(assert_each_once(audit.path()) > 100);
        aborted = events(audit.path()).iter().filter(|event| event.event == Kind::Aborted).count();
    }
    assert!(aborted > 0, "no round was killed in the middle of a request");
}
