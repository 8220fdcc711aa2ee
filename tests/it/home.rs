//! A home with the program, and what its tests talk to.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

pub(super) const SECRET: &str = "s3cret-value-of-the-api";

/// Loopback may be dialled, and no port is one that another program could have.
pub(super) const CONFIG: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n";

pub(super) struct Home(TempDir);

impl Home {
    pub(super) fn new() -> Self {
        let private = std::fs::Permissions::from_mode(0o700);
        let home = Self(tempfile::Builder::new().permissions(private).tempdir().unwrap());
        home.write("nexus.toml", CONFIG);
        home
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub(super) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
        command.args(line).env("NEXUS_HOME", self.path());
        for name in
            ["NEXUS_TENANT", "NEXUS_NAMESPACE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "JAVA_HOME"]
        {
            command.env_remove(name);
        }
        command
    }

    pub(super) fn run_with_input(&self, line: &[&str], input: &str) -> Output {
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

    pub(super) fn run(&self, line: &[&str]) -> Output {
        self.run_with_input(line, "")
    }

    #[track_caller]
    pub(super) fn code(&self, line: &[&str]) -> i32 {
        self.run(line).status.code().unwrap()
    }

    #[track_caller]
    pub(super) fn json(&self, line: &[&str]) -> Value {
        let line = [line, &["-o", "json"]].concat();
        let output = self.run(&line);
        assert!(output.status.success(), "{line:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(super) fn register(&self, name: &str, upstream: SocketAddr) {
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

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An API that answers 200 when the secret came, else 401.
pub(super) fn upstream() -> SocketAddr {
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
pub(super) fn status_through(proxy: &str, token: &str, url: &str) -> String {
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

pub(super) struct Up {
    child: Child,
    pub(super) proxy: String,
}

impl Up {
    pub(super) fn start(home: &Home) -> Self {
        let mut command = home.command(&["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let announced: Value = serde_json::from_str(&line).unwrap();
        let proxy = announced["proxy"][0].as_str().unwrap().trim_start_matches("http://").to_owned();
        Self { child, proxy }
    }

    pub(super) fn terminate(mut self) -> i32 {
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

/// Changes records as a person with an editor does, or a server.
pub(super) fn with_store<T>(home: &Home, change: impl AsyncFnOnce(nexus::store::SqliteStore) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let root = nexus::secret::RootKey::load(&home.path().join("root.key")).unwrap();
    runtime.block_on(async {
        change(nexus::store::SqliteStore::open(&home.path().join("nexus.db"), &root).await.unwrap()).await
    })
}
