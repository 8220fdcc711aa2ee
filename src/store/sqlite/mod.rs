//! The store in an SQLite file (WAL, `synchronous=FULL`, `secure_delete=ON`, `busy_timeout` 5 s, writes
//! `BEGIN IMMEDIATE`).

mod agents;
mod apps;
mod changes;
mod connections;
mod leases;
mod open;
mod rows;
mod tokens;
mod usage;
mod watch;

#[cfg(test)]
mod tests;

use super::{
    AppRecord, Changes, ConnectionRecord, ConnectionState, CredentialUpdate, LeaseOutcome, LeaseOwner, Store,
    StoreError, TokenRecord, Usage,
};
use crate::secret::{Keyring, TokenDigest};
use crate::types::{AgentName, ConnectionId, ConnectionName, Scope, TokenId, UnixSeconds};
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool};
use sqlx::{Transaction, query_scalar};
use std::path::PathBuf;
use std::sync::Arc;
use watch::Watch;

pub use open::StoreFile;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    install_id: String,
    keyring: Arc<Keyring>,
    /// One connection: writers of this process queue here, in order, and not at the file's lock.
    writer: SqlitePool,
    readers: SqlitePool,
    watch: Watch,
}

impl SqliteStore {
    /// Closes the file's connections. The last process that does so leaves one file, without `-wal` and `-shm`.
    pub async fn close(&self) {
        self.watch.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The keys of this install.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// A transaction that holds the file's write lock from its start.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Steps the generation: part of every transaction that changes what [`Changes`] tells.
async fn next_generation(transaction: &mut SqliteConnection) -> Result<i64, StoreError> {
    let next = query_scalar("UPDATE meta SET generation = generation + 1 RETURNING generation");
    Ok(next.fetch_one(transaction).await?)
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    fn install_id(&self) -> &str {
        &self.install_id
    }

    async fn changes_since(&self, generation: i64) -> Result<Changes, StoreError> {
        self.read_changes(generation).await
    }

    async fn changed(&self) {
        self.watch.changed().await;
    }

    async fn insert_connection(&self, record: &ConnectionRecord, replace: bool) -> Result<(), StoreError> {
        if replace { self.put_connection(record).await } else { self.add_connection(record).await }
    }

    async fn find_connection(&self, scope: &Scope, name_or_id: &str) -> Result<ConnectionRecord, StoreError> {
        self.read_connection(scope, name_or_id).await
    }

    async fn list_connections(&self, scope: &Scope) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.read_connections(scope).await
    }

    async fn update_credential(
        &self,
        id: &ConnectionId,
        update: &CredentialUpdate,
        fence: Option<i64>,
    ) -> Result<(), StoreError> {
        self.write_credential(id, update, fence).await
    }

    async fn set_connection_state(
        &self,
        id: &ConnectionId,
        version: u64,
        state: ConnectionState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.write_state(id, version, state, reason).await
    }

    async fn set_connection_disabled(&self, scope: &Scope, name_or_id: &str, disabled: bool) -> Result<(), StoreError> {
        self.write_disabled(scope, name_or_id, disabled).await
    }

    async fn delete_connection(&self, scope: &Scope, name_or_id: &str) -> Result<ConnectionName, StoreError> {
        self.remove_connection(scope, name_or_id).await
    }

    async fn insert_token(&self, record: &TokenRecord) -> Result<(), StoreError> {
        self.add_token(record).await
    }

    async fn list_tokens(&self, scope: &Scope) -> Result<Vec<TokenRecord>, StoreError> {
        self.read_tokens(scope).await
    }

    async fn revoke_token(&self, scope: &Scope, id: &TokenId, now: UnixSeconds) -> Result<(), StoreError> {
        self.write_revocation(scope, id, now).await
    }

    async fn rotate_token(
        &self,
        scope: &Scope,
        id: &TokenId,
        digest: TokenDigest,
        old_valid_until: UnixSeconds,
        expires_at: Option<UnixSeconds>,
    ) -> Result<(), StoreError> {
        self.write_rotation(scope, id, digest, old_valid_until, expires_at).await
    }

    async fn put_app(&self, record: &AppRecord) -> Result<(), StoreError> {
        self.write_app(record).await
    }

    async fn list_apps(&self, scope: &Scope) -> Result<Vec<AppRecord>, StoreError> {
        self.read_apps(scope).await
    }

    async fn delete_app(&self, scope: &Scope, provider: &str) -> Result<(), StoreError> {
        self.remove_app(scope, provider).await
    }

    async fn acquire_refresh_lease(
        &self,
        id: &ConnectionId,
        version: u64,
        owner: &LeaseOwner,
        now: UnixSeconds,
        ttl_seconds: i64,
    ) -> Result<LeaseOutcome, StoreError> {
        self.take_lease(id, version, owner, now, ttl_seconds).await
    }

    async fn release_refresh_lease(&self, id: &ConnectionId, fence: i64) -> Result<(), StoreError> {
        self.return_lease(id, fence).await
    }

    async fn record_usage(&self, usage: &[Usage]) -> Result<(), StoreError> {
        self.write_usage(usage).await
    }

    async fn usage(&self, scope: &Scope) -> Result<Vec<Usage>, StoreError> {
        self.read_usage(scope).await
    }

    async fn redeem_code(&self, code: TokenDigest, now: UnixSeconds) -> Result<TokenRecord, StoreError> {
        self.take_code(code, now).await
    }

    async fn set_agent_disabled(
        &self,
        scope: &Scope,
        agent: &AgentName,
        disabled: bool,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.write_agent_disabled(scope, agent, disabled, now).await
    }

    async fn disabled_agents(&self, scope: &Scope) -> Result<Vec<(AgentName, UnixSeconds)>, StoreError> {
        self.read_disabled_agents(scope).await
    }
}
