//! The listening service: pingora accepts, each stream is served by the proxy's engine.

use super::connect::connect;
use super::leaf::LeafCache;
use super::strangers::Strangers;
use crate::admin::SocketFile;
use crate::config::{Limits, ListenAddress, ListenerConfig};
use crate::identity::Proof;
use crate::proxy::body::ResponseBody;
use crate::proxy::engine::{Serving, serve_http1, serve_http2};
use crate::proxy::framing::HeadLimits;
use crate::proxy::{Closing, Entry, Plane, handle};
use crate::types::{AgentName, Host, Scheme, Scope, Target};
use async_trait::async_trait;
use dashmap::DashMap;
use http::header::{HOST, HeaderValue};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{GetSocketDigest, Stream};
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long a connection outside a tunnel may be idle between requests.
const IDLE: Duration = Duration::from_secs(60);

/// A stream as pingora accepts it.
pub(super) type Raw = Box<L4Stream>;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: ListenAddress,
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
    sockets: Vec<Socket>,
}

struct Socket {
    listener: ListenerConfig,
    fd: OwnedFd,
    /// Its number in the config, if its TLS is there.
    tls: Option<usize>,
    /// Removes the socket's file in the end.
    file: Option<SocketFile>,
}

impl Listening {
    /// Binds every listener; port 0 takes a free one. A Unix socket is its owner's alone from birth; a dead one of that
    /// name is replaced, a live one or another file never.
    ///
    /// # Errors
    /// [`BindError`] for the first that cannot be bound.
    pub async fn bind(listeners: &[ListenerConfig]) -> Result<Self, BindError> {
        let mut sockets = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.iter().enumerate() {
            let error = |source| BindError { address: listener.address.clone(), source };
            let mut listener = listener.clone();
            let (fd, file) = match &mut listener.address {
                ListenAddress::Tcp(address) => {
                    let socket = TcpListener::bind(*address).map_err(error)?;
                    socket.set_nonblocking(true).map_err(error)?;
                    *address = socket.local_addr().map_err(error)?;
                    (OwnedFd::from(socket), None)
                }
                ListenAddress::Unix(path) => {
                    let (file, socket) = SocketFile::bind_at(path.clone()).await.map_err(error)?;
                    (OwnedFd::from(socket), Some(file))
                }
            };
            let tls = listener.tls.is_some().then_some(index);
            sockets.push(Socket { listener, fd, tls, file });
        }
        Ok(Self { sockets })
    }

