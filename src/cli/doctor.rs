//! `nexus doctor`: every check, each with its fix.

use super::connection::{outdated, set_command};
use super::{CliError, Context, Format, ca, envelopes, environment, output};
use crate::admin::control_sockets;
use crate::app::{self, AppError, Install};
use crate::config::{Config, ConfigError, next_key_file};
use crate::connection::Connection;
use crate::provider::Catalog;
use crate::store::{ConnectionState, Record, Store, StoreError, StoreFile};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Check the install and say how to mend it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus doctor\n  nexus doctor -o json\n\nExit code 8: something is wrong. Warnings alone are 0."
)]
pub struct Doctor {}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warn,
    Fail,
}

/// The result of one check.
struct Finding {
    check: String,
    state: State,
    detail: String,
    fix: Option<String>,
}

/// All results, in order.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &str, detail: impl Into<String>) {
        self.add(check, State::Ok, detail.into(), None);
    }

    fn warn(&mut self, check: &str, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(check, State::Warn, detail.into(), Some(fix.into()));
    }

    fn fail(&mut self, check: &str, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(check, State::Fail, detail.into(), Some(fix.into()));
    }

    fn add(&mut self, check: &str, state: State, detail: String, fix: Option<String>) {
        self.0.push(Finding { check: check.to_owned(), state, detail, fix });
    }
}

const COLUMNS: [(&str, &str); 4] = [("STATE", "state"), ("CHECK", "check"), ("DETAIL", "detail"), ("FIX", "fix")];

/// The CA should be renewed when less than this is left.
const CA_SOON: i64 = 30 * 86_400;

/// 2025-01-01: a clock before it was never set.
const CLOCK_NEVER_SET: i64 = 1_735_689_600;

impl Doctor {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut findings = Findings::default();
        check_clock(&mut findings, context);
        check_roots(&mut findings);
        let config = check_config(&mut findings, context);
        if context.home.path.exists() {
            check_home(&mut findings, context);
            check_ca(&mut findings, context);
            check_agents_ca(&mut findings, context);
            check_providers(&mut findings, context);
            if let Some(config) = config {
                check_listener_certificates(&mut findings, context, &config);
                check_server(&mut findings, context, &config).await;
                check_lockdown(&mut findings, context, &config).await;
                if let Some(install) = check_store(&mut findings, context, config).await {
                    check_rotation(&mut findings, context, &install).await;
                    check_connections(&mut findings, context, &install).await?;
                    check_records(&mut findings, context, &install).await;
                }
            }
        } else {
            let home = context.home.path.display();
            findings.fail("home", format!("{home} does not exist"), "nexus init");
        }
        report(context, &findings.0)
    }
}

fn report(context: &Context, findings: &[Finding]) -> Result<(), CliError> {
    let rows: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let state = match finding.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "fail",
            };
            json!({ "check": finding.check, "state": state, "detail": finding.detail, "fix": finding.fix })
        })
        .collect();
    output::print_list(context.format, &COLUMNS, &rows)?;
    match findings.iter().filter(|finding| finding.state == State::Fail).count() {
        0 => Ok(()),
        // Told by the list itself.
        _ if context.format == Format::Json => Err(CliError::Check(String::new())),
        1 => Err(CliError::Check("1 check failed".to_owned())),
        count => Err(CliError::Check(format!("{count} checks failed"))),
    }
}

fn check_clock(findings: &mut Findings, context: &Context) {
    let now = context.clock.now();
    if now < CLOCK_NEVER_SET {
        let shown = output::time(now);
        findings.fail("clock", format!("the clock says {shown}: no certificate is valid then"), "set the clock (NTP)");
    } else {
        findings.ok("clock", output::time(now).as_str().unwrap_or_default());
    }
}

fn check_roots(findings: &mut Findings) {
    match rustls_native_certs::load_native_certs().certs.len() {
        0 => findings.warn(
            "system roots",
            "this machine has no trusted certificates",
            "install ca-certificates, or set SSL_CERT_FILE",
        ),
        count => findings.ok("system roots", format!("{count} certificates")),
    }
}

