//! The composition root: builds all of it, owns reload and graceful shutdown.

use crate::audit::AuditError;
use crate::config::{Config, ConfigError};
use crate::secret::{KeyError, Keyring};
use crate::store::{SqliteStore, StoreError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where an install lives.
#[derive(Debug, Clone)]
pub struct Home {
    /// The data directory.
    pub path: PathBuf,
}

impl Home {
    /// The interception CA's certificate.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        todo!()
    }

    /// The config file, if none is named.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        todo!()
    }

    /// The audit record.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        todo!()
    }

    /// The user's own provider files.
    #[must_use]
    pub fn providers(&self) -> PathBuf {
        todo!()
    }
}

/// What a command needs to read and write records.
pub struct Install {
    /// Where it lives.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// Its store.
    pub store: Arc<SqliteStore>,
    /// Its keys.
    pub keyring: Arc<Keyring>,
}

/// Makes what is missing, never overwrites; says what it made.
///
/// # Errors
/// See [`AppError`].
pub async fn init(_home: &Home, _config: &Config) -> Result<Vec<String>, AppError> {
    todo!()
}

/// Opens an existing install.
///
/// # Errors
/// See [`AppError`].
pub async fn open(_home: &Home, _config: Config) -> Result<Install, AppError> {
    todo!()
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where the install lives.
    pub home: Home,
    /// The config file that was named.
    pub config_file: Option<PathBuf>,
    /// Instead of the config's listeners.
    pub listen: Option<Vec<SocketAddr>>,
    /// Instead of the config's admin address.
    pub admin: Option<SocketAddr>,
}

/// A running server in this process.
pub struct Running {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// Starts a server.
///
/// # Errors
/// See [`AppError`].
pub async fn serve(_options: ServeOptions) -> Result<Running, AppError> {
    todo!()
}

impl Running {
    /// Stops gracefully.
    pub async fn stop(self) {
        todo!()
    }
}

/// Why the install cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Nothing there.
    #[error("there is no install in {home}; run: nexus init")]
    NotInitialised {
        /// The data directory.
        home: PathBuf,
    },
    /// Somebody else listens there.
    #[error("{address} is in use; choose another with --listen")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The record.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The interception CA.
    #[error("the interception CA: {reason}")]
    Ca {
        /// What is wrong with it.
        reason: String,
    },
}
