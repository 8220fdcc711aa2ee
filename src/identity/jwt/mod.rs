//! JSON web tokens (RFC 7519) as proof: of issuers from the config, and of this install for single runs.
//!
//! The algorithm is the issuer's setting and never the token's choice; keys come from the issuer's JWKS and from
//! nowhere else; what a header says of other keys is not read.

mod issuer;
mod keys;
mod run;
mod source;
mod strict;
mod token;
mod verifier;

#[cfg(test)]
pub(crate) mod testing;

pub use issuer::{Issuer, IssuerSettings, Issuers};
pub use keys::{Algorithm, KeySet, KeySetError};
pub use run::{RUN_AUDIENCE, RunClaims, own_issuer, sign_run_token};
pub use source::{Fetcher, KeyLocation, KeySource};
pub use token::{MAX_JWT_BYTES, VerifiedJwt, has_jwt_form};
pub use verifier::Verifier;

use token::Registered;

/// Why a JWT is no proof. For the log; the agent learns nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Larger than any token.
    #[error("it is longer than {MAX_JWT_BYTES} bytes")]
    TooLong,
    /// Not three parts of base64url, the first two JSON objects without duplicates.
    #[error("its {0} is malformed: {1}")]
    Malformed(&'static str, String),
    /// A header parameter that would change what is verified, or a missing signature.
    #[error("{0}")]
    Header(&'static str),
    /// Signed with another algorithm than the issuer's.
    #[error("it says that it is signed with {found:?}; the issuer's algorithm is {pinned}")]
    Algorithm {
        /// What the token says, cut.
        found: String,
        /// What the config says.
        pinned: Algorithm,
    },
    /// A claim that is missing or of a wrong type.
    #[error("its claim {0} is missing or not {1}")]
    Claim(&'static str, &'static str),
    /// No issuer of the config has this `iss` and `aud`.
    #[error("no issuer is configured with its iss and aud")]
    Audience,
    /// Over.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` in the future.
    #[error("it is not valid yet")]
    NotYet,
    /// Longer than the issuer's `max_lifetime`.
    #[error("it is valid for longer than max_lifetime")]
    Lifetime,
    /// No key set was ever had, or the last one is too old.
    #[error("the issuer's keys are not known; see the log about its JWKS")]
    NoKeys,
    /// No key of the set is meant.
    #[error("the issuer's key set has no key for it")]
    UnknownKey,
    /// The signature is of another key or text.
    #[error("its signature is wrong")]
    Signature,
    /// A run token whose record is gone or says otherwise.
    #[error("its record is unknown, ended or of another run")]
    Record,
}
