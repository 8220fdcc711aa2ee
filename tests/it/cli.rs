//! The commands, as people and scripts use them.

use super::home::*;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn records_are_made_shown_changed_and_deleted() {
    let home = Home::new();
    let upstream = upstream();
    assert_eq!(home.code(&["list"]), 3, "there is no install yet");
    home.register("work", upstream);

    let listed = home.json(&["list"]);
    assert_eq!(listed[0]["name"], "work");
    assert_eq!(listed[0]["state"], "active");
    assert_eq!(listed[0]["version"], 1);
    assert_eq!(listed[0]["destinations"][0], format!("http://{upstream}/v1"));

    let set = home.run_with_input(&["connection", "set", "work", "--stdin"], SECRET);
    assert!(set.status.success(), "{}", text(&set.stderr));
    assert_eq!(home.json(&["connection", "show", "work"])["version"], 2);
    assert_eq!(home.json(&["test", "work"])["ok"], true);

    let wrong = home.run_with_input(&["connection", "set", "work", "--stdin"], "another-value");
    assert!(wrong.status.success());
    assert_eq!(home.code(&["test", "work"]), 8, "the API refuses it");

    assert_eq!(home.code(&["connection", "disable", "work"]), 0);
    assert_eq!(home.json(&["connection", "show", "work"])["state"], "disabled");
    assert_eq!(home.code(&["connection", "enable", "work"]), 0);
    assert_eq!(home.code(&["connection", "delete", "work"]), 0);
    assert_eq!(home.code(&["connection", "show", "work"]), 3);
    assert_eq!(home.code(&["doctor"]), 0);
}

#[test]
fn mistakes_have_their_exit_codes() {
    let home = Home::new();
    let upstream = upstream();
    let url = format!("http://{upstream}");
    let custom = ["register", "custom", "--name", "x", "--base-url", &url, "--stdin"];
    let header = ["--inject", "header X-Key: {token}"];
    for (name, line, input, code) in [
        ("http without leave", [&custom[..], &header].concat(), SECRET, 2),
        ("no placement", [&custom[..], &["--allow-http"]].concat(), SECRET, 2),
        ("unknown provider", vec!["register", "nobody-knows-it", "--stdin"], SECRET, 3),
    ] {
        assert_eq!(home.run_with_input(&line, input).status.code(), Some(code), "{name}");
        assert!(!home.path().join("root.key").exists(), "{name}: nothing is made");
    }
    home.register("work", upstream);
    let allowed = [&custom[..], &header, &["--allow-http"]].concat();
    for (name, line, input, code) in [
        (
            "one value for another field",
            [&custom[..], &["--allow-http", "--inject", "header X-Key: {tokn}"]].concat(),
            SECRET,
            2,
        ),
        ("line break in a header", allowed.clone(), "a\nb-is-a-header", 2),
        ("empty", allowed, "\n", 2),
        (
            "taken name",
            vec![
                "register",
                "custom",
                "--name",
                "work",
                "--base-url",
                &url,
                "--allow-http",
                header[0],
                header[1],
                "--stdin",
            ],
            SECRET,
            6,
        ),
        ("secret in --set", vec!["register", "github", "--set", "token=visible-in-ps", "--stdin"], SECRET, 2),
        ("OAuth only", vec!["register", "google", "--stdin"], SECRET, 2),
        ("no such connection", vec!["token", "create", "--name", "a", "--use", "nope"], "", 3),
        ("no such token", vec!["token", "revoke", "tok_nope"], "", 3),
        ("no tokens", vec!["explain", "GET", &url, "--agent", "nobody"], "", 3),
        ("no terminal to ask on", vec!["connection", "set", "work"], "", 2),
    ] {
        let output = home.run_with_input(&line, input);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{name}: messages go to standard error");
    }
    home.write("nexus.toml", "[server]\nlisten = 3\nunknown = 1\n");
    let output = home.run(&["config", "check", "-o", "json"]);
    assert_eq!(output.status.code(), Some(8));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["problems"].as_array().unwrap().len() >= 2, "{found}");
}

