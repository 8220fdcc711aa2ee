//! App registrations. They belong to the tenant; the namespace of a scope is not looked at.

use super::rows::{self, stored_version};
use super::{SqliteStore, readable};
use crate::store::{AppRecord, RecordKind, StoreError};
use crate::types::Scope;
use sqlx::{query, query_scalar};

impl SqliteStore {
    pub(super) async fn write_app(&self, record: &AppRecord) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        change.touch(RecordKind::App, &app_id(&record.scope, record.provider.as_str())).await?;
        change.refuse_old_key(record.secret.as_ref())?;
        let old: Option<i64> = query_scalar("SELECT version FROM apps WHERE tenant = ? AND provider = ?")
            .bind(record.scope.tenant.as_str())
            .bind(record.provider.as_str())
            .fetch_optional(change.connection())
            .await?;
        // The secret is sealed for its version, so the caller has chosen it; here is where two callers meet.
        if stored_version(record.version) != old.unwrap_or(0) + 1 {
            return Err(StoreError::Conflict { kind: "app", name: record.provider.to_string() });
        }
        let generation = change.generation();
        query(
            "INSERT OR REPLACE INTO apps (tenant, provider, client_id, secret_sealed, redirect_uri, version, \
             updated_at, generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(record.scope.tenant.as_str())
        .bind(record.provider.as_str())
        .bind(&record.client_id)
        .bind(record.secret.as_ref().map(|secret| secret.as_bytes()))
        .bind(&record.redirect_uri)
        .bind(stored_version(record.version))
        .bind(record.updated_at)
        .bind(generation)
        .execute(change.connection())
        .await?;
        change.commit().await
    }

    pub(super) async fn read_apps(&self, scope: &Scope) -> Result<Vec<AppRecord>, StoreError> {
        let (mut transaction, key) = self.keyed().await?;
        let rows = query("SELECT rowid, * FROM apps WHERE tenant = ? ORDER BY provider")
            .bind(scope.tenant.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        readable(RecordKind::App, &rows, key.as_ref(), rows::app)
    }

    pub(super) async fn remove_app(&self, scope: &Scope, provider: &str) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        change.touch(RecordKind::App, &app_id(scope, provider)).await?;
        let deleted = query("DELETE FROM apps WHERE tenant = ? AND provider = ?")
            .bind(scope.tenant.as_str())
            .bind(provider)
            .execute(change.connection())
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(StoreError::NotFound { kind: "app", name: provider.to_owned() });
        }
        change.commit().await
    }
}

fn app_id(scope: &Scope, provider: &str) -> String {
    format!("{}/{provider}", scope.tenant)
}
