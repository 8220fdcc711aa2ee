//! Who calls: a downstream proof becomes a [`Principal`].
//!
//! Opaque tokens, JWTs of this install and of issuers from the config, and client certificates; another proof is another
//! file. Not here: what the principal may do (policy).

mod authority;
mod certificate;
mod directory;
mod jwt;
mod mapping;
mod proof;
mod tokens;

pub use authority::{AgentAuthority, AgentCaError, CertificateRequest, RequestError};
pub use certificate::{CertificateMapping, ClientCaError, ClientCas, ClientCertificate, RootId, certificate_name};
pub use directory::{BoundAgent, Directory, DisabledAgents, Principals, Proof};
pub use jwt::{
    Algorithm, Fetcher, Issuer, IssuerSettings, Issuers, JwtError, KeyLocation, KeySet, KeySetError, KeySource,
    MAX_JWT_BYTES, RUN_AUDIENCE, RunClaims, VerifiedJwt, Verifier, has_jwt_form, own_issuer, sign_run_token,
};
pub use mapping::{Attributes, Claim, Condition, Mapping, MappingError, Names, Rule, Template, TemplateError};
pub use proof::{BasicPair, Presented, ProofError, ProxyCredentials, bearer, connection_choice, proxy_authorization};
pub use tokens::{MAX_GENERATIONS, Rejected, Standing, TokenTable};

#[cfg(test)]
pub(crate) use jwt::testing;

use crate::types::{AgentName, ConnectionId, Host, HostPattern, PathPattern, RunId, Scope, TokenId};
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
    /// What allows nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { may_use: false, ..Self::default() }
    }

    /// This grant and those that it is within.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |grant| grant.within.as_deref())
    }

    /// Whether the connection is granted, by the whole chain.
    #[must_use]
    pub fn has_connection(&self, id: &ConnectionId) -> bool {
        self.chain().all(|grant| grant.connections.binary_search(id).is_ok())
    }

    /// Whether requests may be made, by the whole chain.
    #[must_use]
    pub fn allows_use(&self) -> bool {
        self.chain().all(|grant| grant.may_use)
    }

    /// Whether tokens may be made, by the whole chain.
    #[must_use]
    pub fn allows_mint(&self) -> bool {
        self.chain().all(|grant| grant.may_mint)
    }

    /// Whether requests may go to the host, by this grant alone.
    #[must_use]
    pub fn allows_host_itself(&self, host: &Host) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether any grant of the chain restricts methods.
    #[must_use]
    pub fn restricts_methods(&self) -> bool {
        self.chain().any(|grant| !grant.methods.is_empty())
    }
}
