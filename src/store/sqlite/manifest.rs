//! The manifest in the file: reading rows with their tags, and judging them.

use super::open::unusable;
use super::rows;
use crate::secret::{KeyId, Keyring};
use crate::store::manifest::{Buckets, ManifestKey, NO_TAG, RecordKind, Tag, Value, bucket_of};
use crate::store::{Failed, Reason, Record, StoreError};
use crate::types::{AgentName, Scope};
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Column, Decode, Row as _, TypeInfo, ValueRef, query, query_as};
use std::collections::BTreeMap;
use std::path::Path;
use subtle::ConstantTimeEq;

/// What `meta` and `buckets` say, not yet believed.
#[derive(Debug, PartialEq)]
pub(super) struct State {
    pub(super) generation: i64,
    pub(super) locked: bool,
    key_id: Option<KeyId>,
    pub(super) root: Option<Tag>,
    /// `None` when a row of it is not of the right form.
    buckets: Option<Buckets>,
    /// A trigger or a view: this program makes none.
    foreign: Option<String>,
}

type Meta = (i64, bool, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>, Option<String>);

impl State {
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        // One row: a row for each bucket would cost more than all MACs together.
        let (generation, locked, key_id, root, buckets, foreign): Meta = query_as(
            "SELECT generation, lockdown_at IS NOT NULL, manifest_key, manifest_root, \
             (SELECT group_concat(printf('%04x', bucket) || hex(mac), '' ORDER BY bucket) FROM buckets), \
             (SELECT max(CAST(name AS TEXT)) FROM sqlite_schema WHERE type IN ('trigger', 'view')) FROM meta",
        )
        .fetch_one(connection)
        .await?;
        Ok(Self {
            generation,
            locked,
            key_id: key_id.and_then(|id| id.try_into().ok()),
            root: root.and_then(|root| root.try_into().ok()),
            buckets: parse_buckets(&buckets.unwrap_or_default()),
            foreign,
        })
    }

    /// The same for a transaction that writes: what takes part in a write must be this program's.
    pub(super) async fn read_for_write(connection: &mut SqliteConnection, path: &Path) -> Result<Self, StoreError> {
        let state = Self::read(connection).await?;
        match &state.foreign {
            None => Ok(state),
            Some(name) => Err(unusable(
                path,
                &format!("something other than nexus changed its schema ({name:?}); restore a backup"),
            )),
        }
    }

    /// Whether a manifest was ever made.
    pub(super) fn is_made(&self) -> bool {
        self.key_id.is_some() || self.root.is_some()
    }

    /// The id of the root key that the manifest's key comes from.
    pub(super) fn key_id(&self) -> Option<KeyId> {
        self.key_id
    }

    /// The manifest's key; `None` without a manifest.
    pub(super) fn key(&self, keyring: &Keyring) -> Result<Option<ManifestKey>, StoreError> {
        let Some(id) = self.key_id else { return Ok(None) };
        ManifestKey::new(keyring, id).map(Some).ok_or(StoreError::KeyUnknown { key_id: key_text(id) })
    }

    /// The buckets, if the root says that they and the counter are those of the last write.
    pub(super) fn verified(&self, key: Option<&ManifestKey>, install_id: &str) -> Option<&Buckets> {
        let (key, root, buckets) = (key?, self.root.as_ref()?, self.buckets.as_ref()?);
        bool::from(key.root(install_id, self.generation, buckets).ct_eq(root)).then_some(buckets)
    }
}

