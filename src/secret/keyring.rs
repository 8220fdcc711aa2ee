//! The key hierarchy: root key -> HKDF-SHA256 per tenant -> random data key per envelope.

use super::{Fingerprint, SealContext, SealError, Sealed, Secret};
use std::path::Path;
use zeroize::Zeroizing;

/// The 32-byte root key, wiped on drop.
pub struct RootKey(Zeroizing<[u8; 32]>);

/// Why a root key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("root key file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("root key file {path} may be read by others (mode {mode:o}); run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hexadecimal digits or base64 of 32 bytes.
    #[error("root key {origin} is not 64 hexadecimal digits or base64 of 32 bytes")]
    Form {
        /// Where it came from: a path or variable name.
        origin: String,
    },
}

impl RootKey {
    /// Reads a key from text: 64 hexadecimal digits or base64 of 32 bytes, one trailing newline allowed.
    ///
    /// # Errors
    /// [`KeyError::Form`].
    pub fn parse(_text: &Secret, _origin: &str) -> Result<Self, KeyError> {
        todo!()
    }

    /// Reads the key file; refuses one that others may read.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load(_path: &Path) -> Result<Self, KeyError> {
        todo!()
    }

    /// Makes a key file, 0600 from birth (`O_CREAT|O_EXCL`, written to a temporary name, synced, linked); an existing
    /// file is never overwritten but loaded.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load_or_create(_path: &Path) -> Result<Self, KeyError> {
        todo!()
    }
}

/// Seals and opens envelopes for one install. Share by `Arc`.
pub struct Keyring(());

impl Keyring {
    /// A keyring for the root key and the install's id (the HKDF salt).
    #[must_use]
    pub fn new(_root: &RootKey, _install_id: &str) -> Self {
        todo!()
    }

    /// The id of the root key, in every envelope: the first 4 bytes of an HKDF output with info `key-id`.
    #[must_use]
    pub fn key_id(&self) -> [u8; 4] {
        todo!()
    }

    /// Seals `plaintext` for `context`.
    #[must_use]
    pub fn seal(&self, _context: &SealContext<'_>, _plaintext: &[u8]) -> Sealed {
        todo!()
    }

    /// Opens an envelope. About a microsecond: tenants' keys are derived once and kept.
    ///
    /// # Errors
    /// See [`SealError`]; never a raw or empty value.
    pub fn open(&self, _context: &SealContext<'_>, _sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        todo!()
    }

    /// A keyed digest of a secret, safe to show.
    #[must_use]
    pub fn fingerprint(&self, _secret: &Secret) -> Fingerprint {
        todo!()
    }
}
