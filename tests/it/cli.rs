//! The command line as scripts use it: exit codes, streams, JSON, and no secret anywhere.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const SECRET: &str = "s3cret-value-of-the-api";

/// Loopback may be dialled, and no port is one that another program could have.
const CONFIG: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n";

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let private = std::fs::Permissions::from_mode(0o700);
        let home = Self(tempfile::Builder::new().permissions(private).tempdir().unwrap());
        home.write("nexus.toml", CONFIG);
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
        command.args(line).env("NEXUS_HOME", self.path());
        for name in
            ["NEXUS_TENANT", "NEXUS_NAMESPACE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "JAVA_HOME"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run_with_input(&self, line: &[&str], input: &str) -> Output {
        let mut command = self.command(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that refuses its flags does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        for stream in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(stream).contains(SECRET), "{line:?} shows the secret");
        }
        output
    }

    fn run(&self, line: &[&str]) -> Output {
        self.run_with_input(line, "")
    }

    #[track_caller]
    fn code(&self, line: &[&str]) -> i32 {
        self.run(line).status.code().unwrap()
    }

    #[track_caller]
    fn json(&self, line: &[&str]) -> Value {
        let line = [line, &["-o", "json"]].concat();
        let output = self.run(&line);
        assert!(output.status.success(), "{line:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn register(&self, name: &str, upstream: SocketAddr) {
        let url = format!("http://{upstream}/v1");
        let line = [
            "register",
            "custom",
            "--name",
            name,
            "--base-url",
            &url,
            "--allow-http",
            "--inject",
            "header X-Key: {token}",
            "--stdin",
        ];
        let output = self.run_with_input(&line, &format!("{SECRET}\n"));
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An API that answers 200 when the secret came, else 401.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                let has_key = head.lines().any(|line| line.eq_ignore_ascii_case(&format!("x-key: {SECRET}")));
                let status = if has_key { "200 OK" } else { "401 Unauthorized" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
            });
        }
    });
    address
}

/// A request through the proxy, in absolute form, by the token; gives the status code.
fn status_through(proxy: &str, token: &str, url: &str) -> String {
    let mut stream = std::net::TcpStream::connect(proxy).unwrap();
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    write!(
        stream,
        "GET {url} HTTP/1.1\r\nhost: {host}\r\nproxy-authorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

struct Up {
    child: Child,
    proxy: String,
}

impl Up {
    fn start(home: &Home) -> Self {
        let mut command = home.command(&["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let announced: Value = serde_json::from_str(&line).unwrap();
        let proxy = announced["proxy"][0].as_str().unwrap().trim_start_matches("http://").to_owned();
        Self { child, proxy }
    }

    fn terminate(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

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

/// Changes records as a person with an editor does, or a server.
fn with_store<T>(home: &Home, change: impl AsyncFnOnce(nexus::store::SqliteStore) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let root = nexus::secret::RootKey::load(&home.path().join("root.key")).unwrap();
    runtime.block_on(async {
        change(nexus::store::SqliteStore::open(&home.path().join("nexus.db"), &root).await.unwrap()).await
    })
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
