//! From the file's text to [`Config`]: validated without I/O, all problems at once.

mod certificates;
mod identity;
mod listeners;
mod server;
mod tokens;

use super::file::{Document, Place, Section, Value, shown};
use super::{Config, RootKeyForm, RootKeySource, Unmatched};
use crate::audit::{Durability, OnFull};
use crate::provider::FileProblem;
use crate::types::{Host, HostPattern, parse_duration};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;

/// Checks the text of a config file. Relative paths are taken relative to `home`.
///
/// # Errors
/// Every problem, each with file, line and column.
pub fn check_text(file: &str, text: &str, home: &Path) -> Result<Config, Vec<FileProblem>> {
    let mut document = Document::new(file, text);
    let table = DeTable::parse(text).map_err(|error| vec![document.syntax_problem(&error)])?;
    let config = read(&mut document, Section::root(table.get_ref()));
    match document.into_problems() {
        problems if problems.is_empty() => Ok(config.resolved(home)),
        problems => Err(problems),
    }
}

/// [`check_text`], and a look at the files that the text names: those of TLS listeners.
///
/// # Errors
/// Every problem, each with file, line and column.
pub fn check_text_and_files(file: &str, text: &str, home: &Path) -> Result<Config, Vec<FileProblem>> {
    let mut document = Document::new(file, text).with_files_below(home);
    let table = DeTable::parse(text).map_err(|error| vec![document.syntax_problem(&error)])?;
    let config = read(&mut document, Section::root(table.get_ref()));
    match document.into_problems() {
        problems if problems.is_empty() => Ok(config.resolved(home)),
        problems => Err(problems),
    }
}

/// The `[store]` and `[tokens]` sections of a text that has problems elsewhere, in a config that has every other key at
/// its default; `None` when the first has problems too. A text that is no TOML is read as far as it goes.
pub(super) fn check_store(text: &str, home: &Path) -> Option<Config> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut document = Document::new("", text);
    let section = Section::root(table.get_ref()).section(&mut document, "store");
    let mut config = Config::default();
    store(&mut document, section, &mut config);
    config.tokens = tokens::check_tokens(text, table.get_ref());
    document.into_problems().is_empty().then(|| config.resolved(home))
}

type ReadSection = fn(&mut Document<'_>, Section<'_>, &mut Config);

/// Reads what can be read; the rest keeps its default and is a problem.
fn read(document: &mut Document<'_>, mut root: Section<'_>) -> Config {
    let mut config = Config::default();
    let sections: [(&'static str, ReadSection); 9] = [
        ("server", server::server),
        ("store", store),
        ("dns", dns),
        ("egress", egress),
        ("upstream", upstream),
        ("limits", limits),
        ("identity", identity::identity),
        ("audit", audit),
        ("tokens", tokens::tokens),
    ];
    for (key, read_section) in sections {
        let section = root.section(document, key);
        read_section(document, section, &mut config);
    }
    root.finish(document);
    config
}

/// A path; an empty one is a problem.
fn path(document: &mut Document<'_>, (text, place): (&str, Place)) -> Option<PathBuf> {
    if text.is_empty() {
        document.problem(&place, "the path is empty".to_owned());
        return None;
    }
    Some(PathBuf::from(text))
}

fn store(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let url = section.take(document, "url");
    if let Some((path, _)) = url.and_then(|v| v.parsed(document, "a URL in quotes", parse_store_url)) {
        config.store = path;
    }
    let key = section.section(document, "root_key");
    root_key(document, key, config);
    let next = section.section(document, "next_root_key");
    if next.is_present() {
        let mut given = Config::default();
        root_key(document, next, &mut given);
        config.next_root_key = Some(given.root_key);
        config.next_root_key_form = given.root_key_form;
    }
    section.finish(document);
}

/// The path of `sqlite://PATH`. No part of another URL is repeated: it may hold a password.
fn parse_store_url(url: &str) -> Result<PathBuf, String> {
    let Some(path) = url.strip_prefix("sqlite://") else {
        return Err("this version stores in SQLite only; write sqlite:// and the path of a file, such as \
                    sqlite://nexus.db"
            .to_owned());
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("the path after sqlite:// is missing".to_owned());
    }
    if path.contains(['?', '#']) {
        return Err("sqlite:// takes a path alone, without options; remove what follows '?' or '#'".to_owned());
    }
    Ok(PathBuf::from(path))
}

fn root_key(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let is_present = section.is_present();
    let place = section.place.clone();
    let file = section.take(document, "file");
    let env = section.take(document, "env");
    let command = section.take(document, "command");
    let passphrase = section.take(document, "passphrase").and_then(|value| value.boolean(document));
    section.finish(document);
    if passphrase == Some(true) {
        config.root_key_form = RootKeyForm::Passphrase;
    }
    let given = [&file, &env, &command].into_iter().flatten().count();
    if is_present && given != 1 {
        let message = "give exactly one of file, env and command, such as { file = \"root.key\" }";
        document.problem(&place, message.to_owned());
    }
    if let Some(file) = file.and_then(|v| v.text(document)).and_then(|found| path(document, found)) {
        config.root_key = RootKeySource::File(file);
    }
    if let Some((name, place)) = env.and_then(|v| v.text(document)) {
        // The text is not repeated: somebody may have written the key itself here.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            document.problem(&place, "not the name of an environment variable, such as NEXUS_ROOT_KEY".to_owned());
        }
        config.root_key = RootKeySource::Env(name.to_owned());
    }
    if let Some(command) = command {
        let expected = "an array of a program and its arguments";
        let place = command.place.clone();
        let Some(words) = command.list(document, expected) else { return };
        let words: Vec<String> =
            words.into_iter().filter_map(|word| word.text(document)).map(|(text, _)| text.to_owned()).collect();
        if words.first().is_none_or(String::is_empty) {
            document.problem(&place, format!("the program is missing; write {expected}"));
        }
        config.root_key = RootKeySource::Command(words);
    }
}

