//! Wall-clock time, injectable so that tests can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Seconds since 1970-01-01T00:00:00Z.
pub type UnixSeconds = i64;

/// Where the program reads the time of day. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance`]; clones share it.
    #[must_use]
    pub fn fixed(now: UnixSeconds) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now))))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixSeconds {
        match &self.0 {
            Some(fixed) => fixed.load(Ordering::SeqCst),
            None => jiff::Timestamp::now().as_second(),
        }
    }

    /// Moves a fixed clock; the system's clock stays as it is.
    pub fn advance(&self, seconds: i64) {
        if let Some(fixed) = &self.0 {
            fixed.fetch_add(seconds, Ordering::SeqCst);
        }
    }
}
