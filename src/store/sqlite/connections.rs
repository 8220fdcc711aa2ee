//! Connections: records, credentials, state.

use super::change::Change;
use super::manifest::{Columns, listed};
use super::rows::{self, state_text, stored_version};
use super::{SqliteStore, readable};
use crate::store::{ConnectionRecord, ConnectionState, CredentialUpdate, Reason, RecordKind, StoreError};
use crate::types::{ConnectionId, ConnectionName, Scope};
use sqlx::query;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

impl SqliteStore {
    pub(super) async fn add_connection(&self, record: &ConnectionRecord) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        if named(change.connection(), record).await?.is_some() {
            return Err(exists(record));
        }
        insert(&mut change, record).await?;
        change.commit().await
    }

    pub(super) async fn put_connection(&self, record: &ConnectionRecord) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        if let Some(row) = named(change.connection(), record).await? {
            let old = rows::connection(&row)?;
            change.touch(RecordKind::Connection, old.id.as_str()).await?;
            // The envelopes are sealed for this id and version: with any other they would never open again.
            if record.id != old.id || record.version != old.version + 1 {
                return Err(conflict(&record.id));
            }
            forget(change.connection(), &old.id).await?;
        }
        insert(&mut change, record).await?;
        change.commit().await
    }

    pub(super) async fn read_connection(
        &self,
        scope: &Scope,
        name_or_id: &str,
    ) -> Result<ConnectionRecord, StoreError> {
        let (mut transaction, key) = self.keyed().await?;
        let row = find(&mut transaction, scope, name_or_id).await?;
        let found = listed(RecordKind::Connection, &row, &Columns::of(&row), key.as_ref())?;
        if key.is_none() || !found.fits() {
            return Err(found.refuse(if key.is_none() { Reason::Root } else { Reason::Edited }));
        }
        Ok(rows::connection(&row)?)
    }

    pub(super) async fn read_connections(&self, scope: &Scope) -> Result<Vec<ConnectionRecord>, StoreError> {
        let (mut transaction, key) = self.keyed().await?;
        let rows = query(
            "SELECT rowid, * FROM connections WHERE tenant = ? AND namespace = ? AND orphaned_at IS NULL ORDER BY name",
        )
        .bind(scope.tenant.as_str())
        .bind(scope.namespace.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        readable(RecordKind::Connection, &rows, key.as_ref(), rows::connection)
    }

    pub(super) async fn write_credential(
        &self,
        id: &ConnectionId,
        update: &CredentialUpdate,
        fence: Option<i64>,
    ) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        let old = checked(&mut change, id).await?;
        if old.version.checked_add(1) != Some(update.version) {
            return Err(conflict(id));
        }
        change.refuse_old_key(Some(&update.access))?;
        change.refuse_old_key(update.grant.as_ref())?;
        // With the new version, attempts on the old one are moot, whoever makes them.
        let lease: Option<i64> = sqlx::query_scalar("DELETE FROM leases WHERE connection_id = ? RETURNING fence")
            .bind(id.as_str())
            .fetch_optional(change.connection())
            .await?;
        if fence.is_some() && lease != fence {
            return Err(conflict(id));
        }
        let generation = change.generation();
        query(
            "UPDATE connections SET version = ?, access_sealed = ?, grant_sealed = ?, access_issued_at = ?, \
             access_expires_at = ?, state = 'active', state_reason = NULL, updated_at = ?, generation = ? WHERE id = ?",
        )
        .bind(stored_version(update.version))
        .bind(update.access.as_bytes())
        .bind(update.grant.as_ref().map(|grant| grant.as_bytes()))
        .bind(update.access_issued_at)
        .bind(update.access_expires_at)
        .bind(update.now)
        .bind(generation)
        .bind(id.as_str())
        .execute(change.connection())
        .await?;
        change.commit().await
    }

    pub(super) async fn write_state(
        &self,
        id: &ConnectionId,
        version: u64,
        state: ConnectionState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        let old = checked(&mut change, id).await?;
        if old.version != version {
            return Err(conflict(id));
        }
        if old.state == state && old.state_reason.as_deref() == reason {
            return Ok(());
        }
        let generation = change.generation();
        query("UPDATE connections SET state = ?, state_reason = ?, generation = ? WHERE id = ?")
            .bind(state_text(state))
            .bind(reason)
            .bind(generation)
            .bind(id.as_str())
            .execute(change.connection())
            .await?;
        change.commit().await
    }

    pub(super) async fn write_disabled(
        &self,
        scope: &Scope,
        name_or_id: &str,
        disabled: bool,
    ) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        let old = found(&mut change, scope, name_or_id).await?;
        if old.disabled == disabled {
            return Ok(());
        }
        let generation = change.generation();
        query("UPDATE connections SET disabled = ?, generation = ? WHERE id = ?")
            .bind(disabled)
            .bind(generation)
            .bind(old.id.as_str())
            .execute(change.connection())
            .await?;
        change.commit().await
    }

    pub(super) async fn remove_connection(
        &self,
        scope: &Scope,
        name_or_id: &str,
    ) -> Result<ConnectionName, StoreError> {
        let mut change = self.change().await?;
        let old = found(&mut change, scope, name_or_id).await?;
        forget(change.connection(), &old.id).await?;
        change.commit().await?;
        // The deletion is durable. The old bytes are still in the log and in the page that the log replaces: fold it in.
        // A reader may be in the way; then a later checkpoint does it.
        if let Err(error) = query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await {
            tracing::debug!(%error, "the store's log was not folded in after a deletion");
        }
        Ok(old.name)
    }
}

