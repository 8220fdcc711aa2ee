//! Connections to upstreams, kept between requests and driven by the request that uses them.
//!
//! An HTTP/1.1 connection has no task of its own: the request that holds it polls it, and an idle one is only data. An
//! h2 connection has one task and is shared by its streams.

use super::{Alpn, Egress, NetError, TrustRootId, UpstreamStream};
use crate::types::{ConnectionId, Target, TenantName};
use bytes::Bytes;
use dashmap::DashMap;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long an idle connection is kept: under the minute that most servers keep theirs.
const IDLE: Duration = Duration::from_secs(50);
/// Idle HTTP/1.1 connections kept for one key.
const IDLE_PER_KEY: usize = 64;
/// Streams on one h2 connection before another one is opened.
const STREAMS_PER_CONNECTION: usize = 100;
/// How often an h2 connection is asked whether it lives: a dead one must not hold up everybody who shares it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Window of an h2 stream from the upstream.
const STREAM_WINDOW: u32 = 512 << 10;
/// Window of an h2 connection from the upstream: answers that nobody reads must not use up what other streams need.
const CONNECTION_WINDOW: u32 = (STREAMS_PER_CONNECTION as u32 + 8) * STREAM_WINDOW;

/// Any error of a request body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What two requests must share to share an upstream connection; compared in full.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The tenant.
    pub tenant: TenantName,
    /// The connection; none for requests forwarded without a credential.
    pub connection: Option<ConnectionId>,
    /// The trust roots.
    pub trust_root: TrustRootId,
    /// Scheme, host and port.
    pub target: Target,
}

/// The pool. `B` is the request body's type. Cheap to clone.
pub struct Pool<B: Body + 'static>(Arc<Shared<B>>);

struct Shared<B: Body + 'static> {
    http1: DashMap<PoolKey, Vec<Idle<B>>>,
    http2: DashMap<PoolKey, Vec<Multiplexed<B>>>,
    /// Of each connection (the record), those that may be used again.
    cohorts: DashMap<ConnectionId, Cohort>,
}

/// What [`Pool::forget`] ends at once, wherever it is: connections that carried one credential.
#[derive(Debug, Clone, Default)]
struct Cohort(Arc<AtomicBool>);

impl Cohort {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Idle<B: Body + 'static> {
    connection: Http1<B>,
    since: Instant,
}

/// An HTTP/1.1 connection and its driver.
struct Http1<B: Body + 'static> {
    send: http1::SendRequest<B>,
    /// None when it was dropped, which lets go of everything that waits for it.
    driver: Option<Box<http1::Connection<TokioIo<UpstreamStream>, B>>>,
    ended: bool,
    address: SocketAddr,
    cohort: Cohort,
}

struct Multiplexed<B: Body + 'static> {
    send: http2::SendRequest<B>,
    streams: Arc<AtomicUsize>,
    address: SocketAddr,
    used: Instant,
    cohort: Cohort,
}

impl<B: Body + 'static> Clone for Multiplexed<B> {
    fn clone(&self) -> Self {
        Self {
            send: self.send.clone(),
            streams: Arc::clone(&self.streams),
            address: self.address,
            used: self.used,
            cohort: self.cohort.clone(),
        }
    }
}

impl<B: Body + 'static> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Body + 'static> Default for Pool<B> {
    fn default() -> Self {
        Self(Arc::new(Shared { http1: DashMap::new(), http2: DashMap::new(), cohorts: DashMap::new() }))
    }
}

/// One upstream connection, ready for one request.
pub struct Upstream<B: Body + 'static> {
    kind: Kind<B>,
    key: PoolKey,
    pool: Pool<B>,
    reused: bool,
}

enum Kind<B: Body + 'static> {
    Http1(Http1<B>),
    Http2(Multiplexed<B>, StreamGuard),
}

/// Counts a stream of a shared connection for as long as it lives.
struct StreamGuard(Arc<AtomicUsize>);

