//! The look-up table of opaque tokens, built from the store's records.

use super::{Grant, Principal};
use crate::secret::TokenDigest;
use crate::store::{TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, HostError, PathError, PathPattern, Scope, TokenId, UnixSeconds};
use std::collections::HashMap;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// Why a token was refused. Never told apart to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such token.
    #[error("the token is unknown")]
    Unknown,
    /// Past its end.
    #[error("the token has expired")]
    Expired,
    /// Revoked.
    #[error("the token was revoked")]
    Revoked,
    /// All agents are.
    #[error("all agents are locked out")]
    LockedOut,
    /// The agent is.
    #[error("the agent is disabled")]
    AgentDisabled,
    /// Verified, but the config grants nothing to such callers.
    #[error("nothing is granted to callers with such attributes")]
    NotMapped,
}

/// Token digests to principals: SHA-256 look-up in a hash map, flat in the number of tokens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TokenTable(Arc<Tables>);

impl TokenTable {
    /// This table with records added or replaced and ids removed.
    ///
    /// A record that cannot be used (a path pattern that does not parse) is left out, so that its token is unknown.
    #[must_use]
    pub fn updated(&self, changed: &[TokenRecord], deleted: &[TokenId]) -> Self {
        let mut tables = Tables::clone(&self.0);
        for record in changed {
            tables.remove(&record.id);
            match Entry::from_record(record) {
                Ok(entry) => tables.insert(Arc::new(entry)),
                Err(error) => {
                    tracing::warn!(token = %record.id, %error, "token {} is damaged and refused; make a new one", record.id);
                }
            }
        }
        for id in deleted {
            tables.remove(id);
        }
        Self(Arc::new(tables))
    }

    /// The principal of a token.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn authenticate(&self, digest: &TokenDigest, now: UnixSeconds) -> Result<Principal, Rejected> {
        let entry = self.0.live(digest, now)?;
        // The code of an invitation is no token.
        if entry.kind == TokenKind::Certificate {
            return Err(Rejected::Unknown);
        }
        Ok(entry.principal.clone())
    }

    /// The principal of an invitation whose code has this digest.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn invited(&self, code: &TokenDigest, now: UnixSeconds) -> Result<Principal, Rejected> {
        let entry = self.0.live(code, now)?;
        if entry.kind != TokenKind::Certificate {
            return Err(Rejected::Unknown);
        }
        Ok(entry.principal.clone())
    }

    /// The principal of the record that a certificate of this install names.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn certified(&self, id: &TokenId, now: UnixSeconds) -> Result<Principal, Rejected> {
        let entry = self.0.by_id.get(id).filter(|entry| entry.kind == TokenKind::Certificate);
        let entry = entry.ok_or(Rejected::Unknown)?;
        entry.check(now)?;
        Ok(entry.principal.clone())
    }

    /// Whether the token would be accepted now: what requests inside an open tunnel ask again.
    #[must_use]
    pub fn is_live(&self, digest: &TokenDigest, now: UnixSeconds) -> bool {
        self.0.live(digest, now).is_ok()
    }

    /// The principal of the token with this id, if it is neither revoked nor expired.
    #[must_use]
    pub fn by_id(&self, id: &TokenId, now: UnixSeconds) -> Option<Principal> {
        self.0.by_id.get(id).filter(|entry| entry.check(now).is_ok()).map(|entry| entry.principal.clone())
    }

    /// The principal of an agent's newest live token: what an agent-bound listener acts as.
    #[must_use]
    pub fn principal_of_agent(&self, scope: &Scope, agent: &AgentName, now: UnixSeconds) -> Option<Principal> {
        let tokens = self.0.by_agent.get(scope)?.get(agent)?;
        tokens.iter().find(|entry| entry.check(now).is_ok()).map(|entry| entry.principal.clone())
    }

    /// When the token with this id ends, if it ends by itself.
    #[must_use]
    pub fn end_of(&self, id: &TokenId) -> Option<UnixSeconds> {
        self.0.by_id.get(id)?.expires_at
    }

    /// How many tokens there are, dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.by_id.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.by_id.is_empty()
    }
}

/// One token, with its principal built ahead.
#[derive(Debug)]
struct Entry {
    principal: Principal,
    id: TokenId,
    kind: TokenKind,
    digest: TokenDigest,
    previous: Option<(TokenDigest, UnixSeconds)>,
    created_at: UnixSeconds,
    expires_at: Option<UnixSeconds>,
    revoked: bool,
}

