//! From a principal, an optional choice, and host, port and path to one connection.

use super::{Connection, Destination, RouteTable};
use crate::identity::Principal;
use crate::types::{CanonicalPath, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A routed request: the connection and the destination of it that covers the request.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Index into `connection.frozen.destinations`.
    pub destination: usize,
}

impl Choice {
    /// The destination that covers the request.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.connection.frozen.destinations[self.destination]
    }
}

/// Why no connection was chosen. Unknown, ungranted, disabled and not covering look the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No granted connection covers the request.
    #[error("no connection of this token covers the request")]
    None,
    /// Several cover it equally well; these are the token's own.
    #[error("several connections cover the request: {}", .0.join(", "))]
    Ambiguous(Vec<String>),
    /// Connections cover the host but are restricted by base path, and the path has an encoded slash or a parameter,
    /// which a base path cannot judge: 400 `bad_path`.
    #[error("the path has an encoded slash or a parameter, which a connection restricted by path does not allow")]
    AmbiguousPath,
}

impl RouteTable {
    /// Whether any granted, enabled connection covers this scheme, host and port, whatever the path: such a CONNECT is
    /// intercepted.
    #[must_use]
    pub fn covers_host(&self, principal: &Principal, target: &Target) -> bool {
        let mut any = false;
        self.each_covering(principal, target, |_, _| any = true);
        any
    }

    /// Chooses. With `choice` (a name or id), only that connection, and it must be granted and cover the request.
    /// Without, the granted connection with the most specific base path on whole segments, an exact host before a
    /// pattern; two equally good ones are an error.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route(
        &self,
        principal: &Principal,
        choice: Option<&str>,
        target: &Target,
        path: &CanonicalPath,
    ) -> Result<Choice, RouteError> {
        if let Some(name_or_id) = choice {
            let connection = self.granted(principal, name_or_id).ok_or(RouteError::None)?;
            return best_of(&connection, target, path);
        }
        let mut best = Best::default();
        self.each_covering(principal, target, |connection, at| best.consider(connection, at, path));
        best.choice(path)
    }
}

/// The destination of this one connection that covers the request: the most specific, the first of equals.
///
/// The connection must be known to be granted and enabled, as [`RouteTable::granted`] gives it.
#[must_use]
pub fn destination_for(connection: &Arc<Connection>, target: &Target, path: &CanonicalPath) -> Option<Choice> {
    best_of(connection, target, path).ok()
}

fn best_of(connection: &Arc<Connection>, target: &Target, path: &CanonicalPath) -> Result<Choice, RouteError> {
    let mut best = Best::default();
    for (at, destination) in connection.frozen.destinations.iter().enumerate() {
        if destination.covers_target(target) {
            best.consider(connection, at, path);
        }
    }
    best.choice(path)
}

/// The best of the places considered so far.
#[derive(Default)]
struct Best<'t> {
    considered: bool,
    rank: Option<Rank>,
    /// Equally good ones, of at least one connection.
    found: Vec<(&'t Arc<Connection>, usize)>,
}

/// Whether the host is exact, then the base path's length: all that cover one path are prefixes of each other on whole
/// segments, so that the longer text is the more specific one.
type Rank = (bool, usize);

impl<'t> Best<'t> {
    /// Considers a destination that covers the target.
    fn consider(&mut self, connection: &'t Arc<Connection>, at: usize, path: &CanonicalPath) {
        self.considered = true;
        let destination = &connection.frozen.destinations[at];
        if !destination.path.covers(path) {
            return;
        }
        let rank = Some((destination.host.exact().is_some(), destination.path.as_str().len()));
        if rank > self.rank {
            self.rank = rank;
            self.found.clear();
        }
        if rank == self.rank {
            self.found.push((connection, at));
        }
    }

    fn choice(self, path: &CanonicalPath) -> Result<Choice, RouteError> {
        let Some((connection, _)) = self.found.first() else {
            // A base path covers no ambiguous path: say that, where nothing but base paths was in the way.
            return Err(if self.considered && path.is_ambiguous() {
                RouteError::AmbiguousPath
            } else {
                RouteError::None
            });
        };
        if self.found.iter().any(|(other, _)| other.id != connection.id) {
            let names: BTreeSet<&str> = self.found.iter().map(|(other, _)| other.name.as_str()).collect();
            return Err(RouteError::Ambiguous(names.into_iter().map(str::to_owned).collect()));
        }
        let first = self.found.iter().map(|(_, at)| *at).min().unwrap_or_default();
        Ok(Choice { connection: Arc::clone(connection), destination: first })
    }
}

#[cfg(test)]
mod tests;