/// A key id as people see it.
pub(super) fn key_text(id: KeyId) -> String {
    hex(&id)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |digit: u8| char::from(DIGITS[usize::from(digit)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// Four digits of the number and 64 of the MAC each.
fn parse_buckets(text: &str) -> Option<Buckets> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut buckets = Buckets::new();
    let chunks = text.as_bytes().chunks(68);
    for chunk in chunks {
        let (number, mac) = chunk.split_at_checked(4)?;
        let number = number.iter().try_fold(0, |number, byte| Some(number * 16 + digit(*byte)?))?;
        let mut tag = NO_TAG;
        if mac.len() != 64 {
            return None;
        }
        for (byte, digits) in tag.iter_mut().zip(mac.chunks_exact(2)) {
            *byte = u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?;
        }
        buckets.insert(u16::try_from(number).ok()?, tag);
    }
    Some(buckets)
}

/// The statements for each kind of record; they have to be literals.
pub(super) fn all_rows(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Connection => "SELECT rowid, * FROM connections",
        RecordKind::Token => "SELECT rowid, * FROM tokens",
        RecordKind::App => "SELECT rowid, * FROM apps",
        RecordKind::Tenant => "SELECT rowid, * FROM tenants",
        RecordKind::Agent => "SELECT rowid, * FROM disabled_agents",
    }
}

fn rows_of_bucket(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Connection => "SELECT rowid, * FROM connections WHERE bucket = ?",
        RecordKind::Token => "SELECT rowid, * FROM tokens WHERE bucket = ?",
        RecordKind::App => "SELECT rowid, * FROM apps WHERE bucket = ?",
        RecordKind::Tenant => "SELECT rowid, * FROM tenants WHERE bucket = ?",
        RecordKind::Agent => "SELECT rowid, * FROM disabled_agents WHERE bucket = ?",
    }
}

fn one_row(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Connection => "SELECT rowid, * FROM connections WHERE id = ?",
        RecordKind::Token => "SELECT rowid, * FROM tokens WHERE id = ?",
        RecordKind::App => "SELECT rowid, * FROM apps WHERE tenant = ? AND provider = ?",
        RecordKind::Tenant => "SELECT rowid, * FROM tenants WHERE tenant = ?",
        RecordKind::Agent => "SELECT rowid, * FROM disabled_agents WHERE tenant = ? AND namespace = ? AND agent = ?",
    }
}

fn set_tag(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Connection => "UPDATE connections SET bucket = ?, tag = ? WHERE rowid = ?",
        RecordKind::Token => "UPDATE tokens SET bucket = ?, tag = ? WHERE rowid = ?",
        RecordKind::App => "UPDATE apps SET bucket = ?, tag = ? WHERE rowid = ?",
        RecordKind::Tenant => "UPDATE tenants SET bucket = ?, tag = ? WHERE rowid = ?",
        RecordKind::Agent => "UPDATE disabled_agents SET bucket = ?, tag = ? WHERE rowid = ?",
    }
}

/// The same for the rows of a JSON list of row ids and tags. A row that is in its bucket already leaves the index alone.
fn set_tags(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Connection => {
            "UPDATE connections SET tag = unhex(value ->> 1) FROM json_each(?) WHERE connections.rowid = value ->> 0"
        }
        RecordKind::Token => {
            "UPDATE tokens SET tag = unhex(value ->> 1) FROM json_each(?) WHERE tokens.rowid = value ->> 0"
        }
        RecordKind::App => "UPDATE apps SET tag = unhex(value ->> 1) FROM json_each(?) WHERE apps.rowid = value ->> 0",
        RecordKind::Tenant => {
            "UPDATE tenants SET tag = unhex(value ->> 1) FROM json_each(?) WHERE tenants.rowid = value ->> 0"
        }
        RecordKind::Agent => {
            "UPDATE disabled_agents SET tag = unhex(value ->> 1) FROM json_each(?) \
             WHERE disabled_agents.rowid = value ->> 0"
        }
    }
}

/// And with their buckets.
fn set_places(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Connection => {
            "UPDATE connections SET tag = unhex(value ->> 1), bucket = value ->> 2 FROM json_each(?) \
             WHERE connections.rowid = value ->> 0"
        }
        RecordKind::Token => {
            "UPDATE tokens SET tag = unhex(value ->> 1), bucket = value ->> 2 FROM json_each(?) \
             WHERE tokens.rowid = value ->> 0"
        }
        RecordKind::App => {
            "UPDATE apps SET tag = unhex(value ->> 1), bucket = value ->> 2 FROM json_each(?) \
             WHERE apps.rowid = value ->> 0"
        }
        RecordKind::Tenant => {
            "UPDATE tenants SET tag = unhex(value ->> 1), bucket = value ->> 2 FROM json_each(?) \
             WHERE tenants.rowid = value ->> 0"
        }
        RecordKind::Agent => {
            "UPDATE disabled_agents SET tag = unhex(value ->> 1), bucket = value ->> 2 FROM json_each(?) \
             WHERE disabled_agents.rowid = value ->> 0"
        }
    }
}

