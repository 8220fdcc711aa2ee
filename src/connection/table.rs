//! Every connection, indexed by id, by scope and name, and by scope and where its credential may go.

use super::Connection;
use super::shared_map::SharedMap;
use crate::identity::{Names, Principal};
use crate::types::{ConnectionId, HostPattern, Scope, Target};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// All connections, indexed by id and by scope and host. Cheap to clone (`Arc` inside).
#[derive(Debug, Clone, Default)]
pub struct RouteTable(Arc<Tables>);

impl RouteTable {
    /// This table with connections added or replaced and ids removed. An id in both is removed.
    #[must_use]
    pub fn updated(&self, changed: Vec<Arc<Connection>>, deleted: &[ConnectionId]) -> Self {
        let mut changed: HashMap<ConnectionId, Arc<Connection>> =
            changed.into_iter().map(|connection| (connection.id.clone(), connection)).collect();
        for id in deleted {
            changed.remove(id);
        }
        let mut tables = Tables::clone(&self.0);
        // The old ones go first: a name may pass from one connection to another in one change.
        tables.remove_all(changed.keys().chain(deleted));
        for connection in changed.into_values() {
            tables.insert(connection);
        }
        Self(Arc::new(tables))
    }

    /// A connection by id, also a disabled one.
    #[must_use]
    pub fn get(&self, id: &ConnectionId) -> Option<&Arc<Connection>> {
        self.0.by_id.get(id.as_str())
    }

    /// A granted, enabled connection by name or id within the principal's scope. (`/c/NAME`, `/v1/call`.)
    #[must_use]
    pub fn granted(&self, principal: &Principal, name_or_id: &str) -> Option<Arc<Connection>> {
        let by_id = self.0.by_id.get(name_or_id).filter(|connection| may_use(principal, connection));
        let by_name = || self.0.scopes.get(&principal.scope)?.by_name.get(name_or_id);
        by_id.or_else(|| by_name().filter(|connection| may_use(principal, connection))).map(Arc::clone)
    }

    /// Every enabled connection of a scope, by name.
    #[must_use]
    pub fn in_scope(&self, scope: &Scope) -> Vec<Arc<Connection>> {
        let mut all: Vec<Arc<Connection>> =
            self.0.scopes.get(scope).map(|index| index.by_name.values().cloned().collect()).unwrap_or_default();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// How many connections there are, disabled ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.by_id.len()
    }

    /// Whether there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `found` with every destination of a granted, enabled connection of the principal's scope that covers the
    /// target, whatever the path; those of one connection may come in any order.
    pub(super) fn each_covering<'t>(
        &'t self,
        principal: &Principal,
        target: &Target,
        mut found: impl FnMut(&'t Arc<Connection>, usize),
    ) {
        let Some(index) = self.0.scopes.get(&principal.scope) else { return };
        let (exact, wildcard) = index.places(target);
        let grant = &principal.grant.connections;
        // By the shorter list: a token with few connections, or a host with few.
        if grant.len() < exact.len() + wildcard.len() {
            for connection in grant.iter().filter_map(|id| self.get(id)).filter(|c| may_use(principal, c)) {
                for (at, destination) in connection.frozen.destinations.iter().enumerate() {
                    if destination.covers_target(target) {
                        found(connection, at);
                    }
                }
            }
        } else {
            for Place { connection, destination } in exact.iter().chain(wildcard) {
                let covers = || connection.frozen.destinations[*destination].covers_target(target);
                if may_use(principal, connection) && covers() {
                    found(connection, *destination);
                }
            }
        }
    }
}

impl Names for RouteTable {
    /// An enabled connection by name, or any by id.
    fn connection(&self, scope: &Scope, name_or_id: &str) -> Option<ConnectionId> {
        let by_id = self.0.by_id.get(name_or_id).filter(|connection| connection.scope == *scope);
        let found = by_id.or_else(|| self.0.scopes.get(scope)?.by_name.get(name_or_id))?;
        Some(found.id.clone())
    }
}

/// Whether the connection exists for the principal at all.
fn may_use(principal: &Principal, connection: &Connection) -> bool {
    !connection.disabled && connection.scope == principal.scope && principal.grant.has_connection(&connection.id)
}

#[derive(Debug, Clone, Default)]
struct Tables {
    /// The disabled ones too.
    by_id: SharedMap<Box<str>, Arc<Connection>>,
    scopes: SharedMap<Scope, Arc<ScopeIndex>>,
}

