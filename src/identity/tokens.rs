//! The look-up table of opaque tokens, built from the store's records.

use super::{Grant, Principal};
use crate::secret::TokenDigest;
use crate::store::{TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, HostError, PathError, PathPattern, Scope, SharedMap, TokenId, UnixSeconds};
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

/// The longest chain of tokens: one made by a person, and so many that each made the next.
pub const MAX_GENERATIONS: usize = 5;

/// Token digests to principals: SHA-256 look-up in a hash map, flat in the number of tokens. Cheap to clone, and a
/// changed copy shares what did not change.
///
/// A token lives as long as every token of the chain that made it: a parent that is missing counts as revoked. Its grant
/// has its parent's inside. Both hold in whatever order the records come.
#[derive(Debug, Clone, Default)]
pub struct TokenTable(Arc<Tables>);

/// What a new token may have of the one that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When it ends, by itself or with a token that made it.
    pub expires_at: Option<UnixSeconds>,
    /// How many tokens stand above it.
    pub generation: usize,
}

impl TokenTable {
    /// This table with records added or replaced and ids removed.
    ///
    /// A record that cannot be used (a path pattern that does not parse) is left out, so that its token is unknown.
    #[must_use]
    pub fn updated(&self, changed: &[TokenRecord], deleted: &[TokenId]) -> Self {
        let mut tables = Tables::clone(&self.0);
        for record in changed {
            let old = tables.remove(&record.id);
            match Entry::from_record(record) {
                Ok(entry) => tables.insert(entry, old.as_deref()),
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
        self.0.check(entry, now)?;
        Ok(entry.principal.clone())
    }

    /// Whether the token would be accepted now: what requests inside an open tunnel ask again.
    #[must_use]
    pub fn is_live(&self, digest: &TokenDigest, now: UnixSeconds) -> bool {
        self.0.live(digest, now).is_ok()
    }

    /// The principal of the token with this id.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn of_record(&self, id: &TokenId, now: UnixSeconds) -> Result<Principal, Rejected> {
        let entry = self.0.by_id.get(id).ok_or(Rejected::Unknown)?;
        self.0.check(entry, now)?;
        Ok(entry.principal.clone())
    }

    /// The principal of the token with this id, if neither it nor one that made it is revoked or expired.
    #[must_use]
    pub fn by_id(&self, id: &TokenId, now: UnixSeconds) -> Option<Principal> {
        self.of_record(id, now).ok()
    }

    /// The principal of an agent's newest live token: what an agent-bound listener acts as. Not one that the agent made
    /// for a part of itself, nor what is for a run or a certificate alone.
    #[must_use]
    pub fn principal_of_agent(&self, scope: &Scope, agent: &AgentName, now: UnixSeconds) -> Option<Principal> {
        let tokens = self.0.by_agent.get(&(scope.clone(), agent.clone()))?;
        let maker = |entry: &Entry| self.0.by_id.get(entry.parent.as_ref()?);
        let is_a_part = |entry: &Entry| maker(entry).is_some_and(|maker| maker.principal.agent == *agent);
        let newest = tokens.iter().rev().find(|entry| self.0.check(entry, now).is_ok() && !is_a_part(entry));
        newest.map(|entry| entry.principal.clone())
    }

    /// A token and those that made it, from it upwards, dead ones too.
    pub fn lineage(&self, id: &TokenId) -> impl Iterator<Item = &Principal> {
        let above = |entry: &&Arc<Entry>| self.0.by_id.get(entry.parent.as_ref()?);
        std::iter::successors(self.0.by_id.get(id), above).take(MAX_GENERATIONS + 1).map(|entry| &entry.principal)
    }

    /// The agent whose token stands at the beginning of a caller's chain: what is counted by agent is counted on it, or
    /// names that are made up would have limits of their own.
    #[must_use]
    pub fn first_agent(&self, principal: &Principal) -> AgentName {
        let first = principal.token_id.as_ref().and_then(|id| self.lineage(id).last());
        first.unwrap_or(principal).agent.clone()
    }

    /// What a token may give to one that it makes; none when it is not alive.
    #[must_use]
    pub fn standing(&self, id: &TokenId, now: UnixSeconds) -> Option<Standing> {
        let mut entry = self.0.by_id.get(id)?;
        self.0.check(entry, now).ok()?;
        let mut standing = Standing { expires_at: entry.expires_at, generation: 0 };
        while let Some(parent) = &entry.parent {
            entry = self.0.by_id.get(parent)?;
            standing.generation += 1;
            standing.expires_at = match (standing.expires_at, entry.expires_at) {
                (Some(own), Some(above)) => Some(own.min(above)),
                (own, above) => own.or(above),
            };
        }
        Some(standing)
    }

    /// When the token with this id ends, by itself or with one that made it.
    #[must_use]
    pub fn end_of(&self, id: &TokenId) -> Option<UnixSeconds> {
        let above = |entry: &&Arc<Entry>| self.0.by_id.get(entry.parent.as_ref()?);
        let line = std::iter::successors(self.0.by_id.get(id), above).take(MAX_GENERATIONS + 1);
        line.filter_map(|entry| entry.expires_at).min()
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

#[derive(Debug, Clone, Default)]
struct Tables {
    by_digest: SharedMap<TokenDigest, Arc<Entry>>,
    by_id: SharedMap<TokenId, Arc<Entry>>,
    /// Those that an agent can act by without showing them, oldest first. Without revoked ones, which nothing revives.
    by_agent: SharedMap<(Scope, AgentName), Arc<Vec<Arc<Entry>>>>,
    /// Whom each token has made, whether that token is known or not. Without revoked ones.
    children: SharedMap<TokenId, Arc<Vec<TokenId>>>,
}

impl Tables {
    fn live(&self, digest: &TokenDigest, now: UnixSeconds) -> Result<&Entry, Rejected> {
        let entry = self.by_digest.get(digest).ok_or(Rejected::Unknown)?;
        entry.check_value(digest, now)?;
        self.check(entry, now)?;
        Ok(entry)
    }

    /// Whether the token and all that made it work. The chain ends after [`MAX_GENERATIONS`], also when an edited store
    /// has made it a ring.
    fn check(&self, entry: &Entry, now: UnixSeconds) -> Result<(), Rejected> {
        entry.check(now)?;
        let mut child = entry;
        for _ in 0..MAX_GENERATIONS {
            let Some(parent) = &child.parent else { return Ok(()) };
            let parent = self.by_id.get(parent).ok_or(Rejected::Revoked)?;
            if parent.principal.scope != entry.principal.scope {
                return Err(Rejected::Revoked);
            }
            parent.check(now)?;
            child = parent;
        }
        if child.parent.is_none() { Ok(()) } else { Err(Rejected::Revoked) }
    }

    /// Adds a token that is not there. `old` is what it replaces.
    fn insert(&mut self, mut entry: Entry, old: Option<&Entry>) {
        if let Some(parent) = &entry.parent {
            entry.set_within(self.by_id.get(parent).map(|parent| &parent.principal.grant));
        }
        // Grants seldom change once made: what stays the same stays shared, and is not told to the children again.
        let same_grant = old.filter(|old| old.principal.grant == entry.principal.grant);
        if let Some(old) = same_grant {
            entry.principal.grant = Arc::clone(&old.principal.grant);
        }
        let (id, grant) = (entry.id.clone(), Arc::clone(&entry.principal.grant));
        self.place(Arc::new(entry));
        if same_grant.is_none() {
            self.pass_on(&id, &grant, MAX_GENERATIONS);
        }
    }

    /// Gives a changed grant to those that the token has made, and to theirs.
    fn pass_on(&mut self, id: &TokenId, grant: &Arc<Grant>, generations: usize) {
        let Some(children) = self.children.get(id).cloned().filter(|_| generations > 0) else { return };
        for child in children.iter() {
            let Some(old) = self.remove(child) else { continue };
            let mut entry = Entry::clone(&old);
            entry.set_within(Some(grant));
            let grant = Arc::clone(&entry.principal.grant);
            self.place(Arc::new(entry));
            self.pass_on(child, &grant, generations - 1);
        }
    }

    fn place(&mut self, entry: Arc<Entry>) {
        for digest in entry.digests() {
            self.by_digest.insert(digest, Arc::clone(&entry));
        }
        if !entry.revoked {
            if entry.kind == TokenKind::Opaque && entry.principal.grant.may_use {
                let tokens = Arc::make_mut(self.by_agent.entry(entry.agent_key()));
                let at = tokens.partition_point(|other| other.age_key() < entry.age_key());
                tokens.insert(at, Arc::clone(&entry));
            }
            if let Some(parent) = &entry.parent {
                let children = Arc::make_mut(self.children.entry(parent.clone()));
                if let Err(at) = children.binary_search(&entry.id) {
                    children.insert(at, entry.id.clone());
                }
            }
        }
        self.by_id.insert(entry.id.clone(), entry);
    }

    fn remove(&mut self, id: &TokenId) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(id)?;
        for digest in entry.digests() {
            if self.by_digest.get(&digest).is_some_and(|held| held.id == *id) {
                self.by_digest.remove(&digest);
            }
        }
        if entry.revoked {
            return Some(entry);
        }
        let key = entry.agent_key();
        let tokens = Arc::make_mut(self.by_agent.entry(key.clone()));
        if let Ok(at) = tokens.binary_search_by(|other| other.age_key().cmp(&entry.age_key())) {
            tokens.remove(at);
        }
        if tokens.is_empty() {
            self.by_agent.remove(&key);
        }
        if let Some(parent) = &entry.parent {
            let children = Arc::make_mut(self.children.entry(parent.clone()));
            if let Ok(at) = children.binary_search(id) {
                children.remove(at);
            }
            if children.is_empty() {
                self.children.remove(parent);
            }
        }
        Some(entry)
    }
}

/// One token, with its principal built ahead.
#[derive(Debug, Clone)]
struct Entry {
    principal: Principal,
    id: TokenId,
    parent: Option<TokenId>,
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
            parent: record.parent.clone(),
            kind: record.kind,
            digest: record.digest,
            previous: record.previous,
            created_at: record.created_at,
            expires_at: record.expires_at,
            revoked: record.revoked_at.is_some(),
        })
    }

    /// Puts the grant inside that of the token that made this one; without a parent nothing is allowed.
    fn set_within(&mut self, parent: Option<&Arc<Grant>>) {
        let within = parent.cloned().unwrap_or_else(|| Arc::new(Grant::nothing()));
        self.principal.grant = Arc::new(Grant { within: Some(within), ..Grant::clone(&self.principal.grant) });
    }

    fn agent_key(&self) -> (Scope, AgentName) {
        (self.principal.scope.clone(), self.principal.agent.clone())
    }

    /// Ids sort by time too, for tokens of one second.
    fn age_key(&self) -> (UnixSeconds, &TokenId) {
        (self.created_at, &self.id)
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

#[cfg(test)]
mod tests;