#[test]
fn a_connection_that_needs_attention_is_not_tried() {
    use nexus::store::{ConnectionState, Store};
    let home = Home::new();
    let url = format!("http://{}/v1", upstream());
    let token_url = format!("http://{}/token", upstream());
    let line = [
        &["register", "custom", "--name", "oa", "--base-url", &url, "--allow-http", "--stdin-json"][..],
        &["--inject", "header X-Key: {access_token}", "--oauth", "refresh_token", "--token-url", &token_url],
    ]
    .concat();
    let fields =
        format!(r#"{{"client_id":"some-client","refresh_token":"some-refresh-token","access_token":"{SECRET}"}}"#);
    let made = home.run_with_input(&line, &fields);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(home.json(&["test", "oa"])["ok"], true);
    with_store(&home, async |store| {
        let record = store.find_connection(&nexus::types::Scope::default(), "oa").await.unwrap();
        let state = ConnectionState::Attention;
        store.set_connection_state(&record.id, record.version, state, Some("invalid_grant")).await.unwrap();
    });
    for line in [&["test", "oa"][..], &["doctor"]] {
        let output = home.run(line);
        assert_eq!(output.status.code(), Some(8), "{line:?}");
        let shown = text(&output.stdout);
        assert!(
            shown.contains("invalid_grant") && shown.contains("connection set oa --stdin-json"),
            "{line:?}: {shown}"
        );
    }
    let tested = home.run(&["test", "oa", "-o", "json"]);
    assert_eq!(serde_json::from_slice::<Value>(&tested.stdout).unwrap()["ok"], false);
    let fields = format!(r#"{{"refresh_token":"another-refresh-token","access_token":"{SECRET}"}}"#);
    assert!(home.run_with_input(&["connection", "set", "oa", "--stdin-json"], &fields).status.success());
    assert_eq!(home.json(&["test", "oa"])["ok"], true);
}

#[test]
fn a_root_key_that_is_lost_or_wrong_is_told() {
    let home = Home::new();
    let upstream = upstream();
    home.register("work", upstream);
    home.register("damaged", upstream);
    let key = home.path().join("root.key");

    let other = Home::new();
    assert_eq!(other.code(&["init"]), 0);
    let right = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    for line in [&["init"][..], &["up"], &["token", "create", "--name", "a", "--use", "work"]] {
        assert_eq!(home.code(line), 1, "{line:?}");
        assert!(!key.exists(), "{line:?} makes no new key");
    }
    std::fs::copy(other.path().join("root.key"), &key).unwrap();
    for line in [&["list"][..], &["up"], &["connection", "set", "work", "--stdin"]] {
        let output = home.run_with_input(line, SECRET);
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        assert!(text(&output.stderr).contains("root key is not the one"), "{line:?}: {}", text(&output.stderr));
    }
    assert_eq!(home.code(&["doctor"]), 8);
    std::fs::write(&key, right).unwrap();
    assert_eq!(home.json(&["test", "work"])["ok"], true);

    with_store(&home, async |store| {
        use nexus::store::Store;
        let mut record = store.find_connection(&nexus::types::Scope::default(), "damaged").await.unwrap();
        record.access = nexus::secret::Sealed::from_bytes(&[0; 120]);
        record.version += 1;
        store.insert_connection(&record, true).await.unwrap();
    });
    assert_eq!(home.json(&["connection", "show", "damaged"])["state"], "damaged");
    assert_eq!(home.json(&["test", "work"])["ok"], true, "one damaged record does not close the others");
}

#[test]
fn a_name_without_an_answer_is_no_denial() {
    let home = Home::new();
    let line = ["register", "custom", "--name", "work", "--base-url", "https://nowhere.invalid/v1", "--stdin"];
    let made = home.run_with_input(&[&line[..], &["--inject", "header X-Key: {token}"]].concat(), SECRET);
    assert!(made.status.success(), "{}", text(&made.stderr));
    home.json(&["token", "create", "--name", "ci", "--use", "work", "--methods", "GET"]);
    let url = "https://nowhere.invalid/v1/x";
    for (name, method, url, code, decision) in [
        ("allowed", "GET", url, 7, "allowed"),
        ("denied by the grant", "POST", url, 5, "denied"),
        ("no connection", "GET", "https://elsewhere.invalid/", 5, "denied"),
    ] {
        let output = home.run(&["explain", method, url, "--agent", "ci", "-o", "json"]);
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &shown["decision"]), (Some(code), &decision.into()), "{name}: {shown}");
    }
}

#[test]
fn a_record_that_was_edited_gets_no_new_secret() {
    use nexus::store::Store;
    let home = Home::new();
    home.register("work", upstream());
    let elsewhere = upstream();
    with_store(&home, async |store| {
        let mut record = store.find_connection(&nexus::types::Scope::default(), "work").await.unwrap();
        let frozen = nexus::connection::Frozen::from_json(&record.definition).unwrap();
        let port = frozen.destinations[0].port.to_string();
        record.definition = record.definition.replace(&port, &elsewhere.port().to_string());
        record.version += 1;
        store.insert_connection(&record, true).await.unwrap();
    });
    let set = home.run_with_input(&["connection", "set", "work", "--stdin"], SECRET);
    assert_eq!(set.status.code(), Some(1), "{}", text(&set.stderr));
    assert!(text(&set.stderr).contains("--replace"), "{}", text(&set.stderr));
    assert_eq!(home.json(&["list"])[0]["state"], "damaged");
    assert_eq!(home.json(&["connection", "show", "work"])["state"], "damaged");
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(8));
    assert!(!text(&doctor.stdout).contains("connection set"), "{}", text(&doctor.stdout));
}

