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

impl ReplayBudget {
    fn reserve(self: &Arc<Self>, bytes: usize, limit: usize) -> Option<Reserved> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= limit)
        });
        taken.ok().map(|_| Reserved { budget: Arc::clone(self), bytes })
    }
}

#[derive(Debug)]
struct Reserved {
    budget: Arc<ReplayBudget>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
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
    reserved: Option<Reserved>,
}

impl Replay {
    /// Keeps a body of up to `limit` bytes within the budget; gives the body back when the budget is used up.
    ///
    /// # Errors
    /// The body, which then cannot be replayed.
    pub fn keep(
        live: Incoming,
        limit: usize,
        budget: &Arc<ReplayBudget>,
        budget_limit: usize,
    ) -> Result<Arc<Self>, Incoming> {
        match budget.reserve(limit, budget_limit) {
            None => Err(live),
            reserved => Ok(Arc::new(Self(Mutex::new(State {
                live,
                kept: Vec::new(),
                kept_bytes: 0,
                limit,
                overflowed: false,
                ended: false,
                attempt: 0,
                reserved,
            })))),
        }
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
        state.overflowed = true;
        state.kept = Vec::new();
        state.reserved = None;
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
                        if state.kept_bytes > state.limit {
                            state.overflowed = true;
                            state.kept = Vec::new();
                            state.reserved = None;
                        } else {
                            state.kept.push(bytes.clone());
                            self.next += 1;
                        }
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
