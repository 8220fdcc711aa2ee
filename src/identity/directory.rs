//! Everyone who may call, and the one place where a proof becomes a principal.

use super::{
    Attributes, CertificateMapping, ClientCertificate, Issuers, JwtError, Mapping, Names, Presented, Principal,
    Rejected, RootId, TokenTable, VerifiedJwt, has_jwt_form,
};
use crate::secret::{AgentToken, Secret, TokenDigest};
use crate::store::DoubtfulAgents;
use crate::types::{AgentName, ConnectionId, Scope, TokenId, UnixSeconds};
use quick_cache::sync::Cache;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// What a caller proves itself with. A tunnel keeps it and has it judged anew at each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A token that this install has a record of, by the digest of its text: an opaque one, or a run's.
    Token(TokenDigest),
    /// A JWT of an issuer from the config.
    Jwt(Arc<VerifiedJwt>),
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
    /// Agents that may be: the store has lost the record that would say so. Refused like those that are.
    pub doubtful: DoubtfulAgents,
    /// Where mappings find connections by their names; none finds none.
    pub names: Option<Arc<dyn Names>>,
    /// Whose JWTs are taken.
    pub issuers: Issuers,
    /// The principals of JWTs that were seen with exactly this directory; empty whenever something in it changes.
    pub principals: Principals,
    /// What certificates of the operator's own CAs mean; the first that fits holds.
    pub certificates: Arc<[CertificateMapping]>,
    /// The CAs that client certificates are believed of, on whatever listener.
    pub client_roots: Arc<HashSet<RootId>>,
}

/// Principals that mappings made, by the digest of the JWT. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct Principals(Arc<OnceLock<Cache<TokenDigest, Principal>>>);

/// Principals that are remembered, at most.
const REMEMBERED: usize = 4096;

impl fmt::Debug for Principals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principals(..)")
    }
}

impl Principals {
    fn has(&self, digest: &TokenDigest) -> bool {
        self.0.get().is_some_and(|cache| cache.get(digest).is_some())
    }

    fn get_or_map(
        &self,
        token: &VerifiedJwt,
        map: impl FnOnce() -> Result<Principal, Rejected>,
    ) -> Result<Principal, Rejected> {
        // Most snapshots never see a JWT.
        let cache = self.0.get_or_init(|| Cache::new(REMEMBERED));
        // A token for two audiences may have been verified for another issuer of the config.
        let is_its = |principal: &Principal| principal.issuer.as_ref() == Some(&token.issuer);
        if let Some(principal) = cache.get(&token.digest).filter(is_its) {
            return Ok(principal);
        }
        let principal = map()?;
        cache.insert(token.digest, principal.clone());
        Ok(principal)
    }
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
        self.unless_disabled(match proof {
            Proof::Token(digest) => self.tokens.authenticate(digest, now),
            Proof::Jwt(token) => self.recognise_jwt(token, now),
            Proof::Certificate(certificate) => self.certified(certificate, now),
            Proof::Bound(bound) => {
                self.tokens.principal_of_agent(&bound.scope, &bound.agent, now).ok_or(Rejected::Unknown)
            }
            Proof::Code(digest) => self.tokens.invited(digest, now),
        }?)
    }

    /// The principal of a record, however it is proved.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn of_record(&self, id: &TokenId, now: UnixSeconds) -> Result<Principal, Rejected> {
        if self.locked {
            return Err(Rejected::LockedOut);
        }
        self.unless_disabled(self.tokens.of_record(id, now)?)
    }

    fn unless_disabled(&self, principal: Principal) -> Result<Principal, Rejected> {
        // With an agent ends all that its tokens have made, whatever name that has.
        let is_disabled = |Principal { scope, agent, .. }: &Principal| {
            self.disabled.has(scope, agent) || self.doubtful.has(scope, agent)
        };
        let made_by = || principal.token_id.iter().flat_map(|id| self.tokens.lineage(id));
        if is_disabled(&principal) || made_by().any(is_disabled) {
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

    fn recognise_jwt(&self, token: &VerifiedJwt, now: UnixSeconds) -> Result<Principal, Rejected> {
        let issuer = self.issuers.by_name(&token.issuer).ok_or(Rejected::Unknown)?;
        issuer.check_again(token, now).map_err(|error| {
            tracing::info!(issuer = %token.issuer, "a JWT of {} is refused: {error}", token.issuer);
            if error == JwtError::Expired { Rejected::Expired } else { Rejected::Unknown }
        })?;
        let name = &issuer.settings.name;
        self.principals.get_or_map(token, || self.mapped(&issuer.settings.mapping, name, &token.claims))
    }

    /// What a text presents, if it has the form of an agent's token: an opaque one, or a JWT that says it is of one of
    /// the issuers here. Every other text is none of ours.
    #[must_use]
    pub fn presented(&self, text: &str) -> Option<Presented> {
        if AgentToken::has_form(text) {
            return Some(Presented::Token(AgentToken::digest(text)));
        }
        if !has_jwt_form(text) {
            return self.issuers.is_named_in(text).then(|| jwt(text));
        }
        let presented = jwt(text);
        // One that was recognised before need not be read again.
        (self.principals.has(presented.digest()) || self.issuers.is_named_in(text)).then_some(presented)
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

fn jwt(text: &str) -> Presented {
    Presented::Jwt { digest: AgentToken::digest(text), text: Secret::new(text.to_owned()) }
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
