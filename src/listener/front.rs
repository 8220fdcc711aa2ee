//! The listening service: pingora accepts, each stream is served by the proxy's engine.

use super::connect::connect;
use super::leaf::LeafCache;
use super::strangers::Strangers;
use crate::config::Limits;
use crate::proxy::body::ResponseBody;
use crate::proxy::engine::{Serving, serve_http1};
use crate::proxy::framing::HeadLimits;
use crate::proxy::{Closing, Entry, Plane, handle};
use crate::types::{AgentName, Scope};
use async_trait::async_trait;
use dashmap::DashMap;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest, Stream};
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a connection outside a tunnel may be idle between requests.
const IDLE: Duration = Duration::from_secs(60);

/// A stream as pingora accepts it.
pub(super) type Raw = Box<L4Stream>;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

/// What every accepted stream is served with.
pub struct Front {
    pub(super) plane: Arc<Plane>,
    pub(super) leaves: LeafCache,
    pub(super) tunnels: Tunnels,
    strangers: Strangers,
}

/// Sockets that are bound and not served yet.
pub struct Listening {
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl Listening {
    /// Binds every address; port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError`] for the first that cannot be bound.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let bind = |address: &SocketAddr| {
            let bound = TcpListener::bind(address).and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok((socket.local_addr()?, socket))
            });
            bound.map_err(|source| BindError { address: *address, source })
        };
        Ok(Self { sockets: addresses.iter().map(bind).collect::<Result<_, _>>()? })
    }

    /// The addresses, with the ports that were taken.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }

    /// Accepts until `shutdown` turns true.
    pub async fn serve(self, front: Front, shutdown: watch::Receiver<bool>) {
        let mut service = Service::new("proxy".to_owned(), front);
        let mut fds = Fds::new();
        for (address, socket) in self.sockets {
            let address = address.to_string();
            service.add_tcp(&address);
            // pingora takes over sockets that are handed to it by address, and closes them at its end.
            fds.add(address, socket.into_raw_fd());
        }
        let fds = Arc::new(parking_lot::Mutex::new(fds));
        service.start_service(Some(fds), shutdown, 1).await;
    }
}

impl Front {
    /// For these shared parts.
    #[must_use]
    pub fn new(plane: Arc<Plane>, leaves: LeafCache) -> Self {
        Self { plane, leaves, tunnels: Tunnels::default(), strangers: Strangers::default() }
    }

    pub(super) fn head_limits(limits: &Limits) -> HeadLimits {
        HeadLimits { bytes: limits.header_bytes, fields: 128, target: 16 * 1024 }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, entry: Arc<Entry>) -> Response<ResponseBody> {
        if request.method() == Method::CONNECT {
            return connect(self, request, entry).await;
        }
        handle(Arc::clone(&self.plane), entry, request).await
    }
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let stream: Raw = stream.into_any().downcast().ok()?;
        let client = stream.get_socket_digest().and_then(|digest| digest.peer_addr()?.as_inet().copied());
        let limits = self.plane.loader.snapshot().config.limits.clone();
        let close = Arc::<Closing>::default();
        if let Some(client) = client {
            let closed = self.strangers.enter(client.ip(), &close, limits.unauthenticated_connections);
            (0..closed).for_each(|_| self.plane.metrics.stranger_closed());
        }
        let entry = Entry {
            client,
            tunnel: None,
            is_private: client.is_some_and(|client| client.ip().to_canonical().is_loopback()),
            decision: None,
            close,
        };
        let serving = Serving {
            head: Self::head_limits(&limits),
            head_time: limits.header_time,
            first_head_is_due: true,
            idle: Some(IDLE),
            draining: self.plane.draining.clone(),
            ending: self.plane.ending.clone(),
        };
        let front = Arc::clone(self);
        self.plane.metrics.connection_opened();
        let serve =
            serve_http1(stream, entry, serving, move |request, entry| Arc::clone(&front).answer(request, entry));
        self.plane.tasks.track_future(serve).await;
        self.plane.metrics.connection_closed();
        None
    }
}

/// How many tunnels each agent has open.
#[derive(Debug, Clone, Default)]
pub(super) struct Tunnels(Arc<DashMap<(Scope, AgentName), usize>>);

impl Tunnels {
    /// One more, if the limit allows; it is given back when the slot is dropped.
    pub(super) fn open(&self, key: (Scope, AgentName), limit: usize) -> Option<Slot> {
        let mut open = self.0.entry(key.clone()).or_insert(0);
        if *open >= limit {
            return None;
        }
        *open += 1;
        Some(Slot { tunnels: self.clone(), key })
    }
}

/// One open tunnel.
pub(super) struct Slot {
    tunnels: Tunnels,
    key: (Scope, AgentName),
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.tunnels.0.remove_if_mut(&self.key, |_, open| {
            *open -= 1;
            *open == 0
        });
    }
}
