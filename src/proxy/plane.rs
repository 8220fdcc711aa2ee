//! What every request of the process shares.

use super::body::RequestBody;
use super::enroll::Enrolment;
use super::hygiene::Pseudonym;
use super::replay::ReplayBudget;
use crate::audit::Spool;
use crate::config::Loader;
use crate::credential::Credentials;
use crate::net::Pool;
use crate::store::Usage;
use crate::telemetry::Metrics;
use crate::types::{Clock, ConnectionId, TokenId, UnixSeconds};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The data plane's shared parts. Share by `Arc`.
pub struct Plane {
    /// Snapshots of config and store.
    pub loader: Arc<Loader>,
    /// Leases and refreshes.
    pub credentials: Arc<Credentials>,
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
    /// Connections, tunnels and upgraded streams, waited for at the end.
    pub tasks: TaskTracker,
    /// Cancelled when the process begins to stop: connections finish what they have and close.
    pub draining: CancellationToken,
    /// Cancelled when the grace time is over: what is still open is cut.
    pub ending: CancellationToken,
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
