//! Last use of connections and tokens.

use super::SqliteStore;
use crate::store::{StoreError, Usage};
use crate::types::Scope;
use sqlx::{Row, query};

impl SqliteStore {
    pub(super) async fn write_usage(&self, usage: &[Usage]) -> Result<(), StoreError> {
        if usage.is_empty() {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        for used in usage {
            // What was deleted meanwhile stays deleted; of two processes the later use counts.
            query(
                "INSERT INTO usage (id, last_used_at, address) SELECT ?1, ?2, ?3 \
                 WHERE EXISTS (SELECT 1 FROM connections WHERE id = ?1) OR EXISTS (SELECT 1 FROM tokens WHERE id = ?1) \
                 ON CONFLICT (id) DO UPDATE SET last_used_at = excluded.last_used_at, address = excluded.address \
                 WHERE excluded.last_used_at >= usage.last_used_at",
            )
            .bind(&used.id)
            .bind(used.last_used_at)
            .bind(used.address.map(|address| address.to_string()))
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(super) async fn read_usage(&self, scope: &Scope) -> Result<Vec<Usage>, StoreError> {
        let rows = query(
            "SELECT * FROM usage WHERE id IN (SELECT id FROM connections WHERE tenant = ?1 AND namespace = ?2 \
             UNION ALL SELECT id FROM tokens WHERE tenant = ?1 AND namespace = ?2) ORDER BY id",
        )
        .bind(scope.tenant.as_str())
        .bind(scope.namespace.as_str())
        .fetch_all(&self.readers)
        .await?;
        let usage = rows.iter().map(|row| {
            let address: Option<&str> = row.try_get("address")?;
            // An address is only shown; one that does not parse is left out.
            let address = address.and_then(|text| text.parse().ok());
            Ok::<_, sqlx::Error>(Usage { id: row.try_get("id")?, last_used_at: row.try_get("last_used_at")?, address })
        });
        Ok(usage.collect::<Result<_, _>>()?)
    }
}
