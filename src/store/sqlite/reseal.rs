//! What a rotation of the root key does with envelopes: finds those under another key and puts new ones in their place.

use super::SqliteStore;
use super::manifest::{Columns, State, listed};
use super::rows;
use crate::secret::{KeyId, Sealed};
use crate::store::{AppRecord, ConnectionRecord, Reason, Record, RecordKind, StoreError};
use sqlx::{query, query_scalar};

/// New envelopes for a record that is otherwise as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resealed {
    /// For a connection.
    Connection {
        /// The record as it was read.
        old: Box<ConnectionRecord>,
        /// The same access fields, sealed again for the same version.
        access: Sealed,
        /// The same grant fields.
        grant: Option<Sealed>,
    },
    /// For an app registration.
    App {
        /// The record as it was read.
        old: Box<AppRecord>,
        /// The same client secret.
        secret: Sealed,
    },
}

/// How far a rotation's look at the store has come: the row ids of the last connection and the last app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    connection: i64,
    app: i64,
}

const STALE_CONNECTION: &str = "SELECT rowid, * FROM connections WHERE rowid > ?1 AND (substr(access_sealed, 2, 4) <> ?2 \
                                OR substr(grant_sealed, 2, 4) <> ?2) ORDER BY rowid LIMIT ?3";

const STALE_APP: &str =
    "SELECT rowid, * FROM apps WHERE rowid > ?1 AND substr(secret_sealed, 2, 4) <> ?2 ORDER BY rowid LIMIT ?3";

impl SqliteStore {
    /// How many records have an envelope under another root key.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn count_stale(&self, key_id: KeyId) -> Result<u64, StoreError> {
        let count: i64 = query_scalar(
            "SELECT (SELECT count(*) FROM connections WHERE substr(access_sealed, 2, 4) <> ?1 \
             OR substr(grant_sealed, 2, 4) <> ?1) + (SELECT count(*) FROM apps WHERE substr(secret_sealed, 2, 4) <> ?1)",
        )
        .bind(&key_id[..])
        .fetch_one(&self.readers)
        .await?;
        Ok(count.unsigned_abs())
    }

    /// The next records after `cursor` that have an envelope under another root key, at most `limit` of each kind.
    ///
    /// # Errors
    /// [`StoreError::Integrity`] for a row that does not fit its tag. When the file fails.
    pub async fn stale(&self, key_id: KeyId, cursor: Cursor, limit: u32) -> Result<(Vec<Record>, Cursor), StoreError> {
        let mut transaction = self.readers.begin().await?;
        let key = State::read(&mut transaction).await?.key(&self.keyring)?;
        let mut next = cursor;
        let mut records = Vec::new();
        for (kind, statement, after) in [
            (RecordKind::Connection, STALE_CONNECTION, &mut next.connection),
            (RecordKind::App, STALE_APP, &mut next.app),
        ] {
            let rows = query(statement).bind(*after).bind(&key_id[..]).bind(limit).fetch_all(&mut *transaction).await?;
            let Some(first) = rows.first() else { continue };
            let columns = Columns::of(first);
            for row in &rows {
                let listed = listed(kind, row, &columns, key.as_ref())?;
                if !listed.fits() {
                    return Err(listed.refuse(Reason::Edited));
                }
                *after = listed.rowid;
                match listed.record {
                    Ok(record) => records.push(record),
                    Err(ref error) => {
                        let reason = Reason::Unreadable(error.clone());
                        return Err(listed.refuse(reason));
                    }
                }
            }
        }
        Ok((records, next))
    }

    /// Puts new envelopes in the place of old ones, in one transaction; a record that has changed since it was read is
    /// left as it is. Versions stay. Gives how many were replaced.
    ///
    /// # Errors
    /// When a record fails the integrity check, or the file fails; then none is replaced.
    pub async fn reseal(&self, batch: &[Resealed]) -> Result<u64, StoreError> {
        let mut change = self.change().await?;
        let mut replaced = 0;
        for resealed in batch {
            match resealed {
                Resealed::Connection { old, access, grant } => {
                    change.touch(RecordKind::Connection, old.id.as_str()).await?;
                    change.refuse_old_key(Some(access))?;
                    change.refuse_old_key(grant.as_ref())?;
                    let row = query("SELECT * FROM connections WHERE id = ?")
                        .bind(old.id.as_str())
                        .fetch_optional(change.connection())
                        .await?;
                    let Some(row) = row else { continue };
                    let now = rows::connection(&row)?;
                    // By version and bytes: a refresh that was faster has sealed its own.
                    if (now.version, &now.access, &now.grant) != (old.version, &old.access, &old.grant) {
                        continue;
                    }
                    let generation = change.generation();
                    replaced += query(
                        "UPDATE connections SET access_sealed = ?, grant_sealed = ?, generation = ? WHERE id = ?",
                    )
                    .bind(access.as_bytes())
                    .bind(grant.as_ref().map(|grant| grant.as_bytes()))
                    .bind(generation)
                    .bind(old.id.as_str())
                    .execute(change.connection())
                    .await?
                    .rows_affected();
                }
                Resealed::App { old, secret } => {
                    let id = format!("{}/{}", old.scope.tenant, old.provider);
                    change.touch(RecordKind::App, &id).await?;
                    change.refuse_old_key(Some(secret))?;
                    let generation = change.generation();
                    replaced += query(
                        "UPDATE apps SET secret_sealed = ?, generation = ? \
                         WHERE tenant = ? AND provider = ? AND version = ? AND secret_sealed = ?",
                    )
                    .bind(secret.as_bytes())
                    .bind(generation)
                    .bind(old.scope.tenant.as_str())
                    .bind(old.provider.as_str())
                    .bind(rows::stored_version(old.version))
                    .bind(old.secret.as_ref().map(|secret| secret.as_bytes()))
                    .execute(change.connection())
                    .await?
                    .rows_affected();
                }
            }
        }
        change.commit().await?;
        Ok(replaced)
    }
}
