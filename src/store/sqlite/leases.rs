//! Refresh leases: one refresh of a connection and version at a time, over all processes on the file.

use super::SqliteStore;
use super::connections::by_id;
use super::manifest::{State, read_one};
use super::rows::{self, stored_version};
use crate::store::{LeaseOutcome, LeaseOwner, Reason, RecordKind, StoreError};
use crate::types::{ConnectionId, UnixSeconds};
use sqlx::{Row, query, query_scalar};

impl SqliteStore {
    pub(super) async fn take_lease(
        &self,
        id: &ConnectionId,
        version: u64,
        owner: &LeaseOwner,
        now: UnixSeconds,
        ttl_seconds: i64,
    ) -> Result<LeaseOutcome, StoreError> {
        let mut transaction = self.write().await?;
        let state = State::read(&mut transaction).await?;
        let record = by_id(&mut transaction, id).await?;
        if let Some(key) = state.key(&self.keyring)?
            && let Some(row) = read_one(&mut transaction, &key, RecordKind::Connection, id.as_str()).await?
            && !row.fits()
        {
            return Err(row.refuse(Reason::Edited));
        }
        if record.version != version {
            return Ok(LeaseOutcome::Moved(Box::new(record)));
        }
        let row = query("SELECT * FROM leases WHERE connection_id = ?")
            .bind(id.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let mut interrupted = false;
        if let Some(row) = row {
            let until: i64 = row.try_get("expires_at")?;
            if now < until && !rows::lease_owner(&row)?.is_dead(owner) {
                return Ok(LeaseOutcome::Held { until });
            }
            interrupted = row.try_get::<i64, _>("attempted_version")? == stored_version(version);
        }
        let fence: i64 =
            query_scalar("UPDATE meta SET fence = fence + 1 RETURNING fence").fetch_one(&mut *transaction).await?;
        query(
            "INSERT OR REPLACE INTO leases (connection_id, owner_boot, owner_pid, owner_started, fence, expires_at, \
             attempted_version) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.as_str())
        .bind(&owner.boot)
        .bind(owner.pid)
        .bind(owner.started.cast_signed())
        .bind(fence)
        .bind(now.saturating_add(ttl_seconds))
        .bind(stored_version(version))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(LeaseOutcome::Acquired { fence, interrupted })
    }

    /// With the lease goes the attempt: who gives it back has had an answer, or has asked nothing.
    pub(super) async fn return_lease(&self, id: &ConnectionId, fence: i64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        query("DELETE FROM leases WHERE connection_id = ? AND fence = ?")
            .bind(id.as_str())
            .bind(fence)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}
