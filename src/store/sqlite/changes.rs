//! What changed since a generation.

use super::{SqliteStore, rows};
use crate::store::{Changes, StoreError};
use crate::types::{ConnectionId, TokenId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, query, query_as, query_scalar};

impl SqliteStore {
    pub(super) async fn read_changes(&self, since: i64) -> Result<Changes, StoreError> {
        // One transaction is one state of the file, whatever is written meanwhile.
        let mut transaction = self.readers.begin().await?;
        let mut changes = Changes {
            generation: query_scalar("SELECT generation FROM meta").fetch_one(&mut *transaction).await?,
            locked: query_scalar("SELECT lockdown_at IS NOT NULL FROM meta").fetch_one(&mut *transaction).await?,
            ..Changes::default()
        };
        if changes.generation == since {
            return Ok(changes);
        }
        // A generation from the future is one of a file that was restored from a backup: all of it may be different.
        let since = if since > changes.generation { 0 } else { since };
        let connections = query("SELECT * FROM connections WHERE generation > ? ORDER BY generation")
            .bind(since)
            .fetch_all(&mut *transaction)
            .await?;
        for row in &connections {
            match rows::connection(row) {
                Ok(record) if record.orphaned_at.is_some() => changes.deleted_connections.push(record.id),
                Ok(record) => changes.connections.push(record),
                // As if deleted: neither the damaged record nor the one it replaced may be used, and the others go on.
                Err(error) => changes.deleted_connections.extend(damaged(row, &error, ConnectionId::parse)),
            }
        }
        let tokens = query("SELECT * FROM tokens WHERE generation > ? ORDER BY generation")
            .bind(since)
            .fetch_all(&mut *transaction)
            .await?;
        for row in &tokens {
            match rows::token(row) {
                Ok(record) => changes.tokens.push(record),
                Err(error) => changes.deleted_tokens.extend(damaged(row, &error, TokenId::parse)),
            }
        }
        // All of them, since an agent that was enabled again has left no row.
        let disabled =
            query("SELECT tenant, namespace, agent FROM disabled_agents").fetch_all(&mut *transaction).await?;
        for row in &disabled {
            changes.disabled_agents.push((rows::scope(row)?, rows::agent(row)?));
        }
        let tombstones: Vec<(String, String)> = query_as("SELECT kind, id FROM tombstones WHERE generation > ?")
            .bind(since)
            .fetch_all(&mut *transaction)
            .await?;
        for (kind, id) in tombstones {
            match kind.as_str() {
                "connection" => changes.deleted_connections.extend(ConnectionId::parse(&id)),
                _ => changes.deleted_tokens.extend(TokenId::parse(&id)),
            }
        }
        Ok(changes)
    }
}

fn damaged<T, E>(row: &SqliteRow, error: &sqlx::Error, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
    let id: &str = row.try_get("id").ok()?;
    tracing::error!(record = id, %error, "the store's record {id} is damaged and not used");
    parse(id).ok()
}
