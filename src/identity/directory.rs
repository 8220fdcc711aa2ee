//! Everyone who may call, and the one place where a proof becomes a principal.

use super::{Attributes, Mapping, Names, Principal, Rejected, TokenTable};
use crate::secret::TokenDigest;
use crate::types::{ConnectionId, Scope, UnixSeconds};
use std::sync::Arc;

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
    /// Where mappings find connections by their names; none finds none.
    pub names: Option<Arc<dyn Names>>,
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

    /// The principal that a mapping makes of verified attributes, with the connections as they are in this snapshot.
    /// `issuer` is the name, from the config, of who vouches for them.
    ///
    /// # Errors
    /// [`Rejected::NotMapped`].
    pub fn mapped(&self, mapping: &Mapping, issuer: &Arc<str>, attributes: &Attributes) -> Result<Principal, Rejected> {
        let none: &dyn Names = &NoNames;
        mapping.principal(issuer, attributes, self.names.as_deref().unwrap_or(none)).map_err(|error| {
            tracing::info!(%issuer, "a caller that {issuer} vouches for was refused: {error}");
            Rejected::NotMapped
        })
    }
}

#[derive(Debug)]
struct NoNames;

impl Names for NoNames {
    fn connection(&self, _: &Scope, _: &str) -> Option<ConnectionId> {
        None
    }
}
