//! A load generator: keeps N connections busy through a proxy (or straight at a server) and says how many requests a
//! second were answered, how long they took, and how much processor time the measured processes used for one request.
//!
//! `cargo bench --bench load -- --help` shows its flags; `benches/compare` drives it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for measurements, not part of the product")]

use base64::Engine;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// HTTP/1.1, one request at a time.
    H1,
    /// HTTP/2, `--streams` at a time.
    H2,
}

/// Keep connections busy with GET requests and measure
#[derive(Debug, Parser)]
struct Flags {
    /// What to ask for, http:// or https://
    #[arg(long)]
    url: Option<String>,
    /// Open CONNECT tunnels through the proxy at this address; without it the connections go straight to --to
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<String>,
    /// Without --proxy: dial here instead of the URL's host
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    /// The CA to trust
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// Protocol inside the connection
    #[arg(long, value_enum, default_value = "h1")]
    protocol: Protocol,
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests at a time on each h2 connection
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// A new connection (tunnel, handshake) for each request
    #[arg(long)]
    new_connections: bool,
    /// Let new connections resume TLS sessions
    #[arg(long)]
    resume: bool,
    /// How long to measure
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to run before that
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Processes whose processor time and memory are measured
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Where and what to ask; the same for all connections.
struct Plan {
    flags: Flags,
    dial: String,
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect: Option<Vec<u8>>,
    authorization: Option<String>,
}

/// What was seen within the measured window.
struct Seen {
    open: Cell<bool>,
    done: Cell<bool>,
    latency: RefCell<Histogram<u64>>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

type Failure = Box<dyn std::error::Error>;
type Stream = Box<dyn Both>;
trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

enum Sender {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.url.is_none() {
        // A bare `cargo bench` starts every bench; this one has nothing to measure without a target.
        println!("load: no --url; see benches/README.md");
        return ExitCode::SUCCESS;
    }
    let plan = Rc::new(Plan::new(flags));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, run(plan))
}

async fn run(plan: Rc<Plan>) -> ExitCode {
    let seen = Rc::new(Seen {
        open: Cell::new(false),
        done: Cell::new(false),
        latency: RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3).unwrap()),
        errors: Cell::new(0),
        first_error: RefCell::new(None),
    });
    for _ in 0..plan.flags.connections {
        tokio::task::spawn_local(worker(plan.clone(), seen.clone()));
    }
    tokio::time::sleep(Duration::from_secs_f64(plan.flags.warmup)).await;
    let before = cpu_micros(&plan.flags.pid);
    let begin = Instant::now();
    seen.open.set(true);
    tokio::time::sleep(Duration::from_secs_f64(plan.flags.seconds)).await;
    seen.open.set(false);
    let elapsed = begin.elapsed().as_secs_f64();
    let cpu = cpu_micros(&plan.flags.pid).saturating_sub(before);
    let rss = rss_kib(&plan.flags.pid);
    seen.done.set(true);
    report(&plan, &seen, elapsed, cpu, rss)
}

fn report(plan: &Plan, seen: &Seen, elapsed: f64, cpu: u64, rss: u64) -> ExitCode {
    let latency = seen.latency.borrow();
    let requests = latency.len();
    let rate = requests as f64 / elapsed;
    let per_request = if requests == 0 { 0.0 } else { cpu as f64 / requests as f64 };
    let (p50, p99) = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
    let errors = seen.errors.get();
    let first_error = seen.first_error.borrow().clone();
    if plan.flags.json {
        let line = serde_json::json!({
            "requests": requests, "errors": errors, "first_error": first_error, "requests_per_second": rate,
            "p50_us": p50, "p99_us": p99, "cpu_us_per_request": per_request, "cpu_share": cpu as f64 / 1e6 / elapsed,
            "rss_kib": rss,
        });
        println!("{line}");
    } else {
        println!("{rate:.0} requests/s, p50 {p50} us, p99 {p99} us, {requests} answered, {errors} errors");
        if !plan.flags.pid.is_empty() {
            println!("{per_request:.1} us of processor time a request, {} MiB resident", rss / 1024);
        }
        if let Some(error) = first_error {
            println!("first error: {error}");
        }
    }
    if requests > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Plan {
    fn new(flags: Flags) -> Self {
        let url: http::Uri = flags.url.as_deref().unwrap().parse().expect("--url is a URL");
        let host = url.host().expect("--url has a host").to_owned();
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let target = format!("{host}:{port}");
        let dial = flags.proxy.clone().or_else(|| flags.to.clone()).unwrap_or_else(|| target.clone());
        let token = std::env::var("NEXUS_TOKEN").ok();
        let connect = flags.proxy.is_some().then(|| {
            let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
            if let Some(token) = &token {
                let basic = base64::engine::general_purpose::STANDARD.encode(format!("x:{token}"));
                head.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
            }
            head.push_str("\r\n");
            head.into_bytes()
        });
        let authorization = if flags.proxy.is_none() { token.map(|token| format!("Bearer {token}")) } else { None };
        let tls = secure.then(|| {
            let connector = TlsConnector::from(Arc::new(tls_config(&flags)));
            (connector, ServerName::try_from(host.clone()).expect("--url has a name or address"))
        });
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let authority = url.authority().unwrap().to_string();
        Self { flags, dial, authority, path, tls, connect, authorization }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let mut tcp = TcpStream::connect(&self.dial).await?;
        tcp.set_nodelay(true)?;
        if let Some(head) = &self.connect {
            tcp.write_all(head).await?;
            established(&mut tcp).await?;
        }
        let stream: Stream = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
            None => Box::new(tcp),
        };
        let io = TokioIo::new(stream);
        match self.flags.protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::task::spawn_local(connection);
                Ok(Sender::H1(sender))
            }
            Protocol::H2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::task::spawn_local(connection);
                Ok(Sender::H2(sender))
            }
        }
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        if self.flags.protocol == Protocol::H2 {
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = format!("{scheme}://{}{}", self.authority, self.path).parse().unwrap();
        } else {
            *request.uri_mut() = self.path.parse().unwrap();
            request.headers_mut().insert(HOST, self.authority.parse().unwrap());
        }
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.parse().unwrap());
        }
        request
    }
}

