//! May this principal use this connection for this request? A [`Permit`] or a [`Denial`].
//!
//! Sees the connection's id, the target, the method and the path, never a secret. Only this module makes a permit, and
//! without one no credential is opened.

use crate::identity::Principal;
use crate::types::{CanonicalPath, ConnectionId, Target};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The connection that routing chose.
    pub connection: &'a ConnectionId,
    /// Where the request goes.
    pub target: &'a Target,
    /// Its method.
    pub method: &'a http::Method,
    /// The path as sent upstream.
    pub path: &'a CanonicalPath,
}

/// Leave to open one connection's credential for one request.
#[derive(Debug)]
pub struct Permit {
    connection: ConnectionId,
}

impl Permit {
    /// The connection it is for.
    #[must_use]
    pub fn connection(&self) -> &ConnectionId {
        &self.connection
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The token has no grant for the connection.
    #[error("the token has no grant for this connection")]
    NotGranted,
    /// The grant does not have the method.
    #[error("the token may not use {method}; it may use {allowed}")]
    Method {
        /// The method.
        method: String,
        /// The allowed ones.
        allowed: String,
    },
    /// The grant does not have the path.
    #[error("the token may not use this path; it may use {allowed}")]
    Path {
        /// The allowed patterns.
        allowed: String,
    },
    /// The path has an encoded slash or a parameter, which path patterns cannot judge.
    #[error("the path is ambiguous, and the token is restricted by path")]
    AmbiguousPath,
}

/// Decides.
///
/// # Errors
/// See [`Denial`].
pub fn decide(_principal: &Principal, _question: &Question<'_>) -> Result<Permit, Denial> {
    todo!()
}
