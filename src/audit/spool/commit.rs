//! Group commit: one thread syncs for everybody who waits, and tries a spool that failed again.

use super::segments::Segment;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often a spool that cannot be written is tried again without a request that asks for it.
const RETRY: Duration = Duration::from_secs(1);

/// Somebody who wrote to a segment and waits until it is on disk.
struct Waiting {
    segment: Arc<Segment>,
    done: oneshot::Sender<io::Result<()>>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    stopped: bool,
}

/// What the thread is asked to do.
pub(super) struct Commits {
    state: Mutex<State>,
    /// Changed only with the state locked, so that the thread sees each change.
    healthy: AtomicBool,
    wake: Condvar,
}

/// What comes next.
pub(super) enum Work {
    /// Sync these.
    Sync(Batch),
    /// Try to write again.
    Retry,
    /// End.
    Stop,
}

/// Everybody whom the next sync serves.
pub(super) struct Batch(Vec<Waiting>);

impl Commits {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), healthy: AtomicBool::new(true), wake: Condvar::new() }
    }

    /// Waits until what was written to `segment` before this call is on disk.
    pub(super) async fn synced(&self, segment: Arc<Segment>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.state.lock().waiting.push(Waiting { segment, done });
        self.wake.notify_one();
        wait.await.unwrap_or_else(|_| Err(io::Error::other("the spool is closed")))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Says whether that is a change. While it is not healthy the thread retries.
    pub(super) fn set_healthy(&self, healthy: bool) -> bool {
        if self.is_healthy() == healthy {
            return false;
        }
        let _state = self.state.lock();
        let changed = self.healthy.swap(healthy, Ordering::Relaxed) != healthy;
        self.wake.notify_one();
        changed
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_one();
    }

    /// Blocks until there is something to do.
    pub(super) fn next(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                return Work::Sync(Batch(std::mem::take(&mut state.waiting)));
            }
            if state.stopped {
                return Work::Stop;
            }
            if self.is_healthy() {
                self.wake.wait(&mut state);
            } else if self.wake.wait_for(&mut state, RETRY).timed_out() {
                return Work::Retry;
            }
        }
    }
}

impl Batch {
    /// Syncs each segment once and tells everybody.
    pub(super) fn sync(self) -> io::Result<()> {
        let mut failure = Ok(());
        let mut waiting = self.0;
        while let Some(first) = waiting.first() {
            let segment = Arc::clone(&first.segment);
            let result = segment.sync();
            for served in waiting.extract_if(.., |waiting| Arc::ptr_eq(&waiting.segment, &segment)) {
                // One who no longer waits needs no answer.
                let _ = served.done.send(copy(&result));
            }
            failure = failure.and(result);
        }
        failure
    }
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)),
    }
}
