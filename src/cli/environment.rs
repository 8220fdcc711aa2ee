//! The variables and files that send a program's requests through the proxy and make it trust the interception CA.
//!
//! Every client looks elsewhere, so all of them are set. What a variable may hold already is kept where clients allow
//! several values.

use super::{CliError, certs, truststore};
use crate::admin::control_sockets;
use crate::app::Home;
use crate::config::Config;
use crate::secret::Secret;
use base64::Engine as _;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where agents reach the server of a home.
pub(super) struct Server {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub(super) url: String,
    /// Whether one answers now.
    pub(super) is_running: bool,
}

/// The address of this home's running server, else the one that the config names.
pub(super) async fn server(home: &Home, config: &Config) -> Server {
    if let Some(url) = running_server(home).await {
        return Server { url, is_running: true };
    }
    let unbound = config.listeners.iter().filter(|listener| listener.agent.is_none());
    let urls = unbound.filter_map(|listener| {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        Some(format!("{scheme}://{}", reachable(listener.address.tcp()?)))
    });
    let url = best(urls.collect()).unwrap_or_else(|| "http://127.0.0.1:8470".to_owned());
    Server { url, is_running: false }
}

/// The URL of a running server of this home, as it is reached from this machine. Listeners that are bound to an agent
/// are not looked at, and Unix sockets cannot stand in a proxy's URL.
pub(super) async fn running_server(home: &Home) -> Option<String> {
    let mut urls: Vec<String> = Vec::new();
    for (_, status) in control_sockets(&home.path).await {
        let listed = status["listen"].as_array().into_iter().flatten().filter_map(|text| text.as_str());
        urls.extend(listed.filter_map(|text| match text.parse::<SocketAddr>() {
            Ok(address) => Some(format!("http://{}", reachable(address))),
            Err(_) => text.starts_with("https://").then(|| text.to_owned()),
        }));
    }
    best(urls)
}

/// The URL of a TLS listener of a running server of this home.
pub(super) async fn tls_server(home: &Home) -> Option<String> {
    let servers = control_sockets(&home.path).await;
    let listed = servers.iter().flat_map(|(_, status)| status["listen"].as_array().into_iter().flatten());
    listed.filter_map(|text| text.as_str()).find(|text| text.starts_with("https://")).map(str::to_owned)
}

/// Clear text on loopback first, which every client can use; then TLS; then what is left.
fn best(urls: Vec<String>) -> Option<String> {
    let address = |url: &str| url.strip_prefix("http://")?.parse::<SocketAddr>().ok();
    let is_loopback = |url: &&String| address(url).is_some_and(|address| address.ip().is_loopback());
    let is_tls = |url: &&String| url.starts_with("https://");
    urls.iter().find(is_loopback).or_else(|| urls.iter().find(is_tls)).or(urls.first()).cloned()
}

/// An address that listens everywhere is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// A server's URL with user and password in it.
pub(super) fn with_user(url: &str, user: &str) -> String {
    let (scheme, address) = url.split_once("://").unwrap_or(("http", url));
    format!("{scheme}://{user}@{address}")
}

/// `http://x:TOKEN@HOST:PORT`, as proxy variables want it.
pub(super) fn proxy_url(server: &str, token: &Secret) -> Secret {
    // The variable is the agent's way to prove who it is.
    Secret::new(with_user(server, &format!("x:{}", token.expose())))
}

/// The files that variables point to.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// System roots and the interception CA.
    bundle: PathBuf,
    /// The interception CA and what the person's own `NODE_EXTRA_CA_CERTS` has.
    extra: PathBuf,
    /// A directory with the interception CA alone.
    certs: PathBuf,
    wgetrc: PathBuf,
    php: PathBuf,
    truststore: Option<PathBuf>,
}

