//! Two streams handed to each other: blind tunnels and upgraded connections.

use super::body::Progress;
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Copies both ways until both sides have ended. `from_upstream` and `from_downstream` are bytes that were read already.
/// Bytes are counted as they pass, so that a stream that is cut off has its count too.
///
/// # Errors
/// When either side fails.
pub async fn splice<D, U>(
    downstream: &mut D,
    mut upstream: U,
    from_upstream: Bytes,
    from_downstream: Bytes,
    progress: Arc<Progress>,
) -> io::Result<()>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut downstream = Counted { stream: downstream, progress };
    if !from_upstream.is_empty() {
        downstream.write_all(&from_upstream).await?;
        downstream.flush().await?;
    }
    if !from_downstream.is_empty() {
        upstream.write_all(&from_downstream).await?;
        upstream.flush().await?;
        downstream.progress.add(from_downstream.len());
    }
    tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await?;
    Ok(())
}

/// The agent's side.
struct Counted<'s, S> {
    stream: &'s mut S,
    progress: Arc<Progress>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.stream).poll_read(cx, buffer))?;
        self.progress.add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.stream).poll_write(cx, bytes))?;
        self.progress.add_to_agent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
