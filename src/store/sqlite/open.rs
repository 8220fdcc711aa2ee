//! Opening, making and checking the file.

use super::manifest::{State, key_text, read_all};
use super::verify::{examine, rebuild};
use super::{SqliteStore, Watch};
use crate::secret::{KeyId, Keyring, RootKey, random_bytes};
use crate::store::StoreError;
use crate::store::manifest::ManifestKey;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, query, query_as, query_scalar};
use std::collections::{BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Run by `run_direct`, inside a transaction of ours: with `run` the future could not be sent to another thread.
static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// `nxus`, in the file's header: tells a store from any other SQLite file.
const APPLICATION_ID: i64 = 0x6e78_7573;

/// The migration that made the manifest.
const MANIFEST_SCHEMA: i64 = 3;

const HEADER: &[u8; 16] = b"SQLite format 3\0";

/// A store's file: opened, of a known schema, and not yet unlocked.
#[derive(Debug)]
pub struct StoreFile {
    path: PathBuf,
    install_id: String,
    /// The schema that was found, if it is behind.
    behind: Option<i64>,
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    watch: Watch,
}

impl StoreFile {
    /// Opens the store and makes it if absent (0600). A schema that is behind is brought up to date by
    /// [`StoreFile::unlock`], since that takes the key.
    ///
    /// # Errors
    /// When the file is not a store, damaged, or made by a newer version; the file is left as it was.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        // Absolute, so that no name means a URI or memory to SQLite, and a later change of directory nothing.
        let path = std::path::absolute(path).map_err(|error| unusable(path, &error.to_string()))?;
        if !path.try_exists().map_err(|error| unusable(&path, &error.to_string()))? {
            create(&path).await?;
        }
        check_header(&path)?;
        let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let opened = identity(&path).map_err(|error| unusable(&path, &error.to_string()))?;

        let reading = options(&path).read_only(true);
        let mut connection = reading.connect().await.map_err(|error| explain(&path, error))?;
        let mut snapshot = connection.begin().await.map_err(|error| explain(&path, error))?;
        let behind = check(&path, &mut snapshot).await?;
        snapshot.commit().await?;

        let writing = options(&path).journal_mode(SqliteJournalMode::Wal);
        let pool = || SqlitePoolOptions::new().test_before_acquire(false);
        let writer = pool().max_connections(1).before_acquire(is_usable).connect_lazy_with(writing.clone());
        let readers = pool().max_connections(4).connect_lazy_with(reading.clone());
        let install_id = query_scalar("SELECT install_id FROM meta").fetch_optional(&mut connection).await?;
        let install_id =
            install_id.ok_or_else(|| unusable(&path, "it is damaged (no install id); restore a backup"))?;
        let watch = Watch::start(reading, connection).await?;
        // From here on it cannot be replaced, since a connection has it open; a restore may have done so before.
        if identity(&path).ok() != Some(opened) {
            return Err(unusable(&path, "it was replaced while it was being opened; try again"));
        }
        Ok(Self { path, install_id, behind, writer, readers, watch })
    }

    /// The random id of this install, made with the store.
    #[must_use]
    pub fn install_id(&self) -> &str {
        &self.install_id
    }

    /// Whether the store is from before the manifest, so that unlocking it takes its records as they are.
    #[must_use]
    pub fn is_before_manifest(&self) -> bool {
        self.behind.is_some_and(|schema| schema < MANIFEST_SCHEMA)
    }

    /// The store, with the keys of this install: its schema is brought up to date, and a manifest made if it had none
    /// yet, in one transaction. A manifest that does not fit is told on the log, and its records are refused.
    ///
    /// # Errors
    /// [`StoreError::KeyUnknown`] when the store is under another root key; the file is left as it was. When the file
    /// fails.
    pub async fn unlock(self, keyring: Arc<Keyring>) -> Result<SqliteStore, StoreError> {
        if let Some(schema) = self.behind {
            self.upgrade(&keyring, schema).await?;
        } else {
            let state = State::read(&mut *self.readers.acquire().await?).await?;
            state.key(&keyring)?;
            if !state.is_made() {
                self.make_manifest(&keyring).await?;
            }
        }
        let state = State::read(&mut *self.readers.acquire().await?).await?;
        let key = state.key(&keyring)?;
        if state.verified(key.as_ref(), &self.install_id).is_none() {
            tracing::error!(
                store = %self.path.display(),
                "the manifest of {} does not fit: its counter or its list was edited or rolled back; its records are \
                 not used; run: nexus store verify",
                self.path.display()
            );
        }
        if let Some(key) = key {
            keyring.seal_with_root(key.id);
        }
        // What was written above is no news to whoever opens the store.
        self.watch.catch_up().await?;
        let Self { path, install_id, behind: _, writer, readers, watch } = self;
        Ok(SqliteStore { path, install_id, keyring, writer, readers, watch })
    }

    /// Brings the schema up to date. The records are taken over with their places in the manifest; those that do not fit
    /// stay refused.
    async fn upgrade(&self, keyring: &Keyring, schema: i64) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut refused = HashSet::new();
        let mut key = None;
        if schema >= MANIFEST_SCHEMA {
            let state = State::read(&mut transaction).await?;
            key = state.key(keyring)?;
            let found = examine(&mut transaction, &state, key.as_ref(), &self.install_id).await?;
            refused.extend(found.rows.into_iter().filter_map(|(row, reason)| reason.map(|_| (row.kind, row.id))));
        } else if let Some(unknown) = foreign_key(&mut transaction, keyring).await? {
            return Err(unknown);
        }
        MIGRATIONS
            .run_direct(None, &mut *transaction, false)
            .await
            .map_err(|error| unusable(&self.path, &error.to_string()))?;
        // Of a manifest that lost its key id nothing can be taken over.
        if schema < MANIFEST_SCHEMA || key.is_some() {
            let key = key.unwrap_or_else(|| sealing_key(keyring));
            let records = rebuild(&mut transaction, &key, &self.install_id, &refused).await?;
            if schema < MANIFEST_SCHEMA && records > 0 {
                tracing::warn!(
                    store = %self.path.display(),
                    records,
                    "{} is from before the manifest: its {records} records are taken as they are, and changes behind \
                     nexus' back show from now on",
                    self.path.display()
                );
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Makes the manifest of a new store. One that has records and no manifest has lost it, and gets none this way.
    async fn make_manifest(&self, keyring: &Keyring) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        // Another process may have been first.
        let state = State::read(&mut transaction).await?;
        if !state.is_made() && state.generation == 0 && read_all(&mut transaction, None).await?.is_empty() {
            rebuild(&mut transaction, &sealing_key(keyring), &self.install_id, &HashSet::new()).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Closes the file's connections.
    pub async fn close(self) {
        self.watch.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl SqliteStore {
    /// Opens the file and unlocks it with this root key alone.
    ///
    /// # Errors
    /// See [`StoreFile::open`] and [`StoreFile::unlock`].
    pub async fn open(path: &Path, root: &RootKey) -> Result<Self, StoreError> {
        let file = StoreFile::open(path).await?;
        let keyring = Arc::new(Keyring::new(root, file.install_id()));
        file.unlock(keyring).await
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// On a full disk SQLite rolls back by itself, and the library, whose own rollback then fails, holds that the transaction
/// goes on. Such a connection takes no other one; it is closed, and a new one is opened.
fn is_usable<'c>(
    connection: &'c mut SqliteConnection,
    _: PoolConnectionMetadata,
) -> Pin<Box<dyn Future<Output = Result<bool, sqlx::Error>> + Send + 'c>> {
    Box::pin(async move {
        if connection.is_in_transaction() {
            // A rollback that was asked for when a transaction was dropped may still be under way, and is before this.
            connection.ping().await?;
        }
        Ok(!connection.is_in_transaction())
    })
}

fn sealing_key(keyring: &Keyring) -> ManifestKey {
    ManifestKey::new(keyring, keyring.key_id()).expect("a keyring has the key that it seals with")
}

/// Why the envelopes of a store from before the manifest are under none of these root keys, if there are any. A record
/// that is damaged is told where it is used.
async fn foreign_key(connection: &mut SqliteConnection, keyring: &Keyring) -> Result<Option<StoreError>, StoreError> {
    // The key id is the four bytes behind the first one; SQLite counts from 1.
    let ids = "SELECT DISTINCT substr(sealed, 2, 4) FROM (SELECT access_sealed AS sealed FROM connections UNION ALL \
               SELECT secret_sealed FROM apps WHERE secret_sealed IS NOT NULL)";
    let ids: Vec<Vec<u8>> = query_scalar(ids).fetch_all(connection).await?;
    let ids: Vec<KeyId> = ids.into_iter().filter_map(|id| id.try_into().ok()).collect();
    let is_foreign = !ids.is_empty() && !ids.iter().any(|id| keyring.has(*id));
    Ok(is_foreign.then(|| StoreError::KeyUnknown { key_id: key_text(ids[0]) }))
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(5))
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("secure_delete", "ON")
        // The file may have been edited by somebody who is not this program.
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// Makes the whole store under another name first: a file of the store's own name is a store from its first moment, so
/// an empty or cut one is always damage and never taken for a new one.
async fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| unusable(path, &error.to_string());
    let directory = path.parent().unwrap_or(Path::new("/"));
    for suffix in ["-wal", "-journal", "-shm"] {
        let mut log = path.as_os_str().to_owned();
        log.push(suffix);
        let log = PathBuf::from(log);
        // In this order: whoever makes the store at the same moment makes its log afterwards.
        if log.symlink_metadata().is_ok() && !path.try_exists().map_err(failed)? {
            let reason = format!(
                "the file itself is missing, and {} of an earlier one, which would be played into a new one, is still \
                 there; put the file back, or move that away",
                log.display()
            );
            return Err(unusable(path, &reason));
        }
    }
    let temporary = Temporary::beside(path).map_err(failed)?;
    // SQLite gives `-wal` and `-shm` the mode of the file itself.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.0).map_err(failed)?;

    let mut connection = options(&temporary.0).journal_mode(SqliteJournalMode::Wal).connect().await?;
    query("PRAGMA application_id = 0x6e787573").execute(&mut connection).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    MIGRATIONS.run_direct(None, &mut *transaction, false).await.map_err(|error| unusable(path, &error.to_string()))?;
    let install_id: String = random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    query("INSERT INTO meta (id, install_id) VALUES (1, ?)").bind(install_id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;

    File::open(&temporary.0).and_then(|file| file.sync_all()).map_err(failed)?;
    match std::fs::hard_link(&temporary.0, path) {
        // Another process was first: its store is the store.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed)?,
    }
    drop(temporary);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// A file's name until it is finished. Removes what was made on every way out.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

impl Temporary {
    /// A name in the same directory that nothing has.
    pub(super) fn beside(path: &Path) -> std::io::Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?.to_string_lossy();
        Ok(Self(path.with_file_name(format!(".{name}.{:016x}.tmp", u64::from_ne_bytes(random_bytes())))))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            // Most of them do not exist; nothing in a store without records is worth an error.
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Looks at the file before SQLite does, which would take an empty one for a new database.
pub(super) fn check_header(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; HEADER.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) if header == *HEADER => Ok(()),
        Ok(()) => Err(unusable(path, "it is not an SQLite file; restore a backup or name another file")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(unusable(path, "it is cut short; restore a backup"))
        }
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

/// The schema, if it is behind. Everything here only reads, in one transaction.
pub(super) async fn check(path: &Path, connection: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    let explain = |error| explain(path, error);
    let application: i64 = query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await.map_err(explain)?;
    if application != APPLICATION_ID {
        return Err(unusable(path, "it is an SQLite file of another program"));
    }
    let applied: Vec<(i64, Vec<u8>)> = query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
        .fetch_all(&mut *connection)
        .await
        .map_err(explain)?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    if found > known {
        return Err(StoreError::Newer { path: path.display().to_string(), found, known });
    }
    let ours = |(version, checksum): &(i64, Vec<u8>)| {
        MIGRATIONS.iter().any(|ours| ours.version == *version && ours.checksum[..] == checksum[..])
    };
    if !applied.iter().all(ours) {
        return Err(unusable(path, "its schema is none of this program's"));
    }
    let expected = expected_schema(found).await?;
    let schema = read_schema(&mut *connection).await.map_err(explain)?;
    if let Some(name) = expected.symmetric_difference(&schema).map(|(name, _)| name).next() {
        let reason = format!("something other than nexus changed its schema ({name:?}); restore a backup");
        return Err(unusable(path, &reason));
    }
    check_length(path, connection).await?;
    let report: String = query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(explain)?;
    if report != "ok" {
        return Err(unusable(path, &format!("it is damaged ({}); restore a backup", report.replace('\n', " "))));
    }
    Ok((found < known).then_some(found))
}

/// The schema as the migrations make it. What else stood there would take part in writes, whose results get a place in
/// the manifest: a trigger could widen each token that is made.
async fn expected_schema(version: i64) -> Result<BTreeSet<(String, String)>, StoreError> {
    let mut connection = SqliteConnectOptions::new().in_memory(true).disable_statement_logging().connect().await?;
    MIGRATIONS
        .run_direct(Some(version), &mut connection, false)
        .await
        .map_err(|error| unusable(Path::new(":memory:"), &error.to_string()))?;
    let schema = read_schema(&mut connection).await?;
    connection.close().await?;
    Ok(schema)
}

/// Names and statements of all that the schema has, without quotes and spaces, which are SQLite's own affair, and without
/// the statistics of ANALYZE.
async fn read_schema(connection: &mut SqliteConnection) -> Result<BTreeSet<(String, String)>, sqlx::Error> {
    let rows: Vec<(String, String)> = query_as(
        "SELECT CAST(name AS TEXT), type || ' on ' || tbl_name || ': ' || coalesce(sql, '') FROM sqlite_schema \
         WHERE name NOT LIKE 'sqlite\\_stat_' ESCAPE '\\'",
    )
    .fetch_all(connection)
    .await?;
    let plain = |sql: String| sql.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
    Ok(rows.into_iter().map(|(name, sql)| (name, plain(sql))).collect())
}

/// SQLite reads the end of a cut last page as zeroes, which may go unnoticed.
async fn check_length(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let explain = |error| explain(path, error);
    let pages: i64 = query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await.map_err(explain)?;
    let page_size: i64 = query_scalar("PRAGMA page_size").fetch_one(&mut *connection).await.map_err(explain)?;
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // With a log the file itself may rightly be behind. Without one it stands still while the transaction reads from it.
    if length(Path::new(&log)) == 0 && i64::try_from(length(path)).is_ok_and(|length| length < pages * page_size) {
        return Err(unusable(path, "it is cut short; restore a backup"));
    }
    Ok(())
}

/// Tells damage from trouble that may pass, by SQLite's primary result code.
pub(super) fn explain(path: &Path, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    let message = error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    match code.map(|code| code & 0xff) {
        // SQLITE_ERROR (a table is missing), SQLITE_CORRUPT, SQLITE_NOTADB
        Some(1 | 11 | 26) => unusable(path, &format!("it is damaged ({message}); restore a backup")),
        _ => StoreError::Database(error),
    }
}

pub(super) fn unusable(path: &Path, reason: &str) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), reason: reason.to_owned() }
}
