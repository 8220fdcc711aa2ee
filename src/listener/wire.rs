//! The streams that a tunnel can run on: a socket, TLS over one, or a stream of an h2 connection.

use super::front::Raw;
use crate::proxy::framing::GuardedStream;
use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// TLS of a listener.
pub(super) type Tls = TlsStream<Raw>;

/// What is left of a connection after its CONNECT.
pub(super) enum Wire {
    /// The socket.
    Raw(Raw),
    /// TLS over one.
    Tls(Box<Rewound<Tls>>),
    /// A stream among others.
    Stream(TokioIo<Upgraded>),
}

impl Wire {
    /// The stream under an upgrade, what was read of it already included.
    pub(super) fn of(upgraded: Upgraded) -> Self {
        let upgraded = match upgraded.downcast::<TokioIo<GuardedStream<Raw>>>() {
            Ok(parts) => {
                let (mut stream, early) = parts.io.into_inner().into_parts();
                stream.rewind(&[parts.read_buf.as_ref(), early.as_ref()].concat());
                return Self::Raw(stream);
            }
            Err(upgraded) => upgraded,
        };
        match upgraded.downcast::<TokioIo<GuardedStream<Tls>>>() {
            Ok(parts) => {
                let (inner, early) = parts.io.into_inner().into_parts();
                let early = [parts.read_buf.as_ref(), early.as_ref()].concat().into();
                Self::Tls(Box::new(Rewound { early, inner }))
            }
            Err(upgraded) => Self::Stream(TokioIo::new(upgraded)),
        }
    }
}

/// A stream with bytes that were read from it already.
pub(super) struct Rewound<S> {
    early: Bytes,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let length = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..length]);
        this.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
