//! Looking at every record, and listing all of them anew.

use super::SqliteStore;
use super::change::write_root;
use super::manifest::{Listed, State, broken_root, emptied, judge, key_text, read_all, write_tags};
use crate::secret::KeyId;
use crate::store::manifest::{Buckets, ManifestKey, NO_TAG, RecordKind};
use crate::store::{Accepted, Failed, Reason, Record, Report, StoreError};
use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use std::collections::HashSet;

impl SqliteStore {
    /// Checks every record against the manifest, in one consistent read. `check` looks at what the store cannot judge
    /// by itself, such as whether the record's envelopes open, and gives what is wrong; it is called for records that
    /// the manifest has nothing against.
    ///
    /// # Errors
    /// When the file fails, or the manifest's root key is not known. What is wrong with records is in the report.
    pub async fn verify(
        &self,
        mut check: impl FnMut(&Record) -> Result<(), String> + Send,
    ) -> Result<Report, StoreError> {
        let mut transaction = self.readers.begin().await?;
        let state = State::read(&mut transaction).await?;
        let key = state.key(&self.keyring)?;
        let found = examine(&mut transaction, &state, key.as_ref(), &self.install_id).await?;
        let mut report = Report { generation: state.generation, failed: found.failed, ..Report::default() };
        for (row, reason) in found.rows {
            *report.counts.entry(row.kind).or_default() += 1;
            match (reason, &row.record) {
                (Some(reason), _) => report.failed.push(row.failed(reason)),
                (None, Ok(record)) => {
                    if let Err(error) = check(record) {
                        report.failed.push(row.failed(Reason::Closed(error)));
                    }
                }
                (None, Err(_)) => {}
            }
        }
        Ok(report)
    }

    /// Makes the manifest anew over the rows as they are: **whatever was edited, added, removed or rolled back behind
    /// this program's back is from then on what the store says.** For a person who has looked at the report and knows
    /// where it comes from. Envelopes are not touched, so a connection whose destination was edited still does not open.
    ///
    /// Rows that cannot be read stay refused, and are named; with `remove_unreadable` they are deleted.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn accept(&self, remove_unreadable: bool) -> Result<Accepted, StoreError> {
        let key =
            ManifestKey::new(&self.keyring, self.keyring.key_id()).expect("a keyring has the key that it seals with");
        let mut transaction = self.write().await?;
        let state = State::read_for_write(&mut transaction, &self.path).await?;
        // The key that the manifest was made with, so that a rotation that is under way goes on. A damaged id is no key.
        let key = state.key(&self.keyring).ok().flatten().unwrap_or(key);
        let mut accepted = Accepted::default();
        for row in read_all(&mut transaction, None).await?.into_values().flatten() {
            let Err(error) = &row.record else { continue };
            let failed = row.failed(Reason::Unreadable(error.clone()));
            if remove_unreadable {
                remove(&mut transaction, &row).await?;
                accepted.removed.push(failed);
            } else {
                accepted.unreadable.push(failed);
            }
        }
        accepted.records = rebuild(&mut transaction, &key, &self.install_id, &HashSet::new()).await?;
        transaction.commit().await?;
        Ok(accepted)
    }

    /// Makes the manifest anew under another root key, which has to be in the keyring; from then on that key seals.
    /// All in one transaction, and only for a store that verifies.
    ///
    /// # Errors
    /// [`StoreError::Integrity`] when it does not verify, [`StoreError::KeyUnknown`] without the key.
    pub async fn rekey_manifest(&self, key_id: KeyId) -> Result<(), StoreError> {
        let next = ManifestKey::new(&self.keyring, key_id)
            .ok_or_else(|| StoreError::KeyUnknown { key_id: key_text(key_id) })?;
        let mut transaction = self.write().await?;
        let state = State::read_for_write(&mut transaction, &self.path).await?;
        if state.key_id() != Some(key_id) {
            let key = state.key(&self.keyring)?;
            let found = examine(&mut transaction, &state, key.as_ref(), &self.install_id).await?;
            if let Some(failed) = found.failed.into_iter().next() {
                return Err(failed.into());
            }
            for (row, reason) in found.rows {
                if let Some(reason) = reason {
                    return Err(row.refuse(reason));
                }
            }
            rebuild(&mut transaction, &next, &self.install_id, &HashSet::new()).await?;
        }
        transaction.commit().await?;
        self.keyring.seal_with_root(key_id);
        Ok(())
    }

    /// The root key that the manifest is under, which is the one that seals.
    ///
    /// # Errors
    /// When the file fails.
    pub async fn manifest_key(&self) -> Result<Option<KeyId>, StoreError> {
        Ok(State::read(&mut *self.readers.acquire().await?).await?.key_id())
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        let name = if failed.name.is_empty() { failed.id } else { failed.name };
        Self::Integrity { kind: failed.kind, name, reason: failed.reason }
    }
}

