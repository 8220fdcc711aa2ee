//! Tokens, and what they may do.

use super::home::*;
use serde_json::Value;

#[test]
fn tokens_work_until_they_are_rotated_or_revoked() {
    let home = Home::new();
    let upstream = upstream();
    home.register("work", upstream);
    let server = Up::start(&home);
    let url = format!("http://{upstream}/v1/x");

    let made =
        home.json(&["token", "create", "--name", "ci", "--use", "work", "--methods", "get", "--paths", "/v1/**"]);
    let (id, first) = (made["token_id"].as_str().unwrap(), made["token_value"].as_str().unwrap());
    assert_eq!(made["agent"], "ci");
    assert_eq!(status_through(&server.proxy, first, &url), "200");

    assert_eq!(home.json(&["explain", "GET", &url, "--agent", "ci"])["decision"], "allowed");
    assert_eq!(home.code(&["explain", "POST", &url, "--agent", "ci"]), 5);
    assert_eq!(home.code(&["explain", "GET", "http://127.0.0.1:1/", "--agent", "ci"]), 5);

    let shown = home.run(&["token", "create", "--name", "shown", "--use", "work"]);
    assert!(text(&shown.stdout).contains("nxt_"), "the value is data");
    let said = text(&shown.stderr);
    assert!(said.contains("http://x:TOKEN@") && !said.contains("nxt_"), "and no message: {said}");

    let rotated = home.json(&["token", "rotate", id, "--grace", "0s"]);
    let second = rotated["token_value"].as_str().unwrap();
    assert_eq!(rotated["token_id"], id);
    assert_eq!(status_through(&server.proxy, first, &url), "407");
    assert_eq!(status_through(&server.proxy, second, &url), "200");

    assert_eq!(home.code(&["token", "revoke", id]), 0);
    assert_eq!(status_through(&server.proxy, second, &url), "407");
    let listed = text(&home.run(&["token", "list", "-o", "json"]).stdout);
    assert!(!listed.contains(first) && !listed.contains(second));

    let events = text(&home.run(&["audit", "query", "--agent", "ci", "--status", "2xx", "-o", "json"]).stdout);
    assert_eq!(events.lines().count(), 2, "{events}");
    for line in [&["audit", "query", "--namespace", "other"][..], &["audit", "tail", "--tenant", "other"]] {
        assert!(home.run(line).stdout.is_empty(), "{line:?}");
    }
    assert_eq!(home.code(&["up", "--listen", &server.proxy]), 6, "the port is used");
    assert_eq!(server.terminate(), 0);
}

#[test]
fn what_has_no_other_value_is_not_rotated() {
    use nexus::store::{Store, TokenKind};
    let home = Home::new();
    home.register("work", upstream());
    home.json(&["token", "create", "--name", "boss", "--use", "work", "--scopes", "use,mint", "--expires", "1h"]);
    let scope = nexus::types::Scope::default();
    let ids = with_store(&home, async |store| {
        let boss = store.list_tokens(&scope).await.unwrap().remove(0);
        let mut ids = vec![boss.id.clone()];
        for (kind, parent) in [
            (TokenKind::Run, None),
            (TokenKind::Certificate, None),
            (TokenKind::Opaque, Some(boss.id.clone())),
            (TokenKind::Opaque, Some(nexus::types::TokenId::generate())),
        ] {
            let mut record = boss.clone();
            record.id = nexus::types::TokenId::generate();
            record.digest = nexus::secret::TokenDigest(nexus::secret::random_bytes());
            (record.kind, record.parent, record.lifetime) = (kind, parent, Some(9 * 3_600));
            record.expires_at = None;
            store.insert_token(&record).await.unwrap();
            ids.push(record.id);
        }
        store.close().await;
        ids
    });
    let rotate = |at: usize| home.run(&["token", "rotate", ids[at].as_str(), "-o", "json"]);
    for (name, at, help) in [
        ("a run's", 1, "nexus token mint"),
        ("a certificate's", 2, "nexus agent renew"),
        ("one whose maker is missing", 4, "ended with the one that made it"),
    ] {
        let output = rotate(at);
        assert_eq!(output.status.code(), Some(6), "{name}");
        assert!(text(&output.stderr).contains(help), "{name}: {}", text(&output.stderr));
    }
    // Nine hours from now would be after its maker's end.
    let made: Value = serde_json::from_slice(&rotate(3).stdout).unwrap();
    let listed = home.json(&["token", "list"]);
    let of = |at: usize| listed.as_array().unwrap().iter().find(|row| row["token_id"] == ids[at].as_str()).unwrap();
    assert_eq!(made["expires_at"], of(0)["expires_at"]);
    let states = [0, 1, 2, 3, 4].map(|at| of(at)["state"].as_str().unwrap());
    assert_eq!(states, ["active", "active", "active", "active", "revoked"]);
    assert_eq!([0, 1, 2].map(|at| of(at)["kind"].as_str().unwrap()), ["opaque", "run", "certificate"]);
    let revoked = home.run(&["token", "revoke", ids[0].as_str()]);
    assert!(text(&revoked.stderr).contains("with it 1 token"), "{}", text(&revoked.stderr));
    assert_eq!(home.code(&["token", "rotate", ids[3].as_str()]), 6);
}

