//! `[server]`: where agents and operators connect to.

use super::duration;
use super::listeners::{Taken, listener, parse_socket_address, plain_listener};
use crate::config::Config;
use crate::config::ListenAddress;
use crate::config::file::{Document, Section, Value};

/// Reads `[server]`.
pub(super) fn server(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let mut taken = Taken::default();
    let listen = section.take(document, "listen");
    let admin = section.take(document, "admin");
    if admin.is_none() {
        taken.hold(ListenAddress::Tcp(config.admin), "server.admin (its default)");
    }
    let entries = match listen {
        Some(listen) => {
            config.listeners.clear();
            listen.list(document, "an array of addresses")
        }
        None => {
            for listener in &config.listeners {
                taken.hold(listener.address.clone(), "server.listen (its default)");
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
        let admin = ListenAddress::Tcp(admin);
        if admin.is_exposed() {
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