/// All rows, each with why it is refused, and the failures that are of no row.
pub(super) struct Found {
    pub(super) rows: Vec<(Listed, Option<Reason>)>,
    pub(super) failed: Vec<Failed>,
}

pub(super) async fn examine(
    connection: &mut SqliteConnection,
    state: &State,
    key: Option<&ManifestKey>,
    install_id: &str,
) -> Result<Found, StoreError> {
    let mut by_bucket = read_all(connection, key).await?;
    let mut found = Found { rows: Vec::new(), failed: Vec::new() };
    let (Some(buckets), Some(key)) = (state.verified(key, install_id), key) else {
        found.failed.push(broken_root());
        // With the root broken, rows that do not even fit themselves are still worth telling apart.
        found.rows = by_bucket
            .into_values()
            .flatten()
            .map(|row| {
                let reason = if key.is_some() && !row.fits() { Reason::Edited } else { Reason::Root };
                (row, Some(reason))
            })
            .collect();
        return Ok(found);
    };
    let numbers: HashSet<u16> = buckets.keys().copied().chain(by_bucket.keys().copied()).collect();
    let mut numbers: Vec<u16> = numbers.into_iter().collect();
    numbers.sort_unstable();
    for number in numbers {
        let rows = by_bucket.remove(&number).unwrap_or_default();
        let judgement = judge(key, number, buckets.get(&number), &rows);
        if !judgement.is_whole && rows.is_empty() {
            found.failed.push(emptied(number));
        }
        found.rows.extend(rows.into_iter().zip(judgement.reasons));
    }
    Ok(found)
}

/// Lists every row as it is, but those of `except` under a tag that fits nothing. Steps the generation; gives how many
/// records are listed.
pub(super) async fn rebuild(
    connection: &mut SqliteConnection,
    key: &ManifestKey,
    install_id: &str,
    except: &HashSet<(RecordKind, String)>,
) -> Result<u64, StoreError> {
    let mut records = 0;
    let mut buckets = Buckets::new();
    let mut listed = Vec::new();
    for (number, rows) in read_all(connection, Some(key)).await? {
        let tagged = rows.into_iter().map(|row| {
            let is_refused = !except.is_empty() && except.contains(&(row.kind, row.id.clone()));
            let tag = if is_refused { NO_TAG } else { *row.tag() };
            (row, tag)
        });
        let tagged: Vec<_> = tagged.collect();
        records += tagged.len() as u64;
        let entries = tagged.iter().map(|(row, tag)| (row.kind, row.id.as_str(), tag));
        buckets.insert(number, key.bucket(number, entries));
        listed.extend(tagged);
    }
    write_tags(connection, listed).await?;
    query("DELETE FROM buckets").execute(&mut *connection).await?;
    for (number, mac) in &buckets {
        query("INSERT INTO buckets (bucket, mac) VALUES (?, ?)")
            .bind(i64::from(*number))
            .bind(&mac[..])
            .execute(&mut *connection)
            .await?;
    }
    let generation: i64 = sqlx::query_scalar("SELECT generation FROM meta").fetch_one(&mut *connection).await?;
    // A counter that was edited to its end goes no further.
    let generation = generation.saturating_add(1);
    let root = key.root(install_id, generation, &buckets);
    write_root(connection, key, generation, &root).await?;
    Ok(records)
}

async fn remove(connection: &mut SqliteConnection, row: &Listed) -> Result<(), StoreError> {
    // The id as it is in the file may be none of this program's, and not even text: the row is found by what was read.
    let statement = match row.kind {
        RecordKind::Connection => "DELETE FROM connections WHERE rowid = ?",
        RecordKind::Token => "DELETE FROM tokens WHERE rowid = ?",
        RecordKind::App => "DELETE FROM apps WHERE rowid = ?",
        RecordKind::Tenant => "DELETE FROM tenants WHERE rowid = ?",
        RecordKind::Agent => "DELETE FROM disabled_agents WHERE rowid = ?",
    };
    query(statement).bind(row.rowid).execute(connection).await?;
    Ok(())
}
