//! Reading the proof of identity out of `Proxy-Authorization`.

use crate::secret::TokenDigest;

/// What `Proxy-Authorization` held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The token's digest.
    pub token: TokenDigest,
    /// A choice of connection: the user name, when the token is the password and the user name is not empty, `x` or
    /// `nexus`.
    pub connection: Option<String>,
}

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No header, or one without anything of token form in it: answer 407 without counting it.
    #[error("no agent token was given")]
    Missing,
    /// More than one header, or user and password both of token form and different: 400.
    #[error("more than one agent token was given")]
    Conflicting,
    /// A scheme other than Basic and Bearer, or Basic that is not base64 of `user:password`: 407.
    #[error("the proxy credentials are malformed")]
    Malformed,
}

/// User and password out of `Basic`, percent signs left alone.
#[derive(Debug)]
pub struct BasicPair {
    /// The user.
    pub user: String,
    /// The password.
    pub password: crate::secret::Secret,
}

/// Reads `Proxy-Authorization` values (all of them) by the rules for proxy credentials: scheme case-insensitive, Basic
/// or Bearer; in Basic whichever of user and password has token form is the token; if both, they must be equal.
///
/// # Errors
/// See [`ProofError`].
pub fn proxy_authorization<'a>(_values: impl Iterator<Item = &'a [u8]>) -> Result<Proof, ProofError> {
    todo!()
}
