#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A server whose reloads count up from 7.
async fn serve(home: &Path, node: u32) -> (PathBuf, JoinHandle<()>) {
    let server = ControlServer::bind(home, node).await.unwrap();
    let path = server.path().to_owned();
    let generation = Arc::new(AtomicI64::new(7));
    let reload = move || {
        let generation = Arc::clone(&generation);
        async move { Ok(generation.fetch_add(1, Ordering::SeqCst)) }
    };
    (path, tokio::spawn(server.serve(reload, json!({ "listen": ["127.0.0.1:1"], "node": node }))))
}

async fn stop(server: JoinHandle<()>) {
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
}

/// Sends bytes as they stand, ends, and gives all that comes back.
async fn exchange(path: &Path, bytes: &[u8]) -> Vec<String> {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The server may have closed before everything was sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answers = Vec::new();
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        answers.push(line);
    }
    answers
}

#[tokio::test]
async fn orders_are_answered_in_turn_and_nonsense_is_refused() {
    let home = TempDir::new().unwrap();
    let (path, _server) = serve(home.path(), 1).await;
    let orders = b"{\"op\":\"reload\"}\nnonsense\n{\"op\":\"stop\"}\n[]\n\xff\n{\"op\":\"status\",\"more\":1}\n{\"op\":\"reload\"}\n";
    let refused = r#"{"ok":false,"error":"not a JSON object with an op"}"#;
    assert_eq!(
        exchange(&path, orders).await,
        [
            r#"{"ok":true,"generation":7}"#,
            refused,
            r#"{"ok":false,"error":"unknown op; use reload or status"}"#,
            refused,
            refused,
            r#"{"ok":true,"listen":["127.0.0.1:1"],"node":1}"#,
            r#"{"ok":true,"generation":8}"#,
        ]
    );
}

#[tokio::test]
async fn a_line_beyond_the_cap_ends_the_exchange() {
    let home = TempDir::new().unwrap();
    let (path, _server) = serve(home.path(), 1).await;
    let exact = format!("{{\"op\":\"status\",\"pad\":\"{}\"}}\n", "x".repeat(LINE_BYTES - 24));
    assert_eq!(exact.len(), LINE_BYTES + 1);
    assert_eq!(exchange(&path, exact.as_bytes()).await.len(), 1);

    let long = exact.replacen('x', "xx", 1);
    assert_eq!(exchange(&path, long.as_bytes()).await, [r#"{"ok":false,"error":"the line is longer than 64 KiB"}"#]);
    assert_eq!(exchange(&path, b"{\"op\":\"status\"}").await, [""; 0], "cut off before its newline");
}

#[tokio::test]
async fn a_silent_client_holds_up_nobody() {
    let home = TempDir::new().unwrap();
    let (path, _server) = serve(home.path(), 1).await;
    let _silent = UnixStream::connect(&path).await.unwrap();
    let asked: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let path = path.clone();
                async move { exchange(&path, b"{\"op\":\"reload\"}\n").await }
            })
        })
        .collect();
    for asked in asked {
        assert!(asked.await.unwrap()[0].starts_with(r#"{"ok":true,"generation":"#));
    }
}

#[tokio::test]
async fn the_file_is_private_and_goes_with_the_server() {
    let home = TempDir::new().unwrap();
    let (path, server) = serve(home.path(), 1).await;
    assert_eq!(path, home.path().join("nexus.sock"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["nexus.sock"]);
    stop(server).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_live_socket_is_never_replaced_and_a_dead_one_is() {
    let home = TempDir::new().unwrap();
    let (first, one) = serve(home.path(), 1).await;
    let (second, two) = serve(home.path(), 2).await;
    assert_eq!(second, home.path().join("nexus-2.sock"));
    let found = control_sockets(home.path()).await;
    let nodes: Vec<_> = found.iter().map(|(path, status)| (path.clone(), status["node"].clone())).collect();
    assert_eq!(nodes, [(second.clone(), json!(2)), (first.clone(), json!(1))]);
    assert!(ControlServer::bind(home.path(), 2).await.is_err(), "both are live");
    assert!(notify_servers(home.path()).await.is_empty());

    stop(two).await;
    assert!(!second.exists() && first.exists());
    stop(one).await;
    // What a killed server leaves.
    drop(std::os::unix::net::UnixListener::bind(&first).unwrap());
    std::fs::create_dir(home.path().join(".nexus.sock.new")).unwrap();
    assert!(control_sockets(home.path()).await.is_empty());
    assert!(notify_servers(home.path()).await.is_empty(), "a dead socket is no server");
    let (again, _three) = serve(home.path(), 3).await;
    assert_eq!(again, first);
    assert_eq!(control_sockets(home.path()).await.len(), 1);
}

#[tokio::test]
async fn servers_that_start_at_once_share_nothing() {
    let home = TempDir::new().unwrap();
    drop(std::os::unix::net::UnixListener::bind(home.path().join("nexus.sock")).unwrap());
    let starting: Vec<_> = (1..=8)
        .map(|node| {
            let home = home.path().to_owned();
            tokio::spawn(async move { serve(&home, node).await })
        })
        .collect();
    let mut servers = Vec::new();
    for started in starting {
        servers.push(started.await.unwrap());
    }
    assert_eq!(control_sockets(home.path()).await.len(), 8);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("nexus.sock");
    std::fs::write(&path, "mine").unwrap();
    assert!(ControlServer::bind(home.path(), 1).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn a_deep_home_works() {
    let base = TempDir::new().unwrap();
    let home = base.path().join("deep".repeat(40)).join("deeper".repeat(20));
    std::fs::create_dir_all(&home).unwrap();
    let (first, _one) = serve(&home, 1).await;
    let (second, _two) = serve(&home, 2).await;
    assert!(first.as_os_str().len() > 200 && second.ends_with("nexus-2.sock"));
    assert_eq!(control_sockets(&home).await.len(), 2);
    assert!(notify_servers(&home).await.is_empty());
}

#[tokio::test]
async fn warnings_name_the_server_that_did_not_apply() {
    let home = TempDir::new().unwrap();
    let refusing = ControlServer::bind(home.path(), 1).await.unwrap();
    let refusing = tokio::spawn(refusing.serve(async || Err("the store is locked".to_owned()), json!({})));
    // One that takes the order and closes, and one that never answers.
    let closing = UnixListener::bind(home.path().join("nexus-2.sock")).unwrap();
    tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    let _hanging = UnixListener::bind(home.path().join("nexus-3.sock")).unwrap();
    std::fs::write(home.path().join("nexus-x.sock"), "").unwrap();

    let warnings: Vec<_> = notify_servers(home.path()).await.iter().map(ToString::to_string).collect();
    let expected = [
        "nexus-2.sock: ",
        "nexus-3.sock: no answer within 2 s",
        "nexus.sock: the server could not do it: the store is locked",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warning}");
    }
    assert_eq!(control_sockets(home.path()).await.len(), 1);
    stop(refusing).await;
}

#[tokio::test]
async fn a_home_without_servers_gives_no_warning() {
    let home = TempDir::new().unwrap();
    assert!(notify_servers(home.path()).await.is_empty());
    assert!(notify_servers(&home.path().join("missing")).await.is_empty());
    assert!(control_sockets(&home.path().join("missing")).await.is_empty());
}
