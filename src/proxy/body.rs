//! The bodies on both sides: what goes upstream, and what goes back to the agent.

use super::finish::Record;
use super::live::{Cut, Fuse, Side, Watch};
use super::replay::ReplayBody;
use super::scrub::{Gunzip, Scrubber};
use crate::net::{BodyError, UpstreamBody};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A silence after which held-back bytes are let go.
const PAUSE: Duration = Duration::from_millis(50);

/// How far a request has come, shared by all its parts: it is under way for as long as one of them holds this.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    to_agent: AtomicU64,
    done: AtomicBool,
    failed: AtomicBool,
    fuse: Fuse,
    watch: OnceLock<Watch>,
}

impl Progress {
    /// Bytes that came from the agent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether all of it came.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Whether the agent's side failed: malformed or cut off.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether it was cut.
    #[must_use]
    pub fn fuse(&self) -> &Fuse {
        &self.fuse
    }

    /// Its place among what is under way, once it is known who calls.
    pub(super) fn watch(&self) -> &OnceLock<Watch> {
        &self.watch
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of a spliced stream that went to the agent.
    pub(super) fn to_agent(&self) -> u64 {
        self.to_agent.load(Ordering::Relaxed)
    }

    pub(super) fn add_to_agent(&self, bytes: usize) {
        self.to_agent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// What goes upstream.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    length: Option<u64>,
    progress: Arc<Progress>,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Fixed(Bytes),
    Live(Incoming),
    Replay(ReplayBody),
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub fn nothing(progress: Arc<Progress>) -> Self {
        progress.finish();
        Self { source: Source::Nothing, length: Some(0), progress }
    }

    /// A body that is all there.
    #[must_use]
    pub fn fixed(bytes: Bytes, progress: Arc<Progress>) -> Self {
        progress.finish();
        Self { length: Some(bytes.len() as u64), source: Source::Fixed(bytes), progress }
    }

    /// A body that streams through.
    #[must_use]
    pub fn live(incoming: Incoming, progress: Arc<Progress>) -> Self {
        Self { length: incoming.size_hint().exact(), source: Source::Live(incoming), progress }
    }

    /// One attempt of a body that can be sent again.
    #[must_use]
    pub fn replay(body: ReplayBody, length: Option<u64>, progress: Arc<Progress>) -> Self {
        Self { source: Source::Replay(body), length, progress }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.progress.fuse.poll_cut(Side::Upstream, cx).is_ready() {
            this.progress.fail();
            return Poll::Ready(Some(Err("cut".into())));
        }
        match &mut this.source {
            Source::Nothing => Poll::Ready(None),
            Source::Fixed(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Nothing;
                this.progress.add(bytes.len());
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Live(incoming) => loop {
                match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        // Trailers of requests do not travel.
                        let Ok(bytes) = frame.into_data() else { continue };
                        this.progress.add(bytes.len());
                        if incoming.is_end_stream() {
                            this.progress.finish();
                        }
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                    Some(Err(error)) => {
                        this.progress.fail();
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    None => {
                        this.progress.finish();
                        return Poll::Ready(None);
                    }
                }
            },
            Source::Replay(body) => body.poll_frame(cx, &this.progress),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Fixed(bytes) => bytes.is_empty(),
            Source::Live(incoming) => incoming.is_end_stream(),
            Source::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Why an answer broke off on the way to the agent.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The upstream broke off.
    #[error("the upstream broke off")]
    Upstream(#[from] hyper::Error),
    /// Its coding cannot be undone.
    #[error(transparent)]
    Coding(#[from] super::scrub::GunzipError),
    /// It may not go on.
    #[error("cut: {}", .0.as_str())]
    Cut(Cut),
    /// It was silent for longer than the limit.
    #[error("the upstream was silent for longer than limits.stream_idle")]
    Idle,
}

/// What goes back to the agent. Writes the request's terminal audit line when it is through or dropped.
pub struct ResponseBody(Kind);

enum Kind {
    Text(Bytes),
    Answer(Box<Answer>),
}

/// An upstream's answer on its way.
pub struct Answer {
    /// The upstream's body.
    pub body: UpstreamBody<RequestBody>,
    /// What looks for reflected credentials.
    pub scrubber: Option<Scrubber>,
    /// What undoes gzip, when the answer is scrubbed.
    pub gunzip: Option<Gunzip>,
    /// Whether trailers travel (gRPC).
    pub trailers: bool,
    /// The longest silence.
    pub idle: Option<Duration>,
    /// The request's record.
    pub record: Record,
    idle_timer: Option<Pin<Box<Sleep>>>,
    pause_timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that the agent is still to get, if that is known: an engine stops asking when it has them all.
    left: Option<u64>,
    ended: bool,
    last_trailers: Option<HeaderMap>,
}

impl Answer {
    /// An answer whose record is not finished yet.
    #[must_use]
    pub fn new(body: UpstreamBody<RequestBody>, record: Record) -> Self {
        Self {
            body,
            scrubber: None,
            gunzip: None,
            trailers: false,
            idle: None,
            record,
            idle_timer: None,
            pause_timer: None,
            left: None,
            ended: false,
            last_trailers: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        loop {
            if let Some(gunzip) = &mut self.gunzip
                && let Some(plain) = gunzip.decode()?
            {
                match self.scrub(plain) {
                    bytes if bytes.is_empty() => continue,
                    bytes => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                }
            }
            if self.ended {
                return Poll::Ready(self.last_trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            match self.poll_upstream(cx) {
                Poll::Pending => return self.poll_pause(cx),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(gunzip) = &mut self.gunzip {
                            gunzip.push(data);
                            continue;
                        }
                        match self.scrub(data) {
                            bytes if bytes.is_empty() => {}
                            bytes => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                        }
                    }
                    Err(frame) => {
                        if let (true, Ok(mut trailers)) = (self.trailers, frame.into_trailers()) {
                            super::hygiene::clean_response(&mut trailers);
                            if let Some(scrubber) = &mut self.scrubber {
                                scrubber.scrub_headers(&mut trailers);
                            }
                            self.last_trailers = Some(trailers);
                        }
                    }
                },
                Poll::Ready(None) => {
                    self.ended = true;
                    if let Some(gunzip) = &self.gunzip {
                        gunzip.finish()?;
                    }
                    let held = self.scrubber.as_mut().map(Scrubber::finish).unwrap_or_default();
                    if !held.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(held))));
                    }
                }
            }
        }
    }

    fn scrub(&mut self, data: Bytes) -> Bytes {
        match &mut self.scrubber {
            Some(scrubber) => scrubber.push(data),
            None => data,
        }
    }

    /// The upstream has nothing now: after a moment, what little is held back is let go.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match &mut self.scrubber {
            Some(scrubber) if scrubber.may_let_go() => {
                let timer = self.pause_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
                ready!(timer.as_mut().poll(cx));
                self.pause_timer = None;
                Poll::Ready(Some(Ok(Frame::data(scrubber.let_go()))))
            }
            _ => Poll::Pending,
        }
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle_timer = None;
                self.pause_timer = None;
                Poll::Ready(frame.map(|frame| frame.map_err(AnswerError::from)))
            }
            Poll::Pending => {
                let Some(idle) = self.idle else { return Poll::Pending };
                let timer = self.idle_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                if timer.deadline() <= Instant::now() || timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Err(AnswerError::Idle)));
                }
                Poll::Pending
            }
        }
    }

    fn is_through(&self) -> bool {
        let held = self.scrubber.as_ref().is_some_and(Scrubber::is_holding);
        let has_all = self.left == Some(0) && !self.trailers;
        let upstream_ended = self.gunzip.is_none() && self.body.is_end_stream() && !held;
        self.last_trailers.is_none() && (self.ended || has_all || upstream_ended)
    }
}