fn check_config(findings: &mut Findings, context: &Context) -> Option<Config> {
    match context.check_config() {
        Ok(config) => {
            for warning in &config.warnings {
                findings.warn("config", warning.clone(), "change it, or leave it if it is meant");
            }
            findings.ok("config", "valid");
            Some(config)
        }
        Err(CliError::Config(ConfigError::Problems(problems))) => {
            for problem in problems {
                findings.fail("config", problem.to_string(), "nexus config check");
            }
            None
        }
        Err(error) => {
            findings.fail("config", super::describe(&error), "nexus config check");
            None
        }
    }
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|meta| meta.permissions().mode() & 0o777)
}

fn check_home(findings: &mut Findings, context: &Context) {
    let home = &context.home.path;
    for (name, path) in [
        ("home", home.clone()),
        ("root key", home.join("root.key")),
        ("store", home.join("nexus.db")),
        ("CA key", home.join("ca/ca.key")),
        ("agents' CA key", home.join("ca/agents.key")),
    ] {
        let shown = path.display();
        match mode(&path) {
            // A root key or store may live elsewhere; opening them is checked below.
            None => {}
            Some(mode) if mode & 0o077 != 0 => {
                let wanted = if path.is_dir() { "700" } else { "600" };
                findings.fail(
                    name,
                    format!("{shown} is open to others (mode {mode:o})"),
                    format!("chmod {wanted} {shown}"),
                );
            }
            Some(_) => findings.ok(name, shown.to_string()),
        }
    }
}

fn check_ca(findings: &mut Findings, context: &Context) {
    let path = context.home.ca_certificate();
    let shown = path.display();
    let renew = format!("move {shown} and its key away, then nexus init, and hand out the new CA");
    check_certificate(findings, context, "CA", &path, "nexus init", &renew);
}

fn check_agents_ca(findings: &mut Findings, context: &Context) {
    let path = context.home.path.join("ca/agents.pem");
    // An install from before there was one gets it when a server starts.
    if path.exists() {
        let shown = path.display();
        let renew = format!("move {shown} and its key away, then nexus init, and enroll the agents again");
        check_certificate(findings, context, "agents' CA", &path, &renew, &renew);
    }
}

/// Only their time: that they are there and fit their keys is a part of the config's check.
fn check_listener_certificates(findings: &mut Findings, context: &Context, config: &Config) {
    for tls in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        let path = context.home.path.join(&tls.cert);
        let renew = format!("put a new certificate and key there, such as by nexus ca issue ({})", path.display());
        check_certificate(findings, context, "listener certificate", &path, &renew, &renew);
    }
}

fn check_certificate(findings: &mut Findings, context: &Context, check: &str, path: &Path, make: &str, renew: &str) {
    let facts = match ca::Facts::read(path) {
        Ok(facts) => facts,
        Err(error) => return findings.fail(check, super::describe(&error), make),
    };
    let left = facts.not_after - context.clock.now();
    let end = output::time(facts.not_after);
    let end = end.as_str().unwrap_or_default();
    if left <= 0 {
        findings.fail(check, format!("ended {end}"), renew);
    } else if left < CA_SOON {
        findings.warn(check, format!("ends {end}"), renew);
    } else {
        findings.ok(check, format!("valid until {end}"));
    }
}

/// Lists leave out what fails, so this alone names it; of all tenants, as the manifest is one.
async fn check_records(findings: &mut Findings, context: &Context, install: &Install) {
    let catalog = context.catalog().unwrap_or_else(|_| Catalog::built_in());
    // Opened and sealed again in memory, which is thrown away.
    let check = |record: &Record| envelopes::reseal(install, &catalog, record).map(drop);
    match install.store.verify(check).await {
        Err(error) => findings.fail("records", super::describe(&error), "nexus store verify"),
        Ok(report) => {
            if report.failed.is_empty() {
                findings.ok("records", format!("{} fit the manifest and open", report.counts.values().sum::<u64>()));
            }
            for failed in &report.failed {
                let detail = output::printable(&failed.to_string());
                findings.fail("records", detail, "restore a backup, or make it anew; nexus store verify tells more");
            }
        }
    }
}

