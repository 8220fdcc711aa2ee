//! The downstream byte stream with the scanner on its reading side.

use super::head::{HeadLimits, Violation};
use super::scanner::{Scanner, Verdict};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The header of a stand-in request. Its value starts with a number that only this process knows.
const STAND_IN: &str = "x-nexus-stand-in";

/// Bytes kept behind a request whose answer is not decided yet.
const UNDECIDED_BYTES: usize = 64 * 1024;

static NONCE: LazyLock<String> = LazyLock::new(|| {
    crate::secret::random_bytes::<16>().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
});

/// The violation that a request stands in for; `None` for a real request.
#[must_use]
pub fn violation_of(headers: &http::HeaderMap) -> Option<Violation> {
    let value = headers.get(STAND_IN)?.to_str().ok()?;
    let number = value.strip_prefix(NONCE.as_str())?.strip_prefix('-')?;
    Violation::from_number(number.parse().ok()?)
}

fn stand_in(violation: Violation) -> Bytes {
    let nonce = NONCE.as_str();
    let number = violation.number();
    Bytes::from(format!("GET / HTTP/1.1\r\nhost: nexus\r\n{STAND_IN}: {nonce}-{number}\r\nconnection: close\r\n\r\n"))
}

const UNDECIDED: u8 = 0;
const SWITCHED: u8 = 1;
const STAYED: u8 = 2;

/// Tells a connection's stream what the answer to a CONNECT or an upgrade was. Shared by the stream and its requests.
#[derive(Debug, Clone, Default)]
pub struct Decision(Arc<AtomicU8>);

impl Decision {
    /// The answer switches protocols; what follows is not HTTP.
    pub fn switched(&self) {
        self.0.store(SWITCHED, Ordering::Release);
    }

    /// The answer was an ordinary one; what follows is the next request.
    pub fn stayed(&self) {
        self.0.store(STAYED, Ordering::Release);
    }
}

/// A downstream stream whose heads are judged before anybody parses them.
#[derive(Debug)]
pub struct GuardedStream<S> {
    inner: S,
    scanner: Scanner,
    /// Bytes that may pass.
    ready: Bytes,
    /// Bytes of a head that is not complete, or behind an undecided request.
    held: BytesMut,
    decision: Decision,
    undecided: bool,
    end: Option<End>,
    head_time: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// The agent closed.
    Closed,
    /// A head was refused: the rest is read and dropped, so that closing does not reset the refusal away.
    Refused,
    /// The body was refused.
    BadBody,
}

impl<S> GuardedStream<S> {
    /// Guards a stream that HTTP/1.1 requests come from. A head must be complete `head_time` after its first byte, and
    /// the first one `head_time` after now if `first_head_is_due`.
    pub fn new(inner: S, limits: HeadLimits, head_time: Duration, first_head_is_due: bool) -> Self {
        Self {
            inner,
            scanner: Scanner::new(limits),
            ready: Bytes::new(),
            held: BytesMut::new(),
            decision: Decision::default(),
            undecided: false,
            end: None,
            head_time,
            deadline: first_head_is_due.then(|| Box::pin(tokio::time::sleep(head_time))),
        }
    }

    /// The handle by which answers are told.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision.clone()
    }

    /// The stream itself after a switch of protocols, and the bytes that were read from it and not passed on.
    #[must_use]
    pub fn into_parts(self) -> (S, Bytes) {
        let mut early = BytesMut::from(self.ready.as_ref());
        early.extend_from_slice(&self.held);
        (self.inner, early.freeze())
    }

    /// Judges `data`, which continues what is held; gives how many bytes of it pass, and holds the rest.
    fn judge(&mut self, data: &[u8]) -> usize {
        let step = self.scanner.advance(data);
        match step.verdict {
            Verdict::Incomplete => self.held.extend_from_slice(&data[step.passed..]),
            Verdict::Undecided => {
                self.undecided = true;
                self.decision.0.store(UNDECIDED, Ordering::Release);
                self.held.extend_from_slice(&data[step.passed..]);
            }
            Verdict::Refused(violation) => {
                self.ready = stand_in(violation);
                self.end = Some(End::Refused);
            }
            Verdict::BadBody(_) => self.end = Some(End::BadBody),
        }
        if self.held.is_empty() || self.undecided {
            self.deadline = None;
        }
        step.passed
    }

    fn late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deadline.is_none() && !self.held.is_empty() && !self.undecided {
            self.deadline = Some(Box::pin(tokio::time::sleep(self.head_time)));
        }
        match self.deadline.as_mut().map(|deadline| deadline.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut))),
            _ => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> GuardedStream<S> {
    /// Reads and drops.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                other => return other,
            }
        }
    }

    /// Reads behind an undecided request, so that a closed connection is noticed.
    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < UNDECIDED_BYTES {
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.held.extend_from_slice(buffer.filled()),
                Poll::Ready(Ok(())) if !self.held.is_empty() => return Poll::Pending,
                other => return other,
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let length = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..length]);
                this.ready.advance(length);
                return Poll::Ready(Ok(()));
            }
            match this.end {
                Some(End::Closed) => return Poll::Ready(Ok(())),
                Some(End::Refused) => return this.poll_drain(cx),
                Some(End::BadBody) => return Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData))),
                None => {}
            }
            if this.undecided {
                match this.decision.0.load(Ordering::Acquire) {
                    UNDECIDED => return this.poll_undecided(cx),
                    decided => {
                        this.undecided = false;
                        this.scanner.decide(decided == SWITCHED);
                        let held = this.held.split();
                        let passed = this.judge(&held);
                        if this.ready.is_empty() {
                            this.ready = held.freeze().split_to(passed);
                        }
                        continue;
                    }
                }
            }
            if this.held.is_empty() {
                // The common case: a whole head arrives at once and passes where it lies.
                let before = buf.filled().len();
                match Pin::new(&mut this.inner).poll_read(cx, buf) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return this.late(cx),
                }
                let (new, passed) = {
                    let new = &buf.filled()[before..];
                    (new.len(), this.judge(new))
                };
                if new == 0 {
                    return Poll::Ready(Ok(()));
                }
                let standing_in = std::mem::take(&mut this.ready);
                buf.set_filled(before + passed);
                this.ready = standing_in;
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut bytes = [0; 8192];
                let mut buffer = ReadBuf::new(&mut bytes);
                match Pin::new(&mut this.inner).poll_read(cx, &mut buffer) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return this.late(cx),
                }
                if buffer.filled().is_empty() {
                    // Closed within a head: the engine sees the end, and nothing of the head.
                    this.end = Some(End::Closed);
                    continue;
                }
                let mut data = this.held.split();
                data.extend_from_slice(buffer.filled());
                let passed = this.judge(&data);
                let standing_in = std::mem::take(&mut this.ready);
                let mut ready = BytesMut::from(&data[..passed]);
                ready.extend_from_slice(&standing_in);
                this.ready = ready.freeze();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
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

#[cfg(test)]
mod tests;
