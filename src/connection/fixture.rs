//! Connections and principals for the tests of this module.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Connection, Destination, Frozen};
use crate::identity::{Grant, Principal};
use crate::secret::Sealed;
use crate::store::{ConnectionRecord, ConnectionState};
use crate::strategy::{Placement, Strategy};
use crate::types::{
    AgentName, BasePath, ConnectionId, ConnectionName, HostPattern, NamespaceName, ProviderId, Scheme, Scope,
    TenantName, TokenId,
};
use std::sync::Arc;

/// `tenant/namespace`.
pub(super) fn scope(text: &str) -> Scope {
    let (tenant, namespace) = text.split_once('/').unwrap();
    Scope { tenant: TenantName::parse(tenant).unwrap(), namespace: NamespaceName::parse(namespace).unwrap() }
}

pub(super) fn strategy(placements: &[&str]) -> Strategy {
    Strategy::new(placements.iter().map(|text| Placement::parse(text).unwrap()).collect()).unwrap()
}

/// `https://*.host:port/base/path`, with a bearer token.
pub(super) fn destination(url: &str) -> Destination {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let port_at = authority.rfind(':').filter(|at| authority[at + 1..].bytes().all(|b| b.is_ascii_digit()));
    let (host, port) = authority.split_at(port_at.unwrap_or(authority.len()));
    Destination {
        scheme,
        host: HostPattern::parse(host).unwrap(),
        port: port.trim_start_matches(':').parse().unwrap_or(scheme.default_port()),
        path: BasePath::parse(path).unwrap(),
        strategy: strategy(&["header authorization: Bearer {token}"]),
    }
}

pub(super) fn frozen(urls: &[&str]) -> Frozen {
    let destinations = urls.iter().map(|url| destination(url)).collect();
    Frozen { destinations, oauth: None, default_headers: Vec::new(), test: None, revision: None, source: None }
}

/// The id of the connection called `name` in `scope`.
pub(super) fn id(scope: &Scope, name: &str) -> ConnectionId {
    ConnectionId::parse(&format!("con_{}-{}-{name}", scope.tenant, scope.namespace)).unwrap()
}

pub(super) fn record(scope: &Scope, name: &str, frozen: &Frozen) -> ConnectionRecord {
    ConnectionRecord {
        id: id(scope, name),
        scope: scope.clone(),
        name: ConnectionName::parse(name).unwrap(),
        provider: ProviderId::parse("custom").unwrap(),
        definition: frozen.to_json(),
        version: 1,
        access: Sealed::from_bytes(b"access 1"),
        grant: None,
        access_issued_at: None,
        access_expires_at: None,
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: 0,
        updated_at: 0,
        orphaned_at: None,
    }
}

pub(super) fn connection(scope: &Scope, name: &str, urls: &[&str]) -> Arc<Connection> {
    Arc::new(Connection::from_record(&record(scope, name, &frozen(urls)), None).unwrap())
}

pub(super) fn disabled(scope: &Scope, name: &str, urls: &[&str]) -> Arc<Connection> {
    let record = ConnectionRecord { disabled: true, ..record(scope, name, &frozen(urls)) };
    Arc::new(Connection::from_record(&record, None).unwrap())
}

/// A principal of `scope` that may use connections of any scope.
pub(super) fn principal(scope: &Scope, granted: impl IntoIterator<Item = ConnectionId>) -> Principal {
    let mut connections: Vec<ConnectionId> = granted.into_iter().collect();
    connections.sort();
    connections.dedup();
    Principal {
        scope: scope.clone(),
        agent: AgentName::parse("bot").unwrap(),
        run: None,
        token_id: Some(TokenId::parse("tok_bot").unwrap()),
        issuer: None,
        grant: Arc::new(Grant { connections, ..Grant::default() }),
    }
}
