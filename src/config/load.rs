//! Loading and reloading: config file, provider files and store become one [`Snapshot`].

use super::Config;
use crate::connection::RouteTable;
use crate::identity::TokenTable;
use crate::net::Egress;
use crate::provider::{Catalog, FileProblem};
use crate::store::Store;
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::Arc;

/// One consistent view of config and store; each request uses one from start to end.
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// The providers.
    pub catalog: Arc<Catalog>,
    /// The way out.
    pub egress: Arc<Egress>,
    /// The tokens.
    pub tokens: TokenTable,
    /// The connections.
    pub routes: RouteTable,
    /// The store's generation.
    pub generation: i64,
    /// +1 on every applied change of files.
    pub config_version: u64,
}

/// Why nothing was loaded; the old snapshot stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The files have problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<FileProblem>),
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The way out could not be built.
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// Loads snapshots and publishes them. Share by `Arc`. Reloads are serialised.
pub struct Loader {
    #[expect(dead_code, reason = "filled in next")]
    home: PathBuf,
    snapshot: ArcSwap<Snapshot>,
}

impl Loader {
    /// Reads the config file only, for commands that need no store. An absent file is the default config, unless it
    /// was named with `--config`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read_config(_home: &std::path::Path, _file: Option<&std::path::Path>) -> Result<Config, ConfigError> {
        todo!()
    }

    /// Loads everything for the first time. `own_listeners` goes to the address guard.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub async fn start(
        _home: PathBuf,
        _file: Option<PathBuf>,
        _store: Arc<dyn Store>,
        _own_listeners: Vec<std::net::SocketAddr>,
    ) -> Result<Self, ConfigError> {
        todo!()
    }

    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Reads changes of the store and publishes them; returns the generation now in force.
    ///
    /// # Errors
    /// See [`ConfigError`]; the old snapshot stays.
    pub async fn reload_store(&self) -> Result<i64, ConfigError> {
        todo!()
    }

    /// Reads config and provider files again and publishes them if they are valid and differ. Listener, admin, store
    /// and root-key changes need a restart: they are kept as they were and named in a warning.
    ///
    /// # Errors
    /// See [`ConfigError`]; the old snapshot stays.
    pub async fn reload_files(&self) -> Result<bool, ConfigError> {
        todo!()
    }
}