fn check_providers(findings: &mut Findings, context: &Context) {
    match Catalog::load(&context.home.providers()) {
        Ok(catalog) => findings.ok("providers", format!("{} providers", catalog.iter().count())),
        Err(problems) => {
            for problem in problems {
                findings.fail("providers", problem.to_string(), "nexus provider check FILE");
            }
        }
    }
}

async fn check_store(findings: &mut Findings, context: &Context, config: Config) -> Option<Install> {
    match app::open(&context.home, config).await {
        Ok(install) => {
            findings.ok("install", "root key and store open");
            Some(install)
        }
        Err(error @ AppError::NotInitialised { .. }) => {
            findings.fail("install", error.to_string(), "nexus init");
            None
        }
        Err(error) => {
            findings.fail("install", super::describe(&error), install_fix(&error));
            None
        }
    }
}

/// An error that says what to do by itself is not contradicted.
fn install_fix(error: &AppError) -> &'static str {
    match error {
        AppError::Store(StoreError::Unusable { .. }) | AppError::ManifestLost { .. } => "nexus store restore BACKUP",
        AppError::Store(StoreError::Newer { .. }) => "run the version of nexus that the store belongs to",
        AppError::Store(StoreError::Integrity { .. }) => "nexus store verify",
        AppError::WrongKey { .. } | AppError::KeyMissing { .. } => {
            "bring back the root key that the store was sealed with, or the store that belongs to this key"
        }
        _ => "see what it says, then nexus doctor again",
    }
}

/// A rotation that was broken off: everything works, and part of it is still under the old key.
async fn check_rotation(findings: &mut Findings, context: &Context, install: &Install) {
    let config = &install.config;
    let next = match (&config.next_root_key, config.key_file()) {
        (None, Some(path)) => next_key_file(&context.home.path.join(path)),
        _ => PathBuf::new(),
    };
    if next.symlink_metadata().is_ok() {
        findings.warn("key rotation", format!("{} is left of one that broke off", next.display()), "nexus key rotate");
    } else if let Ok(Some(key)) = install.store.manifest_key().await
        && let Ok(count @ 1..) = install.store.count_stale(key).await
    {
        let message = format!("{count} records are still sealed with an earlier root key");
        findings.warn("key rotation", message, "nexus key rotate");
    }
}

async fn check_server(findings: &mut Findings, context: &Context, config: &Config) {
    let servers = control_sockets(&context.home.path).await;
    let mut ours: Vec<String> = Vec::new();
    for (_, status) in &servers {
        let listen: Vec<String> = status["listen"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|text| Some(text.as_str()?.to_owned()))
            .collect();
        let version = status["version"].as_str().unwrap_or("?");
        findings.ok("server", format!("version {version}, pid {}, on {}", status["pid"], listen.join(", ")));
        if version != env!("CARGO_PKG_VERSION") {
            let ours = env!("CARGO_PKG_VERSION");
            findings.warn("server", format!("it has version {version}, this program {ours}"), "restart the server");
        }
        let bound = status["bound"].as_array().into_iter().flatten().filter_map(|text| text.as_str());
        ours.extend(bound.map(str::to_owned));
        ours.extend(listen);
        ours.extend(status["admin"].as_str().map(str::to_owned));
    }
    if servers.is_empty() {
        findings.warn("server", "no server of this home is running", "nexus up (nexus run starts its own)");
    }
    for address in config.listeners.iter().filter_map(|listener| listener.address.tcp()).chain([config.admin]) {
        check_port(findings, address, &ours);
    }
    check_shell(findings, context, &ours);
}

fn check_port(findings: &mut Findings, address: SocketAddr, ours: &[String]) {
    let check = format!("port {}", address.port());
    // A TLS listener is told by a name of its certificate.
    let is_ours = |listen: &String| {
        *listen == address.to_string()
            || listen.starts_with("https://") && listen.ends_with(&format!(":{}", address.port()))
    };
    if ours.iter().any(is_ours) {
        findings.ok(&check, format!("{address} is this home's server"));
        return;
    }
    match TcpListener::bind(address) {
        Ok(_) => findings.ok(&check, format!("{address} is free")),
        Err(error) if ours.is_empty() => findings.fail(
            &check,
            format!("{address}: {error}"),
            "stop the program that has it, or set server.listen and server.admin in nexus.toml",
        ),
        // The server listens elsewhere, so nobody waits for this port.
        Err(error) => findings.warn(&check, format!("{address}: {error}"), "set server.listen in nexus.toml"),
    }
}

