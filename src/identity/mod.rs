//! Who calls: a downstream proof becomes a [`Principal`].
//!
//! Opaque tokens; another proof is another file. Not here: what the principal may do (policy).

mod proof;
mod tokens;

pub use proof::{BasicPair, Proof, ProofError, bearer, proxy_authorization};
pub use tokens::{Rejected, TokenTable};

use crate::types::{AgentName, ConnectionId, PathPattern, RunId, Scope, TokenId};
use std::sync::Arc;

/// A verified caller.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Tenant and namespace.
    pub scope: Scope,
    /// The agent.
    pub agent: AgentName,
    /// The run, if the token was made for one.
    pub run: Option<RunId>,
    /// The token's public id.
    pub token_id: TokenId,
    /// What the token may use.
    pub grant: Arc<Grant>,
}

/// What a token may use. Methods and paths that are empty mean all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The connections, sorted for binary search.
    pub connections: Vec<ConnectionId>,
    /// The methods, upper case.
    pub methods: Vec<String>,
    /// The paths, as sent upstream.
    pub paths: Vec<PathPattern>,
}

impl Grant {
    /// Whether the connection is granted.
    #[must_use]
    pub fn has_connection(&self, id: &ConnectionId) -> bool {
        self.connections.binary_search(id).is_ok()
    }
}