impl Entry {
    fn from_record(record: &TokenRecord) -> Result<Self, String> {
        // One bad pattern refuses the whole token: without it the rest might be empty, and empty means all.
        let paths = record.paths.iter().map(|text| PathPattern::parse(text)).collect::<Result<_, _>>();
        let paths = paths.map_err(|error: PathError| error.to_string())?;
        let hosts = record
            .hosts
            .iter()
            .map(|text| text.parse().map_err(|e: HostError| e.to_string()))
            .collect::<Result<_, _>>()?;
        let mut connections = record.connections.clone();
        connections.sort_unstable();
        connections.dedup();
        let methods = record.methods.iter().map(|method| method.to_ascii_uppercase()).collect();
        Ok(Self {
            principal: Principal {
                scope: record.scope.clone(),
                agent: record.agent.clone(),
                run: record.run.clone(),
                token_id: Some(record.id.clone()),
                issuer: None,
                grant: Arc::new(Grant {
                    connections,
                    methods,
                    paths,
                    hosts,
                    may_use: record.scopes.contains(&TokenScope::Use),
                    may_mint: record.scopes.contains(&TokenScope::Mint),
                    within: None,
                }),
            },
            id: record.id.clone(),
            kind: record.kind,
            digest: record.digest,
            previous: record.previous,
            created_at: record.created_at,
            expires_at: record.expires_at,
            revoked: record.revoked_at.is_some(),
        })
    }

    fn id(&self) -> &TokenId {
        &self.id
    }

    /// Whether the token works at all, by whichever of its values.
    fn check(&self, now: UnixSeconds) -> Result<(), Rejected> {
        if self.revoked {
            Err(Rejected::Revoked)
        } else if self.expires_at.is_some_and(|end| end <= now) {
            Err(Rejected::Expired)
        } else {
            Ok(())
        }
    }

    /// Whether this value of the token works.
    fn check_value(&self, digest: &TokenDigest, now: UnixSeconds) -> Result<(), Rejected> {
        // In constant time: the hash map's own comparison may have told how far two digests agree.
        let is_current = bool::from(self.digest.0.ct_eq(&digest.0));
        let previous_end = self.previous.as_ref().filter(|(old, _)| bool::from(old.0.ct_eq(&digest.0)));
        match (is_current, previous_end) {
            (true, _) => self.check(now),
            (false, Some((_, end))) => self.check(now).and(if *end <= now { Err(Rejected::Expired) } else { Ok(()) }),
            (false, None) => Err(Rejected::Unknown),
        }
    }

    fn digests(&self) -> impl Iterator<Item = TokenDigest> {
        std::iter::once(self.digest).chain(self.previous.map(|(old, _)| old))
    }
}

#[derive(Debug, Clone, Default)]
struct Tables {
    by_digest: HashMap<TokenDigest, Arc<Entry>>,
    by_id: HashMap<TokenId, Arc<Entry>>,
    /// Newest first.
    by_agent: HashMap<Scope, HashMap<AgentName, Vec<Arc<Entry>>>>,
}

impl Tables {
    fn live(&self, digest: &TokenDigest, now: UnixSeconds) -> Result<&Entry, Rejected> {
        let entry = self.by_digest.get(digest).ok_or(Rejected::Unknown)?;
        entry.check_value(digest, now)?;
        Ok(entry)
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        for digest in entry.digests() {
            self.by_digest.insert(digest, Arc::clone(&entry));
        }
        let Principal { scope, agent, .. } = &entry.principal;
        let tokens = self.by_agent.entry(scope.clone()).or_default().entry(agent.clone()).or_default();
        // Ids sort by time too, for tokens of one second.
        let at = tokens.partition_point(|other| (other.created_at, other.id()) > (entry.created_at, entry.id()));
        tokens.insert(at, Arc::clone(&entry));
        self.by_id.insert(entry.id().clone(), entry);
    }

    fn remove(&mut self, id: &TokenId) {
        let Some(entry) = self.by_id.remove(id) else { return };
        for digest in entry.digests() {
            if self.by_digest.get(&digest).is_some_and(|held| held.id() == id) {
                self.by_digest.remove(&digest);
            }
        }
        let Principal { scope, agent, .. } = &entry.principal;
        let Some(agents) = self.by_agent.get_mut(scope) else { return };
        if let Some(tokens) = agents.get_mut(agent) {
            tokens.retain(|other| other.id() != id);
            if tokens.is_empty() {
                agents.remove(agent);
            }
        }
        if agents.is_empty() {
            self.by_agent.remove(scope);
        }
    }
}

#[cfg(test)]
mod tests;
