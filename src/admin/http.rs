//! Health, readiness and metrics over HTTP.

use crate::telemetry::Metrics;
use std::sync::Arc;

/// What the endpoints need.
#[derive(Clone)]
pub struct AdminState {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What is not ready, as words; empty means ready. Asked at each `/readyz`.
    pub readiness: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// Serves until `shutdown` resolves. `Host` must be an IP address or `localhost` or the listen address (DNS rebinding:
/// else 421). Everything but the three paths is 404.
pub async fn serve_admin(
    _listener: tokio::net::TcpListener,
    _state: AdminState,
    _shutdown: impl Future<Output = ()> + Send + 'static,
) {
    todo!()
}