/// The values of a kind's key columns. Names have no slash; a row whose name has one was not written by this program.
fn key_parts(kind: RecordKind, id: &str) -> impl Iterator<Item = &str> {
    let parts = match kind {
        RecordKind::Connection | RecordKind::Token | RecordKind::Tenant => 1,
        RecordKind::App => 2,
        RecordKind::Agent => 3,
    };
    id.splitn(parts, '/')
}

/// A row as the manifest sees it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) kind: RecordKind,
    pub(super) id: String,
    pub(super) generation: i64,
    pub(super) rowid: i64,
    name: String,
    tenant: String,
    /// The bucket that it belongs to, and the one where it is filed.
    own: u16,
    bucket: Option<i64>,
    stored: Tag,
    computed: Tag,
    pub(super) record: Result<Record, String>,
}

impl Listed {
    /// The bucket that it belongs to.
    pub(super) fn bucket(&self) -> u16 {
        self.own
    }

    /// The tag that fits it.
    pub(super) fn tag(&self) -> &Tag {
        &self.computed
    }

    /// Whether the row fits its own tag, wherever it is listed.
    pub(super) fn fits(&self) -> bool {
        bool::from(self.stored.ct_eq(&self.computed)) && self.is_in_its_bucket()
    }

    fn is_in_its_bucket(&self) -> bool {
        self.bucket == Some(i64::from(self.bucket()))
    }

    /// The agent that is disabled by it.
    pub(super) fn disabled_agent(&self) -> Option<(Scope, AgentName)> {
        let mut parts = (self.kind == RecordKind::Agent).then(|| self.id.splitn(3, '/'))?;
        let scope = Scope { tenant: parts.next()?.parse().ok()?, namespace: parts.next()?.parse().ok()? };
        Some((scope, parts.next()?.parse().ok()?))
    }

    pub(super) fn failed(&self, reason: Reason) -> Failed {
        Failed {
            kind: self.kind.as_str(),
            id: self.id.clone(),
            name: self.name.clone(),
            tenant: self.tenant.clone(),
            reason,
        }
    }

    pub(super) fn refuse(&self, reason: Reason) -> StoreError {
        let name = if self.name.is_empty() { self.id.clone() } else { self.name.clone() };
        StoreError::Integrity { kind: self.kind.as_str(), name, reason }
    }
}

/// Which columns go into the tag, in their order. The same for all rows of a statement.
pub(super) struct Columns(Vec<usize>);

impl Columns {
    pub(super) fn of(row: &SqliteRow) -> Self {
        let name = |index: &usize| row.columns()[*index].name();
        let mut order: Vec<usize> = (0..row.columns().len()).collect();
        order.retain(|index| !matches!(name(index), "bucket" | "tag" | "rowid"));
        order.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        Self(order)
    }

    fn values<'r>(&self, row: &'r SqliteRow) -> Result<Vec<(&'r str, Value<'r>)>, sqlx::Error> {
        let mut values = Vec::with_capacity(self.0.len());
        for &index in &self.0 {
            let raw = row.try_get_raw(index)?;
            if raw.is_null() {
                continue;
            }
            let value = match raw.type_info().name() {
                "INTEGER" => i64::decode(raw).map(Value::Integer),
                "REAL" => f64::decode(raw).map(Value::Real),
                "TEXT" => <&[u8]>::decode(raw).map(Value::Text),
                _ => <&[u8]>::decode(raw).map(Value::Blob),
            };
            values.push((row.columns()[index].name(), value.map_err(sqlx::Error::Decode)?));
        }
        Ok(values)
    }
}