#[test]
fn what_is_no_secret_may_be_short() {
    let home = Home::new();
    let site = ["register", "jira", "--set", "site=acme"];
    let by_flag = home.run_with_input(&[&site[..], &["--set", "email=a@b.c", "--stdin"]].concat(), SECRET);
    let fields = format!(r#"{{"email":"a@b.c","api_token":"{SECRET}"}}"#);
    let by_json = home.run_with_input(&[&site[..], &["--name", "two", "--stdin-json"]].concat(), &fields);
    let changed = home.run_with_input(&["connection", "set", "two", "--stdin-json"], r#"{"api_token":"short"}"#);
    for output in [&by_flag, &by_json] {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("shorter"), "{}", text(&output.stderr));
    }
    assert!(text(&changed.stderr).contains("api_token is shorter"), "{}", text(&changed.stderr));
}

#[test]
fn a_run_passes_the_exit_code_and_takes_its_token_with_it() {
    let home = Home::new();
    let upstream = upstream();
    home.register("work", upstream);
    let script = format!(
        "printf '%s\\n' \"$HTTPS_PROXY\" \"$SSL_CERT_FILE\"; curl -s -o /dev/null -w '%{{http_code}}\\n' --noproxy '' http://{upstream}/v1/x; exit 37"
    );
    let output = home.run(&["run", "--use", "work", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(37), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("http://x:nxt_"), "{shown}");
    assert!(Path::new(lines[1]).is_file(), "{shown}");
    assert_eq!(lines[2], "200");
    let tokens = home.json(&["token", "list"]);
    assert_eq!(tokens[0]["agent"], "run");
    assert_eq!(tokens[0]["state"], "revoked");

    assert_eq!(home.code(&["run", "--", "no-such-program-anywhere"]), 127);
    assert_eq!(home.code(&["run", "--", "sh", "-c", "kill -TERM $PPID; exec sleep 60"]), 143, "signals are passed on");
    let tokens = home.json(&["token", "list"]);
    assert!(tokens.as_array().unwrap().iter().all(|token| token["state"] == "revoked"), "{tokens}");
}

#[test]
fn a_shell_takes_the_variables() {
    let home = Home::new();
    let upstream = upstream();
    home.register("work", upstream);
    let server = Up::start(&home);
    let printed = home.run(&["env", "--use", "work"]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let script = format!(
        "{}\ncurl -s -o /dev/null -w '%{{http_code}}' --noproxy '' http://{upstream}/v1/x",
        text(&printed.stdout)
    );
    let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert_eq!(text(&output.stdout), "200", "{}", text(&output.stderr));

    let made = home.json(&["token", "create", "--name", "ci", "--use", "work"]);
    let token = made["token_value"].as_str().unwrap();
    let printed = home.run_with_input(&["env", "--token-stdin", "-o", "json", "--address", "nexus:8470"], token);
    let variables: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(variables["https_proxy"], format!("http://x:{token}@nexus:8470"));
    let printed = home.run_with_input(&["env", "--token-stdin", "--shell", "docker"], token);
    let (variables, hint) = (text(&printed.stdout), text(&printed.stderr));
    let directory = home.path().join("ca").display().to_string();
    let mut named: Vec<&str> = variables.split(['=', ':', ' ', '\n']).filter(|p| p.starts_with(&directory)).collect();
    named.sort_unstable();
    named.dedup();
    assert!(named.len() >= 5, "{variables}");
    for path in named {
        assert!(Path::new(path).exists(), "{path}");
        assert!(hint.contains(&format!("-v {path}:{path}:ro")), "{path} is mounted: {hint}");
    }
    assert!(!hint.contains("ca.key"), "{hint}");
    assert_eq!(home.run_with_input(&["env", "--token-stdin"], "nxt_wrong").status.code(), Some(2));
    drop(server);
}

#[test]
fn doctor_names_a_record_that_lists_leave_out() {
    let home = Home::new();
    home.register("work", upstream());
    home.register("other", upstream());
    assert_eq!(home.code(&["doctor"]), 0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let path = format!("sqlite://{}", home.path().join("nexus.db").display());
        let mut database = sqlx::SqliteConnection::connect(&path).await.unwrap();
        let edit = "UPDATE connections SET created_at = created_at + 1 WHERE name = 'work'";
        sqlx::query(edit).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    });
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(8), "{}", text(&doctor.stdout));
    assert!(
        text(&doctor.stdout).contains("(work) of tenant default fails the integrity check: it was edited"),
        "{}",
        text(&doctor.stdout)
    );
}

#[test]
fn what_is_not_there_comes_with_where_to_look() {
    let home = Home::new();
    home.run(&["init"]);
    for (line, hint) in [
        (&["connection", "show", "x"][..], "nexus connection list"),
        (&["token", "revoke", "tok_01a20e42ad7a73b281857178bcd83346"], "nexus token list"),
        (&["app", "delete", "github"], "nexus app list"),
        (&["tenant", "delete", "x", "--yes"], "nexus tenant list"),
        (&["agent", "renew", "--dir", "/nonexistent"], "agent enroll"),
    ] {
        let output = home.run(line);
        assert_eq!(output.status.code(), Some(3), "{line:?}");
        assert!(text(&output.stderr).contains(hint), "{}", text(&output.stderr));
    }
}