/// How the environment is looked at: a function, so that tests need not change the process's own.
pub(super) type Existing<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
pub(super) fn existing(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Files {
    /// Writes the files into the home's `ca` directory; what is right already is left alone.
    pub(super) fn write(home: &Home, existing: Existing<'_>) -> Result<Self, CliError> {
        let ca_path = home.ca_certificate();
        let ca = std::fs::read_to_string(&ca_path).map_err(CliError::io(&ca_path))?;
        let directory = ca_path.parent().unwrap_or(&home.path).to_path_buf();

        let bundle = write_bundle(home)?;

        let extra = match existing("NODE_EXTRA_CA_CERTS").map(PathBuf::from) {
            Some(theirs) if theirs != ca_path && theirs != directory.join("extra.pem") => {
                let extra = directory.join("extra.pem");
                let theirs = std::fs::read_to_string(theirs).unwrap_or_default();
                write_file(&extra, &format!("{ca}\n{theirs}"), 0o644)?;
                extra
            }
            Some(ours) => ours,
            None => ca_path.clone(),
        };

        let wgetrc = directory.join("wgetrc");
        let theirs = existing("WGETRC")
            .map(PathBuf::from)
            .filter(|theirs| *theirs != wgetrc)
            .or_else(|| existing("HOME").map(|home| PathBuf::from(home).join(".wgetrc")));
        let theirs = theirs.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        // Their file may hold passwords, so it is nobody else's to read.
        write_file(&wgetrc, &format!("{theirs}\nca_certificate = {}\n", bundle.display()), 0o600)?;

        let php = directory.join("php");
        make_directory(&php)?;
        let bundle_text = bundle.display();
        let ini = format!("curl.cainfo=\"{bundle_text}\"\nopenssl.cafile=\"{bundle_text}\"\n");
        write_file(&php.join("nexus.ini"), &ini, 0o644)?;

        let certs = certs::write(&ca, &directory)?;
        let truststore = truststore::make(&ca_path, &directory);
        Ok(Self { bundle, extra, certs, wgetrc, php, truststore })
    }

    /// Every file and directory that a variable names, for an agent that sees another file system. None of them holds a
    /// key.
    pub(super) fn paths(&self) -> Vec<&Path> {
        let Self { bundle, extra, certs, wgetrc, php, truststore } = self;
        let paths = [bundle, extra, certs, wgetrc, php].into_iter().chain(truststore);
        paths.map(PathBuf::as_path).collect()
    }
}

/// Writes the bundle of system roots and interception CA, and gives its path.
pub(super) fn write_bundle(home: &Home) -> Result<PathBuf, CliError> {
    let ca_path = home.ca_certificate();
    let ca = std::fs::read_to_string(&ca_path).map_err(CliError::io(&ca_path))?;
    let bundle = bundle_path(home);
    write_file(&bundle, &system_bundle(&ca), 0o644)?;
    Ok(bundle)
}

/// Where the bundle is.
pub(super) fn bundle_path(home: &Home) -> PathBuf {
    home.ca_certificate().with_file_name("bundle.pem")
}

/// The roots that this machine trusts and the interception CA, as PEM.
fn system_bundle(ca: &str) -> String {
    let mut text = String::new();
    let mut seen = HashSet::new();
    // Honours SSL_CERT_FILE and SSL_CERT_DIR: a company's own bundle is taken over.
    for certificate in rustls_native_certs::load_native_certs().certs {
        let pem = pem(&certificate);
        if seen.insert(pem.clone()) && !ca.contains(pem.trim()) {
            text.push_str(&pem);
        }
    }
    text.push_str(ca);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + 80);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// A directory that others may read and not write, whatever the umask.
pub(super) fn make_directory(path: &Path) -> Result<(), CliError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(CliError::io(path))
}

/// Replaces the file as a whole, so that a program that reads it at this moment sees the old one or the new one.
pub(super) fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let _ = std::fs::remove_file(&temporary);
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(&temporary);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(CliError::io(path))
}

/// Proxy variables that are set to the proxy's URL, in both cases where clients differ.
const PROXY: [&str; 11] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "GLOBAL_AGENT_HTTP_PROXY",
    "GLOBAL_AGENT_HTTPS_PROXY",
    "CARGO_HTTP_PROXY",
    "npm_config_proxy",
    "npm_config_https_proxy",
];

const NO_PROXY: [&str; 4] = ["NO_PROXY", "no_proxy", "GLOBAL_AGENT_NO_PROXY", "npm_config_noproxy"];

/// Variables of clients that take the file in place of the system's roots.
const BUNDLE: [&str; 12] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "npm_config_cafile",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CODEX_CA_CERTIFICATE",
    "PERL_LWP_SSL_CA_FILE",
];

