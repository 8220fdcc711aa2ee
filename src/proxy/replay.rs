//! A request body that remembers what it has sent, so that the request can be sent once more.
//!
//! Nothing is held back: bytes go upstream as they come and a copy (shared, not duplicated) stays until the answer's
//! head is known to be good.

use super::body::Progress;
use crate::net::BodyError;
use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// What all kept bodies together may hold.
#[derive(Debug, Default)]
pub struct ReplayBudget(AtomicUsize);

#[derive(Debug)]
struct Reserved {
    budget: Arc<ReplayBudget>,
    limit: usize,
    bytes: usize,
}

impl Reserved {
    /// Takes so many more bytes of the budget, if it has them.
    fn grow(&mut self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let grown = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    fn give_back(&mut self) {
        self.budget.0.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A body that can be sent again, shared by its attempts.
#[derive(Debug)]
pub struct Replay(Mutex<State>);

#[derive(Debug)]
struct State {
    live: Incoming,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    /// More came than may be kept.
    overflowed: bool,
    ended: bool,
    attempt: u32,
    reserved: Reserved,
}

impl State {
    /// The body cannot be sent again.
    fn drop_kept(&mut self) {
        self.overflowed = true;
        self.kept = Vec::new();
        self.reserved.give_back();
    }
}

impl Replay {
    /// Keeps a body of up to `limit` bytes, within the budget of all bodies.
    #[must_use]
    pub fn keep(live: Incoming, limit: usize, budget: &Arc<ReplayBudget>, budget_limit: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            live,
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            overflowed: false,
            ended: false,
            attempt: 0,
            reserved: Reserved { budget: Arc::clone(budget), limit: budget_limit, bytes: 0 },
        })))
    }

    /// Begins a further attempt, which sends from the start; `None` when more was sent than could be kept. Earlier
    /// attempts end with an error.
    #[must_use]
    pub fn attempt(self: &Arc<Self>) -> Option<ReplayBody> {
        let mut state = self.0.lock();
        if state.overflowed {
            return None;
        }
        state.attempt += 1;
        let attempt = state.attempt;
        drop(state);
        Some(ReplayBody { replay: Arc::clone(self), attempt, next: 0 })
    }

    /// The answer is good: what was kept can go.
    pub fn forget(&self) {
        let mut state = self.0.lock();
        state.drop_kept();
    }
}

/// One attempt's body.
#[derive(Debug)]
pub struct ReplayBody {
    replay: Arc<Replay>,
    attempt: u32,
    next: usize,
}

impl ReplayBody {
    /// The next frame; trailers of requests do not travel.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.replay.0.lock();
        if state.attempt != self.attempt {
            return Poll::Ready(Some(Err("a later attempt took over".into())));
        }
        if let Some(bytes) = state.kept.get(self.next) {
            let bytes = bytes.clone();
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        while !state.ended {
            match std::task::ready!(Pin::new(&mut state.live).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    progress.add(bytes.len());
                    if !state.overflowed {
                        state.kept_bytes += bytes.len();
                        if state.kept_bytes <= state.limit && state.reserved.grow(bytes.len()) {
                            state.kept.push(bytes.clone());
                            self.next += 1;
                        } else {
                            state.drop_kept();
                        }
                    }
                    if state.live.is_end_stream() {
                        progress.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => {
                    progress.fail();
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => state.ended = true,
            }
        }
        progress.finish();
        Poll::Ready(None)
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        let state = self.replay.0.lock();
        self.next >= state.kept.len() && (state.ended || state.live.is_end_stream())
    }
}
