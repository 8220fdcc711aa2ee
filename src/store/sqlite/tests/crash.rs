//! What was acknowledged is there after `kill -9`.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const PATH: &str = "NEXUS_TEST_CRASH_STORE";

/// Not a test of its own: what the killed process runs. It says each write on stdout once that has returned.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let store = open(Path::new(&path)).await.unwrap();
    let mut record = connection(&format!("c{}", std::process::id()));
    store.insert_connection(&record, false).await.unwrap();
    let say = |line: String| std::io::stdout().write_all(line.as_bytes()).unwrap();
    loop {
        let token = token("child");
        store.insert_token(&token).await.unwrap();
        say(format!("\nack token {}\n", token.id));
        record.version += 1;
        store.update_credential(&record.id, &update(record.version), None).await.unwrap();
        say(format!("\nack version {} {}\n", record.id, record.version));
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_by_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nexus.db");
    let mut tokens = Vec::new();
    let mut versions: Vec<(String, u64)> = Vec::new();
    for round in 0..30u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::crash::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(PATH, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Some rounds die while the store is being made or opened, the others in the midst of writes.
        let acknowledged = if round % 5 == 0 { 0 } else { round };
        let pause = u64::from(crate::secret::random_bytes::<1>()[0]) * 40;
        let mut killed = false;
        let kill = |child: &mut std::process::Child| {
            std::thread::sleep(std::time::Duration::from_micros(pause));
            child.kill().unwrap();
        };
        if acknowledged == 0 {
            kill(&mut child);
            killed = true;
        }
        let mut seen = 0;
        // Reading to the end takes in what was said before the kill and not read yet.
        for line in output.split(b'\n') {
            let line = String::from_utf8(line.unwrap()).unwrap();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["ack", "token", id] => tokens.push(id.to_owned()),
                ["ack", "version", id, version] => {
                    versions.retain(|(known, _)| known != id);
                    versions.push((id.to_owned(), version.parse().unwrap()));
                }
                _ => continue,
            }
            seen += 1;
            if seen >= acknowledged && !killed {
                kill(&mut child);
                killed = true;
            }
        }
        assert!(killed, "round {round}: the child ended by itself");
        child.wait().unwrap();
        if acknowledged == 0 && !path.exists() {
            continue;
        }
        let store = open(&path).await.unwrap();
        let changes = store.changes_since(&Seen::default()).await.unwrap();
        let found: std::collections::HashSet<_> = changes.tokens.iter().map(|t| t.id.as_str()).collect();
        assert!(tokens.iter().all(|id| found.contains(id.as_str())), "round {round}: a token is lost");
        for (id, version) in &versions {
            let record = changes.connections.iter().find(|c| c.id.as_str() == id).unwrap();
            // One more may have been committed and not acknowledged.
            assert!((*version..=*version + 1).contains(&record.version), "round {round}");
            assert_eq!(record.access, Sealed::from_bytes(format!("access {}", record.version).as_bytes()));
        }
        store.close().await;
    }
    assert!(tokens.len() > 100, "{} writes were acknowledged", tokens.len());
}
