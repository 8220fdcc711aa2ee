//! Whether the time of a refusal tells what is wrong with a token: unknown, revoked, expired, mistyped by one character at
//! its beginning or end. `cargo bench --bench timing`
//!
//! The kinds take turns in random order over one kept connection. Each is compared with the unknown ones by the median and
//! by the Mann-Whitney test, which finds a shift far below the spread of single answers. Exit code 1: one differs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for measurements, not part of the product")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus::secret::{AgentToken, random_bytes};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Answers of each kind.
const SAMPLES: usize = 100_000;
/// Tokens of each kind, so that no single one's place in memory decides.
const TOKENS: usize = 20;
/// A difference is one when it is as unlikely as this by chance...
const P: f64 = 0.01;
/// ...and as large as this, since so many samples find any difference at all.
const NOISE: Duration = Duration::from_micros(1);

fn nexus(home: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexus"));
    command.args(line).env("NEXUS_HOME", home).stderr(Stdio::null());
    command
}

fn token(home: &Path, expires: &str) -> (String, String) {
    let line = ["token", "create", "--name", "a", "--use", "api", "--expires", expires, "-o", "json"];
    let made: Value = serde_json::from_slice(&nexus(home, &line).output().unwrap().stdout).unwrap();
    (made["token_id"].as_str().unwrap().to_owned(), made["token_value"].as_str().unwrap().to_owned())
}

fn other(character: u8) -> char {
    if character == b'A' { 'B' } else { 'A' }
}

/// The values of each kind.
fn kinds(home: &Path) -> Vec<(&'static str, Vec<String>)> {
    let valid: Vec<_> = (0..TOKENS).map(|_| token(home, "1h").1).collect();
    let revoked: Vec<_> = (0..TOKENS).map(|_| token(home, "1h")).collect();
    let expired: Vec<_> = (0..TOKENS).map(|_| token(home, "1s").1).collect();
    for (id, _) in &revoked {
        assert!(nexus(home, &["token", "revoke", id]).status().unwrap().success());
    }
    std::thread::sleep(Duration::from_millis(1_100));
    // Why exposed: they are tokens of no install.
    let unknown = || (0..TOKENS).map(|_| AgentToken::generate().value().expose().to_owned()).collect();
    let late = |text: &String| format!("{}{}", &text[..52], other(text.as_bytes()[52]));
    let early = |text: &String| format!("nxt_{}{}", other(text.as_bytes()[4]), &text[5..]);
    vec![
        ("unknown", unknown()),
        // What the same comparison gives by chance.
        ("unknown, again", unknown()),
        ("revoked", revoked.into_iter().map(|(_, value)| value).collect()),
        ("expired", expired),
        ("first character wrong", valid.iter().map(early).collect()),
        ("last character wrong", valid.iter().map(late).collect()),
    ]
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let home = tempfile::tempdir().unwrap();
    let config = "[limits]\nwrong_tokens_per_minute = 1000000\n[server]\nadmin = \"127.0.0.1:0\"\n";
    std::fs::write(home.path().join("nexus.toml"), config).unwrap();
    let line = ["register", "custom", "--name", "api", "--base-url", "https://api.bench.test", "--stdin"];
    let inject = ["--inject", "header Authorization: Bearer {token}"];
    let mut register = nexus(home.path(), &[&line[..], &inject[..]].concat()).stdin(Stdio::piped()).spawn().unwrap();
    register.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    assert!(register.wait().unwrap().success());
    let kinds = kinds(home.path());
    let mut up = nexus(home.path(), &["up", "--listen", "127.0.0.1:0", "-o", "json"]);
    let mut server = Server(up.stdout(Stdio::piped()).spawn().unwrap());
    let mut told = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut told).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let address = told["proxy"][0].as_str().unwrap().trim_start_matches("http://").to_owned();

    let heads: Vec<Vec<String>> = kinds.iter().map(|(_, values)| values.iter().map(|v| head(v)).collect()).collect();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = vec![Vec::with_capacity(SAMPLES); kinds.len()];
    for round in 0..SAMPLES + 1_000 {
        let mut order: Vec<usize> = (0..kinds.len()).collect();
        shuffle(&mut order);
        for kind in order {
            let time = ask(&mut stream, &heads[kind][round % TOKENS]);
            // The first ones warm up.
            if round >= 1_000 {
                times[kind].push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
            }
        }
    }
    let mut differs = false;
    let median = |times: &[u32]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        f64::from(sorted[sorted.len() / 2])
    };
    let base = median(&times[0]);
    println!("{SAMPLES} refusals of each kind; unknown tokens: median {:.2} us", base / 1e3);
    for ((name, _), times_of) in kinds.iter().zip(&times).skip(1) {
        let (difference, p) = (median(times_of) - base, mann_whitney(&times[0], times_of));
        let is_different = p < P && difference.abs() > NOISE.as_nanos() as f64;
        differs |= is_different;
        let verdict = if is_different { "DIFFERS" } else { "same" };
        println!("{name:22} median {:+8.3} us, Mann-Whitney p = {p:.3}  {verdict}", difference / 1e3);
    }
    if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn head(token: &str) -> String {
    let credentials = STANDARD.encode(format!("x:{token}"));
    format!(
        "CONNECT api.bench.test:443 HTTP/1.1\r\nHost: api.bench.test:443\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
    )
}

/// One refusal, over a connection that stays open.
fn ask(stream: &mut TcpStream, head: &str) -> Duration {
    let mut answer = [0_u8; 4096];
    let began = Instant::now();
    stream.write_all(head.as_bytes()).unwrap();
    let mut length = stream.read(&mut answer).unwrap();
    let time = began.elapsed();
    while !answer[..length].ends_with(b"}}\n") {
        let more = stream.read(&mut answer[length..]).unwrap();
        assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..length]));
        length += more;
    }
    assert!(answer.starts_with(b"HTTP/1.1 407"), "{}", String::from_utf8_lossy(&answer[..length]));
    time
}

fn shuffle(order: &mut [usize]) {
    for at in (1..order.len()).rev() {
        order.swap(at, usize::from_ne_bytes(random_bytes()) % (at + 1));
    }
}

/// The two-sided p-value of the Mann-Whitney test, by the normal approximation with ties.
fn mann_whitney(a: &[u32], b: &[u32]) -> f64 {
    let mut all: Vec<(u32, bool)> = a.iter().map(|t| (*t, true)).chain(b.iter().map(|t| (*t, false))).collect();
    all.sort_unstable();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut ranks, mut ties, mut at) = (0.0, 0.0, 0);
    while at < all.len() {
        let end = at + all[at..].iter().take_while(|(time, _)| *time == all[at].0).count();
        let rank = (at + end + 1) as f64 / 2.0;
        ranks += rank * all[at..end].iter().filter(|(_, is_a)| *is_a).count() as f64;
        let tied = (end - at) as f64;
        ties += tied.powi(3) - tied;
        at = end;
    }
    let u = ranks - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * ((n + m + 1.0) - ties / ((n + m) * (n + m - 1.0)));
    let z = ((u - n * m / 2.0).abs() - 0.5) / variance.sqrt();
    complementary_error(z / std::f64::consts::SQRT_2)
}

/// erfc for x >= 0 (Abramowitz and Stegun 7.1.26, error below 1.5e-7).
fn complementary_error(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.max(0.0));
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    series.iter().fold(0.0, |sum, coefficient| (sum + coefficient) * t) * (-x * x).exp()
}
