//! Reading the files that make up a configuration, half-written and missing ones included.

use super::{Config, ConfigError, check_text};
use crate::identity::{KeyLocation, KeySet, KeySource};
use crate::provider::{Catalog, CatalogSource, FileProblem};
use sha2::{Digest, Sha256};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// What the files said.
pub(super) struct Files {
    /// The config file's text; `None` when there was none.
    pub(super) text: Option<String>,
    /// What it means, before anything is kept as it was.
    pub(super) config: Config,
    /// The providers.
    pub(super) catalog: Arc<Catalog>,
    /// What tells two catalogues apart.
    pub(super) catalog_key: Vec<(bool, String, String)>,
    /// Digests of the CA files' contents; `None` for one that could not be read.
    pub(super) ca_digests: Vec<Option<[u8; 32]>>,
    /// The key sets of issuers that are files, with their digests.
    pub(super) key_sets: Vec<KeySetFile>,
}

/// A key set that is a file.
pub(super) struct KeySetFile {
    pub(super) path: PathBuf,
    pub(super) digest: [u8; 32],
    /// Shared by the snapshots for which the file was the same.
    pub(super) source: Arc<KeySource>,
}

/// How long a config file must stay empty until it counts: editors empty a file and then write it.
const EMPTY_FOR: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The config file's path: the named one, or `nexus.toml` in the home.
pub(super) fn config_path(home: &Path, file: Option<&Path>) -> PathBuf {
    file.map_or_else(|| home.join("nexus.toml"), Path::to_owned)
}

/// An absolute path, so that a path below it means the same wherever it is used.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Io { path: path.display().to_string(), source })
}

/// Reads a text file; `None` when it does not exist.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, ConfigError> {
    let io_error = |source| ConfigError::Io { path: path.display().to_string(), source };
    let bytes = match read_again_and_again(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid_up_to]).into_owned();
        let message = "not UTF-8 here; save the file as UTF-8".to_owned();
        ConfigError::Problems(vec![FileProblem::at(&path.display().to_string(), &text, text.len(), "", message)])
    })
}

/// Reads a file that must give the same bytes to the next reader, which a pipe would not.
fn read_again_and_again(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::metadata(path)?.file_type().is_fifo() {
        return Err(Error::new(ErrorKind::InvalidInput, "is a pipe; write it to a file, which can be read again"));
    }
    std::fs::read(path)
}

pub(super) fn missing(path: &Path) -> ConfigError {
    ConfigError::Io { path: path.display().to_string(), source: ErrorKind::NotFound.into() }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down and drops this future too.
        Err(_) => std::future::pending().await,
    }
}

/// Reads config, providers and CA files; the problems of both kinds of file together. `applied` is what was read the
/// last time: without it an absent file that was named is an error, with it a file that went missing keeps its text.
pub(super) async fn read_files(
    home: &Path,
    file: Option<&Path>,
    applied: Option<&Files>,
) -> Result<Files, ConfigError> {
    let path = config_path(home, file);
    let before = applied.and_then(|applied| applied.text.clone());
    let text = match settled_text(&path, before.as_deref()).await? {
        Some(text) => Some(text),
        None if applied.is_some() => {
            if before.is_some() {
                warn!("{} is missing; its last version stays in force", path.display());
            }
            before
        }
        None if file.is_some() => return Err(missing(&path)),
        None => None,
    };
    let home = home.to_owned();
    blocking(move || interpret(&home, &path, text)).await
}

fn interpret(home: &Path, path: &Path, text: Option<String>) -> Result<Files, ConfigError> {
    let config = check_text(&path.display().to_string(), text.as_deref().unwrap_or_default(), home);
    let catalog = Catalog::load(&home.join("providers"));
    let (config, catalog) = match (config, catalog) {
        (Ok(config), Ok(catalog)) => (config, catalog),
        (config, catalog) => {
            let problems = config.err().into_iter().chain(catalog.err()).flatten();
            return Err(ConfigError::Problems(problems.collect()));
        }
    };
    let catalog_key = catalog.iter().map(|(source, definition)| {
        (source == CatalogSource::Own, definition.id.to_string(), definition.revision.clone())
    });
    let key_sets = config.key_files().map(|path| read_key_set(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(Files {
        key_sets,
        catalog_key: catalog_key.collect(),
        ca_digests: config.ca_files.iter().map(|file| digest(file)).collect(),
        text,
        config,
        catalog: Arc::new(catalog),
    })
}

fn read_key_set(path: &Path) -> Result<KeySetFile, ConfigError> {
    let bytes =
        read_again_and_again(path).map_err(|source| ConfigError::Io { path: path.display().to_string(), source })?;
    let keys = KeySet::parse(&bytes).map_err(|error| {
        let message = format!("not a JSON web key set: {error}");
        ConfigError::Problems(vec![FileProblem::at(&path.display().to_string(), "", 0, "", message)])
    })?;
    if keys.is_empty() {
        warn!("{} has no usable key, so that no token of its issuer is taken", path.display());
    }
    let source = KeySource::fixed(KeyLocation::File(path.to_owned()), keys);
    Ok(KeySetFile { path: path.to_owned(), digest: Sha256::digest(&bytes).into(), source: Arc::new(source) })
}

/// A digest of a file's contents; `None` when it cannot be read.
pub(super) fn digest(path: &Path) -> Option<[u8; 32]> {
    read_again_and_again(path).ok().map(|bytes| Sha256::digest(bytes).into())
}

/// Reads the config file; one that was emptied is looked at until it is written or has stayed empty for a while.
async fn settled_text(path: &Path, before: Option<&str>) -> Result<Option<String>, ConfigError> {
    let is_blank = |text: &str| text.trim().is_empty();
    let had_text = before.is_some_and(|text| !is_blank(text));
    let deadline = Instant::now() + EMPTY_FOR;
    loop {
        let path = path.to_owned();
        let text = blocking(move || read_text(&path)).await?;
        let is_emptied = had_text && text.as_deref().is_some_and(is_blank);
        if !is_emptied || Instant::now() >= deadline {
            return Ok(text);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The keys that differ and that only a restart can change.
pub(super) fn restart_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("server.listen or server.listener", old.listeners != new.listeners),
        ("server.admin", old.admin != new.admin),
        ("server.shutdown_grace", old.shutdown_grace != new.shutdown_grace),
        ("store.url", old.store != new.store),
        ("store.root_key", (&old.root_key, old.root_key_form) != (&new.root_key, new.root_key_form)),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
