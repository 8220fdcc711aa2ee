//! The manifest: a MAC for each record, one for each of 1,024 buckets of records, one over all of it with the store's
//! counter. What was edited, copied, removed or rolled back does not fit; a change touches one bucket.
//!
//! Here are the bytes that go into the MACs; the rows are read in `sqlite`.

use crate::secret::{KeyId, Keyring};
use crate::types::{AgentName, Scope};
use hkdf::hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// How many buckets there are.
pub(super) const BUCKETS: u16 = 1024;

/// What the manifest's key is derived for.
const KEY_INFO: &str = "manifest/v1";

/// A MAC of this manifest.
pub(super) type Tag = [u8; 32];

/// A tag that fits no row: of rows that failed before they were listed anew.
pub(super) const NO_TAG: Tag = [0; 32];

/// The MAC of each bucket that has records.
pub(super) type Buckets = BTreeMap<u16, Tag>;

/// What kind of record a row of the manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// A connection; its id is `con_…`.
    Connection,
    /// An agent token; its id is `tok_…`.
    Token,
    /// An app registration; its id is `tenant/provider`.
    App,
    /// A tenant; its id is its name.
    Tenant,
    /// A disabled agent; its id is `tenant/namespace/agent`.
    Agent,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connection, Self::Token, Self::App, Self::Tenant, Self::Agent];

    /// How it is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Token => "token",
            Self::App => "app",
            Self::Tenant => "tenant",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value of a row as it goes into the MAC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

/// The bucket of a record.
pub(super) fn bucket_of(kind: RecordKind, id: &str) -> u16 {
    let mut hash = Sha256::new();
    for part in [kind.as_str(), id] {
        hash.update(length(part.len()));
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    u16::from_be_bytes([digest[30], digest[31]]) % BUCKETS
}

/// The id of the record that disables an agent.
pub(super) fn agent_id(scope: &Scope, agent: &AgentName) -> String {
    format!("{}/{}/{agent}", scope.tenant, scope.namespace)
}

/// Agents of whom nobody can tell whether they are disabled: the record would be in a bucket that has lost one, or may
/// have. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoubtfulAgents(Arc<BTreeSet<u16>>);

impl DoubtfulAgents {
    pub(super) fn of(buckets: BTreeSet<u16>) -> Self {
        Self(Arc::new(buckets))
    }

    /// Whether this one is one of them.
    #[must_use]
    pub fn has(&self, scope: &Scope, agent: &AgentName) -> bool {
        !self.0.is_empty() && self.0.contains(&bucket_of(RecordKind::Agent, &agent_id(scope, agent)))
    }
}

/// The key of a manifest, ready for use.
#[derive(Clone)]
pub(super) struct ManifestKey {
    pub(super) id: KeyId,
    mac: Hmac<Sha256>,
}

impl ManifestKey {
    /// Derives it from the root key with this id, if the keyring has that.
    pub(super) fn new(keyring: &Keyring, id: KeyId) -> Option<Self> {
        let key = keyring.derived(id, KEY_INFO)?;
        Some(Self { id, mac: Hmac::new_from_slice(&key[..]).expect("HMAC takes keys of every length") })
    }

    /// The tag of a row. `columns` are those that are not NULL, sorted by name: a column that a later schema adds
    /// changes no tag while it is NULL.
    pub(super) fn tag<'a>(
        &self,
        kind: RecordKind,
        id: &str,
        columns: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) -> Tag {
        let mut message = Message::new(&self.mac, "record");
        message.part(kind.as_str().as_bytes());
        message.part(id.as_bytes());
        for (name, value) in columns {
            message.part(name.as_bytes());
            match value {
                Value::Integer(number) => message.typed(b'i', &number.to_be_bytes()),
                Value::Real(number) => message.typed(b'r', &number.to_bits().to_be_bytes()),
                Value::Text(text) => message.typed(b't', text),
                Value::Blob(bytes) => message.typed(b'b', bytes),
            }
        }
        message.finish()
    }

    /// The MAC of a bucket: over its number and its records by kind and id.
    pub(super) fn bucket<'a>(&self, number: u16, entries: impl Iterator<Item = (RecordKind, &'a str, &'a Tag)>) -> Tag {
        let mut entries: Vec<_> = entries.map(|(kind, id, tag)| (kind.as_str(), id, tag)).collect();
        entries.sort_unstable();
        let mut message = Message::new(&self.mac, "bucket");
        message.part(&number.to_be_bytes());
        for (kind, id, tag) in entries {
            message.part(kind.as_bytes());
            message.part(id.as_bytes());
            message.part(tag);
        }
        message.finish()
    }

    /// The MAC over the whole.
    pub(super) fn root(&self, install_id: &str, counter: i64, buckets: &Buckets) -> Tag {
        let mut message = Message::new(&self.mac, "root");
        message.part(install_id.as_bytes());
        message.part(&counter.to_be_bytes());
        message.part(&self.id);
        for (number, mac) in buckets {
            message.part(&number.to_be_bytes());
            message.part(mac);
        }
        message.finish()
    }
}

/// Each part goes in after its length, so that no two lists of parts are one message.
struct Message(Hmac<Sha256>);

