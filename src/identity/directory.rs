//! Everyone who may call, and the one place where a proof becomes a principal.

use super::{Principal, Rejected, TokenTable};
use crate::secret::TokenDigest;
use crate::types::UnixSeconds;

/// What a caller proves itself with. A tunnel keeps it and has it judged anew at each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// An opaque token.
    Token(TokenDigest),
}

/// Everyone who may call. Cheap to clone; part of the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// This install's token records.
    pub tokens: TokenTable,
    /// Whether all agents are locked out.
    pub locked: bool,
}

impl Directory {
    /// The principal that a proof proves, now.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn recognise(&self, proof: &Proof, now: UnixSeconds) -> Result<Principal, Rejected> {
        if self.locked {
            return Err(Rejected::LockedOut);
        }
        match proof {
            Proof::Token(digest) => self.tokens.authenticate(digest, now),
        }
    }
}
