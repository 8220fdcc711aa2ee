//! The form of opaque agent tokens: `nxt_`, 43 characters of base64url (256 random bits), 6 of checksum.

use super::Secret;
use std::fmt;

/// SHA-256 of a token's text: what the store keeps and look-ups use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub [u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// An agent token in memory.
#[derive(Debug)]
pub struct AgentToken(Secret);

impl AgentToken {
    /// A new random token.
    #[must_use]
    pub fn generate() -> Self {
        todo!()
    }

    /// Whether the text has the form of an agent token: prefix, alphabet, length. The checksum is not looked at, so
    /// that a mistyped token is still treated (and stripped) as one.
    #[must_use]
    pub fn has_form(_text: &str) -> bool {
        todo!()
    }

    /// Whether the checksum of a text of token form is right; a wrong one cannot be a token of any install.
    #[must_use]
    pub fn checksum_is_right(_text: &str) -> bool {
        todo!()
    }

    /// The digest of a token's text.
    #[must_use]
    pub fn digest(_text: &str) -> TokenDigest {
        todo!()
    }

    /// The value, to be shown once.
    #[must_use]
    pub fn value(&self) -> &Secret {
        &self.0
    }
}