impl StreamGuard {
    fn new(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that could not be sent or answered.
pub struct SendError<B> {
    /// The cause.
    pub source: hyper::Error,
    /// The request, if no byte of it was sent.
    pub unsent: Option<Request<B>>,
}

/// Both directions of a connection after a 101, and what the upstream sent right behind it.
pub struct Upgraded {
    /// The stream.
    pub stream: UpstreamStream,
    /// First bytes from the upstream.
    pub early: Bytes,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    /// A live idle connection, if there is one.
    #[must_use]
    pub fn checkout(&self, key: &PoolKey, alpn: Alpn) -> Option<Upstream<B>> {
        let upstream = |kind| Upstream { kind, key: key.clone(), pool: self.clone(), reused: true };
        if alpn == Alpn::H2OrHttp1
            && let Some(mut shared) = self.0.http2.get_mut(key)
        {
            shared.retain(|connection| !connection.send.is_closed() && !connection.cohort.is_over());
            let free =
                |connection: &&mut Multiplexed<B>| connection.streams.load(Ordering::Relaxed) < STREAMS_PER_CONNECTION;
            if let Some(connection) = shared.iter_mut().find(free) {
                connection.used = Instant::now();
                let guard = StreamGuard::new(&connection.streams);
                return Some(upstream(Kind::Http2(connection.clone(), guard)));
            }
        }
        loop {
            let idle = self.0.http1.get_mut(key)?.pop()?;
            if idle.since.elapsed() < IDLE
                && !idle.connection.cohort.is_over()
                && let Some(connection) = idle.connection.alive()
            {
                return Some(upstream(Kind::Http1(connection)));
            }
        }
    }

    /// A new connection to one of the vetted addresses.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect(
        &self,
        egress: &Egress,
        key: &PoolKey,
        addresses: &[SocketAddr],
        alpn: Alpn,
    ) -> Result<Upstream<B>, NetError> {
        // Taken before anything can be sent over it.
        let cohort = match &key.connection {
            Some(connection) => self.0.cohorts.entry(connection.clone()).or_default().clone(),
            None => Cohort::default(),
        };
        let (stream, address) = egress.connect(&key.target, addresses, alpn).await?;
        let failed = |source| NetError::Http { target: key.target.authority(), source };
        let kind = if stream.is_h2() {
            let (send, driver) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE / 2)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                if let Err(error) = driver.await {
                    tracing::debug!("h2 connection to an upstream ended: {error}");
                }
            });
            let connection =
                Multiplexed { send, streams: Arc::new(AtomicUsize::new(0)), address, used: Instant::now(), cohort };
            let guard = StreamGuard::new(&connection.streams);
            self.0.http2.entry(key.clone()).or_default().push(connection.clone());
            Kind::Http2(connection, guard)
        } else {
            let (send, driver) =
                http1::Builder::new().max_buf_size(256 * 1024).handshake(TokioIo::new(stream)).await.map_err(failed)?;
            Kind::Http1(Http1 { send, driver: Some(Box::new(driver)), ended: false, address, cohort })
        };
        Ok(Upstream { kind, key: key.clone(), pool: self.clone(), reused: false })
    }

    /// Closes what is kept for these connections, because their credentials are no longer good: the buffers of an open
    /// one may still hold the last request's head. One that is in use goes on and does not come back.
    pub fn forget(&self, connections: &[ConnectionId]) {
        for connection in connections {
            if let Some((_, cohort)) = self.0.cohorts.remove(connection) {
                cohort.0.store(true, Ordering::Release);
            }
        }
        self.sweep();
    }

    /// [`Pool::forget`] for all of them.
    pub fn forget_all(&self) {
        let all: Vec<ConnectionId> = self.0.cohorts.iter().map(|entry| entry.key().clone()).collect();
        self.forget(&all);
    }

    /// Closes what has been idle for too long. Call it every few seconds.
    pub fn sweep(&self) {
        self.0.http1.retain(|_, idle| {
            idle.retain(|entry| entry.since.elapsed() < IDLE && !entry.connection.cohort.is_over());
            !idle.is_empty()
        });
        self.0.http2.retain(|_, shared| {
            shared.retain(|connection| {
                !connection.send.is_closed()
                    && !connection.cohort.is_over()
                    && (connection.streams.load(Ordering::Relaxed) > 0 || connection.used.elapsed() < IDLE)
            });
            !shared.is_empty()
        });
        // Nothing else holds a cohort of which no connection is left.
        self.0.cohorts.retain(|_, cohort| Arc::strong_count(&cohort.0) > 1);
    }

    fn checkin(&self, key: PoolKey, connection: Http1<B>) {
        let mut idle = self.0.http1.entry(key).or_default();
        // Asked under the lock: whoever ends the cohort comes here afterwards to close what is kept.
        if idle.len() < IDLE_PER_KEY && !connection.cohort.is_over() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }
}

