//! Durable records: connections, tokens, apps, refresh leases, usage.
//!
//! Plain data behind one trait; secrets only as sealed envelopes and token digests. Not here: what a definition
//! means (connection) and when a refresh happens (credential).

mod manifest;
mod owner;
mod records;
mod sqlite;

pub use manifest::{DoubtfulAgents, RecordKind};
pub use records::{
    Accepted, AppRecord, Changes, ConnectionRecord, ConnectionState, CredentialUpdate, Emptied, Failed, LeaseOutcome,
    LeaseOwner, NamespaceSummary, Reason, Record, Report, TenantSummary, TokenKind, TokenRecord, TokenScope, Usage,
};
pub use sqlite::{Cursor, Resealed, Restore, Seen, SqliteStore, StoreFile};

use crate::secret::TokenDigest;
use crate::types::{AgentName, ConnectionId, ConnectionName, Scope, TenantName, TokenId, UnixSeconds};

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A record of that name or id exists.
    #[error("{kind} {name} exists already")]
    Exists {
        /// `connection`, `token`, `app`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// No such record in this tenant and namespace.
    #[error("{kind} {name} does not exist")]
    NotFound {
        /// `connection`, `token`, `app`.
        kind: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The record changed meanwhile: the expected version is no longer current.
    #[error("{kind} {name} was changed by someone else meanwhile; try again")]
    Conflict {
        /// `connection`, `token`, `app`.
        kind: &'static str,
        /// Its id.
        name: String,
    },
    /// It has as many of something as it may have.
    #[error("{kind} {name} has made {limit} tokens that still work, and may not make more")]
    Full {
        /// `token`.
        kind: &'static str,
        /// Its id.
        name: String,
        /// How many.
        limit: u32,
    },
    /// The file is not a store of this program, or damaged.
    #[error("{path} is not a usable store: {reason}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Made by a newer version.
    #[error("{path} was made by a newer version of nexus (schema {found}, this version knows {known}); upgrade nexus")]
    Newer {
        /// The file.
        path: String,
        /// Schema version found.
        found: i64,
        /// Newest known.
        known: i64,
    },
    /// A record, or the manifest, is not what this program wrote last.
    #[error("{kind} {name} fails the integrity check: {reason}; run: nexus store verify")]
    Integrity {
        /// `connection`, `token`, `app`, `tenant`, `agent`; `store` for the manifest itself.
        kind: &'static str,
        /// Its name or id.
        name: String,
        /// What is wrong.
        reason: Reason,
    },
    /// The manifest is under a root key that this process does not have.
    #[error("the store is sealed with root key {key_id}, which is not here; bring it back, or restart with it")]
    KeyUnknown {
        /// The root key's id.
        key_id: String,
    },
    /// What is to be written is sealed with a root key that was rotated away meanwhile.
    #[error("the root key was rotated while this was being sealed; try again")]
    OldKey,
    /// The database failed: disk full, I/O error, locked too long.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The durable store. Every write is committed before it returns. All `list` and `find` calls stay within the scope.
///
/// What does not fit the manifest is [`StoreError::Integrity`]; lists leave such records out and say so on the log.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The random id of this install, made with the store.
    fn install_id(&self) -> &str;

    /// All changes since what was seen (the default: everything), in one consistent read, each checked against the
    /// manifest. What fails is told once, is no part of the changes, and counts as deleted if it was seen before.
    async fn changes_since(&self, seen: &Seen) -> Result<Changes, StoreError>;

    /// Returns when another connection or process has committed something (`PRAGMA data_version`, every 250 ms).
    /// Cancel-safe. Errors are logged and waited out, never returned.
    async fn changed(&self);

    /// Adds a connection. [`StoreError::Exists`] when scope and name are taken, unless `replace`, which keeps nothing
    /// of the old one but its id and continues its version.
    async fn insert_connection(&self, record: &ConnectionRecord, replace: bool) -> Result<(), StoreError>;

    /// One connection by name or id.
    async fn find_connection(&self, scope: &Scope, name_or_id: &str) -> Result<ConnectionRecord, StoreError>;

    /// All connections of the scope, by name.
    async fn list_connections(&self, scope: &Scope) -> Result<Vec<ConnectionRecord>, StoreError>;

    /// Writes a new credential if the record still has version `update.version - 1` ([`StoreError::Conflict`] if not).
    /// With `fence`, also only while that refresh lease is held, which it releases.
    async fn update_credential(
        &self,
        id: &ConnectionId,
        update: &CredentialUpdate,
        fence: Option<i64>,
    ) -> Result<(), StoreError>;

    /// Sets the connection's state and its reason, if the record still has `version`; the version stays.
    async fn set_connection_state(
        &self,
        id: &ConnectionId,
        version: u64,
        state: ConnectionState,
        reason: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Turns a connection on or off.
    async fn set_connection_disabled(&self, scope: &Scope, name_or_id: &str, disabled: bool) -> Result<(), StoreError>;

    /// Deletes a connection for good (`secure_delete` overwrites it). Grants that name it stay and match nothing.
    async fn delete_connection(&self, scope: &Scope, name_or_id: &str) -> Result<ConnectionName, StoreError>;

    /// Adds a token.
    async fn insert_token(&self, record: &TokenRecord) -> Result<(), StoreError>;

    /// Adds a token that another one made, its parent. [`StoreError::Full`] when the parent has `limit` of them that
    /// still work at `now`.
    async fn insert_child_token(&self, record: &TokenRecord, now: UnixSeconds, limit: u32) -> Result<(), StoreError>;

    /// All tokens of the scope, oldest first.
    async fn list_tokens(&self, scope: &Scope) -> Result<Vec<TokenRecord>, StoreError>;

    /// Revokes a token at once; revoking twice is fine.
    async fn revoke_token(&self, scope: &Scope, id: &TokenId, now: UnixSeconds) -> Result<(), StoreError>;

    /// Gives a token a new value; the old one stays valid until `old_valid_until`. `expires_at` restarts the window.
    async fn rotate_token(
        &self,
        scope: &Scope,
        id: &TokenId,
        digest: TokenDigest,
        old_valid_until: UnixSeconds,
        expires_at: Option<UnixSeconds>,
    ) -> Result<(), StoreError>;

    /// Adds or replaces the app registration of a tenant and provider.
    async fn put_app(&self, record: &AppRecord) -> Result<(), StoreError>;

    /// The tenant's app registrations.
    async fn list_apps(&self, scope: &Scope) -> Result<Vec<AppRecord>, StoreError>;

    /// Deletes an app registration.
    async fn delete_app(&self, scope: &Scope, provider: &str) -> Result<(), StoreError>;

    /// Tries to take the refresh lease of a connection that is thought to have `version`. Records the attempt in the
    /// same transaction, before any call to the token endpoint. The lease lasts `ttl_seconds`; a dead owner on the same
    /// host (by boot id, process id and start time) is void at once.
    async fn acquire_refresh_lease(
        &self,
        id: &ConnectionId,
        version: u64,
        owner: &LeaseOwner,
        now: UnixSeconds,
        ttl_seconds: i64,
    ) -> Result<LeaseOutcome, StoreError>;

    /// Gives the lease back without a new credential.
    async fn release_refresh_lease(&self, id: &ConnectionId, fence: i64) -> Result<(), StoreError>;

    /// Since when all agents are locked out, if they are.
    async fn lockdown_at(&self) -> Result<Option<UnixSeconds>, StoreError>;

    /// Revokes every token of every tenant. Gives how many were still valid.
    async fn revoke_all_tokens(&self, now: UnixSeconds) -> Result<u64, StoreError>;

    /// Ends a lockdown and revokes every token, in one transaction: whoever had one needs a new one. Gives how many were
    /// still valid, and `None` when there is no lockdown.
    async fn lift_lockdown(&self, now: UnixSeconds) -> Result<Option<u64>, StoreError>;

    /// Writes last-used times; outside the generation.
    async fn record_usage(&self, usage: &[Usage]) -> Result<(), StoreError>;

    /// Last-used times of connections and tokens of the scope, keyed by id.
    async fn usage(&self, scope: &Scope) -> Result<Vec<Usage>, StoreError>;

    /// Makes a tenant by name. One that has records needs none of this. [`StoreError::Exists`] when it is there.
    async fn create_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<(), StoreError>;

    /// Every tenant that was made by name or has living records, by name.
    async fn list_tenants(&self) -> Result<Vec<TenantSummary>, StoreError>;

    /// Every namespace of the tenant that has living records, by name.
    async fn list_namespaces(&self, tenant: &TenantName) -> Result<Vec<NamespaceSummary>, StoreError>;

    /// Deletes a tenant in one step: its connections are orphans from `now` on, its tokens revoked, its app
    /// registrations and disabled agents gone. [`StoreError::NotFound`] when it has nothing.
    async fn delete_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<Emptied, StoreError>;

    /// The same for one namespace. App registrations are the tenant's and stay.
    async fn delete_namespace(&self, scope: &Scope, now: UnixSeconds) -> Result<Emptied, StoreError>;

    /// Removes for good the connections that were orphaned at `until` or before: of one tenant, or of all. Gives how
    /// many.
    async fn purge_orphans(&self, tenant: Option<&TenantName>, until: UnixSeconds) -> Result<u64, StoreError>;

    /// Removes tokens that have not worked for some time, by themselves or because one that made them does not: those
    /// made for a run or by another token since `brief`, others since `long`. Never one whose children still work. Gives
    /// how many.
    async fn purge_tokens(&self, long: UnixSeconds, brief: UnixSeconds) -> Result<u64, StoreError>;

    /// Takes the one-time code of an invitation, which works no second time, and gives the record.
    /// [`StoreError::NotFound`] when no invitation that can still be taken has this code.
    async fn redeem_code(&self, code: TokenDigest, now: UnixSeconds) -> Result<TokenRecord, StoreError>;

    /// Disables or enables an agent with all that it proves itself with; twice is fine.
    async fn set_agent_disabled(
        &self,
        scope: &Scope,
        agent: &AgentName,
        disabled: bool,
        now: UnixSeconds,
    ) -> Result<(), StoreError>;

    /// The scope's disabled agents, and since when they are.
    async fn disabled_agents(&self, scope: &Scope) -> Result<Vec<(AgentName, UnixSeconds)>, StoreError>;
}
