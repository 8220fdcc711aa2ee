//! Durable records: connections, tokens, apps, refresh leases, usage.
//!
//! Plain data behind one trait; secrets only as sealed envelopes and token digests. Not here: what a definition
//! means (connection) and when a refresh happens (credential).

mod owner;
mod records;
mod sqlite;

pub use records::{
    AppRecord, Changes, ConnectionRecord, ConnectionState, CredentialUpdate, LeaseOutcome, LeaseOwner, TokenKind,
    TokenRecord, TokenScope, Usage,
};
pub use sqlite::{SqliteStore, StoreFile};

use crate::secret::TokenDigest;
use crate::types::{AgentName, ConnectionId, ConnectionName, Scope, TokenId, UnixSeconds};

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
    /// The database failed: disk full, I/O error, locked too long.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// The durable store. Every write is committed before it returns. All `list` and `find` calls stay within the scope.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The random id of this install, made with the store.
    fn install_id(&self) -> &str;

    /// All changes after `generation` (0: everything), in one consistent read.
    async fn changes_since(&self, generation: i64) -> Result<Changes, StoreError>;

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

    /// Writes last-used times; outside the generation.
    async fn record_usage(&self, usage: &[Usage]) -> Result<(), StoreError>;

    /// Last-used times of connections and tokens of the scope, keyed by id.
    async fn usage(&self, scope: &Scope) -> Result<Vec<Usage>, StoreError>;

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