fn dns(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let hosts = section.section(document, "hosts");
    section.finish(document);
    for (name, place, value) in hosts.into_entries() {
        let host = match Host::parse(name.as_bytes()) {
            Ok(host @ Host::Name(_)) => Some(host),
            Ok(Host::Ip(_)) => {
                document.problem(&place, "an IP address needs no answer; write a host name".to_owned());
                None
            }
            Err(error) => {
                document.problem(&place, error.to_string());
                None
            }
        };
        let expected = "an IP address in quotes (and the host name in quotes if it has dots)";
        let address = value.parsed(document, expected, |text| {
            text.parse::<IpAddr>().map_err(|_| format!("{} is not an IP address", shown(text)))
        });
        if let (Some(host), Some((address, _))) = (host, address)
            && config.dns_hosts.insert(host, address).is_some()
        {
            document.problem(&place, "another spelling of this host has an answer already; keep one".to_owned());
        }
    }
}

fn egress(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let unmatched = section.take(document, "unmatched");
    let choices = [("deny", Unmatched::Deny), ("tunnel", Unmatched::Tunnel)];
    if let Some(unmatched) = choice(document, unmatched, &choices) {
        config.egress.unmatched = unmatched;
    }
    let hosts = section.take(document, "allow_hosts");
    for value in list(document, hosts, "an array of hosts") {
        let host = value.parsed(document, "a host in quotes", |text| text_error(HostPattern::parse(text)));
        config.egress.allow_hosts.extend(host.map(|(host, _)| host));
    }
    if let Some(ports) = section.take(document, "connect_ports") {
        let ports = ports.list(document, "an array of ports").unwrap_or_default();
        let ports = ports.iter().filter_map(|port| port.integer(document, 1..=65_535));
        config.egress.connect_ports = ports.map(|port| u16::try_from(port).expect("the range was checked")).collect();
    }
    let cidrs = section.take(document, "allow_cidrs");
    for value in list(document, cidrs, "an array of address ranges") {
        let Some((cidr, place)) = value.parsed(document, "a range such as \"10.0.0.0/8\"", parse_cidr) else {
            continue;
        };
        if cidr.prefix_len() == 0 {
            let message = "opens every private address, of this machine too, to agents";
            config.warnings.push(format!("{} {cidr} {message}", place.key));
        }
        config.egress.allow_cidrs.push(cidr);
    }
    section.finish(document);
}

/// A range whose address has no bits behind the prefix: those would mean that another range was in mind.
fn parse_cidr(text: &str) -> Result<ipnet::IpNet, String> {
    let cidr: ipnet::IpNet = match text.parse() {
        Ok(cidr) => cidr,
        Err(_) => {
            let advice = match text.parse::<IpAddr>() {
                Ok(address) => ipnet::IpNet::from(address).to_string(),
                Err(_) => "10.0.0.0/8".to_owned(),
            };
            return Err(format!("{} is not an address range; write one such as {advice}", shown(text)));
        }
    };
    if cidr == cidr.trunc() {
        Ok(cidr)
    } else {
        Err(format!("{cidr} has bits behind its prefix; write {} or a longer prefix", cidr.trunc()))
    }
}

fn upstream(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let files = section.take(document, "ca_files");
    for value in list(document, files, "an array of paths") {
        let file = value.text(document).and_then(|found| path(document, found));
        config.ca_files.extend(file);
    }
    section.finish(document);
}

