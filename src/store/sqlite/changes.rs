//! What changed since a reader last looked: buckets of the manifest that are not those that it has seen.

use super::manifest::{Listed, State, broken_root, emptied, judge, read_all, read_bucket};
use super::{SqliteStore, rows};
use crate::secret::KeyId;
use crate::store::manifest::{BUCKETS, Buckets, DoubtfulAgents, ManifestKey, RecordKind, Tag};
use crate::store::{Changes, Failed, Reason, Record, StoreError};
use crate::types::{AgentName, ConnectionId, Scope, TokenId};
use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// From so many changed buckets on, all rows are read at once.
const MANY: usize = 64;

/// What a reader has seen of a store. Goes into [`super::Store::changes_since`] and comes out of it; cheap to clone.
#[derive(Clone, Default)]
pub struct Seen(Option<Arc<View>>);

struct View {
    generation: i64,
    key_id: Option<KeyId>,
    root: Option<Tag>,
    /// Without what was refused.
    buckets: BTreeMap<u16, Arc<Bucket>>,
    /// What is refused, by kind and id, so that it is told once.
    failed: BTreeSet<(&'static str, String)>,
}

struct Bucket {
    mac: Option<Tag>,
    records: Vec<(RecordKind, Box<str>, Tag)>,
    /// Agents that are disabled, by what is there now or was before a row got lost.
    disabled: Vec<(Scope, AgentName)>,
    /// Whether none of it is refused.
    is_clean: bool,
}

impl Seen {
    /// The store's generation then.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.0.as_ref().map_or(0, |view| view.generation)
    }

    fn is_current(&self, state: &State) -> bool {
        self.0.as_ref().is_some_and(|view| {
            view.failed.is_empty()
                && view.generation == state.generation
                && view.key_id == state.key_id()
                && view.root == state.root
        })
    }

    fn bucket(&self, number: u16) -> Option<&Arc<Bucket>> {
        self.0.as_ref()?.buckets.get(&number)
    }

    /// Whether a bucket is as it was seen, and nothing in it was refused.
    fn has(&self, number: u16, mac: Option<&Tag>) -> bool {
        self.bucket(number).is_some_and(|bucket| bucket.is_clean && bucket.mac.as_ref() == mac)
    }

    fn records(&self, number: u16) -> &[(RecordKind, Box<str>, Tag)] {
        self.bucket(number).map_or(&[], |bucket| &bucket.records)
    }

    fn numbers(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|view| view.buckets.keys().copied())
    }

    fn has_failed(&self, failed: &Failed) -> bool {
        self.0.as_ref().is_some_and(|view| view.failed.contains(&(failed.kind, failed.id.clone())))
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        let state = |seen: &Self| seen.0.as_ref().map(|view| (view.generation, view.key_id, view.root));
        state(self) == state(other)
    }
}

impl Eq for Seen {}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seen({})", self.generation())
    }
}

impl SqliteStore {
    pub(super) async fn read_changes(&self, seen: &Seen) -> Result<Changes, StoreError> {
        // One transaction is one state of the file, whatever is written meanwhile.
        let mut transaction = self.readers.begin().await?;
        let state = State::read(&mut transaction).await?;
        let mut changes =
            Changes { generation: state.generation, locked: state.locked, seen: seen.clone(), ..Changes::default() };
        // All of them, believed or not: a row too many does less harm than one too few. One that makes no sense disables
        // nobody, and its bucket tells of it.
        let disabled =
            query("SELECT tenant, namespace, agent FROM disabled_agents").fetch_all(&mut *transaction).await?;
        changes
            .disabled_agents
            .extend(disabled.iter().filter_map(|row| Some((rows::scope(row).ok()?, rows::agent(row).ok()?))));
        if seen.is_current(&state) {
            let buckets = seen.0.iter().flat_map(|view| view.buckets.values());
            changes.disabled_agents.extend(buckets.flat_map(|bucket| bucket.disabled.iter().cloned()));
            once_each(&mut changes.disabled_agents);
            return Ok(changes);
        }
        let key = state.key(&self.keyring)?;
        let mut reading = Reading {
            seen,
            buckets: BTreeMap::new(),
            failed: Vec::new(),
            changed: Vec::new(),
            doubtful: BTreeSet::new(),
        };
        match (state.verified(key.as_ref(), &self.install_id), &key) {
            (Some(buckets), Some(key)) => {
                changes.went_back = state.generation < seen.generation();
                reading.read(&mut transaction, key, buckets).await?;
            }
            // Without a root that fits, no bucket is known to be the one that was written last.
            _ => {
                reading.failed.push(broken_root());
                reading.doubtful.extend(0..BUCKETS);
                for row in read_all(&mut transaction, None).await?.into_values().flatten() {
                    reading.failed.push(row.failed(Reason::Root));
                }
            }
        }
        reading.finish(&state, &mut changes);
        Ok(changes)
    }
}

struct Reading<'a> {
    seen: &'a Seen,
    buckets: BTreeMap<u16, Arc<Bucket>>,
    failed: Vec<Failed>,
    /// With the generation that they are sorted by.
    changed: Vec<(i64, Record)>,
    /// Buckets that have lost a record, or may have.
    doubtful: BTreeSet<u16>,
}