/// The row that has the record's scope and name.
async fn named(transaction: &mut SqliteConnection, record: &ConnectionRecord) -> Result<Option<SqliteRow>, StoreError> {
    let row =
        query("SELECT * FROM connections WHERE tenant = ? AND namespace = ? AND name = ? AND orphaned_at IS NULL")
            .bind(record.scope.tenant.as_str())
            .bind(record.scope.namespace.as_str())
            .bind(record.name.as_str());
    Ok(row.fetch_optional(transaction).await?)
}

/// By id first: an id is nobody's to choose, so no name can stand in front of it. Two statements, since for both at once
/// SQLite reads all of the scope.
async fn find(connection: &mut SqliteConnection, scope: &Scope, name_or_id: &str) -> Result<SqliteRow, StoreError> {
    for statement in [
        "SELECT rowid, * FROM connections WHERE id = ? AND +tenant = ? AND +namespace = ? AND orphaned_at IS NULL",
        "SELECT rowid, * FROM connections WHERE name = ? AND tenant = ? AND namespace = ? AND orphaned_at IS NULL",
    ] {
        let row = query(statement)
            .bind(name_or_id)
            .bind(scope.tenant.as_str())
            .bind(scope.namespace.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            return Ok(row);
        }
    }
    Err(not_found(name_or_id))
}

/// The connection that is to be changed, checked.
async fn found(change: &mut Change, scope: &Scope, name_or_id: &str) -> Result<ConnectionRecord, StoreError> {
    let row = find(change.connection(), scope, name_or_id).await?;
    change.touch(RecordKind::Connection, sqlx::Row::try_get(&row, "id")?).await?;
    Ok(rows::connection(&row)?)
}

/// The same by id.
pub(super) async fn checked(change: &mut Change, id: &ConnectionId) -> Result<ConnectionRecord, StoreError> {
    change.touch(RecordKind::Connection, id.as_str()).await?;
    by_id(change.connection(), id).await
}

pub(super) async fn by_id(
    transaction: &mut SqliteConnection,
    id: &ConnectionId,
) -> Result<ConnectionRecord, StoreError> {
    let row = query("SELECT * FROM connections WHERE id = ? AND orphaned_at IS NULL")
        .bind(id.as_str())
        .fetch_optional(transaction)
        .await?;
    Ok(rows::connection(&row.ok_or_else(|| not_found(id.as_str()))?)?)
}

async fn insert(change: &mut Change, record: &ConnectionRecord) -> Result<(), StoreError> {
    change.touch(RecordKind::Connection, record.id.as_str()).await?;
    change.refuse_old_key(Some(&record.access))?;
    change.refuse_old_key(record.grant.as_ref())?;
    let generation = change.generation();
    let inserted = query(
        "INSERT INTO connections (id, tenant, namespace, name, provider, definition, version, access_sealed, \
         grant_sealed, access_issued_at, access_expires_at, state, state_reason, disabled, created_at, updated_at, \
         orphaned_at, generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(record.id.as_str())
    .bind(record.scope.tenant.as_str())
    .bind(record.scope.namespace.as_str())
    .bind(record.name.as_str())
    .bind(record.provider.as_str())
    .bind(&record.definition)
    .bind(stored_version(record.version))
    .bind(record.access.as_bytes())
    .bind(record.grant.as_ref().map(|grant| grant.as_bytes()))
    .bind(record.access_issued_at)
    .bind(record.access_expires_at)
    .bind(state_text(record.state))
    .bind(&record.state_reason)
    .bind(record.disabled)
    .bind(record.created_at)
    .bind(record.updated_at)
    .bind(record.orphaned_at)
    .bind(generation)
    .execute(change.connection())
    .await;
    match inserted {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Err(exists(record)),
        inserted => inserted?,
    };
    Ok(())
}

/// Removes a connection with its lease and its last use.
async fn forget(transaction: &mut SqliteConnection, id: &ConnectionId) -> Result<(), StoreError> {
    query("DELETE FROM connections WHERE id = ?").bind(id.as_str()).execute(&mut *transaction).await?;
    query("DELETE FROM usage WHERE id = ?").bind(id.as_str()).execute(transaction).await?;
    Ok(())
}

fn exists(record: &ConnectionRecord) -> StoreError {
    StoreError::Exists { kind: "connection", name: record.name.to_string() }
}

fn not_found(name_or_id: &str) -> StoreError {
    StoreError::NotFound { kind: "connection", name: name_or_id.to_owned() }
}

pub(super) fn conflict(id: &ConnectionId) -> StoreError {
    StoreError::Conflict { kind: "connection", name: id.to_string() }
}
