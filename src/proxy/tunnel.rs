//! What a CONNECT established, and what a downstream connection is: facts that its requests share.

use super::framing::Decision;
use crate::identity::Proof;
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
    /// Whether absolute-form `https://` is taken: from this machine, or over TLS.
    pub is_private: bool,
    /// Whether it is TLS, outside a tunnel.
    pub is_tls: bool,
    /// What the connection itself proves, for requests without a token: the client certificate of its handshake, or
    /// that it reached a listener that is bound to an agent. None inside a tunnel, which has its own.
    pub standing: Option<Proof>,
    /// Tells the stream what came of a CONNECT or an upgrade; none for h2.
    pub decision: Option<Decision>,
    /// Asks the engine to close after the answers under way.
    pub close: Arc<Notify>,
}
