//! May this principal use this connection for this request? A [`Permit`] or a [`Denial`].
//!
//! Sees the connection's id, the target, the method and the path, never a secret. Only this module makes a permit, and
//! without one no credential is opened.

mod narrow;

pub use narrow::{Narrowing, TokenRights, Wider, narrow};

use crate::identity::{Grant, Principal};
use crate::types::{CanonicalPath, ConnectionId, Host, Target};

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
    /// The token is for making tokens only.
    #[error("the token may not make requests: it has not the scope use")]
    Scope,
    /// The token has no grant for the connection.
    #[error("the token has no grant for this connection")]
    NotGranted,
    /// The grant does not have the host.
    #[error("the token may not use {host}; it may use {allowed}")]
    Host {
        /// The host.
        host: String,
        /// The allowed patterns.
        allowed: String,
    },
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

/// Decides: the grant, and each that it is within, must have the connection, the host, the method and the path. `HEAD`
/// goes where `GET` may.
///
/// # Errors
/// See [`Denial`].
pub fn decide(principal: &Principal, question: &Question<'_>) -> Result<Permit, Denial> {
    let grant = &principal.grant;
    may_reach(principal, &question.target.host)?;
    if !grant.has_connection(question.connection) {
        return Err(Denial::NotGranted);
    }
    grant.chain().try_for_each(|grant| decide_within(grant, question))?;
    Ok(Permit { connection: question.connection.clone() })
}

/// Whether the principal may make requests to this host at all, with a credential or without.
///
/// # Errors
/// See [`Denial`].
pub fn may_reach(principal: &Principal, host: &Host) -> Result<(), Denial> {
    if !principal.grant.allows_use() {
        return Err(Denial::Scope);
    }
    let refusing = principal.grant.chain().find(|grant| !grant.allows_host_itself(host));
    refusing.map_or(Ok(()), |grant| Err(Denial::Host { host: host.to_string(), allowed: joined(&grant.hosts) }))
}

fn decide_within(grant: &Grant, question: &Question<'_>) -> Result<(), Denial> {
    if !may_use_method(&grant.methods, question.method) {
        // The agent wrote the method, and it may be as long as a head.
        let method = question.method.as_str().chars().take(40).collect();
        return Err(Denial::Method { method, allowed: grant.methods.join(", ") });
    }
    // `/**` restricts nothing and matches an ambiguous path too; no other pattern does.
    if !grant.paths.is_empty() && !grant.paths.iter().any(|pattern| pattern.matches(question.path)) {
        if question.path.is_ambiguous() {
            return Err(Denial::AmbiguousPath);
        }
        return Err(Denial::Path { allowed: joined(&grant.paths) });
    }
    Ok(())
}

fn joined<T: ToString>(patterns: &[T]) -> String {
    patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Methods are case-sensitive (RFC 9110 section 9.1): `get` is not `GET`.
fn may_use_method(allowed: &[String], method: &http::Method) -> bool {
    let has = |name: &str| allowed.iter().any(|other| other == name);
    allowed.is_empty() || has(method.as_str()) || (method == http::Method::HEAD && has("GET"))
}

#[cfg(test)]
mod tests;
