//! Entries of `server.listen` and `[[server.listener]]`.

use super::path;
use crate::config::file::{Document, Place, Section, Value, shown};
use crate::config::server_tls::{self, FileOf};
use crate::config::{Config, ListenAddress, ListenerConfig, TlsFiles};
use crate::identity::BoundAgent;
use crate::types::{AgentName, NamespaceName, Scope, TenantName};
use std::net::SocketAddr;
use std::path::PathBuf;

/// One entry of `listen`.
pub(super) fn plain_listener(document: &mut Document<'_>, entry: Value<'_>, taken: &mut Taken, config: &mut Config) {
    let Some((address, place)) = entry.parsed(document, "an address in quotes", parse_listen_address) else { return };
    if address.is_exposed() {
        let message = "other machines reach this address in clear text; write it as a [[server.listener]] with tls, or \
                       with allow_clear = true if that is meant";
        document.problem(&place, message.to_owned());
    }
    taken.claim(document, &place, address.clone());
    config.listeners.push(ListenerConfig { address, tls: None, agent: None });
}

/// One `[[server.listener]]`.
pub(super) fn listener(document: &mut Document<'_>, mut section: Section<'_>, taken: &mut Taken, config: &mut Config) {
    let address = match section.take(document, "address") {
        Some(value) => value.parsed(document, "an address in quotes", parse_listen_address),
        None => {
            document.problem(&section.place, "address is missing".to_owned());
            None
        }
    };
    let tls_section = section.section(document, "tls");
    let tls_place = tls_section.is_present().then(|| tls_section.place.clone());
    let tls = tls(document, tls_section);
    let agent = agent(document, &mut section);
    let allow_clear = section.take(document, "allow_clear").and_then(|v| v.boolean(document)).unwrap_or(false);
    section.finish(document);

    let Some((address, place)) = address else { return };
    if let (ListenAddress::Unix(_), Some(tls)) = (&address, &tls_place) {
        let message = "a Unix socket stays within this machine; remove tls, or use an IP address";
        document.problem(tls, message.to_owned());
    }
    if let Some((_, agent_place)) = &agent {
        if address.is_exposed() {
            let message = "whoever reaches the address would be this agent; use a loopback address or a Unix socket";
            document.problem(agent_place, message.to_owned());
        }
        if tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
            let message = "callers are this agent, whatever certificate they have; remove agent or tls.client_ca";
            document.problem(agent_place, message.to_owned());
        }
    } else if address.is_exposed() && tls_place.is_none() && allow_clear {
        let message = "takes agent tokens and requests in clear text from other machines (allow_clear)";
        config.warnings.push(format!("{} {address} {message}", place.key));
    } else if address.is_exposed() && tls_place.is_none() {
        let message = "other machines reach this address in clear text; add tls, use a loopback address, or add \
                       allow_clear = true";
        document.problem(&place, message.to_owned());
    }
    taken.claim(document, &place, address.clone());
    config.listeners.push(ListenerConfig { address, tls, agent: agent.map(|(agent, _)| agent) });
}

/// `tls = { cert, key, client_ca }`, its files looked at where the document says so.
fn tls(document: &mut Document<'_>, mut section: Section<'_>) -> Option<TlsFiles> {
    let is_present = section.is_present();
    let mut take = |document: &mut Document<'_>, key| {
        let value = section.take(document, key)?;
        let place = value.place.clone();
        Some((value.text(document).and_then(|found| path(document, found))?, place))
    };
    let cert = take(document, "cert");
    let key = take(document, "key");
    let client_ca = take(document, "client_ca");
    let place = section.place.clone();
    section.finish(document);
    if !is_present {
        return None;
    }
    let (Some((cert, cert_place)), Some((key, key_place))) = (cert, key) else {
        document.problem(&place, "give cert and key, the files of the certificate and of its key".to_owned());
        return None;
    };
    let files = TlsFiles { cert, key, client_ca: client_ca.as_ref().map(|(path, _)| path.clone()) };
    if let Some(home) = document.files_below().map(ToOwned::to_owned) {
        for problem in server_tls::problems(&files.clone().resolved(&home), &home) {
            let place = match problem.file {
                FileOf::Certificate => &cert_place,
                FileOf::Key => &key_place,
                FileOf::ClientCa => client_ca.as_ref().map_or(&place, |(_, place)| place),
            };
            document.problem(place, problem.to_string());
        }
    }
    Some(files)
}

/// `agent`, and its `tenant` and `namespace`.
fn agent(document: &mut Document<'_>, section: &mut Section<'_>) -> Option<(BoundAgent, Place)> {
    let named = section.take(document, "agent");
    let named = named.map(|value| {
        let place = value.place.clone();
        (
            value.parsed(document, "an agent's name in quotes", |text| {
                AgentName::parse(text).map_err(|error| error.to_string())
            }),
            place,
        )
    });
    let mut scope = Scope::default();
    let mut of_an_agent = Vec::new();
    if let Some(value) = section.take(document, "tenant") {
        of_an_agent.push(value.place.clone());
        let parse = |text: &str| TenantName::parse(text).map_err(|error| error.to_string());
        if let Some((tenant, _)) = value.parsed(document, "a tenant in quotes", parse) {
            scope.tenant = tenant;
        }
    }
    if let Some(value) = section.take(document, "namespace") {
        of_an_agent.push(value.place.clone());
        let parse = |text: &str| NamespaceName::parse(text).map_err(|error| error.to_string());
        if let Some((namespace, _)) = value.parsed(document, "a namespace in quotes", parse) {
            scope.namespace = namespace;
        }
    }
    let Some((agent, place)) = named else {
        for place in of_an_agent {
            document.problem(&place, "says whose agent the listener is bound to, and agent is missing".to_owned());
        }
        return None;
    };
    agent.map(|(agent, _)| (BoundAgent { scope, agent }, place))
}

/// The addresses taken so far, each with the key that takes it.
#[derive(Default)]
pub(super) struct Taken(Vec<(ListenAddress, String)>);

impl Taken {
    /// Takes an address without a look at the others.
    pub(super) fn hold(&mut self, address: ListenAddress, key: &str) {
        self.0.push((address, key.to_owned()));
    }

    /// Takes an address; one that is taken already is a problem.
    pub(super) fn claim(&mut self, document: &mut Document<'_>, place: &Place, address: ListenAddress) {
        if let Some((_, key)) = self.0.iter().find(|(other, _)| collide(other, &address)) {
            document.problem(place, format!("the address is taken by {key} already; choose another"));
        }
        self.0.push((address, place.key.clone()));
    }
}

/// Whether both cannot be bound at once. Port 0 asks for any free port.
fn collide(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            let either_is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
            let same_address = one.ip() == other.ip() || (either_is_any && one.is_ipv4() == other.is_ipv4());
            one.port() != 0 && one.port() == other.port() && same_address
        }
        (one, other) => one == other,
    }
}

fn parse_listen_address(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("the path after unix: is missing".to_owned()),
        Some(path) if path.ends_with('/') => Err("the path after unix: names a directory; name a file".to_owned()),
        Some(path) => Ok(ListenAddress::Unix(PathBuf::from(path))),
        None => parse_socket_address(text).map(ListenAddress::Tcp),
    }
}

pub(super) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{} is not IP:PORT; write an address such as 127.0.0.1:8470", shown(text)))
}