/// Variables of clients that add the file to the system's roots.
const EXTRA: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// All variables for an agent with this token.
pub(super) fn variables(server: &str, token: &Secret, files: &Files, existing: Existing<'_>) -> Vec<(String, Secret)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), Secret::new(value)));
    let text = |path: &Path| path.display().to_string();

    for name in PROXY {
        // For the agent's environment.
        set(name, proxy_url(server, token).expose().to_owned());
    }
    let no_proxy = no_proxy(existing);
    for name in NO_PROXY {
        set(name, no_proxy.clone());
    }
    set("NODE_USE_ENV_PROXY", "1".to_owned());
    for name in BUNDLE {
        set(name, text(&files.bundle));
    }
    for name in EXTRA {
        set(name, text(&files.extra));
    }
    set("SSL_CERT_DIR", cert_dir(&files.certs, existing));
    set("WGETRC", text(&files.wgetrc));
    set("PHP_INI_SCAN_DIR", php_scan_dir(&files.php, existing));
    set("JAVA_TOOL_OPTIONS", java_options(server, files.truststore.as_deref(), existing));
    variables
}

/// What is never sent through the proxy: this machine, and what the person had.
fn no_proxy(existing: Existing<'_>) -> String {
    let mut entries: Vec<String> = Vec::new();
    let theirs = ["NO_PROXY", "no_proxy"].into_iter().filter_map(existing);
    let theirs: Vec<String> = theirs.map(|value| value.to_string_lossy().into_owned()).collect();
    let own = ["localhost", "127.0.0.1", "::1"].into_iter();
    for entry in theirs.iter().flat_map(|value| value.split(',')).map(str::trim).chain(own) {
        if !entry.is_empty() && !entries.iter().any(|e| e == entry) {
            entries.push(entry.to_owned());
        }
    }
    entries.join(",")
}

/// Where most systems have their roots by hash.
const SYSTEM_CERT_DIR: &str = "/etc/ssl/certs";

/// The directories that OpenSSL and others look into: ours, then the person's or the system's.
fn cert_dir(certs: &Path, existing: Existing<'_>) -> String {
    let ours = certs.display().to_string();
    let theirs = existing("SSL_CERT_DIR").map(|value| value.to_string_lossy().into_owned());
    match theirs {
        Some(theirs) if theirs.split(':').any(|element| element == ours) => theirs,
        Some(theirs) => format!("{ours}:{theirs}"),
        None => format!("{ours}:{SYSTEM_CERT_DIR}"),
    }
}

/// An empty element stands for the directory that PHP was built with.
fn php_scan_dir(php: &Path, existing: Existing<'_>) -> String {
    let ours = php.display().to_string();
    let theirs = existing("PHP_INI_SCAN_DIR").unwrap_or_default().to_string_lossy().into_owned();
    if theirs.split(':').any(|element| element == ours) { theirs } else { format!("{theirs}:{ours}") }
}

/// Java has no variable for proxy credentials: with host and port alone it needs an `Authenticator` in code, for which
/// Basic must not be disabled.
fn java_options(server: &str, truststore: Option<&Path>, existing: Existing<'_>) -> String {
    let theirs = existing("JAVA_TOOL_OPTIONS").unwrap_or_default().to_string_lossy().into_owned();
    let (scheme, address) = server.split_once("://").unwrap_or(("http", server));
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "8470"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut options = vec!["-Djdk.http.auth.tunneling.disabledSchemes=".to_owned()];
    // Java speaks to a proxy in clear text only.
    if scheme == "http" {
        let proxy = ["http", "https"]
            .into_iter()
            .flat_map(|of| [format!("-D{of}.proxyHost={host}"), format!("-D{of}.proxyPort={port}")]);
        options.splice(0..0, proxy);
    }
    if let Some(path) = truststore {
        options.push(format!("-Djavax.net.ssl.trustStore={}", path.display()));
        options.push("-Djavax.net.ssl.trustStoreType=PKCS12".to_owned());
        options.push(format!("-Djavax.net.ssl.trustStorePassword={}", truststore::PASSWORD));
    }
    let mut all = theirs;
    for option in options {
        if all.split(' ').any(|o| o == option) {
            continue;
        }
        if !all.is_empty() {
            all.push(' ');
        }
        if option.contains(char::is_whitespace) {
            all.push_str(&format!("\"{option}\""));
        } else {
            all.push_str(&option);
        }
    }
    all
}

#[cfg(test)]
mod tests;
