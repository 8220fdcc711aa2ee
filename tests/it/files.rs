//! Config and provider files, as the program judges them.

use super::home::*;
use serde_json::Value;

#[test]
fn every_problem_of_a_file_has_its_line() {
    let home = Home::new();
    assert_eq!(home.code(&["init"]), 0);
    home.write("providers/acme.toml", "x = 1");
    home.write("nexus.toml", "one = 1\ntwo = 2\n");
    let doctor = home.run(&["doctor", "-o", "json"]);
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let details = |check: &str| -> Vec<String> {
        let rows = found.as_array().unwrap().iter().filter(|row| row["check"] == check);
        rows.map(|row| row["detail"].as_str().unwrap().to_owned()).collect()
    };
    let config = details("config");
    assert_eq!(config.len(), 2, "{config:?}");
    assert!(config[0].contains("nexus.toml:1:1 one:") && config[1].contains("nexus.toml:2:1 two:"), "{config:?}");
    home.write("nexus.toml", CONFIG);
    let file = home.path().join("providers/acme.toml").display().to_string();
    for output in [home.run(&["up"]), home.run(&["provider", "list"])] {
        assert!(text(&output.stderr).contains(&format!("{file}:1:1")), "{}", text(&output.stderr));
    }
}

#[test]
fn flags_of_up_are_judged_like_the_config() {
    let home = Home::new();
    for (name, line) in [
        ("clear text for other machines", ["--listen", "0.0.0.0:0"]),
        ("IPv6", ["--listen", "[::]:0"]),
        ("a descriptor that is not there", ["--ready-fd", "77"]),
    ] {
        let output = home.run(&["up", line[0], line[1]]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{name}");
        assert!(!home.path().join("root.key").exists(), "{name}: nothing is made");
    }
}

#[test]
fn the_examples_of_config_files_can_be_served() {
    let home = Home::new();
    for example in ["minimal.toml", "production.toml", "reference.toml"] {
        let file = format!("{}/config/{example}", env!("CARGO_MANIFEST_DIR"));
        // The files of its TLS listener are looked at, so they have to be there.
        let expected = if example == "production.toml" { 8 } else { 0 };
        assert_eq!(home.code(&["config", "check", &file]), expected, "{example}");
    }
    assert_eq!(home.code(&["init"]), 0);
    let made = home.path().join("tls");
    assert_eq!(home.code(&["ca", "issue", "proxy.test", "--out", made.to_str().unwrap()]), 0);
    let production = format!("{}/config/production.toml", env!("CARGO_MANIFEST_DIR"));
    let production = std::fs::read_to_string(production).unwrap();
    let here = production
        .replace("/etc/nexus/tls", made.to_str().unwrap())
        .replace("/var/lib/nexus/ca/agents.pem", home.path().join("ca/agents.pem").to_str().unwrap());
    let file = home.path().join("production.toml");
    std::fs::write(&file, here).unwrap();
    assert_eq!(home.code(&["config", "check", file.to_str().unwrap()]), 0);
}

#[test]
fn a_broken_config_does_not_keep_records_from_being_changed() {
    let home = Home::new();
    let upstream = upstream();
    home.register("work", upstream);
    let server = Up::start(&home);
    let url = format!("http://{upstream}/v1/x");
    let made = home.json(&["token", "create", "--name", "ci", "--use", "work"]);
    let (id, token) = (made["token_id"].as_str().unwrap(), made["token_value"].as_str().unwrap());
    assert_eq!(status_through(&server.proxy, token, &url), "200");

    home.write("nexus.toml", &format!("{CONFIG}x = ["));
    let revoked = home.run(&["token", "revoke", id]);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    assert!(text(&revoked.stderr).contains("nexus.toml:"), "the problem is named: {}", text(&revoked.stderr));
    assert_eq!(status_through(&server.proxy, token, &url), "407");
    for line in [
        &["token", "list"][..],
        &["list"],
        &["app", "list"],
        &["connection", "show", "work"],
        &["connection", "disable", "work"],
        &["connection", "delete", "work"],
    ] {
        assert_eq!(home.code(line), 0, "{line:?}");
    }
    for line in [&["config", "check"][..], &["doctor"], &["up"], &["run", "true"]] {
        assert_eq!(home.code(line), 8, "{line:?}");
    }

    // The store stays the one that the file names, as long as that part is right.
    std::fs::rename(home.path().join("nexus.db"), home.path().join("own.db")).unwrap();
    home.write("nexus.toml", "typo = 1\n[store]\nurl = \"sqlite://own.db\"\n");
    assert_eq!(home.json(&["token", "list"])[0]["token_id"], id);
    drop(server);

    let empty = Home::new();
    empty.write("nexus.toml", "typo = 1");
    assert_eq!(empty.code(&["token", "create", "--name", "a", "--use", "b"]), 8, "nothing is made by a broken config");
    assert!(!empty.path().join("nexus.db").exists());
}

/// A file of a provider that takes its key in this header.
fn provider_file(header: &str) -> String {
    format!(
        "name = \"Acme\"\ncategory = \"developer-tools\"\nverified = \"for a test\"\n\
         [[vars]]\nname = \"site\"\nlabel = \"Site\"\n\
         [[routes]]\nhost = \"{{site}}.acme.example\"\n\
         [[auth]]\nid = \"key\"\nkind = \"api_key\"\nlabel = \"Key\"\ninject = [\"header {header}: {{token}}\"]\n\
         [[auth.fields]]\nname = \"token\"\nlabel = \"Key\"\n\
         [test]\nurl = \"/\"\n"
    )
}

#[test]
fn a_newer_provider_file_changes_a_connection_only_when_it_is_upgraded() {
    let home = Home::new();
    home.run(&["init"]);
    home.write("providers/acme.toml", &provider_file("X-Old"));
    let url = format!("http://{}", upstream());
    let line = ["register", "acme", "--set", "site=one", "--base-url", &url, "--allow-http", "--stdin"];
    let registered = home.run_with_input(&line, &format!("{SECRET}\n"));
    assert!(registered.status.success(), "{}", text(&registered.stderr));
    let current = home.json(&["connection", "upgrade", "acme"]);
    assert_eq!((&current["changes"], &current["upgraded"]), (&serde_json::json!([]), &Value::Bool(false)));

    home.write("providers/acme.toml", &provider_file("X-Key"));
    assert_eq!(home.json(&["connection", "show", "acme"])["outdated"], true);
    assert!(text(&home.run(&["doctor"]).stdout).contains("nexus connection upgrade acme"));
    let shown = home.json(&["connection", "upgrade", "acme"]);
    assert_eq!(shown["upgraded"], false);
    let changes: Vec<String> =
        shown["changes"].as_array().unwrap().iter().map(|row| format!("{} {}", row["change"], row["value"])).collect();
    let placed = |header: &str| format!("{url} header {header}: {{token}}").to_lowercase();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].contains("removed") && changes[0].to_lowercase().contains(&placed("x-old")), "{changes:?}");
    assert!(changes[1].contains("added") && changes[1].to_lowercase().contains(&placed("x-key")), "{changes:?}");
    assert_ne!(home.code(&["connection", "test", "acme"]), 0, "it is as it was");

    let upgraded = home.json(&["connection", "upgrade", "acme", "--yes"]);
    assert_eq!((&upgraded["upgraded"], &upgraded["version"]), (&Value::Bool(true), &Value::from(2)));
    assert_eq!(home.code(&["connection", "test", "acme"]), 0, "same place and secret, new header");
    assert_eq!(home.json(&["connection", "show", "acme"])["outdated"], false);
    assert_eq!(home.code(&["store", "verify"]), 0);

    // A file that needs what the connection was not given.
    home.write("providers/acme.toml", &provider_file("X-Key").replace("site", "place"));
    assert_eq!(home.code(&["connection", "upgrade", "acme", "--yes"]), 6);
    home.register("by-hand", upstream());
    assert_eq!(home.code(&["connection", "upgrade", "by-hand"]), 6);
    assert_eq!(home.code(&["connection", "upgrade", "nobody"]), 3);
}
