//! Who calls: a downstream proof becomes a [`Principal`].
//!
//! Opaque tokens and client certificates; another proof is another file. Not here: what the principal may do (policy).

mod authority;
mod certificate;
mod directory;
mod mapping;
mod proof;
mod tokens;

pub use authority::{AgentAuthority, AgentCaError, CertificateRequest, RequestError};
pub use certificate::{CertificateMapping, ClientCaError, ClientCas, ClientCertificate, RootId, certificate_name};
pub use directory::{BoundAgent, Directory, DisabledAgents, Proof};
pub use mapping::{Attributes, Claim, Condition, Mapping, MappingError, Names, Rule, Template, TemplateError};
pub use proof::{BasicPair, ProofError, ProxyCredentials, bearer, connection_choice, proxy_authorization};
pub use tokens::{Rejected, TokenTable};

use crate::types::{AgentName, ConnectionId, HostPattern, PathPattern, RunId, Scope, TokenId};
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
    /// The public id of the token record that proved it; none for callers that another issuer vouches for.
    pub token_id: Option<TokenId>,
    /// The name of the issuer that vouches for it, from the config; none for this install's own token records.
    pub issuer: Option<Arc<str>>,
    /// What it may use.
    pub grant: Arc<Grant>,
}

/// What a caller may use. Methods, paths and hosts that are empty mean all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The connections, sorted for binary search.
    pub connections: Vec<ConnectionId>,
    /// The methods, upper case.
    pub methods: Vec<String>,
    /// The paths, as sent upstream.
    pub paths: Vec<PathPattern>,
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// Whether it may make requests.
    pub may_use: bool,
    /// Whether it may make narrower tokens.
    pub may_mint: bool,
    /// What the token that made this one may use: both must allow a request.
    pub within: Option<Arc<Grant>>,
}

impl Default for Grant {
    /// No connection, and no other restriction.
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            may_use: true,
            may_mint: false,
            within: None,
        }
    }
}

impl Grant {
    /// Whether the connection is granted.
    #[must_use]
    pub fn has_connection(&self, id: &ConnectionId) -> bool {
        self.connections.binary_search(id).is_ok()
    }
}