/// A row with its tags. Without a key the computed one fits nothing.
pub(super) fn listed(
    kind: RecordKind,
    row: &SqliteRow,
    columns: &Columns,
    key: Option<&ManifestKey>,
) -> Result<Listed, StoreError> {
    // Not through the parsers: what somebody wrote into the row is to be named as it is.
    let text = |column: &str| {
        let bytes = row.try_get_raw(column).ok().and_then(|raw| <&[u8]>::decode(raw).ok()).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let (id, name) = match kind {
        RecordKind::Connection => (text("id"), text("name")),
        RecordKind::Token => (text("id"), text("agent")),
        RecordKind::App => (format!("{}/{}", text("tenant"), text("provider")), text("provider")),
        RecordKind::Tenant => (text("tenant"), text("tenant")),
        RecordKind::Agent => (format!("{}/{}/{}", text("tenant"), text("namespace"), text("agent")), text("agent")),
    };
    let record = match kind {
        RecordKind::Connection => rows::connection(row).map(|record| Record::Connection(Box::new(record))),
        RecordKind::Token => rows::token(row).map(|record| Record::Token(Box::new(record))),
        RecordKind::App => rows::app(row).map(|record| Record::App(Box::new(record))),
        RecordKind::Tenant | RecordKind::Agent => Ok(Record::Other),
    };
    let stored: Option<Vec<u8>> = row.try_get("tag").unwrap_or_default();
    let computed = match key {
        Some(key) => key.tag(kind, &id, columns.values(row)?),
        None => NO_TAG,
    };
    Ok(Listed {
        kind,
        generation: row.try_get("generation").unwrap_or_default(),
        rowid: row.try_get("rowid")?,
        name,
        tenant: text("tenant"),
        own: bucket_of(kind, &id),
        bucket: row.try_get("bucket").unwrap_or_default(),
        stored: stored.and_then(|tag| tag.try_into().ok()).unwrap_or(NO_TAG),
        computed,
        record: record.map_err(|error| error.to_string()),
        id,
    })
}

/// Every record, by the bucket that it belongs to.
pub(super) async fn read_all(
    connection: &mut SqliteConnection,
    key: Option<&ManifestKey>,
) -> Result<BTreeMap<u16, Vec<Listed>>, StoreError> {
    let mut buckets: BTreeMap<u16, Vec<Listed>> = BTreeMap::new();
    for kind in RecordKind::ALL {
        let mut columns = None;
        let mut rows = query(all_rows(kind)).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            let columns = columns.get_or_insert_with(|| Columns::of(&row));
            let row = listed(kind, &row, columns, key)?;
            buckets.entry(row.bucket()).or_default().push(row);
        }
    }
    Ok(buckets)
}

/// The records that are filed in a bucket.
pub(super) async fn read_bucket(
    connection: &mut SqliteConnection,
    key: &ManifestKey,
    number: u16,
) -> Result<Vec<Listed>, StoreError> {
    let mut found = Vec::new();
    for kind in RecordKind::ALL {
        let rows = query(rows_of_bucket(kind)).bind(i64::from(number)).fetch_all(&mut *connection).await?;
        let Some(first) = rows.first() else { continue };
        let columns = Columns::of(first);
        for row in &rows {
            found.push(listed(kind, row, &columns, Some(key))?);
        }
    }
    Ok(found)
}

/// One record, if it is there.
pub(super) async fn read_one(
    connection: &mut SqliteConnection,
    key: &ManifestKey,
    kind: RecordKind,
    id: &str,
) -> Result<Option<Listed>, StoreError> {
    let mut statement = query(one_row(kind));
    for part in key_parts(kind, id) {
        statement = statement.bind(part);
    }
    let Some(row) = statement.fetch_optional(connection).await? else { return Ok(None) };
    listed(kind, &row, &Columns::of(&row), Some(key)).map(Some)
}

/// Files a row under a tag.
pub(super) async fn write_tag(connection: &mut SqliteConnection, row: &Listed, tag: &Tag) -> Result<(), StoreError> {
    let statement = query(set_tag(row.kind)).bind(i64::from(row.bucket())).bind(&tag[..]).bind(row.rowid);
    statement.execute(connection).await?;
    Ok(())
}

/// So many rows get their tags in one statement: a statement for each row would cost more than all MACs together.
const AT_ONCE: usize = 1000;