impl Message {
    fn new(mac: &Hmac<Sha256>, what: &str) -> Self {
        let mut message = Self(mac.clone());
        message.part(what.as_bytes());
        message
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&length(bytes.len()));
        self.0.update(bytes);
    }

    fn typed(&mut self, kind: u8, bytes: &[u8]) {
        self.0.update(&[kind]);
        self.part(bytes);
    }

    fn finish(self) -> Tag {
        self.0.finalize().into_bytes().into()
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("SQLite keeps no value of 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::secret::RootKey;

    const INSTALL: &str = "0123456789abcdef0123456789abcdef";

    fn key() -> ManifestKey {
        let root: Vec<u8> = (0..32).collect();
        let keyring = Keyring::new(&RootKey::from_bytes(&root.try_into().unwrap()), INSTALL);
        ManifestKey::new(&keyring, keyring.key_id()).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_vector_of_the_documentation_holds() {
        let document = include_str!("../../docs/store-format.md");
        let key = key();
        let columns = [
            ("created_at", Value::Integer(1_700_000_000)),
            ("generation", Value::Integer(1)),
            ("tenant", Value::Text(b"acme")),
        ];
        let bucket = bucket_of(RecordKind::Tenant, "acme");
        let tag = key.tag(RecordKind::Tenant, "acme", columns);
        let mac = key.bucket(bucket, [(RecordKind::Tenant, "acme", &tag)].into_iter());
        let root = key.root(INSTALL, 1, &Buckets::from([(bucket, mac)]));
        let shown = [
            format!("bucket = {bucket}"),
            format!("tag = {}", hex(&tag)),
            format!("bucket MAC = {}", hex(&mac)),
            format!("root MAC = {}", hex(&root)),
        ];
        for line in &shown {
            assert!(document.lines().any(|found| found == line), "docs/store-format.md has no line: {line}");
        }
    }

    #[test]
    fn no_two_messages_are_one() {
        let key = key();
        let text = |bytes: &'static [u8]| Value::Text(bytes);
        type Row<'a> = (&'a str, RecordKind, &'a str, Vec<(&'a str, Value<'a>)>);
        let rows: Vec<Row<'_>> = vec![
            ("plain", RecordKind::Tenant, "a", vec![("x", text(b"1")), ("y", text(b"2"))]),
            ("another kind", RecordKind::App, "a", vec![("x", text(b"1")), ("y", text(b"2"))]),
            ("another id", RecordKind::Tenant, "b", vec![("x", text(b"1")), ("y", text(b"2"))]),
            ("values swapped", RecordKind::Tenant, "a", vec![("x", text(b"2")), ("y", text(b"1"))]),
            ("a column NULL", RecordKind::Tenant, "a", vec![("x", text(b"1"))]),
            ("another column NULL", RecordKind::Tenant, "a", vec![("y", text(b"2"))]),
            ("a blob", RecordKind::Tenant, "a", vec![("x", Value::Blob(b"1")), ("y", text(b"2"))]),
            ("a number", RecordKind::Tenant, "a", vec![("x", Value::Integer(1)), ("y", text(b"2"))]),
            ("a real", RecordKind::Tenant, "a", vec![("x", Value::Real(1.0)), ("y", text(b"2"))]),
            (
                "the number's bytes",
                RecordKind::Tenant,
                "a",
                vec![("x", text(&[0, 0, 0, 0, 0, 0, 0, 1])), ("y", text(b"2"))],
            ),
            ("shifted", RecordKind::Tenant, "a", vec![("x", text(b"")), ("1y", text(b"2"))]),
            ("nothing", RecordKind::Tenant, "a", vec![]),
        ];
        let mut seen = BTreeMap::new();
        for (name, kind, id, columns) in rows {
            if let Some(other) = seen.insert(key.tag(kind, id, columns), name) {
                panic!("{name} has the tag of {other}");
            }
        }
    }

    #[test]
    fn buckets_do_not_depend_on_order_and_differ_by_number_record_and_tag() {
        let key = key();
        let entry = |kind, id, tag| (kind, id, tag);
        let (one, two) = ([1; 32], [2; 32]);
        let a = entry(RecordKind::Token, "a", &one);
        let b = entry(RecordKind::Connection, "b", &two);
        let mac = key.bucket(7, [a, b].into_iter());
        assert_eq!(mac, key.bucket(7, [b, a].into_iter()));
        let others = [
            key.bucket(8, [a, b].into_iter()),
            key.bucket(7, [a].into_iter()),
            key.bucket(7, [a, a, b].into_iter()),
            key.bucket(7, [(RecordKind::Token, "a", &two), (RecordKind::Connection, "b", &one)].into_iter()),
            key.bucket(7, [(RecordKind::Connection, "a", &one), (RecordKind::Token, "b", &two)].into_iter()),
        ];
        assert!(others.iter().all(|other| *other != mac));
        let root = key.root(INSTALL, 3, &Buckets::from([(7, mac)]));
        assert_ne!(root, key.root(INSTALL, 4, &Buckets::from([(7, mac)])));
        assert_ne!(root, key.root(INSTALL, 3, &Buckets::from([(8, mac)])));
        assert_ne!(root, key.root(INSTALL, 3, &Buckets::new()));
        assert_ne!(root, key.root("another", 3, &Buckets::from([(7, mac)])));
    }
}