impl ResponseBody {
    /// A short text of our own.
    #[must_use]
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self(Kind::Text(text.into()))
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Text(Bytes::new()))
    }

    /// The answer is given up, for a reason of ours.
    pub fn abort(&mut self, reason: &'static str) {
        if let Kind::Answer(answer) = &mut self.0 {
            answer.record.abort(reason);
        }
    }

    /// # Errors
    /// When it was cut.
    pub(super) fn uncut(&self) -> Result<(), super::reject::Rejection> {
        match &self.0 {
            Kind::Text(_) => Ok(()),
            Kind::Answer(answer) => answer.record.uncut(),
        }
    }

    /// An upstream's answer.
    #[must_use]
    pub fn answer(mut answer: Answer) -> Self {
        answer.left = if answer.gunzip.is_some() { None } else { answer.body.size_hint().exact() };
        if answer.is_through() {
            answer.record.end(0);
        }
        Self(Kind::Answer(Box::new(answer)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match &mut self.get_mut().0 {
            Kind::Text(text) => {
                let text = std::mem::take(text);
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
            }
            Kind::Answer(answer) => {
                let frame = match answer.record.poll_cut(cx) {
                    Poll::Ready(cut) => Some(Err(AnswerError::Cut(cut))),
                    Poll::Pending => ready!(answer.poll(cx)),
                };
                match &frame {
                    Some(Ok(frame)) => {
                        let length = frame.data_ref().map_or(0, Bytes::len);
                        answer.record.add_response_bytes(length);
                        answer.left = answer.left.map(|left| left.saturating_sub(length as u64));
                        // The terminal line is written before the last bytes are let go.
                        if answer.is_through() {
                            answer.record.end(answer.scrubber.as_ref().map_or(0, Scrubber::found));
                        }
                    }
                    Some(Err(error)) => answer.record.abort(match error {
                        AnswerError::Upstream(_) => "upstream_broke_off",
                        AnswerError::Coding(_) => "upstream_encoding",
                        AnswerError::Idle => "stream_idle",
                        AnswerError::Cut(cut) => cut.as_str(),
                    }),
                    None => answer.record.end(answer.scrubber.as_ref().map_or(0, Scrubber::found)),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(text) => text.is_empty(),
            Kind::Answer(answer) => answer.is_through(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(text) => SizeHint::with_exact(text.len() as u64),
            Kind::Answer(answer) if answer.gunzip.is_some() => SizeHint::default(),
            Kind::Answer(answer) => answer.body.size_hint(),
        }
    }
}
