//! What a CONNECT established, and what a downstream connection is: facts that its requests share.

use super::framing::Decision;
use crate::identity::{Principal, Proof};
use crate::types::Target;
use parking_lot::Mutex;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

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
    /// Whether absolute-form `https://` is taken: from this machine, or over TLS.
    pub is_private: bool,
    /// Whether it is TLS, outside a tunnel.
    pub is_tls: bool,
    /// What the connection itself proves, for requests without a token: the client certificate of its handshake, or
    /// that it reached a listener that is bound to an agent. None inside a tunnel, which has its own.
    pub standing: Option<Proof>,
    /// Tells the stream what came of a CONNECT or an upgrade; none for h2.
    pub decision: Option<Decision>,
    /// Asks the engine to close.
    pub close: Arc<Closing>,
}

/// The end of a downstream connection, as others bring it about.
#[derive(Debug, Default)]
pub struct Closing {
    gently: Notify,
    at_once: CancellationToken,
    stranger: Mutex<Option<Box<dyn Any + Send>>>,
    enrolling: tokio::sync::Mutex<()>,
}

impl Closing {
    /// Closes after the answers under way.
    pub fn gently(&self) {
        self.gently.notify_one();
    }

    /// Closes whatever is under way.
    pub fn at_once(&self) {
        self.at_once.cancel();
    }

    /// Returns when it is to close after the answers under way.
    pub async fn asked(&self) {
        self.gently.notified().await;
    }

    /// Returns when it is to close at once.
    pub async fn cut(&self) {
        self.at_once.cancelled().await;
    }

    /// Keeps `place` until the caller is [`Closing::known`].
    pub fn stranger(&self, place: Box<dyn Any + Send>) {
        *self.stranger.lock() = Some(place);
    }

    /// The right to send the body of an enrolment, which is read before the caller has shown who it is: on one stream of
    /// a connection at a time.
    pub fn enrol(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.enrolling.try_lock().ok()
    }

    /// The caller has shown who it is.
    pub fn known(&self) {
        drop(self.stranger.lock().take());
    }
}
