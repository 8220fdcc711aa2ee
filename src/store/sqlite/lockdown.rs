//! The emergency stop: one mark in the file, set without a key, and the end of every token, which needs one.

use super::{SqliteStore, StoreFile, next_generation};
use crate::store::StoreError;
use crate::types::UnixSeconds;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{query, query_scalar};

impl StoreFile {
    /// Since when all agents are locked out, if they are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn lockdown_at(&self) -> Result<Option<UnixSeconds>, StoreError> {
        read(&self.readers).await
    }

    /// Locks all agents out. Needs no key. Gives since when they are, which an earlier lockdown says.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn set_lockdown(&self, now: UnixSeconds) -> Result<UnixSeconds, StoreError> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let since = query_scalar("UPDATE meta SET lockdown_at = coalesce(lockdown_at, ?) RETURNING lockdown_at")
            .bind(now)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(since)
    }
}

impl SqliteStore {
    pub(super) async fn read_lockdown(&self) -> Result<Option<UnixSeconds>, StoreError> {
        read(&self.readers).await
    }

    pub(super) async fn write_revocation_of_all(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let revoked = revoke_all(&mut transaction, now).await?;
        transaction.commit().await?;
        Ok(revoked)
    }

    pub(super) async fn end_lockdown(&self, now: UnixSeconds) -> Result<Option<u64>, StoreError> {
        let mut transaction = self.write().await?;
        let ended = query("UPDATE meta SET lockdown_at = NULL WHERE lockdown_at IS NOT NULL")
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if ended == 0 {
            return Ok(None);
        }
        let revoked = revoke_all(&mut transaction, now).await?;
        transaction.commit().await?;
        Ok(Some(revoked))
    }
}

async fn read(readers: &SqlitePool) -> Result<Option<UnixSeconds>, StoreError> {
    Ok(query_scalar("SELECT lockdown_at FROM meta").fetch_one(readers).await?)
}

async fn revoke_all(transaction: &mut SqliteConnection, now: UnixSeconds) -> Result<u64, StoreError> {
    let valid: i64 =
        query_scalar("SELECT count(*) FROM tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)")
            .bind(now)
            .fetch_one(&mut *transaction)
            .await?;
    let open: bool = query_scalar("SELECT EXISTS (SELECT 1 FROM tokens WHERE revoked_at IS NULL)")
        .fetch_one(&mut *transaction)
        .await?;
    if open {
        let generation = next_generation(transaction).await?;
        query("UPDATE tokens SET revoked_at = ?, generation = ? WHERE revoked_at IS NULL")
            .bind(now)
            .bind(generation)
            .execute(transaction)
            .await?;
    }
    Ok(u64::try_from(valid).unwrap_or_default())
}
