//! The root keys of a running server: read anew when a rotation has brought another one.

use super::Home;
use crate::config::{
    Config, Loader, RootKeyError, RootKeySource, StoreConfig, next_key_file, read_next_root_key, read_root_key,
};
use crate::secret::{KeyId, Keyring};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a key is kept that is in no source any more: requests under way may hold an envelope of it.
const KEPT: Duration = Duration::from_secs(60);

/// Reads the root keys into the keyring.
pub(super) struct Keys {
    home: Home,
    config_file: Option<PathBuf>,
    keyring: Arc<Keyring>,
    /// What the sources looked like when they were last read.
    read: Mutex<Option<Sources>>,
}

/// Tells whether a source may give another key than before.
#[derive(Debug, Clone, PartialEq)]
struct Sources {
    current: RootKeySource,
    next: Option<RootKeySource>,
    files: Vec<Option<(u64, i64, i64)>>,
}

impl Sources {
    fn look(config: &Config, home: &Path) -> Self {
        let mut files = Vec::new();
        for source in [Some(&config.root_key), config.next_root_key.as_ref()].into_iter().flatten() {
            if let RootKeySource::File(path) = source {
                let path = home.join(path);
                files.extend([stamp(&path), stamp(&next_key_file(&path))]);
            }
        }
        Self { current: config.root_key.clone(), next: config.next_root_key.clone(), files }
    }
}

fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Keys {
    pub(super) fn new(home: Home, config_file: Option<PathBuf>, keyring: Arc<Keyring>) -> Self {
        Self { home, config_file, keyring, read: Mutex::new(None) }
    }

    /// Reads the keys if their sources are not what they were.
    pub(super) async fn refresh(&self) -> Result<(), RootKeyError> {
        let mut read = self.read.lock().await;
        self.read_into(&mut read).await
    }

    /// Reads the keys whatever their sources look like.
    pub(super) async fn refresh_anew(&self) -> Result<(), RootKeyError> {
        let mut read = self.read.lock().await;
        *read = None;
        self.read_into(&mut read).await
    }

    async fn read_into(&self, read: &mut Option<Sources>) -> Result<(), RootKeyError> {
        let (home, config_file, known) = (self.home.path.clone(), self.config_file.clone(), read.clone());
        let keyring = Arc::clone(&self.keyring);
        let reading = tokio::task::spawn_blocking(move || {
            // The file as it is now: the next key may have been named after this server started. One that is being
            // edited says nothing about keys.
            let config = match Loader::read_store(&home, config_file.as_deref()) {
                Ok(StoreConfig::Valid(config) | StoreConfig::StoreOnly { config, .. }) => config,
                Err(error) => {
                    tracing::warn!("the root keys are not read anew: {error}");
                    return Ok::<_, RootKeyError>(None);
                }
            };
            let sources = Sources::look(&config, &home);
            if known.as_ref() == Some(&sources) {
                return Ok(None);
            }
            let install_id = keyring.install_id();
            let keys = (read_root_key(&config, &home, install_id)?, read_next_root_key(&config, &home, install_id)?);
            Ok(Some((keys, sources)))
        });
        let Some(((current, next), sources)) = reading.await.expect("reading keys does not panic")? else {
            return Ok(());
        };
        let mut here = vec![self.keyring.add(&current)];
        here.extend(next.map(|next| self.keyring.add(&next)));
        *read = Some(sources);
        let gone: Vec<KeyId> = self.keyring.key_ids().into_iter().filter(|id| !here.contains(id)).collect();
        if !gone.is_empty() {
            let keyring = Arc::clone(&self.keyring);
            tokio::spawn(async move {
                tokio::time::sleep(KEPT).await;
                gone.into_iter().for_each(|id| keyring.forget(id));
            });
        }
        Ok(())
    }
}