/// Without a CA every certificate is refused, so that a measurement cannot leave verification out.
fn tls_config(flags: &Flags) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(flags.ca.as_ref().expect("https needs --ca")).expect("--ca is PEM")
    {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    let protocol: &[u8] = if flags.protocol == Protocol::H2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    if !flags.resume {
        config.resumption = Resumption::disabled();
    }
    config
}

/// Reads the answer to CONNECT, which has no body.
async fn established(tcp: &mut TcpStream) -> Result<(), Failure> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte would cost a system call each; a server says nothing in TLS before the client does.
        if tcp.read_buf(&mut head).await? == 0 || head.len() > 8192 {
            return Err("the proxy broke off".into());
        }
    }
    if head.starts_with(b"HTTP/1.1 200") || head.starts_with(b"HTTP/1.0 200") {
        return Ok(());
    }
    Err(format!("CONNECT was refused: {}", String::from_utf8_lossy(&head)).into())
}

async fn worker(plan: Rc<Plan>, seen: Rc<Seen>) {
    while !seen.done.get() {
        let outcome = if plan.flags.new_connections { once(&plan, &seen).await } else { keep(&plan, &seen).await };
        if let Err(error) = outcome {
            seen.failed(error.to_string());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn once(plan: &Plan, seen: &Seen) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut sender = plan.connect().await?;
    sender.send(plan).await?;
    seen.answered(begin);
    Ok(())
}

async fn keep(plan: &Rc<Plan>, seen: &Rc<Seen>) -> Result<(), Failure> {
    match plan.connect().await? {
        sender @ Sender::H1(_) => busy(sender, plan.clone(), seen.clone()).await,
        Sender::H2(sender) => {
            let streams = (0..plan.flags.streams).map(|_| {
                let task = busy(Sender::H2(sender.clone()), plan.clone(), seen.clone());
                tokio::task::spawn_local(async move { task.await.map_err(|error| error.to_string()) })
            });
            for stream in streams.collect::<Vec<_>>() {
                stream.await??;
            }
            Ok(())
        }
    }
}

async fn busy(mut sender: Sender, plan: Rc<Plan>, seen: Rc<Seen>) -> Result<(), Failure> {
    while !seen.done.get() {
        let begin = Instant::now();
        sender.send(&plan).await?;
        seen.answered(begin);
    }
    Ok(())
}

impl Sender {
    async fn send(&mut self, plan: &Plan) -> Result<(), Failure> {
        let request = plan.request();
        let mut response = match self {
            Self::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let mut length = 0;
        drain(response.body_mut(), &mut length).await?;
        if response.status() != 200 {
            return Err(format!("status {}", response.status()).into());
        }
        if length == 0 {
            return Err("an empty answer".into());
        }
        Ok(())
    }
}

async fn drain(body: &mut Incoming, length: &mut usize) -> Result<(), Failure> {
    while let Some(frame) = body.frame().await {
        *length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

impl Seen {
    fn answered(&self, begin: Instant) {
        if self.open.get() {
            let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latency.borrow_mut().saturating_record(micros.max(1));
        }
    }

    fn failed(&self, error: String) {
        // The last requests are cut off by the end of the run.
        if !self.done.get() {
            self.errors.set(self.errors.get() + 1);
            self.first_error.borrow_mut().get_or_insert(error);
        }
    }
}

/// utime + stime of the processes. Linux counts them in hundredths of a second.
fn cpu_micros(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name, in parentheses, may hold spaces.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some((user + system) * 10_000)
    };
    pids.iter().filter_map(of).sum()
}

fn rss_kib(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    pids.iter().filter_map(of).sum()
}
