//! The store in an SQLite file (WAL, `synchronous=FULL`, `secure_delete=ON`, `busy_timeout` 5 s, writes
//! `BEGIN IMMEDIATE`).

mod agents;
mod apps;
mod backup;
mod change;
mod changes;
mod connections;
mod leases;
mod lockdown;
mod manifest;
mod open;
mod purge;
mod reseal;
mod rows;
mod tenants;
mod tokens;
mod usage;
mod verify;
mod watch;

#[cfg(test)]
mod tests;

use super::manifest::ManifestKey;
use super::{
    AppRecord, Changes, ConnectionRecord, ConnectionState, CredentialUpdate, Emptied, LeaseOutcome, LeaseOwner,
    NamespaceSummary, Reason, RecordKind, Store, StoreError, TenantSummary, TokenRecord, Usage,
};
use crate::secret::{Keyring, TokenDigest};
use crate::types::{AgentName, ConnectionId, ConnectionName, Scope, TenantName, TokenId, UnixSeconds};
use manifest::{Columns, State, listed};
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqlitePool, SqliteRow};
use std::path::PathBuf;
use std::sync::Arc;
use watch::Watch;

pub use backup::Restore;
pub use changes::Seen;
pub use open::StoreFile;
pub use reseal::{Cursor, Resealed};

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

    /// A transaction that holds the file's write lock from its start, for what is outside of the manifest. Records are
    /// changed by [`SqliteStore::change`].
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// A reading transaction and the manifest's key, which is that of the rows that are read in it.
    async fn keyed(&self) -> Result<(Transaction<'static, Sqlite>, Option<ManifestKey>), StoreError> {
        let mut transaction = self.readers.begin().await?;
        let key = State::read(&mut transaction).await?.key(&self.keyring)?;
        Ok((transaction, key))
    }
}

/// The records of rows. One that does not fit its tag or does not parse is left out, with a warning, so that it hides
/// none of the others.
fn readable<T>(
    kind: RecordKind,
    rows: &[SqliteRow],
    key: Option<&ManifestKey>,
    parse: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, StoreError> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let columns = Columns::of(first);
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        let listed = listed(kind, row, &columns, key)?;
        let reason = match parse(row) {
            _ if key.is_none() => Reason::Root,
            _ if !listed.fits() => Reason::Edited,
            Err(error) => Reason::Unreadable(error.to_string()),
            Ok(record) => {
                records.push(record);
                continue;
            }
        };
        tracing::warn!("{}; it is left out; run: nexus store verify", listed.failed(reason));
    }
    Ok(records)
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    fn install_id(&self) -> &str {
        &self.install_id
    }

    async fn changes_since(&self, seen: &Seen) -> Result<Changes, StoreError> {
        self.read_changes(seen).await
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

    async fn insert_child_token(&self, record: &TokenRecord, now: UnixSeconds, limit: u32) -> Result<(), StoreError> {
        self.add_child_token(record, now, limit).await
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

    async fn lockdown_at(&self) -> Result<Option<UnixSeconds>, StoreError> {
        self.read_lockdown().await
    }

    async fn revoke_all_tokens(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        self.write_revocation_of_all(now).await
    }

    async fn lift_lockdown(&self, now: UnixSeconds) -> Result<Option<u64>, StoreError> {
        self.end_lockdown(now).await
    }

    async fn record_usage(&self, usage: &[Usage]) -> Result<(), StoreError> {
        self.write_usage(usage).await
    }

    async fn usage(&self, scope: &Scope) -> Result<Vec<Usage>, StoreError> {
        self.read_usage(scope).await
    }

    async fn create_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<(), StoreError> {
        self.add_tenant(tenant, now).await
    }

    async fn list_tenants(&self) -> Result<Vec<TenantSummary>, StoreError> {
        self.read_tenants().await
    }

    async fn list_namespaces(&self, tenant: &TenantName) -> Result<Vec<NamespaceSummary>, StoreError> {
        self.read_namespaces(tenant).await
    }

    async fn delete_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<Emptied, StoreError> {
        self.remove_tenant(tenant, now).await
    }

    async fn delete_namespace(&self, scope: &Scope, now: UnixSeconds) -> Result<Emptied, StoreError> {
        self.remove_namespace(scope, now).await
    }

    async fn purge_orphans(&self, tenant: Option<&TenantName>, until: UnixSeconds) -> Result<u64, StoreError> {
        self.remove_orphans(tenant, until).await
    }

    async fn purge_tokens(&self, long: UnixSeconds, brief: UnixSeconds) -> Result<u64, StoreError> {
        self.remove_dead_tokens(long, brief).await
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
