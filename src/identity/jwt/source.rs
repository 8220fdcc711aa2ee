//! Where an issuer's keys come from: a file, or a URL that is asked again before the answer is too old.

use super::keys::KeySet;
use crate::net::{Egress, HttpsClient};
use crate::telemetry::Metrics;
use crate::types::{Clock, UnixSeconds, Url};
use arc_swap::ArcSwapOption;
use http::HeaderMap;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// A JWKS endpoint, by https.
    Url(Url),
    /// A file, which the config's watching reads again.
    File(PathBuf),
}

/// What a fetch needs.
#[derive(Clone)]
pub struct Fetcher {
    /// The way out: resolver, address guard and trust roots as for requests.
    pub egress: Arc<Egress>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time of day.
    pub clock: Clock,
}

/// The keys of one location. Shared by snapshots of the config, so that a reload asks nobody again.
#[derive(Debug)]
pub struct KeySource {
    location: KeyLocation,
    current: ArcSwapOption<Held>,
    attempts: Mutex<Attempts>,
}

/// A key set and how long it is good.
#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    /// When it should be asked for again.
    refresh_at: UnixSeconds,
    /// When it is too old to be relied on.
    ends_at: UnixSeconds,
}

#[derive(Debug, Default)]
struct Attempts {
    last: Option<UnixSeconds>,
    /// Ends with the fetch under way.
    running: Option<watch::Receiver<()>>,
}

/// A key set is larger only by mistake or malice.
const MAX_BYTES: usize = 256 * 1024;

/// For one fetch, from resolving to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// Seconds that an answer is good for: at least, unless it says, and at most.
const SHORTEST: u64 = 5 * 60;
const USUAL: u64 = 60 * 60;
const LONGEST: u64 = 24 * 60 * 60;

/// Seconds for which the last good set is used while the endpoint fails.
const LAST_GOOD: i64 = 24 * 60 * 60;

/// Seconds between fetches that are due, or that an unknown key asks for.
const PAUSE: i64 = 30;

/// Seconds between fetches while there are no keys at all.
const PAUSE_WITHOUT_KEYS: i64 = 5;

impl KeySource {
    /// A source that was not asked yet.
    #[must_use]
    pub fn new(location: KeyLocation) -> Self {
        Self { location, current: ArcSwapOption::empty(), attempts: Mutex::default() }
    }

    /// The keys of a file. They are good until there is another source for it.
    #[must_use]
    pub fn fixed(location: KeyLocation, keys: KeySet) -> Self {
        let source = Self::new(location);
        let held = Held { keys: Arc::new(keys), refresh_at: UnixSeconds::MAX, ends_at: UnixSeconds::MAX };
        source.current.store(Some(Arc::new(held)));
        source
    }

    /// Where the keys are.
    #[must_use]
    pub fn location(&self) -> &KeyLocation {
        &self.location
    }

    /// The keys, if there are any that are not too old.
    #[must_use]
    pub fn current(&self, now: UnixSeconds) -> Option<Arc<KeySet>> {
        let held = self.current.load();
        held.as_ref().filter(|held| now < held.ends_at).map(|held| Arc::clone(&held.keys))
    }

    /// Starts a fetch if one is due, and does not wait for it.
    pub fn keep_fresh(self: &Arc<Self>, fetcher: &Fetcher, now: UnixSeconds) {
        let refresh_at = self.current.load().as_ref().map(|held| held.refresh_at);
        match refresh_at {
            Some(refresh_at) if now < refresh_at => {}
            Some(_) => drop(self.start(fetcher, now, PAUSE)),
            None => drop(self.start(fetcher, now, PAUSE_WITHOUT_KEYS)),
        }
    }

    /// The keys; asked for if there are none.
    pub(super) async fn keys(self: &Arc<Self>, fetcher: &Fetcher, now: UnixSeconds) -> Option<Arc<KeySet>> {
        if let Some(keys) = self.current(now) {
            return Some(keys);
        }
        wait(self.start(fetcher, now, PAUSE_WITHOUT_KEYS)?).await;
        self.current(now)
    }

    /// The keys, asked for again because a token named one that is not among `known`. `None` when they are the same,
    /// or when they were asked for a short time ago.
    pub(super) async fn newer_keys(
        self: &Arc<Self>,
        fetcher: &Fetcher,
        known: &Arc<KeySet>,
        now: UnixSeconds,
    ) -> Option<Arc<KeySet>> {
        if let Some(fetch) = self.start(fetcher, now, PAUSE) {
            wait(fetch).await;
        }
        self.current(now).filter(|keys| !Arc::ptr_eq(keys, known))
    }

    /// The fetch under way, or a new one if the last is `pause` seconds ago.
    fn start(self: &Arc<Self>, fetcher: &Fetcher, now: UnixSeconds, pause: i64) -> Option<watch::Receiver<()>> {
        let KeyLocation::Url(url) = &self.location else { return None };
        let mut attempts = self.attempts.lock();
        if let Some(running) = &attempts.running
            && running.has_changed().is_ok()
        {
            return Some(running.clone());
        }
        // A clock that was set back does not stop fetches.
        if attempts.last.is_some_and(|last| now.abs_diff(last) < pause.unsigned_abs()) {
            return None;
        }
        attempts.last = Some(now);
        let (done, running) = watch::channel(());
        attempts.running = Some(running.clone());
        let (source, fetcher, url) = (Arc::clone(self), fetcher.clone(), url.clone());
        // In a task of its own: the request that asked may be given up, and others wait for the same answer.
        tokio::spawn(async move {
            source.fetch(&fetcher, &url).await;
            drop(done);
        });
        Some(running)
    }

    async fn fetch(&self, fetcher: &Fetcher, url: &Url) {
        let client = HttpsClient::new(Arc::clone(&fetcher.egress));
        let answer = client.request(http::Method::GET, url, HeaderMap::new(), MAX_BYTES, FETCH_TIME).await;
        let parsed = answer.map_err(|error| error.to_string()).and_then(|answer| {
            if answer.status != 200 {
                return Err(format!("it answered {}, and redirects are not followed", answer.status));
            }
            // Public keys; the client takes every body for a secret.
            let body = answer.body.as_ref().map(|body| body.expose()).ok_or("it did not answer UTF-8")?;
            let keys = KeySet::parse(body.as_bytes()).map_err(|error| error.to_string())?;
            Ok((keys, answer.max_age))
        });
        fetcher.metrics.key_set_fetched(parsed.is_ok());
        let shown = format!("{}{}", url.target, url.path.path());
        match parsed {
            Ok((keys, max_age)) => {
                let seconds = max_age.unwrap_or(USUAL).clamp(SHORTEST, LONGEST);
                let seconds = i64::try_from(seconds).expect("a day fits");
                let now = fetcher.clock.now();
                let (refresh_at, ends_at) = (now + seconds * 9 / 10, now + LAST_GOOD);
                let before = self.current.load_full();
                // The same keys stay the same set, so that nobody looks for an unknown one in it again.
                let keys = match before {
                    Some(before) if before.keys.is_same(&keys) => Arc::clone(&before.keys),
                    _ => {
                        let count = keys.len();
                        tracing::info!(url = shown, count, "the key set of {shown} has {count} usable keys");
                        Arc::new(keys)
                    }
                };
                self.current.store(Some(Arc::new(Held { keys, refresh_at, ends_at })));
            }
            Err(error) => tracing::warn!(url = shown, "the key set of {shown} could not be fetched: {error}"),
        }
    }
}

/// Until the fetch has ended, however it ended.
async fn wait(mut fetch: watch::Receiver<()>) {
    while fetch.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests;
