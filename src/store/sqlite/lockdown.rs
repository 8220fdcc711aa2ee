//! The emergency stop: one mark in the file, set without a key, and the end of every token, which needs one.

use super::change::Change;
use super::{SqliteStore, StoreFile};
use crate::store::{RecordKind, StoreError};
use crate::types::UnixSeconds;
use sqlx::sqlite::SqlitePool;
use sqlx::{query, query_as, query_scalar};

impl StoreFile {
    /// Since when all agents are locked out, if they are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn lockdown_at(&self) -> Result<Option<UnixSeconds>, StoreError> {
        read(&self.readers).await
    }

    /// Locks all agents out. Needs no key, so the mark is no part of the manifest and of its generation. Gives since when they are, which an earlier lockdown says.
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
        let mut change = self.change().await?;
        let (revoked, valid) = revoke_all(&mut change, now).await?;
        if revoked > 0 {
            change.commit().await?;
        }
        Ok(valid)
    }

    pub(super) async fn end_lockdown(&self, now: UnixSeconds) -> Result<Option<u64>, StoreError> {
        let mut change = self.change().await?;
        let ended = query("UPDATE meta SET lockdown_at = NULL WHERE lockdown_at IS NOT NULL")
            .execute(change.connection())
            .await?
            .rows_affected();
        if ended == 0 {
            return Ok(None);
        }
        let (_, valid) = revoke_all(&mut change, now).await?;
        change.commit().await?;
        Ok(Some(valid))
    }
}

async fn read(readers: &SqlitePool) -> Result<Option<UnixSeconds>, StoreError> {
    Ok(query_scalar("SELECT lockdown_at FROM meta").fetch_one(readers).await?)
}

/// How many were revoked, and how many of them had not ended by themselves. A record that fails its check is of no use
/// already and keeps none of the others.
async fn revoke_all(change: &mut Change, now: UnixSeconds) -> Result<(u64, u64), StoreError> {
    let open: Vec<(String, bool)> =
        query_as("SELECT id, expires_at IS NULL OR expires_at > ? FROM tokens WHERE revoked_at IS NULL")
            .bind(now)
            .fetch_all(change.connection())
            .await?;
    let valid = open.iter().filter(|(_, is_valid)| *is_valid).count();
    let ids = open.into_iter().map(|(id, _)| id).collect();
    let fitting = change.touch_fitting(RecordKind::Token, ids).await?;
    let generation = change.generation();
    for id in &fitting {
        query("UPDATE tokens SET revoked_at = ?, generation = ? WHERE id = ?")
            .bind(now)
            .bind(generation)
            .bind(id)
            .execute(change.connection())
            .await?;
    }
    Ok((fitting.len() as u64, valid as u64))
}
