//! Where an install lives, and why it cannot be used.

use crate::audit::AuditError;
use crate::config::{ConfigError, RootKeyError};
use crate::identity::AgentCaError;
use crate::listener::AuthorityError;
use crate::secret::KeyError;
use crate::store::StoreError;
use std::path::PathBuf;

/// Where an install lives.
#[derive(Debug, Clone)]
pub struct Home {
    /// The data directory.
    pub path: PathBuf,
}

impl Home {
    /// The directory of the interception CA.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The interception CA's certificate.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.ca().join("ca.pem")
    }

    /// The config file, if none is named.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join("nexus.toml")
    }

    /// The audit record.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// The user's own provider files.
    #[must_use]
    pub fn providers(&self) -> PathBuf {
        self.path.join("providers")
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
        address: String,
    },
    /// There is a store, and the key that sealed it is gone.
    #[error(
        "root key {key} is missing, and {store} was sealed with it; bring it back, or move the store away to begin anew"
    )]
    KeyMissing {
        /// Where the key should be.
        key: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// No passphrase is made up.
    #[error("{path} does not exist; write a passphrase of 12 characters or more to it, mode 0600")]
    PassphraseMissing {
        /// Where the passphrase should be.
        path: PathBuf,
    },
    /// The store was sealed with another key.
    #[error("the root key is not the one that {store} was sealed with; bring that one back")]
    WrongKey {
        /// The store.
        store: PathBuf,
    },
    /// The store had a manifest once.
    #[error(
        "{store} is of a version before the manifest, and {counter} says that it had one: somebody put an old or edited \
         file in its place; restore a backup, or remove {counter} to take the store as it is"
    )]
    ManifestLost {
        /// The store.
        store: PathBuf,
        /// What remembers it.
        counter: PathBuf,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root key's file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The root key.
    #[error(transparent)]
    RootKey(#[from] RootKeyError),
    /// A file or socket.
    #[error("{path}: {source}")]
    Io {
        /// The file or address.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The record.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The interception CA.
    #[error(transparent)]
    Ca(#[from] AuthorityError),
    /// The CA of agents.
    #[error(transparent)]
    AgentCa(#[from] AgentCaError),
}

impl AppError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }
}