/// [`write_tag`] for many.
pub(super) async fn write_tags(
    connection: &mut SqliteConnection,
    mut rows: Vec<(Listed, Tag)>,
) -> Result<(), StoreError> {
    rows.retain(|(row, tag)| row.stored != *tag || !row.is_in_its_bucket());
    rows.sort_unstable_by_key(|(row, _)| (row.kind, row.is_in_its_bucket(), row.rowid));
    for rows in rows.chunk_by(|(a, _), (b, _)| (a.kind, a.is_in_its_bucket()) == (b.kind, b.is_in_its_bucket())) {
        let (first, _) = &rows[0];
        let statement = if first.is_in_its_bucket() { set_tags(first.kind) } else { set_places(first.kind) };
        for rows in rows.chunks(AT_ONCE) {
            let places = rows.iter().map(|(row, tag)| format!("[{},\"{}\",{}]", row.rowid, hex(tag), row.bucket()));
            let list = format!("[{}]", places.collect::<Vec<_>>().join(","));
            query(statement).bind(list).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Kind, id and tag of what is filed in a bucket.
pub(super) async fn read_entries(
    connection: &mut SqliteConnection,
    number: u16,
) -> Result<Vec<(RecordKind, String, Tag)>, StoreError> {
    let rows: Vec<(i64, Vec<u8>, Option<Vec<u8>>)> = query_as(
        "SELECT 0, CAST(id AS BLOB), tag FROM connections WHERE bucket = ?1 \
         UNION ALL SELECT 1, CAST(id AS BLOB), tag FROM tokens WHERE bucket = ?1 \
         UNION ALL SELECT 2, CAST(tenant || '/' || provider AS BLOB), tag FROM apps WHERE bucket = ?1 \
         UNION ALL SELECT 3, CAST(tenant AS BLOB), tag FROM tenants WHERE bucket = ?1 \
         UNION ALL SELECT 4, CAST(tenant || '/' || namespace || '/' || agent AS BLOB), tag FROM disabled_agents \
         WHERE bucket = ?1",
    )
    .bind(i64::from(number))
    .fetch_all(connection)
    .await?;
    let entries = rows.into_iter().map(|(kind, id, tag)| {
        let kind = RecordKind::ALL[usize::try_from(kind).unwrap_or_default()];
        let tag = tag.and_then(|tag| tag.try_into().ok()).unwrap_or(NO_TAG);
        (kind, String::from_utf8_lossy(&id).into_owned(), tag)
    });
    Ok(entries.collect())
}

/// What became of a bucket.
pub(super) struct Judgement {
    /// For each row why it is refused, in their order.
    pub(super) reasons: Vec<Option<Reason>>,
    /// Whether the bucket has all the records that it should have.
    pub(super) is_whole: bool,
}

/// Judges the rows of a bucket whose MAC is known from a root that fits.
///
/// A single row that does not fit is refused alone, if the bucket is whole with it, without it, or with the tag that it
/// should have. Everything else says that a row is missing or an older one: then none of them can be told to be the one
/// that was written last.
pub(super) fn judge(key: &ManifestKey, number: u16, mac: Option<&Tag>, rows: &[Listed]) -> Judgement {
    let own = || rows.iter().filter(|row| row.bucket() == number);
    let stored = |row: &'_ &Listed| -> Tag { row.stored };
    let matches = |entries: Vec<(&Listed, Tag)>| match mac {
        None => entries.is_empty(),
        Some(mac) => {
            let entries = entries.iter().map(|(row, tag)| (row.kind, row.id.as_str(), tag));
            bool::from(key.bucket(number, entries).ct_eq(mac))
        }
    };
    let is_whole = matches(own().map(|row| (row, stored(&row))).collect())
        || matches(own().filter(|row| row.fits()).map(|row| (row, row.computed)).collect())
        || matches(own().map(|row| (row, row.computed)).collect());
    let reasons = rows.iter().map(|row| {
        if !row.fits() || row.bucket() != number {
            Some(Reason::Edited)
        } else if !is_whole {
            Some(Reason::Bucket)
        } else {
            row.record.as_ref().err().map(|error| Reason::Unreadable(error.clone()))
        }
    });
    Judgement { reasons: reasons.collect(), is_whole }
}

/// The failure of a bucket that has no row left to name.
pub(super) fn emptied(number: u16) -> Failed {
    Failed {
        kind: "bucket",
        id: number.to_string(),
        name: String::new(),
        tenant: String::new(),
        reason: Reason::Removed,
    }
}

/// The failure of the root, as far as it is about no record.
pub(super) fn broken_root() -> Failed {
    Failed { kind: "manifest", id: "root".to_owned(), name: String::new(), tenant: String::new(), reason: Reason::Root }
}
