//! `nexus key rotate`: every secret under a new root key, while servers run. Every step may be the last one that was
//! made: the next run goes on from what it finds.
//!
//! 1. The next key is there for good: `FILE.next`, or what `store.next_root_key` gives.
//! 2. The running servers have it.
//! 3. One transaction puts the manifest under it. From here on it seals, for every writer.
//! 4. Batches seal again what is still under another key.
//! 5. When nothing is left, the next key file takes the place of the present one, which is kept under another name.

use super::{CliError, Context, envelopes, output};
use crate::admin::notify_servers_of_keys;
use crate::app::Install;
use crate::config::{Config, RootKeySource, next_key_file, read_next_root_key, read_root_key};
use crate::provider::Catalog;
use crate::secret::{KeyError, KeyId, Keyring, RootKey};
use crate::store::Cursor;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde_json::json;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How many records of each kind are sealed again in one transaction.
const BATCH: u32 = 100;

/// The root key
#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Seal everything under a new root key, while servers run; run it again if it broke off
    Rotate,
}

impl KeyCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Rotate => rotate(context).await,
        }
    }
}

async fn rotate(context: &Context) -> Result<(), CliError> {
    let config = context.config()?;
    let _lock = lock(&context.home.path)?;
    // Before anything is made: an install that does not open gets no second key.
    let install = context.open().await?;
    let catalog = context.catalog()?;
    let install_id = install.keyring.install_id();
    let old_key = install.keyring.add(&read(&config, context, install_id)?);
    let next = next_key(&config, context, install_id)?;
    let new_key = install.keyring.add(&next);
    if new_key == old_key {
        return Err(CliError::Conflict(
            "store.next_root_key gives the same key as store.root_key; name another one, or remove it if the rotation \
             is done"
                .to_owned(),
        ));
    }
    tell_servers(context).await?;
    if install.store.manifest_key().await? != Some(new_key) {
        output::say(&format!("going from root key {} to {}", shown(old_key), shown(new_key)));
    }
    install.store.rekey_manifest(new_key).await?;
    let sealed = seal_again(&install, &catalog, new_key).await?;
    let kept = match (&config.next_root_key, config.key_file()) {
        (None, Some(path)) => Some(take_over(&context.home.path.join(path), &install.keyring, old_key, new_key)?),
        _ => None,
    };
    // They take the new sources, and forget the old key.
    for error in notify_servers_of_keys(&context.home.path).await {
        output::warn(&format!("the rotation is done, but a running server has not confirmed it: {error}"));
    }
    match &kept {
        Some(kept) => output::say(&format!(
            "the old key is kept as {}: it is needed only for backups that were made before; delete it when they are gone",
            kept.display()
        )),
        None => output::say(
            "in the config file, let store.root_key be what store.next_root_key is now, remove the latter, and restart \
             the servers at your leisure; the old key is needed only for backups that were made before",
        ),
    }
    output::print_object(
        context.format,
        &json!({
            "old_key": shown(old_key),
            "new_key": shown(new_key),
            "sealed_again": sealed,
            "old_key_file": kept,
        }),
    )
}

