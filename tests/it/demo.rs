//! `nexus demo` as a person or a smoke test runs it: it checks itself, tells the truth and leaves nothing behind.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// A run of the demo with this directory as the only place that it may write to.
fn demo(directory: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nexus"))
        .arg("demo")
        .args(flags)
        .env("TMPDIR", directory)
        .env("NEXUS_HOME", directory.join("home-of-the-user"))
        .env_remove("NEXUS_TENANT")
        .env_remove("NEXUS_NAMESPACE")
        .env_remove("NEXUS_LOG")
        // Nobody is there: a request that went out would fail.
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .output()
        .unwrap()
}

#[track_caller]
fn assert_empty(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn facts_are_one_object_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path(), &["-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["ok"], true);

    let home = Path::new(facts["home"].as_str().unwrap());
    assert!(home.starts_with(directory.path()), "{}", home.display());
    assert!(!home.exists(), "the data directory is removed");
    assert_empty(directory.path());

    for (name, pointer, value) in [
        ("the agent has a placeholder", "/agent_sent/headers/authorization", json!("Bearer placeholder")),
        ("its token is masked", "/agent_sent/token", json!("nxt_********")),
        ("the key is masked", "/api_got/headers/authorization", json!("Bearer sk_d********")),
        ("the API answers", "/api_got/status", json!(200)),
        ("refused, then served", "/refresh/api_statuses", json!([401, 200])),
        ("one refresh", "/refresh/refreshes", json!(1)),
        ("the agent sees the end", "/refresh/agent_status", json!(200)),
        ("reflection passes", "/reflection/status", json!(200)),
        ("no connection", "/uncovered/error", json!("no_connection")),
        ("no connection's status", "/uncovered/status", json!(403)),
        ("nothing dialled", "/uncovered/dialled", json!(0)),
    ] {
        assert_eq!(facts.pointer(pointer), Some(&value), "{name}: {facts:#}");
    }
    assert!(facts["reflection"]["body"].as_str().unwrap().contains("***"));
    let events = facts["audit"]["events"].as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "end").count(), 3, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "denied").count(), 1, "{kinds:?}");
    assert!(events.iter().any(|event| event["replayed"] == true));
    for step in ["agent_sent", "api_got", "refresh", "reflection", "uncovered", "audit"] {
        assert!(!facts[step]["checked"].as_array().unwrap().is_empty(), "{step} was checked");
    }
}

#[test]
fn story_has_six_steps_and_shows_no_credential() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let story = String::from_utf8(output.stdout).unwrap();
    for step in 1..=6 {
        assert!(story.contains(&format!("\n{step}. ")), "step {step} in {story}");
    }
    for (name, prefix) in
        [("API key", "sk_d"), ("expired", "at_o"), ("fresh", "at_n"), ("refresh token", "rt_d"), ("token", "nxt_")]
    {
        let shown = story.match_indices(prefix).all(|(at, _)| story[at + 4..].starts_with("********"));
        assert!(shown, "{name} in {story}");
    }
    assert_empty(directory.path());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
    let command = command.arg("demo").env("TMPDIR", directory.path()).env("NEXUS_HOME", directory.path().join("home"));
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // The first line comes when everything is up.
    let mut line = String::new();
    let mut story = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut story, &mut line).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    let _ = std::io::Read::read_to_string(&mut story, &mut rest);
    // It may have been at its end already.
    assert!(matches!(child.wait().unwrap().code(), Some(0 | 143)), "{rest}");
    assert_empty(directory.path());
}
