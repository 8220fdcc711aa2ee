//! Copies of the store: made beside whoever uses it, and put in its place.

use super::StoreFile;
use super::open::{Temporary, check, check_header, explain, options, unusable};
use crate::store::StoreError;
use sqlx::sqlite::{SqliteConnection, SqliteLockingMode};
use sqlx::{ConnectOptions, Connection, query};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

impl StoreFile {
    /// Copies one consistent state of the store to a new file, 0600 from birth, while others read and write. Envelopes
    /// are copied as they are, so no key is needed. The file is there whole or not at all; gives its size.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when something has that name; otherwise what the file system or SQLite says.
    pub async fn backup(&self, target: &Path) -> Result<u64, StoreError> {
        let target = std::path::absolute(target).map_err(|error| unusable(target, &error.to_string()))?;
        let failed = |error: io::Error| unusable(&target, &error.to_string());
        let exists = || StoreError::Exists { kind: "file", name: target.display().to_string() };
        if target.symlink_metadata().is_ok() {
            return Err(exists());
        }
        let temporary = Temporary::beside(&target).map_err(failed)?;
        // SQLite writes into a file that is there and empty.
        new_private(temporary.path()).map_err(failed)?;
        let name = temporary.path().to_str().ok_or_else(|| unusable(&target, "its name is not UTF-8"))?;
        let copied = query("VACUUM INTO ?").bind(name).execute(&self.readers).await;
        copied.map_err(|error| explain(&target, error))?;
        let file = File::open(temporary.path()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        match std::fs::hard_link(temporary.path(), &target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists()),
            linked => linked.map_err(failed)?,
        }
        drop(temporary);
        sync_directory(&target).map_err(failed)?;
        Ok(size)
    }
}

/// A backup that is to take a store's place: a copy beside it, to be looked at first. Removed if it is not used.
#[derive(Debug)]
pub struct Restore {
    store: PathBuf,
    copy: Temporary,
}

impl Restore {
    /// Copies `backup` to a file beside `store`. Neither of the two is changed, not even by SQLite's looking at it.
    ///
    /// # Errors
    /// When `backup` is not a file, or has a log beside it that it is nothing without.
    pub fn prepare(backup: &Path, store: &Path) -> Result<Self, StoreError> {
        let failed = |error: io::Error| unusable(backup, &error.to_string());
        let store = std::path::absolute(store).map_err(failed)?;
        // Without NONBLOCK a pipe under this name would hold the command up for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(backup).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(unusable(backup, "it is not a file"));
        }
        if std::fs::metadata(with_suffix(backup, "-wal")).is_ok_and(|log| log.len() > 0) {
            let reason = "it has a log (-wal) beside it, so it is a store in use and no backup; make one with nexus store \
                          backup";
            return Err(unusable(backup, reason));
        }
        let copy = Temporary::beside(&store).map_err(failed)?;
        let copied = new_private(copy.path()).and_then(|mut to| io::copy(&mut file, &mut to));
        copied.map_err(|error| unusable(copy.path(), &error.to_string()))?;
        Ok(Self { store, copy })
    }

    /// The copy, for [`StoreFile::open`]. Close it before [`Restore::replace`].
    #[must_use]
    pub fn path(&self) -> &Path {
        self.copy.path()
    }

    /// Puts the copy in the store's place in one step, and keeps the old file under `kept`, with its log if that could
    /// not be taken into it. Whatever happens, one of the two is the store.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another process uses the store. It is as it was then.
    pub async fn replace(self, kept: &Path) -> Result<(), StoreError> {
        let Self { store, copy } = self;
        let failed = |error: io::Error| unusable(&store, &error.to_string());
        let is_there = store.try_exists().map_err(failed)?;
        let log = with_suffix(&store, "-wal");
        let mut held = None;
        if is_there {
            held = settle(&store).await?;
            std::fs::hard_link(&store, kept).map_err(|error| unusable(kept, &error.to_string()))?;
        }
        // A log that outlives its file would be played into the new one.
        if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            std::fs::hard_link(&log, with_suffix(kept, "-wal")).map_err(failed)?;
        }
        for left in [log, with_suffix(&store, "-shm")] {
            match std::fs::remove_file(&left) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(unusable(&left, &error.to_string())),
                _ => {}
            }
        }
        File::open(copy.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        sync_directory(&store).map_err(failed)?;
        std::fs::rename(copy.path(), &store).map_err(failed)?;
        // Whoever waited to open the old file finds out that it is not the store any more.
        if let Some(held) = held {
            let _ = held.close().await;
        }
        sync_directory(&store).map_err(failed)
    }
}

/// Takes the log into the file, and finds out that nobody else has the file open; nobody gets it while what comes of this
/// is held. A file that is no store of this version is left as it is, to the byte: being replaced is what it needs.
async fn settle(store: &Path) -> Result<Option<SqliteConnection>, StoreError> {
    if !is_sound(store).await {
        return Ok(None);
    }
    let in_use = || StoreError::Conflict { kind: "store", name: store.display().to_string() };
    let options = options(store).locking_mode(SqliteLockingMode::Exclusive).busy_timeout(Duration::from_secs(2));
    let mut connection = match options.connect().await {
        Err(error) if is_busy(&error) => return Err(in_use()),
        Err(_) => return Ok(None),
        Ok(connection) => connection,
    };
    // Leaving the log mode needs the file for oneself alone, and writes the whole log into it.
    match query("PRAGMA journal_mode = DELETE").execute(&mut connection).await {
        Err(error) if is_busy(&error) => Err(in_use()),
        _ => Ok(Some(connection)),
    }
}

async fn is_sound(store: &Path) -> bool {
    if check_header(store).is_err() {
        return false;
    }
    let Ok(mut connection) = options(store).read_only(true).connect().await else { return false };
    let checked = check(store, &mut connection).await;
    let _ = connection.close().await;
    checked.is_ok()
}

/// SQLITE_BUSY and SQLITE_LOCKED.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
    matches!(code.map(|code| code & 0xff), Some(5 | 6))
}

fn new_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn sync_directory(of: &Path) -> io::Result<()> {
    File::open(of.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
