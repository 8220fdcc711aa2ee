//! When a connection may be refreshed again: the interval after a refresh, the breaker after failures.

use super::{RefreshError, Refreshed, TokenError};
use crate::secret::random_bytes;
use crate::store::CredentialUpdate;
use crate::types::UnixSeconds;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Seconds between refreshes of a connection whose newest version has had no answer but 401.
const INTERVAL: u64 = 10;

/// The longest pause that the breaker makes by itself.
const LONGEST_PAUSE: u64 = 300;

/// The longest `Retry-After` that is obeyed.
const LONGEST_RETRY_AFTER: u64 = 3600;

/// What a refresh came to, for everybody who waits for it; `None` while it is under way.
pub(super) type Landing = Option<Result<Refreshed, Arc<RefreshError>>>;

/// What is known about one connection's refreshes in this process.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The newest version that had an answer other than 401; 0 for none.
    proven: AtomicU64,
    /// The newest version that is known to be refused; 0 for none.
    refused: AtomicU64,
    /// The rest, which only refreshes look at.
    pub(super) state: Mutex<State>,
}

/// The part of a [`Record`] that is locked; never across an await.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The refresh under way.
    pub(super) flight: Option<watch::Receiver<Landing>>,
    /// A new credential that the store has not taken yet, and the fence it was got under.
    pub(super) unsaved: Option<(CredentialUpdate, i64)>,
    /// The version for which a call was sent and its answer lost, so that its grant may be used up; 0 for none.
    pub(super) lost_answer: u64,
    refreshed: Option<Given>,
    breaker: Breaker,
}

/// The version that the last refresh gave. The interval is about this one: another, such as a new secret set by a
/// person, is not held back.
#[derive(Debug, Clone, Copy)]
struct Given {
    version: u64,
    at: UnixSeconds,
}

/// Opens after failures, for a time that doubles.
#[derive(Debug, Default)]
struct Breaker {
    /// The version that could not be refreshed: another one, such as a new secret set by a person, starts anew.
    version: u64,
    failures: u32,
    since: UnixSeconds,
    seconds: u64,
}

impl Record {
    pub(super) fn worked(&self, version: u64) {
        // Loaded first: this runs for every answer, and a shared read costs nothing.
        if self.proven.load(Ordering::Relaxed) < version {
            self.proven.fetch_max(version, Ordering::Relaxed);
        }
    }

    pub(super) fn mark_refused(&self, version: u64) {
        self.refused.fetch_max(version, Ordering::Relaxed);
    }

    pub(super) fn is_refused(&self, version: u64) -> bool {
        self.refused.load(Ordering::Relaxed) >= version
    }

    /// Seconds to wait because a refresh gave `version` a short while ago and it has not been seen to work.
    pub(super) fn interval_left(&self, state: &State, version: u64, now: UnixSeconds) -> Option<u64> {
        if self.proven.load(Ordering::Relaxed) >= version {
            return None;
        }
        let given = state.refreshed.filter(|given| given.version == version)?;
        seconds_left(given.at, INTERVAL, now)
    }
}

impl State {
    /// Seconds to wait because refreshing `version` failed.
    pub(super) fn breaker_left(&self, version: u64, now: UnixSeconds) -> Option<u64> {
        let breaker = &self.breaker;
        (breaker.failures > 0 && breaker.version == version)
            .then(|| seconds_left(breaker.since, breaker.seconds, now))
            .flatten()
    }

    /// Takes note of how a refresh of `version` ended.
    pub(super) fn landed(&mut self, version: u64, result: &Result<Refreshed, RefreshError>, now: UnixSeconds) {
        match result {
            Ok(Refreshed::Version(version)) => {
                self.refreshed = Some(Given { version: *version, at: now });
                self.breaker = Breaker::default();
            }
            Err(RefreshError::Token(error)) => {
                let retry_after = match error {
                    TokenError::Busy { retry_after, .. } => retry_after.unwrap_or(0),
                    _ => 0,
                };
                self.breaker.failed(version, retry_after, now);
            }
            Err(_) => {}
        }
    }
}

impl Breaker {
    fn failed(&mut self, version: u64, retry_after: u64, now: UnixSeconds) {
        if self.version != version {
            *self = Self { version, ..Self::default() };
        }
        self.failures = self.failures.saturating_add(1);
        let whole = 1_u64.checked_shl(self.failures - 1).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        // Between half of it and all of it, so that many nodes do not come back together.
        let spread = u64::from(u16::from_be_bytes(random_bytes())) % (whole / 2 + 1);
        self.since = now;
        self.seconds = (whole - spread).max(1).max(retry_after.min(LONGEST_RETRY_AFTER));
    }
}

/// Seconds until more than `seconds` have gone by since `since`: the clock counts whole seconds, so one more is never
/// too early. A clock that was set back ends the wait rather than prolonging it.
fn seconds_left(since: UnixSeconds, seconds: u64, now: UnixSeconds) -> Option<u64> {
    let gone = u64::try_from(now.saturating_sub(since)).ok()?;
    (gone <= seconds).then(|| seconds - gone + 1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn unusable() -> Result<Refreshed, RefreshError> {
        Err(TokenError::Unusable { reason: String::new() }.into())
    }

    fn busy(retry_after: u64) -> Result<Refreshed, RefreshError> {
        Err(TokenError::Busy { status: 429, retry_after: Some(retry_after) }.into())
    }

    #[test]
    fn interval_holds_until_the_version_has_worked() {
        let record = Record::default();
        let mut state = State::default();
        assert_eq!(record.interval_left(&state, 1, 1000), None, "no refresh yet");
        state.landed(1, &Ok(Refreshed::Version(2)), 1000);
        assert_eq!(record.interval_left(&state, 2, 1000), Some(11));
        assert_eq!(record.interval_left(&state, 2, 1010), Some(1));
        assert_eq!(record.interval_left(&state, 2, 1011), None);
        assert_eq!(record.interval_left(&state, 3, 1000), None, "a person's new secret is not held back");
        record.worked(1);
        assert_eq!(record.interval_left(&state, 2, 1001), Some(10), "an older version proves nothing");
        record.worked(2);
        assert_eq!(record.interval_left(&state, 2, 1001), None);
    }

    #[test]
    fn breaker_doubles_up_to_five_minutes_and_a_success_closes_it() {
        let mut state = State::default();
        let mut now = 1000;
        for failures in 0..40_u32 {
            state.landed(1, &unusable(), now);
            let left = state.breaker_left(1, now).unwrap() - 1;
            let whole = 1_u64.checked_shl(failures).unwrap_or(300).min(300);
            assert!((whole.div_ceil(2)..=whole).contains(&left), "{failures} failures: {left} s");
            assert_eq!(state.breaker_left(2, now), None, "another version is not held back");
            now += i64::try_from(left).unwrap() + 1;
            assert_eq!(state.breaker_left(1, now), None);
        }
        state.landed(1, &Ok(Refreshed::Version(2)), now);
        assert_eq!(state.breaker_left(1, now), None);
        state.landed(2, &unusable(), now);
        assert_eq!(state.breaker_left(2, now), Some(2), "starts again at one second");
    }

    #[test]
    fn retry_after_is_obeyed_up_to_an_hour() {
        let mut state = State::default();
        state.landed(1, &busy(120), 1000);
        assert_eq!(state.breaker_left(1, 1000), Some(121));
        state.landed(1, &busy(u64::MAX), 1000);
        assert_eq!(state.breaker_left(1, 1000), Some(3601));
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let mut state = State::default();
        state.landed(1, &busy(120), 1000);
        assert_eq!(state.breaker_left(1, 999), None);
    }
}