/// Whether this shell's programs go through the proxy. Most shells should not; it is told, not judged.
fn check_shell(findings: &mut Findings, context: &Context, ours: &[String]) {
    let Some(value) = environment::existing("HTTPS_PROXY").or_else(|| environment::existing("https_proxy")) else {
        findings.ok("shell", "no proxy is set; programs go through nexus with nexus run or nexus env");
        return;
    };
    // The value may hold a token: only what stands behind the last @ is looked at.
    let value = value.to_string_lossy();
    let address = value.rsplit('@').next().unwrap_or_default();
    let address = address.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
    if !ours.iter().any(|listen| listen.trim_start_matches("https://") == address) {
        findings.warn(
            "shell",
            format!("HTTPS_PROXY of this shell names {}, which is not this home's server", output::printable(address)),
            "eval \"$(nexus env)\", or unset HTTPS_PROXY",
        );
        return;
    }
    let bundle = environment::bundle_path(&context.home);
    match environment::existing("SSL_CERT_FILE") {
        Some(file) if Path::new(&file) == bundle => findings.ok("shell", "proxy and CA variables are set"),
        _ => findings.warn("shell", "the proxy is set, but SSL_CERT_FILE is not its bundle", "eval \"$(nexus env)\""),
    }
}

/// Needs no key, as the lockdown itself. A store that does not open is told by its own check.
async fn check_lockdown(findings: &mut Findings, context: &Context, config: &Config) {
    let path = context.home.path.join(&config.store);
    if !path.exists() {
        return;
    }
    let Ok(file) = StoreFile::open(&path).await else { return };
    match file.lockdown_at().await {
        Ok(None) => findings.ok("lockdown", "none"),
        Ok(Some(since)) => {
            let since = output::time(since);
            let since = since.as_str().unwrap_or_default();
            findings.fail("lockdown", format!("since {since}: every agent is refused"), "nexus lockdown --lift");
        }
        Err(_) => {}
    }
    file.close().await;
}

async fn check_connections(findings: &mut Findings, context: &Context, install: &Install) -> Result<(), CliError> {
    let now = context.clock.now();
    // A broken provider file is told by its own check.
    let catalog = context.catalog().unwrap_or_else(|_| Catalog::built_in());
    for record in install.store.list_connections(&context.scope).await? {
        let check = format!("connection {}", record.name);
        let replace = format!("nexus register {} --name {} --replace", record.provider, record.name);
        let connection = match Connection::from_record(&record, None) {
            Ok(connection) => connection,
            Err(error) => {
                findings.fail(&check, error.to_string(), replace);
                continue;
            }
        };
        let again = set_command(&connection);
        let access = connection.access();
        // Opened only to see that it opens; wiped at once.
        let opened = connection.open_access(&install.keyring, &access).map(drop);
        let opened = opened.and_then(|()| connection.open_grant(&install.keyring, &access).map(drop));
        if let Err(error) = opened {
            findings.fail(&check, error.to_string(), format!("restore the root key or the store, or: {replace}"));
        } else if record.disabled {
            findings.warn(&check, "disabled", format!("nexus connection enable {}", record.name));
        } else if record.state == ConnectionState::Attention {
            let reason = record.state_reason.as_deref().unwrap_or("the credential was refused");
            findings.fail(&check, format!("needs attention: {}", output::printable(reason)), again);
        } else if record.access_expires_at.is_some_and(|end| end <= now) && record.grant.is_none() {
            findings.fail(&check, "the credential has ended", again);
        } else if outdated(&catalog, &record, &connection.frozen) {
            let detail = format!("opens; made from an older file of {}", record.provider);
            findings.warn(&check, detail, format!("nexus connection upgrade {}", record.name));
        } else {
            findings.ok(&check, "opens");
        }
    }
    Ok(())
}