    /// The listeners, with the ports that were taken.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerConfig> {
        self.sockets.iter().map(|socket| socket.listener.clone()).collect()
    }

    /// Accepts until `shutdown` turns true.
    pub async fn serve(self, front: Front, shutdown: watch::Receiver<bool>) {
        let front = Arc::new(front);
        let mut services = JoinSet::new();
        let mut files = Vec::new();
        for socket in self.sockets {
            let Socket { listener, fd, tls, file } = socket;
            files.extend(file);
            let bound = listener.agent.map(|agent| Proof::Bound(Arc::new(agent)));
            let door = Door { front: Arc::clone(&front), tls, bound };
            let mut service = Service::new("proxy".to_owned(), door);
            let address = match &listener.address {
                ListenAddress::Tcp(address) => {
                    let address = address.to_string();
                    service.add_tcp(&address);
                    address
                }
                ListenAddress::Unix(path) => {
                    let path = path.display().to_string();
                    service.add_uds(&path, Some(Permissions::from_mode(0o600)));
                    path
                }
            };
            // pingora takes over sockets that are handed to it by address, and closes them at its end.
            let mut fds = Fds::new();
            fds.add(address, fd.into_raw_fd());
            let shutdown = shutdown.clone();
            services.spawn(async move {
                service.start_service(Some(Arc::new(parking_lot::Mutex::new(fds))), shutdown, 1).await;
            });
        }
        while services.join_next().await.is_some() {}
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

/// One listener: what its connections prove by themselves.
struct Door {
    front: Arc<Front>,
    tls: Option<usize>,
    bound: Option<Proof>,
}

impl Door {
    fn entry(&self, client: Option<SocketAddr>, close: Arc<Closing>) -> Entry {
        let is_local = client.is_none_or(|client| client.ip().to_canonical().is_loopback());
        Entry {
            client,
            tunnel: None,
            is_private: is_local || self.tls.is_some(),
            is_tls: self.tls.is_some(),
            standing: self.bound.clone(),
            decision: None,
            close,
        }
    }

    async fn serve(&self, stream: Raw) {
        let plane = &self.front.plane;
        let client = stream.get_socket_digest().and_then(|digest| digest.peer_addr()?.as_inet().copied());
        let close = Arc::<Closing>::default();
        // Not held: a connection outlives many snapshots.
        let (serving, tls) = {
            let snapshot = plane.loader.snapshot();
            let limits = &snapshot.config.limits;
            if let Some(client) = client {
                let closed = self.front.strangers.enter(client.ip(), &close, limits.unauthenticated_connections);
                (0..closed).for_each(|_| plane.metrics.stranger_closed());
            }
            let serving = Serving {
                head: Front::head_limits(limits),
                head_time: limits.header_time,
                first_head_is_due: true,
                idle: Some(IDLE),
                draining: plane.draining.clone(),
                ending: plane.ending.clone(),
            };
            (serving, self.tls.map(|index| snapshot.listener_tls(index).cloned()))
        };
        let mut entry = self.entry(client, close);
        let front = Arc::clone(&self.front);
        let Some(tls) = tls else {
            let answer = move |request, entry| Arc::clone(&front).answer(request, entry);
            return serve_http1(stream, entry, serving, answer).await;
        };
        let Some(tls) = tls else { return tracing::error!("a TLS listener has no certificate; this is a bug") };
        let accepting = TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream);
        let accepted = tokio::select! {
            biased;
            // Whoever stalls in the handshake makes room for others like whoever stalls behind it.
            () = entry.close.cut() => return,
            () = serving.ending.cancelled() => return,
            accepted = tokio::time::timeout(serving.head_time, accepting) => accepted,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::info!(client = ?client, "TLS with an agent failed: {error}"),
            Err(_) => return tracing::info!(client = ?client, "TLS with an agent took too long"),
        };
        let session = stream.get_ref().1;
        match tls.identify(session.peer_certificates(), plane.clock.now()) {
            Ok(Some(certificate)) => entry.standing = Some(Proof::Certificate(Arc::new(certificate))),
            Ok(None) => {}
            Err(error) => return tracing::info!(client = ?client, "a client certificate is not taken: {error}"),
        }
        if session.alpn_protocol() == Some(b"h2") {
            let own = session.server_name().map(str::to_owned);
            let answer = move |mut request: Request<Incoming>, entry| {
                let front = Arc::clone(&front);
                into_origin_form(&mut request, own.as_deref());
                front.answer(request, entry)
            };
            serve_http2(stream, entry, serving, answer).await;
        } else {
            let answer = move |request, entry| Arc::clone(&front).answer(request, entry);
            serve_http1(stream, entry, serving, answer).await;
        }
    }
}

/// An h2 request names scheme and host, whether it is for this server or to be passed on. It is for this server when the
/// host is the one that the handshake was made with (none for an IP address, RFC 6066 section 3).
fn into_origin_form(request: &mut Request<Incoming>, server_name: Option<&str>) {
    if request.method() == Method::CONNECT || request.uri().scheme_str() != Some("https") {
        return;
    }
    let Some(authority) = request.uri().authority().map(|authority| authority.as_str().to_owned()) else { return };
    let Ok(target) = Target::parse_authority(Scheme::Https, authority.as_bytes()) else { return };
    let is_own = match (&target.host, server_name) {
        (Host::Ip(_), None) => true,
        (host @ Host::Name(_), Some(name)) => Host::parse(name.as_bytes()).is_ok_and(|name| name == *host),
        _ => false,
    };
    if !is_own {
        return;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
    let (Ok(uri), Ok(host)) = (path, HeaderValue::from_str(&authority)) else { return };
    *request.uri_mut() = uri;
    request.headers_mut().entry(HOST).or_insert(host);
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let stream: Raw = stream.into_any().downcast().ok()?;
        let plane = &self.front.plane;
        plane.metrics.connection_opened();
        plane.tasks.track_future(self.serve(stream)).await;
        plane.metrics.connection_closed();
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
