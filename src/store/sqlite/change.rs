//! The one way to change records: a transaction that keeps the manifest.

use super::SqliteStore;
use super::manifest::{State, read_entries, read_one, write_tag};
use crate::secret::{Keyring, Sealed};
use crate::store::manifest::{Buckets, ManifestKey, RecordKind, bucket_of};
use crate::store::{Reason, StoreError};
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{Transaction, query};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// A write transaction over a manifest that fits. Every record that it inserts, changes or deletes is named with
/// [`Change::touch`] first, which checks it as it is; [`Change::commit`] lists it as it is then.
///
/// What is dropped before that changes nothing.
pub(super) struct Change {
    transaction: Transaction<'static, Sqlite>,
    keyring: Arc<Keyring>,
    install_id: String,
    key: ManifestKey,
    buckets: Buckets,
    /// The generation that the change makes.
    generation: i64,
    touched: BTreeMap<u16, BTreeSet<(RecordKind, String)>>,
}

impl SqliteStore {
    /// Begins to change records.
    ///
    /// Whoever has the key that a rotation goes to seals with it from here on.
    pub(super) async fn change(&self) -> Result<Change, StoreError> {
        let mut transaction = self.write().await?;
        let state = State::read_for_write(&mut transaction, &self.path).await?;
        let key = state.key(&self.keyring)?;
        let (Some(buckets), Some(key)) = (state.verified(key.as_ref(), &self.install_id).cloned(), key) else {
            return Err(StoreError::Integrity {
                kind: "store",
                name: self.path.display().to_string(),
                reason: Reason::Root,
            });
        };
        if self.keyring.key_id() != key.id {
            self.keyring.seal_with_root(key.id);
        }
        Ok(Change {
            transaction,
            keyring: Arc::clone(&self.keyring),
            install_id: self.install_id.clone(),
            key,
            buckets,
            generation: state.generation.saturating_add(1),
            touched: BTreeMap::new(),
        })
    }
}

impl Change {
    /// The transaction.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// The generation of the rows that it writes.
    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    /// Checks the bucket of a record, and the record if there is one, before it is changed: what was tampered with is
    /// never listed anew.
    pub(super) async fn touch(&mut self, kind: RecordKind, id: &str) -> Result<(), StoreError> {
        let number = bucket_of(kind, id);
        let refuse = |reason| StoreError::Integrity { kind: kind.as_str(), name: id.to_owned(), reason };
        if !self.touched.contains_key(&number) {
            let entries = read_entries(&mut self.transaction, number).await?;
            let fits = match self.buckets.get(&number) {
                None => entries.is_empty(),
                Some(mac) => bool::from(self.key.bucket(number, as_entries(&entries)).ct_eq(mac)),
            };
            if !fits {
                return Err(refuse(Reason::Bucket));
            }
        }
        let record = (kind, id.to_owned());
        if self.touched.get(&number).is_some_and(|touched| touched.contains(&record)) {
            return Ok(());
        }
        if let Some(row) = read_one(&mut self.transaction, &self.key, kind, id).await?
            && !row.fits()
        {
            return Err(row.refuse(Reason::Edited));
        }
        // Only what has been checked is listed anew.
        self.touched.entry(number).or_default().insert(record);
        Ok(())
    }

    /// [`Change::touch`] for many: gives those that may be changed. The others fail their check, so they are of no use
    /// already; they stay as they are and do not keep the rest from being changed.
    pub(super) async fn touch_fitting(
        &mut self,
        kind: RecordKind,
        ids: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        let mut fitting = Vec::with_capacity(ids.len());
        for id in ids {
            match self.touch(kind, &id).await {
                Ok(()) => fitting.push(id),
                Err(error @ StoreError::Integrity { .. }) => tracing::warn!("left as it is: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(fitting)
    }

    /// Refuses an envelope of a root key that no longer seals: a rotation would leave it behind.
    pub(super) fn refuse_old_key(&self, sealed: Option<&Sealed>) -> Result<(), StoreError> {
        match sealed.and_then(Sealed::key_id) {
            Some(id) if id != self.key.id && self.keyring.had(id) => Err(StoreError::OldKey),
            _ => Ok(()),
        }
    }

    /// Lists what was touched as it is now, and commits.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        for (&number, records) in &self.touched {
            for (kind, id) in records {
                if let Some(row) = read_one(&mut self.transaction, &self.key, *kind, id).await? {
                    write_tag(&mut self.transaction, &row, row.tag()).await?;
                }
            }
            let entries = read_entries(&mut self.transaction, number).await?;
            if entries.is_empty() {
                self.buckets.remove(&number);
                query("DELETE FROM buckets WHERE bucket = ?")
                    .bind(i64::from(number))
                    .execute(&mut *self.transaction)
                    .await?;
            } else {
                let mac = self.key.bucket(number, as_entries(&entries));
                self.buckets.insert(number, mac);
                query("INSERT OR REPLACE INTO buckets (bucket, mac) VALUES (?, ?)")
                    .bind(i64::from(number))
                    .bind(&mac[..])
                    .execute(&mut *self.transaction)
                    .await?;
            }
        }
        let root = self.key.root(&self.install_id, self.generation, &self.buckets);
        write_root(&mut self.transaction, &self.key, self.generation, &root).await?;
        Ok(self.transaction.commit().await?)
    }
}

pub(super) async fn write_root(
    connection: &mut SqliteConnection,
    key: &ManifestKey,
    generation: i64,
    root: &[u8; 32],
) -> Result<(), StoreError> {
    query("UPDATE meta SET generation = ?, manifest_key = ?, manifest_root = ?")
        .bind(generation)
        .bind(&key.id[..])
        .bind(&root[..])
        .execute(connection)
        .await?;
    Ok(())
}

fn as_entries(entries: &[(RecordKind, String, [u8; 32])]) -> impl Iterator<Item = (RecordKind, &str, &[u8; 32])> {
    entries.iter().map(|(kind, id, tag)| (*kind, id.as_str(), tag))
}