impl Reading<'_> {
    async fn read(
        &mut self,
        connection: &mut SqliteConnection,
        key: &ManifestKey,
        buckets: &Buckets,
    ) -> Result<(), StoreError> {
        let mut numbers: BTreeSet<u16> = buckets.keys().copied().chain(self.seen.numbers()).collect();
        numbers.retain(|number| {
            let is_same = self.seen.has(*number, buckets.get(number));
            if is_same && let Some(bucket) = self.seen.bucket(*number) {
                self.buckets.insert(*number, Arc::clone(bucket));
            }
            !is_same
        });
        // The first look takes in what is in no bucket too.
        if self.seen.0.is_none() || numbers.len() > MANY {
            let mut rows = read_all(connection, Some(key)).await?;
            numbers.extend(rows.keys().filter(|number| !self.buckets.contains_key(number)));
            for number in numbers {
                self.take(key, number, buckets.get(&number), rows.remove(&number).unwrap_or_default());
            }
        } else {
            for number in numbers {
                let rows = read_bucket(connection, key, number).await?;
                self.take(key, number, buckets.get(&number), rows);
            }
        }
        Ok(())
    }

    fn take(&mut self, key: &ManifestKey, number: u16, mac: Option<&Tag>, rows: Vec<Listed>) {
        let judgement = judge(key, number, mac, &rows);
        let failures = self.failed.len();
        let mut disabled: Vec<_> = rows.iter().filter_map(Listed::disabled_agent).collect();
        if !judgement.is_whole {
            self.doubtful.insert(number);
            disabled.extend(self.seen.bucket(number).iter().flat_map(|bucket| bucket.disabled.iter().cloned()));
            if rows.is_empty() {
                self.failed.push(emptied(number));
            }
            for (kind, id, _) in self.seen.records(number) {
                if !rows.iter().any(|row| row.kind == *kind && row.id == **id) {
                    self.failed.push(Failed {
                        kind: kind.as_str(),
                        id: id.to_string(),
                        name: String::new(),
                        tenant: String::new(),
                        reason: Reason::Removed,
                    });
                }
            }
        }
        let mut records = Vec::with_capacity(rows.len());
        for (row, reason) in rows.into_iter().zip(judgement.reasons) {
            if let Some(reason) = reason {
                self.failed.push(row.failed(reason));
                continue;
            }
            let known = self.seen.records(number).iter();
            let is_new =
                !known.into_iter().any(|(kind, id, tag)| *kind == row.kind && **id == *row.id && tag == row.tag());
            records.push((row.kind, row.id.as_str().into(), *row.tag()));
            if is_new && let Ok(record) = row.record {
                self.changed.push((row.generation, record));
            }
        }
        let is_clean = failures == self.failed.len();
        if is_clean && records.is_empty() {
            return;
        }
        self.buckets.insert(number, Arc::new(Bucket { mac: mac.copied(), records, disabled, is_clean }));
    }

    /// What is told, and what is seen from now on.
    fn finish(mut self, state: &State, changes: &mut Changes) {
        self.changed.sort_by_key(|(generation, _)| *generation);
        for (_, record) in self.changed {
            match record {
                // An orphan is of no use.
                Record::Connection(record) if record.orphaned_at.is_some() => {
                    changes.deleted_connections.push(record.id);
                }
                Record::Connection(record) => changes.connections.push(*record),
                Record::Token(record) => changes.tokens.push(*record),
                Record::App(_) | Record::Other => {}
            }
        }
        for number in self.seen.numbers() {
            let now = self.buckets.get(&number);
            if self.seen.bucket(number).zip(now).is_some_and(|(seen, now)| Arc::ptr_eq(seen, now)) {
                continue;
            }
            let now = now.map_or(&[][..], |bucket| &bucket.records);
            for (kind, id, _) in self.seen.records(number) {
                if now.iter().any(|(other, other_id, _)| other == kind && other_id == id) {
                    continue;
                }
                match kind {
                    RecordKind::Connection => changes.deleted_connections.extend(ConnectionId::parse(id)),
                    RecordKind::Token => changes.deleted_tokens.extend(TokenId::parse(id)),
                    RecordKind::App | RecordKind::Tenant | RecordKind::Agent => {}
                }
            }
        }
        let disabled = self.buckets.values().flat_map(|bucket| bucket.disabled.iter().cloned());
        changes.disabled_agents.extend(disabled);
        once_each(&mut changes.disabled_agents);
        changes.doubtful_agents = DoubtfulAgents::of(self.doubtful);
        let failed = self.failed.iter().map(|failed| (failed.kind, failed.id.clone())).collect();
        self.failed.retain(|failed| !self.seen.has_failed(failed));
        for failed in &self.failed {
            tracing::error!(
                kind = failed.kind,
                id = failed.id,
                tenant = failed.tenant,
                "{failed}; it is not used; run: nexus store verify"
            );
        }
        changes.failed = self.failed;
        changes.seen = Seen(Some(Arc::new(View {
            generation: state.generation,
            key_id: state.key_id(),
            root: state.root,
            buckets: self.buckets,
            failed,
        })));
    }
}

fn once_each(agents: &mut Vec<(Scope, AgentName)>) {
    let mut met = HashSet::new();
    agents.retain(|agent| met.insert(agent.clone()));
}
