//! Serves a downstream stream with hyper's HTTP/1.1 or h2 connection. Knows nothing of how the stream was accepted.

use super::body::ResponseBody;
use super::framing::{GuardedStream, HeadLimits};
use super::reject::{Code, Rejection};
use super::tunnel::Entry;
use crate::audit::Way;
use crate::types::RequestId;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Window of an h2 stream from the agent.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of an h2 connection from the agent.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Streams that an agent may have open on one connection.
const STREAMS: u32 = 256;

/// How long a refused h2 connection goes on before its GOAWAY.
const LINGER: Duration = Duration::from_millis(100);

/// What a stream is served with.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Head limits.
    pub head: HeadLimits,
    /// The longest time that a head may take.
    pub head_time: Duration,
    /// Whether the first head is due within that time, or the connection may stay idle from the start.
    pub first_head_is_due: bool,
    /// How long a connection may be idle between requests; none for the insides of tunnels.
    pub idle: Option<Duration>,
    /// Cancelled when the process begins to stop.
    pub draining: CancellationToken,
    /// Cancelled when the grace time is over.
    pub ending: CancellationToken,
}

/// Serves HTTP/1.1 requests until the connection ends.
pub async fn serve_http1<S, F, R>(stream: S, mut entry: Entry, serving: Serving, handle: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Arc<Entry>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<ResponseBody>> + Send,
{
    let stream = GuardedStream::new(stream, serving.head, serving.head_time, serving.first_head_is_due);
    entry.decision = Some(stream.decision());
    let entry = Arc::new(entry);
    let close = Arc::clone(&entry.close);
    let service = service_fn(move |request| {
        let (entry, handle) = (Arc::clone(&entry), handle.clone());
        async move { guarded(handle(request, entry)).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(serving.idle)
        .max_headers(serving.head.fields + 8)
        .max_buf_size(serving.head.bytes.max(8192) + 64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = serving.draining.cancelled() => None,
        () = close.asked() => None,
        () = close.cut() => return,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = serving.ending.cancelled() => Ok(()),
                () = close.cut() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a downstream connection ended: {error}");
    }
}

/// Serves h2 requests until the connection ends.
pub async fn serve_http2<S, F, R>(stream: S, entry: Entry, serving: Serving, handle: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Arc<Entry>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let entry = Arc::new(entry);
    let close = Arc::clone(&entry.close);
    let activity = Arc::new(Activity::default());
    let at_work = Arc::clone(&activity);
    let service = service_fn(move |request| {
        let (entry, handle, work) = (Arc::clone(&entry), handle.clone(), at_work.begin());
        async move {
            let _work = work;
            guarded(handle(request, entry)).await
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(serving.head.bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(256)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = serving.draining.cancelled() => None,
        () = close.cut() => return,
        () = close.asked() => {
            // The refusal goes out before the GOAWAY: some clients take nothing behind one.
            tokio::time::timeout(LINGER, connection.as_mut()).await.ok()
        }
        // Streams that are still open go on behind the GOAWAY.
        () = activity.rest(&serving) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = serving.ending.cancelled() => Ok(()),
                () = close.cut() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a downstream connection ended: {error}");
    }
}

/// When an h2 connection last had a request without an answer. Between answers nothing of hyper's ends it.
#[derive(Default)]
struct Activity(Mutex<Working>);

#[derive(Default)]
struct Working {
    requests: usize,
    /// The end of the last one.
    since: Option<Instant>,
}

struct Work(Arc<Activity>);

impl Activity {
    fn begin(self: &Arc<Self>) -> Work {
        self.0.lock().requests += 1;
        Work(Arc::clone(self))
    }

    /// Returns when there was no request within the time for the first one, or none for the idle time after that.
    async fn rest(&self, serving: &Serving) {
        let Some(idle) = serving.idle else { return std::future::pending().await };
        let first = if serving.first_head_is_due { serving.head_time } else { idle };
        let opened = Instant::now();
        loop {
            let due = match *self.0.lock() {
                Working { requests: 0, since: None } => opened + first,
                Working { requests: 0, since: Some(since) } => since + idle,
                Working { .. } => Instant::now() + idle,
            };
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut working = self.0.0.lock();
        working.requests -= 1;
        working.since = Some(Instant::now());
    }
}

/// A panic in one request is that request's alone. Its record writes `aborted` when it is dropped.
async fn guarded(handling: impl Future<Output = Response<ResponseBody>>) -> Result<Response<ResponseBody>, Infallible> {
    Ok(AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a request panicked; this is a bug");
        let rejection =
            Rejection::new(Code::InternalError, "the proxy failed at this request", "report this").and_close();
        rejection.response(Way::Forward, &RequestId::generate())
    }))
}

#[cfg(test)]
mod tests;
