//! What a CONNECT established, and what a downstream connection is: facts that its requests share.

use super::framing::Decision;
use crate::identity::{Principal, Proof};
use crate::types::Target;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Notify;

/// An intercepted tunnel. The principal is checked again at each request inside it.
#[derive(Debug)]
pub struct Tunnel {
    /// Where CONNECT said it goes: the only destination of its requests.
    pub target: Target,
    /// What CONNECT was made with.
    pub proof: Proof,
    /// Whom that proved at CONNECT: who a refused request is recorded of.
    pub opened_by: Principal,
    /// The connection chosen at CONNECT, by user name or header.
    pub choice: Option<String>,
}

/// One downstream connection.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The peer.
    pub client: Option<SocketAddr>,
    /// The tunnel that it is the inside of.
    pub tunnel: Option<Arc<Tunnel>>,
    /// Whether absolute-form `https://` is taken: from loopback, or over TLS.
    pub is_private: bool,
    /// Tells the stream what came of a CONNECT or an upgrade; none for h2.
    pub decision: Option<Decision>,
    /// Asks the engine to close after the answers under way.
    pub close: Arc<Notify>,
}
