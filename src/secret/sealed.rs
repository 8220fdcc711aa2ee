//! The envelope that secrets are kept in, on disk and in memory.
//!
//! A random data key per envelope, wrapped with the tenant's key, both by AES-256-GCM with the same associated data.

use std::fmt;
use std::sync::Arc;

/// A SHA-256 digest, such as that of a connection's destination.
pub type Digest = [u8; 32];

/// A sealed value. Cheap to clone; shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// The envelope's bytes, as stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes as stored; they are checked when opened.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// What an envelope is bound to: the associated data, with format version, install id and key id added by the keyring.
/// Opening with any other context fails.
#[derive(Debug, Clone, Copy)]
pub struct SealContext<'a> {
    /// The tenant, which also chooses the key.
    pub tenant: &'a str,
    /// The id of the record, such as a connection id.
    pub record: &'a str,
    /// Which field of the record, such as `access` or `grant`.
    pub field: &'a str,
    /// The record's version.
    pub version: u64,
    /// The digest of the destination that the secret may go to.
    pub destination: &'a Digest,
}

/// Why an envelope did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short, or of an unknown format version.
    #[error("the sealed value has an unknown format")]
    Format,
    /// Sealed under another root key.
    #[error("the sealed value needs another root key")]
    Key,
    /// Authentication failed: edited, moved, rolled back, or bound to another destination.
    #[error("the sealed value was changed or moved and does not open")]
    Integrity,
}
