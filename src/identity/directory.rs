//! Everyone who may call, and the one place where a proof becomes a principal.

use super::{
    Attributes, CertificateMapping, ClientCertificate, Mapping, Names, Principal, Rejected, RootId, TokenTable,
};
use crate::secret::TokenDigest;
use crate::types::{AgentName, ConnectionId, Scope, UnixSeconds};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a caller proves itself with. A tunnel keeps it and has it judged anew at each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// An opaque token.
    Token(TokenDigest),
    /// A client certificate, verified in the handshake.
    Certificate(Arc<ClientCertificate>),
    /// Reaching a listener that is bound to an agent.
    Bound(Arc<BoundAgent>),
    /// A one-time code of an invitation. Proves the right to a certificate and to nothing else.
    Code(TokenDigest),
}

/// The agent that a listener is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoundAgent {
    /// Its tenant and namespace.
    pub scope: Scope,
    /// The agent.
    pub agent: AgentName,
}

/// Everyone who may call. Cheap to clone; part of the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// This install's token records.
    pub tokens: TokenTable,
    /// Whether all agents are locked out.
    pub locked: bool,
    /// Agents that are, each by itself.
    pub disabled: DisabledAgents,
    /// Where mappings find connections by their names; none finds none.
    pub names: Option<Arc<dyn Names>>,
    /// What certificates of the operator's own CAs mean; the first that fits holds.
    pub certificates: Arc<[CertificateMapping]>,
    /// The CAs that client certificates are believed of, on whatever listener.
    pub client_roots: Arc<HashSet<RootId>>,
}

impl Directory {
    /// The principal that a proof proves, now.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn recognise(&self, proof: &Proof, now: UnixSeconds) -> Result<Principal, Rejected> {
        if self.locked {
            return Err(Rejected::LockedOut);
        }
        let principal = match proof {
            Proof::Token(digest) => self.tokens.authenticate(digest, now),
            Proof::Certificate(certificate) => self.certified(certificate, now),
            Proof::Bound(bound) => {
                self.tokens.principal_of_agent(&bound.scope, &bound.agent, now).ok_or(Rejected::Unknown)
            }
            Proof::Code(digest) => self.tokens.invited(digest, now),
        }?;
        if self.disabled.has(&principal.scope, &principal.agent) {
            return Err(Rejected::AgentDisabled);
        }
        Ok(principal)
    }

    fn certified(&self, certificate: &ClientCertificate, now: UnixSeconds) -> Result<Principal, Rejected> {
        if !certificate.is_valid(now) {
            return Err(Rejected::Expired);
        }
        // A connection outlives the file that its CA stood in.
        if !self.client_roots.contains(&certificate.root) {
            return Err(Rejected::Unknown);
        }
        match &certificate.record {
            Some(record) => self.tokens.certified(record, now),
            // What the install's own CA signs and no record is named by means nothing.
            None if certificate.is_own => Err(Rejected::Unknown),
            None => self.certified_by_rule(certificate),
        }
    }

    fn certified_by_rule(&self, certificate: &ClientCertificate) -> Result<Principal, Rejected> {
        let names: &dyn Names = self.names.as_deref().unwrap_or(&NoNames);
        let mut refused = None;
        for CertificateMapping { name, mapping } in &*self.certificates {
            match mapping.principal(name, &certificate.attributes, names) {
                Ok(principal) => return Ok(principal),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            tracing::info!("a client certificate that no rule of identity.certificate fits was refused: {error}");
        }
        Err(Rejected::NotMapped)
    }

    /// The principal that a mapping makes of verified attributes, with the connections as they are in this snapshot.
    /// `issuer` is the name, from the config, of who vouches for them.
    ///
    /// # Errors
    /// [`Rejected::NotMapped`].
    pub fn mapped(&self, mapping: &Mapping, issuer: &Arc<str>, attributes: &Attributes) -> Result<Principal, Rejected> {
        let none: &dyn Names = &NoNames;
        mapping.principal(issuer, attributes, self.names.as_deref().unwrap_or(none)).map_err(|error| {
            tracing::info!(%issuer, "a caller that {issuer} vouches for was refused: {error}");
            Rejected::NotMapped
        })
    }
}

#[derive(Debug)]
struct NoNames;

impl Names for NoNames {
    fn connection(&self, _: &Scope, _: &str) -> Option<ConnectionId> {
        None
    }
}

/// The agents that were disabled. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DisabledAgents(Arc<HashMap<Scope, HashSet<AgentName>>>);

impl DisabledAgents {
    /// Whether this one is.
    #[must_use]
    pub fn has(&self, scope: &Scope, agent: &AgentName) -> bool {
        !self.0.is_empty() && self.0.get(scope).is_some_and(|agents| agents.contains(agent))
    }
}

impl FromIterator<(Scope, AgentName)> for DisabledAgents {
    fn from_iter<I: IntoIterator<Item = (Scope, AgentName)>>(agents: I) -> Self {
        let mut disabled: HashMap<Scope, HashSet<AgentName>> = HashMap::new();
        for (scope, agent) in agents {
            disabled.entry(scope).or_default().insert(agent);
        }
        Self(Arc::new(disabled))
    }
}
