//! `[server]`: where agents and operators connect to.

use super::duration;
use crate::config::Config;
use crate::config::file::{Document, Place, Section, Value, shown};
use std::net::SocketAddr;

/// Reads `[server]`.
pub(super) fn server(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let mut taken = Taken::default();
    let listen = section.take(document, "listen");
    let admin = section.take(document, "admin");
    if admin.is_none() {
        taken.0.push((config.admin, "server.admin (its default)".to_owned()));
    }
    let entries = match listen {
        Some(listen) => {
            config.listeners.clear();
            listen.list(document, "an array of addresses")
        }
        None => {
            for address in &config.listeners {
                taken.0.push((*address, "server.listen (its default)".to_owned()));
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
        if is_exposed(admin) {
            config.warnings.push(format!("{} {admin} shows health and metrics to other machines", place.key));
        }
        taken.claim(document, &place, admin);
    }
    let grace = section.take(document, "shutdown_grace");
    if let Some(grace) = duration(document, grace) {
        config.shutdown_grace = grace;
    }
    section.finish(document);
}

/// One entry of `listen`.
fn plain_listener(document: &mut Document<'_>, entry: Value<'_>, taken: &mut Taken, config: &mut Config) {
    let Some((address, place)) = entry.parsed(document, "an address in quotes", parse_listen_address) else { return };
    if is_exposed(address) {
        let message = "other machines reach this address in clear text; if that is meant, write it as a \
                       [[server.listener]] with allow_clear = true";
        document.problem(&place, message.to_owned());
    }
    config.listeners.push(address);
    taken.claim(document, &place, address);
}

/// One `[[server.listener]]`.
fn listener(document: &mut Document<'_>, mut section: Section<'_>, taken: &mut Taken, config: &mut Config) {
    let address = match section.take(document, "address") {
        Some(value) => value.parsed(document, "an address in quotes", parse_listen_address),
        None => {
            document.problem(&section.place, "address is missing".to_owned());
            None
        }
    };
    let tls = section.take(document, "tls");
    if let Some(tls) = &tls {
        let message = "this version has no TLS listeners; remove tls, and let a program in front of a loopback address \
                       end the TLS";
        document.problem(&tls.place, message.to_owned());
    }
    if let Some(agent) = section.take(document, "agent") {
        let message = "this version binds no listener to an agent; remove agent, and give the agent a token";
        document.problem(&agent.place, message.to_owned());
    }
    let allow_clear = section.take(document, "allow_clear").and_then(|v| v.boolean(document)).unwrap_or(false);
    section.finish(document);

    let Some((address, place)) = address else { return };
    if is_exposed(address) && allow_clear {
        let message = "takes agent tokens and requests in clear text from other machines (allow_clear)";
        config.warnings.push(format!("{} {address} {message}", place.key));
    } else if is_exposed(address) && tls.is_none() {
        let message = "other machines reach this address in clear text; use a loopback address, or add \
                       allow_clear = true";
        document.problem(&place, message.to_owned());
    }
    config.listeners.push(address);
    taken.claim(document, &place, address);
}

/// The addresses taken so far, each with the key that takes it.
#[derive(Default)]
struct Taken(Vec<(SocketAddr, String)>);

impl Taken {
    fn claim(&mut self, document: &mut Document<'_>, place: &Place, address: SocketAddr) {
        if let Some((_, key)) = self.0.iter().find(|(other, _)| collide(*other, address)) {
            document.problem(place, format!("the address is taken by {key} already; choose another"));
        }
        self.0.push((address, place.key.clone()));
    }
}

/// Whether both cannot be bound at once. Port 0 asks for any free port.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let either_is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_address = one.ip() == other.ip() || (either_is_any && one.is_ipv4() == other.is_ipv4());
    one.port() != 0 && one.port() == other.port() && same_address
}

/// Whether other machines can reach it.
fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    if text.starts_with("unix:") {
        return Err("this version has no Unix-socket listeners; write a loopback address such as 127.0.0.1:8470".into());
    }
    parse_socket_address(text)
}

fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{} is not IP:PORT; write an address such as 127.0.0.1:8470", shown(text)))
}
