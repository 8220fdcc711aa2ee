//! What is of no use any more and removed for good: orphaned connections, dead tokens.
//!
//! Several processes may do so at once: each step looks and removes in one transaction, and takes the file's write lock
//! only when there is something to remove.

use super::SqliteStore;
use crate::store::{RecordKind, StoreError};
use crate::types::{TenantName, UnixSeconds};
use sqlx::{query, query_scalar};

/// So many at a time, so that other writers get their turn.
const BATCH: i64 = 500;

const ORPHANS: &str = "SELECT id FROM connections WHERE orphaned_at IS NOT NULL AND orphaned_at <= ?1 \
                       AND (?2 IS NULL OR tenant = ?2) LIMIT ?3";

/// A token is dead from the first end in its chain on. One whose parent is missing has been since it was made. Since a
/// child is never dead later than its parent, and is kept no longer, none that works is among those below a dead one.
const DEAD_TOKENS: &str = "\
    WITH RECURSIVE ends (id, is_brief, dead_at) AS ( \
        SELECT id, kind = 'run' OR parent IS NOT NULL, CASE WHEN parent IS NULL \
            THEN min(coalesce(revoked_at, 9223372036854775807), coalesce(expires_at, 9223372036854775807)) \
            ELSE created_at END \
        FROM tokens WHERE parent IS NULL OR parent NOT IN (SELECT id FROM tokens) \
        UNION \
        SELECT tokens.id, 1, min(ends.dead_at, coalesce(tokens.revoked_at, 9223372036854775807), \
            coalesce(tokens.expires_at, 9223372036854775807)) \
        FROM tokens JOIN ends ON tokens.parent = ends.id) \
    SELECT id FROM ends WHERE dead_at <= CASE WHEN is_brief THEN ?2 ELSE ?1 END LIMIT ?3";

impl SqliteStore {
    pub(super) async fn remove_orphans(
        &self,
        tenant: Option<&TenantName>,
        until: UnixSeconds,
    ) -> Result<u64, StoreError> {
        let tenant = tenant.map(TenantName::as_str);
        let mut removed = 0;
        loop {
            let found = query(ORPHANS).bind(until).bind(tenant).bind(1).fetch_optional(&self.readers).await?;
            if found.is_none() {
                break;
            }
            let mut change = self.change().await?;
            let ids: Vec<String> =
                query_scalar(ORPHANS).bind(until).bind(tenant).bind(BATCH).fetch_all(change.connection()).await?;
            let ids = change.touch_fitting(RecordKind::Connection, ids).await?;
            if ids.is_empty() {
                break;
            }
            for id in &ids {
                // Its lease goes with it.
                query("DELETE FROM connections WHERE id = ?").bind(id).execute(change.connection()).await?;
                query("DELETE FROM usage WHERE id = ?").bind(id).execute(change.connection()).await?;
            }
            change.commit().await?;
            removed += ids.len() as u64;
        }
        if removed > 0 {
            // As after the deletion of one connection: the old bytes are to leave the log too.
            if let Err(error) = query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await {
                tracing::debug!(%error, "the store's log was not folded in after a purge");
            }
        }
        Ok(removed)
    }

    pub(super) async fn remove_dead_tokens(&self, long: UnixSeconds, brief: UnixSeconds) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let found = query(DEAD_TOKENS).bind(long).bind(brief).bind(1).fetch_optional(&self.readers).await?;
            if found.is_none() {
                return Ok(removed);
            }
            let mut change = self.change().await?;
            let ids: Vec<String> =
                query_scalar(DEAD_TOKENS).bind(long).bind(brief).bind(BATCH).fetch_all(change.connection()).await?;
            let ids = change.touch_fitting(RecordKind::Token, ids).await?;
            if ids.is_empty() {
                return Ok(removed);
            }
            for id in &ids {
                query("DELETE FROM tokens WHERE id = ?").bind(id).execute(change.connection()).await?;
                query("DELETE FROM usage WHERE id = ?").bind(id).execute(change.connection()).await?;
            }
            change.commit().await?;
            removed += ids.len() as u64;
        }
    }
}