/// The enabled connections of one scope.
#[derive(Debug, Clone, Default)]
struct ScopeIndex {
    by_name: SharedMap<Box<str>, Arc<Connection>>,
    exact: SharedMap<Target, Vec<Place>>,
    /// By what follows `*.`, whatever scheme and port.
    wildcard: SharedMap<Box<str>, Vec<Place>>,
}

/// One destination of a connection.
#[derive(Debug, Clone)]
struct Place {
    connection: Arc<Connection>,
    destination: usize,
}

impl Tables {
    fn insert(&mut self, connection: Arc<Connection>) {
        self.by_id.insert(Box::from(connection.id.as_str()), Arc::clone(&connection));
        if !connection.disabled {
            Arc::make_mut(self.scopes.entry(connection.scope.clone())).insert(connection);
        }
    }

    fn remove_all<'a>(&mut self, ids: impl Iterator<Item = &'a ConnectionId>) {
        let mut gone: HashMap<Scope, Vec<Arc<Connection>>> = HashMap::new();
        for connection in ids.filter_map(|id| self.by_id.remove(id.as_str())) {
            gone.entry(connection.scope.clone()).or_default().push(connection);
        }
        for (scope, connections) in gone {
            if self.scopes.get(&scope).is_none() {
                continue; // All that it had were disabled.
            }
            let index = Arc::make_mut(self.scopes.entry(scope.clone()));
            index.remove_all(&connections);
            if index.by_name.len() == 0 {
                self.scopes.remove(&scope);
            }
        }
    }
}

impl ScopeIndex {
    /// The places of the host itself, and those of patterns that may match it.
    fn places(&self, target: &Target) -> (&[Place], &[Place]) {
        let exact = self.exact.get(target).map_or(&[][..], Vec::as_slice);
        let suffix = target.host.name().and_then(|name| name.split_once('.'));
        let wildcard = suffix.and_then(|(_, suffix)| self.wildcard.get(suffix));
        (exact, wildcard.map_or(&[][..], Vec::as_slice))
    }

    fn insert(&mut self, connection: Arc<Connection>) {
        for (at, key) in keys(&connection).enumerate() {
            let place = Place { connection: Arc::clone(&connection), destination: at };
            match key {
                Key::Exact(target) => self.exact.entry(target).push(place),
                Key::Wildcard(suffix) => self.wildcard.entry(suffix).push(place),
            }
        }
        self.by_name.insert(Box::from(connection.name.as_str()), connection);
    }

    /// All at once, so that a host with many places is walked once.
    fn remove_all(&mut self, connections: &[Arc<Connection>]) {
        let ids: HashSet<&ConnectionId> = connections.iter().map(|connection| &connection.id).collect();
        for connection in connections {
            let name = connection.name.as_str();
            if self.by_name.get(name).is_some_and(|held| held.id == connection.id) {
                self.by_name.remove(name);
            }
        }
        let touched: HashSet<Key> = connections.iter().flat_map(|connection| keys(connection)).collect();
        for key in touched {
            match key {
                Key::Exact(target) => remove_places(&mut self.exact, target, &ids),
                Key::Wildcard(suffix) => remove_places(&mut self.wildcard, suffix, &ids),
            }
        }
    }
}

fn remove_places<K: std::hash::Hash + Eq + Clone>(
    map: &mut SharedMap<K, Vec<Place>>,
    key: K,
    ids: &HashSet<&ConnectionId>,
) {
    let Some(mut places) = map.remove(&key) else { return };
    places.retain(|place| !ids.contains(&place.connection.id));
    if !places.is_empty() {
        map.insert(key, places);
    }
}

/// Where a destination is found.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Exact(Target),
    Wildcard(Box<str>),
}

/// One for each destination, in their order.
fn keys(connection: &Connection) -> impl Iterator<Item = Key> {
    connection.frozen.destinations.iter().map(|destination| match destination.host.exact() {
        Some(host) => Key::Exact(Target { scheme: destination.scheme, host: host.clone(), port: destination.port }),
        None => Key::Wildcard(suffix_of(&destination.host)),
    })
}

fn suffix_of(pattern: &HostPattern) -> Box<str> {
    let text = pattern.to_string();
    Box::from(text.strip_prefix("*.").unwrap_or(&text))
}
