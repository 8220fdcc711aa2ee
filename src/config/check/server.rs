//! `[server]`: where agents and operators connect to.

use super::{duration, path, text_error};
use crate::config::file::{Document, Place, Section, Value, shown};
use crate::config::{Config, Listener, Tls};
use crate::types::AgentName;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Reads `[server]`.
pub(super) fn server(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let mut taken = Taken::default();
    let listen = section.take(document, "listen");
    let admin = section.take(document, "admin");
    if admin.is_none() {
        taken.0.push((Address::Tcp(config.admin), "server.admin (its default)".to_owned()));
    }
    let entries = match listen {
        Some(listen) => {
            config.listeners.clear();
            listen.list(document, "an array of addresses")
        }
        None => {
            for listener in &config.listeners {
                if let Listener::Tcp { address, .. } = listener {
                    taken.0.push((Address::Tcp(*address), "server.listen (its default)".to_owned()));
                }
            }
            None
        }
    };
    let listeners = match section.take(document, "listener") {
        Some(listeners) => listeners.list(document, "one [[server.listener]] for each listener"),
        None => Some(Vec::new()),
    };
    let is_empty = |list: &Option<Vec<Value<'_>>>| list.as_ref().is_some_and(Vec::is_empty);
    if is_empty(&entries) && is_empty(&listeners) {
        document.problem(&section.place, "nothing listens; give listen an address or add a [[server.listener]]".into());
    }
    for entry in entries.unwrap_or_default() {
        plain_listener(document, entry, &mut taken, config);
    }
    for entry in listeners.unwrap_or_default() {
        if let Some(entry) = entry.section(document) {
            listener(document, entry, &mut taken, config);
        }
    }
    if let Some((admin, place)) = admin.and_then(|v| v.parsed(document, "IP:PORT in quotes", parse_socket_address)) {
        config.admin = admin;
        let address = Address::Tcp(admin);
        if address.is_exposed() {
            config.warnings.push(format!("{} {admin} shows health and metrics to other machines", place.key));
        }
        taken.claim(document, &place, address);
    }
    let grace = section.take(document, "shutdown_grace");
    if let Some(grace) = duration(document, grace) {
        config.shutdown_grace = grace;
    }
    section.finish(document);
}

/// One entry of `listen`.
fn plain_listener(document: &mut Document<'_>, entry: Value<'_>, taken: &mut Taken, config: &mut Config) {
    let Some((address, place)) = entry.parsed(document, "an address in quotes", Address::parse) else { return };
    if address.is_exposed() {
        let message = "other machines reach this address; write it as a [[server.listener]] with tls, or with \
                       allow_clear = true";
        document.problem(&place, message.to_owned());
    }
    config.listeners.push(match &address {
        Address::Tcp(address) => Listener::Tcp { address: *address, tls: None, agent: None },
        Address::Unix(path) => Listener::Unix { path: path.clone(), agent: None },
    });
    taken.claim(document, &place, address);
}

/// One `[[server.listener]]`.
fn listener(document: &mut Document<'_>, mut section: Section<'_>, taken: &mut Taken, config: &mut Config) {
    let address = match section.take(document, "address") {
        Some(value) => value.parsed(document, "an address in quotes", Address::parse),
        None => {
            document.problem(&section.place, "address is missing".to_owned());
            None
        }
    };
    let tls = section.section(document, "tls");
    let tls_place = tls.is_present().then(|| tls.place.clone());
    let tls = tls_files(document, tls);
    let agent = section
        .take(document, "agent")
        .and_then(|v| v.parsed(document, "an agent name in quotes", |text| text_error(AgentName::parse(text))));
    let allow_clear = section.take(document, "allow_clear").and_then(|v| v.boolean(document)).unwrap_or(false);
    section.finish(document);

    let Some((address, place)) = address else { return };
    if address.is_exposed() && tls_place.is_none() {
        if allow_clear {
            let message = "takes agent tokens and requests in clear text from other machines (allow_clear)";
            config.warnings.push(format!("{} {} {message}", place.key, address.name()));
        } else {
            let message = "other machines reach this address in clear text; add tls, or allow_clear = true";
            document.problem(&place, message.to_owned());
        }
    }
    if let (Some((_, agent_place)), true) = (&agent, address.is_exposed()) {
        let message = "whoever reaches this listener acts as the agent; bind it to a loopback address or a unix:PATH";
        document.problem(agent_place, message.to_owned());
    }
    if let (Some(tls_place), Address::Unix(_)) = (&tls_place, &address) {
        document.problem(tls_place, "a Unix socket has no tls; remove it".to_owned());
    }
    let agent = agent.map(|(agent, _)| agent);
    config.listeners.push(match &address {
        Address::Tcp(address) => Listener::Tcp { address: *address, tls, agent },
        Address::Unix(path) => Listener::Unix { path: path.clone(), agent },
    });
    taken.claim(document, &place, address);
}

fn tls_files(document: &mut Document<'_>, mut section: Section<'_>) -> Option<Tls> {
    if !section.is_present() {
        for key in ["cert", "key", "client_ca"] {
            section.take(document, key);
        }
        return None;
    }
    let cert = section.required_text(document, "cert").and_then(|found| path(document, found));
    let key = section.required_text(document, "key").and_then(|found| path(document, found));
    let client_ca = section
        .take(document, "client_ca")
        .and_then(|value| value.text(document))
        .and_then(|found| path(document, found));
    section.finish(document);
    Some(Tls { cert: cert?, key: key?, client_ca })
}

/// An address to listen on, and the name it goes by in messages.
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The addresses taken so far, each with the key that takes it.
#[derive(Default)]
struct Taken(Vec<(Address, String)>);

impl Taken {
    fn claim(&mut self, document: &mut Document<'_>, place: &Place, address: Address) {
        if let Some((_, key)) = self.0.iter().find(|(other, _)| other.collides(&address)) {
            document.problem(place, format!("the address is taken by {key} already; choose another"));
        }
        self.0.push((address, place.key.clone()));
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path after unix: is missing".to_owned()),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => parse_socket_address(text)
                .map(Self::Tcp)
                .map_err(|message| format!("{message}, or unix:PATH for a Unix socket")),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Whether both cannot be bound at once. Port 0 asks for any free port.
    fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(one), Self::Tcp(other)) => {
                let either_is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
                let same_address = one.ip() == other.ip() || (either_is_any && one.is_ipv4() == other.is_ipv4());
                one.port() != 0 && one.port() == other.port() && same_address
            }
            _ => false,
        }
    }

    /// Whether other machines can reach it.
    fn is_exposed(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{} is not IP:PORT; write an address such as 127.0.0.1:8470", shown(text)))
}