fn limits(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let limits = &mut config.limits;
    // The engine's read buffer cannot be smaller than 8 KiB.
    let sizes = [
        ("header_bytes", &mut limits.header_bytes, 8 * KIB..=16 * MIB),
        ("replay_body", &mut limits.replay_body, 0..=GIB),
        ("replay_budget", &mut limits.replay_budget, 0..=1024 * GIB),
        ("call_body", &mut limits.call_body, KIB..=GIB),
    ];
    for (key, limit, range) in sizes {
        if let Some(bytes) = section.take(document, key).and_then(|value| value.size(document, range)) {
            *limit = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
    }
    for (key, limit) in [("header_time", &mut limits.header_time), ("connect", &mut limits.connect)] {
        let value = section.take(document, key);
        if let Some(time) = positive(document, value) {
            *limit = time;
        }
    }
    for (key, limit) in [("first_byte", &mut limits.first_byte), ("stream_idle", &mut limits.stream_idle)] {
        let value = section.take(document, key);
        if let Some(time) = optional(document, value) {
            *limit = time;
        }
    }
    if let Some(value) = section.take(document, "tunnels_per_agent")
        && let Some(count) = value.integer(document, 1..=1_000_000)
    {
        limits.tunnels_per_agent = usize::try_from(count).unwrap_or(usize::MAX);
    }
    if let Some(value) = section.take(document, "wrong_tokens_per_minute")
        && let Some(count) = value.integer(document, 1..=1_000_000)
    {
        limits.wrong_tokens_per_minute = u32::try_from(count).unwrap_or(u32::MAX);
    }
    if let Some(value) = section.take(document, "unauthenticated_connections")
        && let Some(count) = value.integer(document, 16..=1_000_000)
    {
        limits.unauthenticated_connections = usize::try_from(count).unwrap_or(usize::MAX);
    }
    section.finish(document);
}

fn audit(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let on_full = section.take(document, "on_full");
    let choices = [("block", OnFull::Block), ("drop_with_gap_record", OnFull::DropWithGapRecord)];
    if let Some(on_full) = choice(document, on_full, &choices) {
        config.audit.on_full = on_full;
    }
    let durability = section.take(document, "durability");
    let choices = [("process", Durability::Process), ("disk", Durability::Disk)];
    if let Some(durability) = choice(document, durability, &choices) {
        config.audit.durability = durability;
    }
    let sinks = section.take(document, "sink");
    for sink in list(document, sinks, "one [[audit.sink]] for each sink") {
        let Some(mut sink) = sink.section(document) else { continue };
        if let Some((kind, place)) = sink.required_text(document, "type") {
            if kind == "file" {
                sink.finish(document);
            } else {
                let message = format!("{} is not a sink of this version, which has file only", shown(kind));
                document.problem(&place, message);
            }
        }
    }
    section.finish(document);
}

fn list<'d>(document: &mut Document<'_>, value: Option<Value<'d>>, expected: &str) -> Vec<Value<'d>> {
    value.and_then(|value| value.list(document, expected)).unwrap_or_default()
}

/// One of a closed set of words.
fn choice<T: Copy>(document: &mut Document<'_>, value: Option<Value<'_>>, choices: &[(&str, T)]) -> Option<T> {
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    let expected = words.join(" or ");
    let parse = |text: &str| {
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| format!("{} is not known; write {expected}", shown(text)))
    };
    value?.parsed(document, &expected, parse).map(|(choice, _)| choice)
}

/// A duration, zero included.
fn duration(document: &mut Document<'_>, value: Option<Value<'_>>) -> Option<Duration> {
    let parse = |text: &str| match text {
        "none" => Err("cannot be without a limit; write a duration such as 10s".to_owned()),
        text => text_error(parse_duration(text)),
    };
    value?.parsed(document, "a duration such as \"10s\"", parse).map(|(time, _)| time)
}

/// A duration above zero.
fn positive(document: &mut Document<'_>, value: Option<Value<'_>>) -> Option<Duration> {
    let place = value.as_ref()?.place.clone();
    let time = duration(document, value)?;
    if time.is_zero() {
        document.problem(&place, "must be longer than zero".to_owned());
    }
    Some(time)
}

/// A duration above zero, or `"none"`.
fn optional(document: &mut Document<'_>, value: Option<Value<'_>>) -> Option<Option<Duration>> {
    let parse = |text: &str| match text {
        "none" => Ok(None),
        text => match parse_duration(text) {
            Ok(Duration::ZERO) => Err("must be longer than zero; write \"none\" for no limit".to_owned()),
            Ok(time) => Ok(Some(time)),
            Err(error) => Err(error.to_string()),
        },
    };
    value?.parsed(document, "a duration such as \"10s\", or \"none\"", parse).map(|(time, _)| time)
}

fn text_error<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
