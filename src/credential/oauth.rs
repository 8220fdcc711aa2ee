//! The token endpoint: building the request and reading the answer strictly (RFC 6749 sections 4.4, 5, 6).

use crate::net::ClientError;
use crate::secret::Secret;

/// A token answer.
#[derive(Debug)]
pub struct TokenAnswer {
    /// The access token.
    pub access_token: Secret,
    /// A new refresh token; absent means the old one stays.
    pub refresh_token: Option<Secret>,
    /// Lifetime in seconds; `None` when absent, not positive, or absurd (over 10 years). A string of digits counts.
    pub expires_in: Option<i64>,
}

/// Why there was no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The endpoint refused the grant for good (`invalid_grant`, `invalid_client`, `unauthorized_client` …).
    #[error("the token endpoint rejected the grant ({code})")]
    Rejected {
        /// RFC 6749 section 5.2 error code, cut to 40 characters of `[a-z_]`.
        code: String,
    },
    /// The endpoint said to come back later (429, 503).
    #[error("the token endpoint answered {status}, to be tried again")]
    Busy {
        /// The status.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// An answer that is neither a token nor an error that is understood (HTML, redirect, 5xx, missing fields).
    #[error("the token endpoint's answer is not usable: {reason}")]
    Unusable {
        /// What is wrong with it, without any of its text.
        reason: String,
    },
    /// Not reached.
    #[error("the token endpoint could not be reached")]
    Unreachable(#[from] ClientError),
}
