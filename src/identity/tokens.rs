//! The look-up table of opaque tokens, built from the store's records.

use super::Principal;
use crate::secret::TokenDigest;
use crate::types::UnixSeconds;

/// Why a token was refused. Never told apart to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such token.
    #[error("the token is unknown")]
    Unknown,
    /// Past its end.
    #[error("the token has expired")]
    Expired,
    /// Revoked.
    #[error("the token was revoked")]
    Revoked,
}

/// Token digests to principals: SHA-256 look-up in a hash map, flat in the number of tokens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TokenTable(());

impl TokenTable {
    /// This table with records added or replaced and ids removed.
    #[must_use]
    pub fn updated(&self, _changed: &[crate::store::TokenRecord], _deleted: &[crate::types::TokenId]) -> Self {
        todo!()
    }

    /// The principal of a token.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn authenticate(&self, _digest: &TokenDigest, _now: UnixSeconds) -> Result<Principal, Rejected> {
        todo!()
    }
}
