//! The secret value itself.

use std::fmt;
use zeroize::Zeroizing;

/// A credential in memory. Wiped on drop; cannot be printed, compared or serialised.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of a value. The caller's own copies are the caller's to wipe.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The only way out. Each call site says in a comment why it needs the value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A second copy, wiped like the first. Rare on purpose: share by `Arc` where that works.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.0.as_str().to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A keyed digest of a secret (HMAC-SHA256 with a per-install key, first 8 bytes in hexadecimal): safe to show, useful
/// to tell two values apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(pub(super) String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes from the operating system's random source.
///
/// # Panics
/// When the operating system has no random source, which leaves nothing safe to do.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
