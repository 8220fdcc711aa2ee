//! From a principal, an optional choice, and host, port and path to one connection.

use super::{Connection, Destination};
use crate::identity::Principal;
use crate::types::{CanonicalPath, ConnectionId, Scope, Target};
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
}

/// All connections, indexed by id and by scope and host. Cheap to clone (`Arc` inside).
#[derive(Debug, Clone, Default)]
pub struct RouteTable(());

impl RouteTable {
    /// This table with connections added or replaced and ids removed.
    #[must_use]
    pub fn updated(&self, _changed: Vec<Arc<Connection>>, _deleted: &[ConnectionId]) -> Self {
        todo!()
    }

    /// A connection by id.
    #[must_use]
    pub fn get(&self, _id: &ConnectionId) -> Option<&Arc<Connection>> {
        todo!()
    }

    /// A granted, enabled connection by name or id within the principal's scope. (`/c/NAME`, `/v1/call`.)
    #[must_use]
    pub fn granted(&self, _principal: &Principal, _name_or_id: &str) -> Option<Arc<Connection>> {
        todo!()
    }

    /// Every enabled connection of a scope.
    #[must_use]
    pub fn in_scope(&self, _scope: &Scope) -> Vec<Arc<Connection>> {
        todo!()
    }

    /// Whether any granted, enabled connection covers this host and port, whatever the path: such a CONNECT is
    /// intercepted.
    #[must_use]
    pub fn covers_host(&self, _principal: &Principal, _target: &Target) -> bool {
        todo!()
    }

    /// Chooses. With `choice` (a name or id), only that connection, and it must be granted and cover the request.
    /// Without, the granted connection with the most specific base path on whole segments, an exact host before a
    /// pattern; two equally good ones are an error.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route(
        &self,
        _principal: &Principal,
        _choice: Option<&str>,
        _target: &Target,
        _path: &CanonicalPath,
    ) -> Result<Choice, RouteError> {
        todo!()
    }
}
