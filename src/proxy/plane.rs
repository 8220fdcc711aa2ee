//! What every request of the process shares.

use super::body::RequestBody;
use super::hygiene::Pseudonym;
use super::replay::ReplayBudget;
use crate::audit::Spool;
use crate::config::Loader;
use crate::credential::Credentials;
use crate::net::Pool;
use crate::telemetry::Metrics;
use crate::types::Clock;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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
    /// Cancelled when the process begins to stop: connections finish what they have and close.
    pub draining: CancellationToken,
}