#[test]
fn explain_tells_hosts_and_scopes() {
    let home = Home::new();
    let api = upstream();
    home.register("work", api);
    home.json(&["token", "create", "--name", "ci", "--use", "work", "--hosts", "other.test,*.x.test"]);
    home.json(&["token", "create", "--name", "minter", "--use", "work", "--scopes", "mint"]);
    let url = format!("http://{api}/v1/x");
    for (agent, hosts, scopes, reason) in [
        ("ci", vec!["other.test", "*.x.test"], "use", "it may use other.test, *.x.test"),
        ("minter", vec![], "mint", "it has not the scope use"),
    ] {
        let output = home.run(&["explain", "GET", &url, "--agent", agent, "-o", "json"]);
        assert_eq!(output.status.code(), Some(5), "{agent}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["hosts"], &told["scopes"]), (&serde_json::json!(hosts), &serde_json::json!([scopes])));
        assert!(told["reason"].as_str().unwrap().contains(reason), "{told}");
    }
}

#[test]
fn namespaces_end_by_name() {
    let home = Home::new();
    home.register("work", upstream());
    home.json(&["token", "create", "--name", "ci", "--use", "work"]);
    assert_eq!(home.json(&["namespace", "list"])[0]["connections"], 1);
    assert_eq!(home.code(&["namespace", "delete", "default"]), 2, "nobody is there to ask");
    assert_eq!(home.code(&["namespace", "delete", "nope", "--yes"]), 3);
    assert_eq!(home.code(&["namespace", "delete", "default", "--yes", "--tenant", "other"]), 3);
    assert_eq!(home.code(&["namespace", "delete", "default", "--yes"]), 0);
    assert_eq!(home.json(&["list"]), serde_json::json!([]));
    assert_eq!(home.json(&["token", "list"])[0]["state"], "revoked");
    assert_eq!(home.json(&["connection", "purge"])["purged"], 0);
    // The name is free; the old one is another's record now, and nobody's.
    home.register("work", upstream());
    assert_eq!(home.json(&["connection", "purge", "--older-than", "0s"])["purged"], 1);
    assert_eq!(home.json(&["list"])[0]["name"], "work");
    assert_eq!(home.code(&["tenant", "create", "made"]), 0);
    assert_eq!(home.code(&["tenant", "create", "made"]), 6);
    let tenants = home.json(&["tenant", "list"]);
    let names: Vec<_> = tenants.as_array().unwrap().iter().map(|row| row["tenant"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "made"]);
    assert_eq!(home.code(&["tenant", "delete", "made", "--yes"]), 0);
}
