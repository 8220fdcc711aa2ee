//! What every request of the process shares.

use super::body::RequestBody;
use super::enroll::Enrolment;
use super::guesses::WrongTokens;
use super::hygiene::Pseudonym;
use super::live::Live;
use super::replay::ReplayBudget;
use crate::audit::Spool;
use crate::config::Loader;
use crate::credential::Credentials;
use crate::identity::Verifier;
use crate::net::Pool;
use crate::store::{Store, Usage};
use crate::telemetry::Metrics;
use crate::types::{Clock, ConnectionId, TokenId, UnixSeconds};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The data plane's shared parts. Share by `Arc`.
pub struct Plane {
    /// Snapshots of config and store.
    pub loader: Arc<Loader>,
    /// Puts what requests wrote to the store into force.
    pub applies: Applies,
    /// The store, for what requests write.
    pub store: Arc<dyn Store>,
    /// Leases and refreshes.
    pub credentials: Arc<Credentials>,
    /// Verifies what callers present.
    pub verifier: Arc<Verifier>,
    /// The audit record.
    pub spool: Arc<Spool>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Upstream connections.
    pub pool: Pool<RequestBody>,
    /// What kept bodies may hold together.
    pub replay_budget: Arc<ReplayBudget>,
    /// This install in `Via`.
    pub pseudonym: Pseudonym,
    /// The time of day.
    pub clock: Clock,
    /// What certificates of agents are issued with.
    pub enrolment: Arc<Enrolment>,
    /// When connections and tokens were last used.
    pub usage: Arc<UsageLog>,
    /// What is under way, to be cut when it may not go on.
    pub live: Arc<Live>,
    /// Wrong tokens by address.
    pub wrong_tokens: WrongTokens,
    /// Connections, tunnels and upgraded streams, waited for at the end.
    pub tasks: TaskTracker,
    /// Cancelled when the process begins to stop: connections finish what they have and close.
    pub draining: CancellationToken,
    /// Cancelled when the grace time is over: what is still open is cut.
    pub ending: CancellationToken,
}

impl Plane {
    /// Asks everything under way again, after the snapshot changed or time went by, and cuts what may not go on.
    pub fn judge(&self) {
        for cut in self.live.judge(&self.loader.snapshot(), self.clock.now()) {
            self.metrics.cut(cut as usize - 1);
        }
    }
}

/// Asks the owner of the plane to apply changes of the store at once, and waits for it.
#[derive(Debug, Clone)]
pub struct Applies(mpsc::Sender<oneshot::Sender<Result<i64, String>>>);

/// The owner's end of [`Applies`].
#[derive(Debug)]
pub struct Applying(mpsc::Receiver<oneshot::Sender<Result<i64, String>>>);

impl Applies {
    /// Both ends.
    #[must_use]
    pub fn channel() -> (Self, Applying) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), Applying(receiver))
    }

    /// Returns when the store's changes are in force; gives its generation.
    ///
    /// # Errors
    /// Why they are not, in words.
    pub async fn now(&self) -> Result<i64, String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "the server is stopping".to_owned();
        self.0.send(answer).await.map_err(|_| "the server is stopping".to_owned())?;
        answered.await.map_err(gone)?
    }
}

impl Applying {
    /// The next who asks, to be answered with the generation that is in force.
    pub async fn next(&mut self) -> Option<oneshot::Sender<Result<i64, String>>> {
        self.0.recv().await
    }
}

/// Last-used times since they were last written to the store.
#[derive(Debug, Default)]
pub struct UsageLog {
    connections: DashMap<ConnectionId, UnixSeconds>,
    tokens: DashMap<TokenId, (UnixSeconds, Option<IpAddr>)>,
}

impl UsageLog {
    /// A connection was used.
    pub fn connection(&self, id: &ConnectionId, now: UnixSeconds) {
        if self.connections.get(id).is_none_or(|last| *last != now) {
            self.connections.insert(id.clone(), now);
        }
    }

    /// A token was used.
    pub fn token(&self, id: &TokenId, now: UnixSeconds, address: Option<IpAddr>) {
        if self.tokens.get(id).is_none_or(|last| *last != (now, address)) {
            self.tokens.insert(id.clone(), (now, address));
        }
    }

    /// Everything since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Usage> {
        let mut usage = Vec::new();
        self.connections.retain(|id, at| {
            usage.push(Usage { id: id.to_string(), last_used_at: *at, address: None });
            false
        });
        self.tokens.retain(|id, (at, address)| {
            usage.push(Usage { id: id.to_string(), last_used_at: *at, address: *address });
            false
        });
        usage
    }
}