/// One rotation of an install at a time, by a lock on its directory.
fn lock(home: &Path) -> Result<OwnedFd, CliError> {
    let failed = |error: rustix::io::Errno| CliError::io(home)(error.into());
    let directory = rustix::fs::open(home, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let directory = directory.map_err(failed)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(CliError::Conflict("another rotation of this install is under way; wait for it".to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn read(config: &Config, context: &Context, install_id: &str) -> Result<RootKey, CliError> {
    Ok(read_root_key(config, &context.home.path, install_id).map_err(crate::app::AppError::from)?)
}

/// The key to go to; beside a key file it is made if it is not there from a rotation that broke off.
fn next_key(config: &Config, context: &Context, install_id: &str) -> Result<RootKey, CliError> {
    if let (None, Some(path)) = (&config.next_root_key, config.key_file()) {
        let next = next_key_file(&context.home.path.join(path));
        return Ok(RootKey::load_or_create(&next).map_err(crate::app::AppError::from)?);
    }
    let next = read_next_root_key(config, &context.home.path, install_id).map_err(crate::app::AppError::from)?;
    next.ok_or_else(|| {
        let from = match &config.root_key {
            RootKeySource::File(path) => format!("file {}", path.display()),
            RootKeySource::Env(name) => format!("environment variable {name}"),
            RootKeySource::Command(words) => format!("command {}", words.first().map_or("", String::as_str)),
        };
        CliError::Usage(format!(
            "the root key comes from {from}, so the next one cannot be made here; say where it is in the config file, \
             such as next_root_key = {{ file = \"next.key\" }} in [store], and run this again"
        ))
    })
}

/// A server without the next key could neither read nor write from the next step on.
async fn tell_servers(context: &Context) -> Result<(), CliError> {
    match notify_servers_of_keys(&context.home.path).await.into_iter().next() {
        None => Ok(()),
        Some(error) => Err(CliError::Failed(format!(
            "a running server has not taken the next root key ({error}); nothing was sealed under it yet; mend or stop \
             that server, then run this again"
        ))),
    }
}

/// Seals again whatever is under another key, until nothing is.
async fn seal_again(install: &Install, catalog: &Catalog, new_key: KeyId) -> Result<u64, CliError> {
    let total = install.store.count_stale(new_key).await?;
    let mut done = 0;
    loop {
        let before = done;
        let mut cursor = Cursor::default();
        let mut closed = Vec::new();
        loop {
            let (records, next) = install.store.stale(new_key, cursor, BATCH).await?;
            if records.is_empty() {
                break;
            }
            cursor = next;
            let mut batch = Vec::with_capacity(records.len());
            for record in &records {
                match envelopes::reseal(install, catalog, record) {
                    Ok(resealed) => batch.extend(resealed),
                    Err(error) => closed.push(format!("{}: {error}", envelopes::describe(record))),
                }
            }
            done += install.store.reseal(&batch).await?;
            output::say(&format!("sealed again: {done} of {}", total.max(done)));
        }
        // Counted anew: only the store knows what others have written meanwhile.
        if install.store.count_stale(new_key).await? == 0 {
            return Ok(done);
        }
        if done == before && !closed.is_empty() {
            return Err(CliError::Check(format!(
                "{} cannot be sealed again, so the old root key stays; register or delete what is named, and run this \
                 again:\n{}",
                if closed.len() == 1 { "one record".to_owned() } else { format!("{} records", closed.len()) },
                closed.join("\n")
            )));
        }
    }
}

/// Puts the next key file in the place of the present one, which stays as `FILE.old-ID`.
fn take_over(path: &Path, keyring: &Keyring, old_key: KeyId, new_key: KeyId) -> Result<PathBuf, CliError> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".old-{}", shown(old_key)));
    let kept = PathBuf::from(kept);
    let failed = |error: std::io::Error| {
        CliError::Failed(format!(
            "everything is sealed under the new root key, but {} could not be put in the place of {} ({error}); make it \
             possible, and run this again",
            next_key_file(path).display(),
            path.display()
        ))
    };
    match std::fs::hard_link(path, &kept) {
        Ok(()) => {}
        // From a run that broke off here, if it is the same key.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let found = RootKey::load(&kept).map_err(crate::app::AppError::from)?;
            if keyring.add(&found) != old_key {
                return Err(failed(std::io::Error::other(format!("{} is in the way", kept.display()))));
            }
        }
        Err(error) => return Err(failed(error)),
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let sync = || File::open(directory).and_then(|directory| directory.sync_all());
    sync().map_err(failed)?;
    std::fs::rename(next_key_file(path), path).and_then(|()| sync()).map_err(failed)?;
    match RootKey::load(path) {
        Ok(now) if keyring.add(&now) == new_key => Ok(kept),
        Ok(_) => Err(failed(std::io::Error::other("it holds another key"))),
        Err(KeyError::Io { source, .. }) => Err(failed(source)),
        Err(error) => Err(failed(std::io::Error::other(error.to_string()))),
    }
}

fn shown(key: KeyId) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
