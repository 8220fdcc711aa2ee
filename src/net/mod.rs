//! The only dialler and resolver: DNS, the address guard, upstream TLS, the connection pool, our own HTTPS client.
//!
//! Not here: which destination a request may have (connection, policy).

mod client;
mod dial;
mod egress;
mod guard;
mod pool;
mod resolver;
#[cfg(test)]
mod testing;
mod tls;

pub use client::{ClientError, ClientResponse, HttpsClient};
pub use egress::{Egress, EgressSettings};
pub use guard::{AddressGuard, AddressRefusal};
pub use pool::{BodyError, Pool, PoolKey, SendError, Upgraded, Upstream, UpstreamBody};
pub use tls::{Alpn, ClientIdentity, TrustRootId, UpstreamStream};

use crate::types::Host;
use std::net::IpAddr;

/// Why an upstream could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address guard refused.
    #[error("{host} resolves to {address}, which is not allowed: {refusal}")]
    AddressRefused {
        /// The host.
        host: Host,
        /// The refused address.
        address: IpAddr,
        /// Why.
        refusal: AddressRefusal,
    },
    /// The resolver has no answer.
    #[error("{host} could not be resolved: {reason}")]
    Resolve {
        /// The host.
        host: Host,
        /// A short reason such as `no such host`.
        reason: String,
    },
    /// No address accepted a TCP connection in time.
    #[error("{target} could not be reached")]
    Connect {
        /// `host:port`.
        target: String,
        /// The last error.
        #[source]
        source: std::io::Error,
    },
    /// The TLS handshake failed or the certificate does not verify.
    #[error("TLS with {target} failed")]
    Tls {
        /// `host:port`.
        target: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP handshake or exchange failed.
    #[error("HTTP with {target} failed")]
    Http {
        /// `host:port`.
        target: String,
        /// The cause.
        #[source]
        source: hyper::Error,
    },
    /// Took longer than the limit.
    #[error("{target} did not answer within {limit:?}")]
    Timeout {
        /// `host:port`.
        target: String,
        /// The limit.
        limit: std::time::Duration,
    },
    /// A CA file cannot be used.
    #[error("CA file {path}: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}
