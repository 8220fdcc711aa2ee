//! The Prometheus handles. Labels are small closed sets: never a path, principal or token.

use std::time::Duration;

/// How a request ended, for the `decision` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Sent upstream with a credential.
    Injected,
    /// Forwarded or tunnelled without one.
    Tunnelled,
    /// Refused.
    Denied,
}

/// How a refresh ended, for the `result` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshResult {
    /// A new token was stored.
    Refreshed,
    /// Another process had it already.
    Adopted,
    /// The grant was rejected.
    Rejected,
    /// The endpoint could not be used.
    Failed,
}

/// All metrics of the process.
pub struct Metrics(());

impl Metrics {
    /// Registers every metric.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }

    /// The text that `/metrics` answers (Prometheus text format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        todo!()
    }

    /// One finished request: `nexus_requests_total{decision,code_class}`, `nexus_request_duration_seconds`,
    /// `nexus_proxy_overhead_seconds` (`None` when nothing was sent), `nexus_request_bytes_total`,
    /// `nexus_response_bytes_total`.
    pub fn request_finished(
        &self,
        _decision: Decision,
        _status: Option<u16>,
        _total: Duration,
        _overhead: Option<Duration>,
        _request_bytes: u64,
        _response_bytes: u64,
    ) {
        todo!()
    }

    /// A downstream connection opened (`nexus_connections_total`, `nexus_connections_active`).
    pub fn connection_opened(&self) {
        todo!()
    }

    /// A downstream connection closed.
    pub fn connection_closed(&self) {
        todo!()
    }

    /// A tunnel opened (`nexus_tunnels_active`, `nexus_tunnels_total{kind}` with `intercepted` or `blind`).
    pub fn tunnel_opened(&self, _intercepted: bool) {
        todo!()
    }

    /// A tunnel closed.
    pub fn tunnel_closed(&self, _intercepted: bool) {
        todo!()
    }

    /// A leaf certificate was found (`nexus_leaf_cert_cache_hits_total`) or minted (`..._misses_total`).
    pub fn leaf_certificate(&self, _hit: bool) {
        todo!()
    }

    /// A wrong token (`nexus_proxy_auth_failures_total`).
    pub fn authentication_failed(&self) {
        todo!()
    }

    /// A refresh ended (`nexus_credential_refresh_total{result}`).
    pub fn refreshed(&self, _result: RefreshResult) {
        todo!()
    }

    /// Reflected credentials were scrubbed from an answer (`nexus_redactions_total`).
    pub fn redacted(&self, _count: u64) {
        todo!()
    }

    /// An audit line was written or not (`nexus_audit_events_total{result}`, `nexus_audit_dropped_total`).
    pub fn audit_written(&self, _ok: bool) {
        todo!()
    }

    /// A reload ended (`nexus_config_reload_success_total`, `..._failure_total`,
    /// `nexus_config_last_reload_success_timestamp_seconds`).
    pub fn config_reloaded(&self, _ok: bool) {
        todo!()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
