//! A connection as the running proxy holds it: frozen facts, and the current credential, still sealed.

use super::{DefinitionError, Frozen};
use crate::secret::{Digest, Keyring, SealError, Sealed, SecretFields};
use crate::store::{ConnectionRecord, ConnectionState};
use crate::types::{ConnectionId, ConnectionName, ProviderId, Scope, UnixSeconds};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// One version of a connection's credential, sealed.
#[derive(Debug, Clone)]
pub struct Access {
    /// The version.
    pub version: u64,
    /// The sealed access fields.
    pub access: Sealed,
    /// The sealed grant fields.
    pub grant: Option<Sealed>,
    /// When the access token was obtained.
    pub issued_at: Option<UnixSeconds>,
    /// When it ends, if known.
    pub expires_at: Option<UnixSeconds>,
    /// Whether it works.
    pub state: ConnectionState,
    /// Why it does not.
    pub state_reason: Option<String>,
}

/// A connection. Snapshots share it by `Arc`; a refresh swaps its [`Access`] without a new snapshot.
#[derive(Debug)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Tenant and namespace.
    pub scope: Scope,
    /// Its name.
    pub name: ConnectionName,
    /// Its provider.
    pub provider: ProviderId,
    /// What it froze.
    pub frozen: Frozen,
    /// Turned off by a person.
    pub disabled: bool,
    /// Digest for access fields.
    pub access_digest: Digest,
    /// Digest for grant fields.
    pub grant_digest: Digest,
    access: Arc<ArcSwap<Access>>,
}

impl Connection {
    /// Builds from a record. When `previous` (the same id) froze the same definition, its cell is kept, and a record
    /// that is older than the cell does not turn it back.
    ///
    /// # Errors
    /// See [`DefinitionError`].
    pub fn from_record(_record: &ConnectionRecord, _previous: Option<&Self>) -> Result<Self, DefinitionError> {
        todo!()
    }

    /// The current credential, sealed.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Takes a newer version; an older one is ignored.
    pub fn adopt(&self, _access: Access) {
        todo!()
    }

    /// Opens the access fields of `access`.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open_access(&self, _keyring: &Keyring, _access: &Access) -> Result<SecretFields, SealError> {
        todo!()
    }

    /// Opens the grant fields of `access`; `None` when it has none.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open_grant(&self, _keyring: &Keyring, _access: &Access) -> Result<Option<SecretFields>, SealError> {
        todo!()
    }

    /// Seals access fields for `version` of this connection.
    #[must_use]
    pub fn seal_access(&self, _keyring: &Keyring, _version: u64, _fields: &SecretFields) -> Sealed {
        todo!()
    }

    /// Seals grant fields for `version` of this connection.
    #[must_use]
    pub fn seal_grant(&self, _keyring: &Keyring, _version: u64, _fields: &SecretFields) -> Sealed {
        todo!()
    }
}