impl<B> Http1<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    /// Lets the driver notice that the upstream closed while nobody looked.
    fn alive(mut self) -> Option<Self> {
        self.drive(&mut Context::from_waker(Waker::noop()));
        (!self.ended && self.send.is_ready()).then_some(self)
    }

    /// Reads and writes what can be read and written.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let (false, Some(driver)) = (self.ended, &mut self.driver) {
            self.ended = driver.poll_without_shutdown(cx).is_ready();
        }
    }

    /// Sends one request and waits for the answer's head.
    async fn exchange(&mut self, request: Request<B>) -> Result<Response<Incoming>, SendError<B>> {
        let mut answer = pin!(self.send.try_send_request(request));
        let (driver, ended) = (&mut self.driver, &mut self.ended);
        poll_fn(|cx| {
            if let (false, Some(driver)) = (*ended, driver.as_mut()) {
                *ended = driver.poll_without_shutdown(cx).is_ready();
            }
            let mut polled = answer.as_mut().poll(cx);
            if polled.is_pending() && *ended && driver.take().is_some() {
                // The upstream closed before it took the request: dropping the driver gives the request back.
                polled = answer.as_mut().poll(cx);
            }
            polled
        })
        .await
        .map_err(|mut error| {
            let unsent = error.take_message();
            SendError { source: error.into_error(), unsent }
        })
    }
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    /// Whether the request goes over h2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        matches!(self.kind, Kind::Http2(..))
    }

    /// Whether the connection served a request before: then a failure may only mean that it was closed meanwhile.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The address that was dialled.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match &self.kind {
            Kind::Http1(connection) => connection.address,
            Kind::Http2(connection, _) => connection.address,
        }
    }

    /// Sends a request and waits for the answer's head. The body brings the connection back to the pool at its end.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(self, request: Request<B>) -> Result<Response<UpstreamBody<B>>, SendError<B>> {
        let Self { kind, key, pool, .. } = self;
        match kind {
            Kind::Http1(mut connection) => {
                let answer = connection.exchange(request).await?;
                let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
                let answer = answer.map(|incoming| UpstreamBody { incoming, held: Held::Http1(connection, key, pool) });
                Ok(if switches { answer } else { answer.map(UpstreamBody::settle) })
            }
            Kind::Http2(mut connection, guard) => match connection.send.try_send_request(request).await {
                Ok(answer) => {
                    Ok(answer.map(|incoming| UpstreamBody { incoming, held: Held::Http2 { _stream: guard } }))
                }
                Err(mut error) => {
                    let unsent = error.take_message();
                    Err(SendError { source: error.into_error(), unsent })
                }
            },
        }
    }
}

/// The body of an upstream's answer.
pub struct UpstreamBody<B: Body + 'static> {
    incoming: Incoming,
    held: Held<B>,
}

enum Held<B: Body + 'static> {
    Http1(Http1<B>, PoolKey, Pool<B>),
    Http2 { _stream: StreamGuard },
    Nothing,
}

impl<B> UpstreamBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    /// Gives the connection back at once when there is no body.
    fn settle(mut self) -> Self {
        if self.incoming.is_end_stream() {
            self.release(&mut Context::from_waker(Waker::noop()));
        }
        self
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        if let Held::Http1(mut connection, key, pool) = std::mem::replace(&mut self.held, Held::Nothing) {
            connection.drive(cx);
            if !connection.ended && connection.send.is_ready() {
                pool.checkin(key, connection);
            }
        }
    }

    /// Goes on sending the request although the answer is not read: for answers that come before the request's end. The
    /// connection is not used again.
    pub fn detach(&mut self) {
        if let Held::Http1(mut connection, ..) = std::mem::replace(&mut self.held, Held::Nothing)
            && let (false, Some(mut driver)) = (connection.ended, connection.driver.take())
        {
            tokio::spawn(async move {
                if let Err(error) = poll_fn(|cx| driver.poll_without_shutdown(cx)).await {
                    tracing::debug!("an upstream connection ended: {error}");
                }
            });
        }
    }

    /// The connection itself, after an answer with status 101. `None` for h2.
    ///
    /// # Errors
    /// When the connection fails before it is handed over.
    pub async fn upgrade(self) -> Result<Option<Upgraded>, hyper::Error> {
        let Held::Http1(mut connection, ..) = self.held else { return Ok(None) };
        drop(self.incoming);
        let Some(mut driver) = connection.driver.take() else { return Ok(None) };
        if !connection.ended {
            poll_fn(|cx| driver.poll_without_shutdown(cx)).await?;
        }
        let parts = driver.into_parts();
        Ok(Some(Upgraded { stream: parts.io.into_inner(), early: parts.read_buf }))
    }
}

impl<B> Body for UpstreamBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Held::Http1(connection, ..) = &mut this.held
        {
            // The driver reads from the socket into the body's channel, so the body is asked again after it.
            connection.drive(cx);
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
            if polled.is_pending() && connection.ended && connection.driver.take().is_some() {
                polled = Pin::new(&mut this.incoming).poll_frame(cx);
            }
        }
        match &polled {
            Poll::Ready(None) => this.release(cx),
            Poll::Ready(Some(Ok(_))) if this.incoming.is_end_stream() => this.release(cx),
            Poll::Ready(Some(Err(_))) => this.held = Held::Nothing,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests;
