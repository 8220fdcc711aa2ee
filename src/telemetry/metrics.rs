//! The Prometheus handles. Labels are small closed sets: never a path, principal or token.

use super::process;
use prometheus::{
    Counter, Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
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

/// Seconds. Calls of language models think for minutes.
const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// Seconds. Our own share of a request is microseconds, unless a token is refreshed.
const OVERHEAD_BUCKETS: &[f64] =
    &[0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

const DECISIONS: [&str; 3] = ["injected", "tunnelled", "denied"];

/// `none`: no answer reached the agent.
const CODE_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: [[IntCounter; CODE_CLASSES.len()]; DECISIONS.len()],
    request_duration: Histogram,
    overhead: Histogram,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    connections: IntCounter,
    connections_active: IntGauge,
    tunnels_active: IntGauge,
    tunnels_intercepted: IntCounter,
    tunnels_blind: IntCounter,
    leaf_hits: IntCounter,
    leaf_misses: IntCounter,
    authentication_failures: IntCounter,
    refreshes: [IntCounter; 4],
    redactions: IntCounter,
    audit_ok: IntCounter,
    audit_failed: IntCounter,
    audit_dropped: IntCounter,
    reload_success: IntCounter,
    reload_failure: IntCounter,
    last_reload: Gauge,
    resident: IntGauge,
    processor: Counter,
    descriptors: IntGauge,
    integrity_failures: IntCounter,
}

impl Metrics {
    /// Registers every metric.
    #[must_use]
    pub fn new() -> Self {
        let new = Registering(Registry::new());
        let requests = new.counters(
            "nexus_requests_total",
            "Finished requests, by what was decided and how they were answered.",
            &["decision", "code_class"],
        );
        let tunnels = new.counters("nexus_tunnels_total", "Tunnels opened.", &["kind"]);
        let refreshes =
            new.counters("nexus_credential_refresh_total", "Credential refreshes, by how they ended.", &["result"]);
        let audit = new.counters("nexus_audit_events_total", "Audit lines, written or not.", &["result"]);
        let build = new.register(
            IntGaugeVec::new(Opts::new("nexus_build_info", "The running version; always 1."), &["version"])
                .expect(VALID),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        new.gauge("process_start_time_seconds", "When the process started, as Unix time.")
            .set(jiff::Timestamp::now().as_duration().as_secs_f64());
        Self {
            requests: DECISIONS
                .map(|decision| CODE_CLASSES.map(|class| requests.with_label_values(&[decision, class]))),
            request_duration: new.histogram(
                "nexus_request_duration_seconds",
                "Time from a request's first byte to its answer's last.",
                DURATION_BUCKETS,
            ),
            overhead: new.histogram(
                "nexus_proxy_overhead_seconds",
                "The proxy's own share of that time.",
                OVERHEAD_BUCKETS,
            ),
            request_bytes: new.counter("nexus_request_bytes_total", "Body bytes from agents."),
            response_bytes: new.counter("nexus_response_bytes_total", "Body bytes to agents."),
            connections: new.counter("nexus_connections_total", "Downstream connections opened."),
            connections_active: new.int_gauge("nexus_connections_active", "Downstream connections open now."),
            tunnels_active: new.int_gauge("nexus_tunnels_active", "Tunnels open now."),
            tunnels_intercepted: tunnels.with_label_values(&["intercepted"]),
            tunnels_blind: tunnels.with_label_values(&["blind"]),
            leaf_hits: new.counter("nexus_leaf_cert_cache_hits_total", "Leaf certificates found in the cache."),
            leaf_misses: new.counter("nexus_leaf_cert_cache_misses_total", "Leaf certificates minted."),
            authentication_failures: new.counter("nexus_proxy_auth_failures_total", "Wrong or missing agent tokens."),
            refreshes: ["refreshed", "adopted", "rejected", "failed"]
                .map(|result| refreshes.with_label_values(&[result])),
            redactions: new.counter("nexus_redactions_total", "Reflected credentials scrubbed from answers."),
            audit_ok: audit.with_label_values(&["ok"]),
            audit_failed: audit.with_label_values(&["error"]),
            audit_dropped: new.counter("nexus_audit_dropped_total", "Audit lines that were not written."),
            reload_success: new.counter("nexus_config_reload_success_total", "Config reloads that were applied."),
            reload_failure: new.counter("nexus_config_reload_failure_total", "Config reloads that were refused."),
            last_reload: new.gauge(
                "nexus_config_last_reload_success_timestamp_seconds",
                "When the config was last reloaded, as Unix time; 0 before the first time.",
            ),
            resident: new.int_gauge("process_resident_memory_bytes", "Resident memory."),
            processor: new.register(
                Counter::new("process_cpu_seconds_total", "Processor time, in user and kernel mode.").expect(VALID),
            ),
            descriptors: new.int_gauge("process_open_fds", "Open file descriptors."),
            integrity_failures: new.counter(
                "nexus_store_integrity_failures",
                "Records of the store that failed the integrity check and are not used.",
            ),
            registry: new.0,
        }
    }

    /// The text that `/metrics` answers (Prometheus text format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        self.read_process();
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => {
                tracing::error!("metrics cannot be written: {error}");
                String::new()
            }
        }
    }

    /// One finished request: `nexus_requests_total{decision,code_class}`, `nexus_request_duration_seconds`,
    /// `nexus_proxy_overhead_seconds` (`None` when nothing was sent), `nexus_request_bytes_total`,
    /// `nexus_response_bytes_total`.
    pub fn request_finished(
        &self,
        decision: Decision,
        status: Option<u16>,
        total: Duration,
        overhead: Option<Duration>,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        let class = status.map_or(0, |status| usize::from(status / 100));
        // A status that HTTP does not have counts as none.
        let class = if class < CODE_CLASSES.len() { class } else { 0 };
        self.requests[decision as usize][class].inc();
        self.request_duration.observe(total.as_secs_f64());
        if let Some(overhead) = overhead {
            self.overhead.observe(overhead.as_secs_f64());
        }
        self.request_bytes.inc_by(request_bytes);
        self.response_bytes.inc_by(response_bytes);
    }

    /// Records that failed the integrity check (`nexus_store_integrity_failures`).
    pub fn integrity_failed(&self, records: usize) {
        self.integrity_failures.inc_by(records as u64);
    }

    /// A downstream connection opened (`nexus_connections_total`, `nexus_connections_active`).
    pub fn connection_opened(&self) {
        self.connections.inc();
        self.connections_active.inc();
    }

    /// A downstream connection closed.
    pub fn connection_closed(&self) {
        self.connections_active.dec();
    }

    /// A tunnel opened (`nexus_tunnels_active`, `nexus_tunnels_total{kind}` with `intercepted` or `blind`).
    pub fn tunnel_opened(&self, intercepted: bool) {
        let kind = if intercepted { &self.tunnels_intercepted } else { &self.tunnels_blind };
        kind.inc();
        self.tunnels_active.inc();
    }

    /// A tunnel closed.
    pub fn tunnel_closed(&self, _intercepted: bool) {
        self.tunnels_active.dec();
    }

    /// A leaf certificate was found (`nexus_leaf_cert_cache_hits_total`) or minted (`..._misses_total`).
    pub fn leaf_certificate(&self, hit: bool) {
        if hit { &self.leaf_hits } else { &self.leaf_misses }.inc();
    }

    /// A wrong token (`nexus_proxy_auth_failures_total`).
    pub fn authentication_failed(&self) {
        self.authentication_failures.inc();
    }

    /// A refresh ended (`nexus_credential_refresh_total{result}`).
    pub fn refreshed(&self, result: RefreshResult) {
        self.refreshes[result as usize].inc();
    }

    /// Reflected credentials were scrubbed from an answer (`nexus_redactions_total`).
    pub fn redacted(&self, count: u64) {
        self.redactions.inc_by(count);
    }

    /// An audit line was written or not (`nexus_audit_events_total{result}`, `nexus_audit_dropped_total`).
    pub fn audit_written(&self, ok: bool) {
        if ok {
            self.audit_ok.inc();
        } else {
            self.audit_failed.inc();
            self.audit_dropped.inc();
        }
    }

    /// A reload ended (`nexus_config_reload_success_total`, `..._failure_total`,
    /// `nexus_config_last_reload_success_timestamp_seconds`).
    pub fn config_reloaded(&self, ok: bool) {
        if ok {
            self.reload_success.inc();
            self.last_reload.set(jiff::Timestamp::now().as_duration().as_secs_f64());
        } else {
            self.reload_failure.inc();
        }
    }

    /// What cannot be read stays as it was.
    fn read_process(&self) {
        if let Some(bytes) = process::resident_bytes() {
            self.resident.set(bytes.try_into().unwrap_or(i64::MAX));
        }
        if let Some(seconds) = process::cpu_seconds() {
            // Two readers at once may have read in the other order.
            self.processor.inc_by((seconds - self.processor.get()).max(0.0));
        }
        if let Some(count) = process::open_descriptors() {
            self.descriptors.set(count.try_into().unwrap_or(i64::MAX));
        }
    }
}

const VALID: &str = "names and labels are constants, each used once";

/// Registers handles as it makes them.
struct Registering(Registry);

impl Registering {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect(VALID);
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect(VALID))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels).expect(VALID))
    }

    fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect(VALID))
    }

    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help).expect(VALID))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(VALID))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_before_anything_happened() {
        let text = Metrics::new().render();
        for line in [
            r#"nexus_requests_total{code_class="2xx",decision="injected"} 0"#,
            r#"nexus_requests_total{code_class="none",decision="denied"} 0"#,
            "nexus_request_duration_seconds_count 0",
            "nexus_proxy_overhead_seconds_count 0",
            "nexus_request_bytes_total 0",
            "nexus_response_bytes_total 0",
            "nexus_connections_total 0",
            "nexus_connections_active 0",
            "nexus_tunnels_active 0",
            r#"nexus_tunnels_total{kind="blind"} 0"#,
            "nexus_leaf_cert_cache_hits_total 0",
            "nexus_leaf_cert_cache_misses_total 0",
            "nexus_proxy_auth_failures_total 0",
            r#"nexus_credential_refresh_total{result="adopted"} 0"#,
            "nexus_redactions_total 0",
            r#"nexus_audit_events_total{result="ok"} 0"#,
            "nexus_audit_dropped_total 0",
            "nexus_config_reload_success_total 0",
            "nexus_config_reload_failure_total 0",
            "nexus_config_last_reload_success_timestamp_seconds 0",
            concat!(r#"nexus_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|had| had == line), "{line} in {text}");
        }
        for name in ["resident_memory_bytes", "open_fds", "start_time_seconds"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(line.and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| value > 0.0), "{name}");
        }
        assert!(text.contains("# TYPE process_cpu_seconds_total counter"));
    }

    #[test]
    fn a_finished_request_is_counted_once_each_way() {
        let metrics = Metrics::new();
        let (long, short) = (Duration::from_millis(30), Duration::from_micros(60));
        metrics.request_finished(Decision::Injected, Some(204), long, Some(short), 10, 20);
        metrics.request_finished(Decision::Denied, Some(403), short, None, 0, 5);
        metrics.request_finished(Decision::Tunnelled, None, long, Some(short), 1, 0);
        metrics.request_finished(Decision::Injected, Some(999), long, None, 0, 0);
        let text = metrics.render();
        for line in [
            r#"nexus_requests_total{code_class="2xx",decision="injected"} 1"#,
            r#"nexus_requests_total{code_class="4xx",decision="denied"} 1"#,
            r#"nexus_requests_total{code_class="none",decision="tunnelled"} 1"#,
            r#"nexus_requests_total{code_class="none",decision="injected"} 1"#,
            "nexus_request_duration_seconds_count 4",
            r#"nexus_request_duration_seconds_bucket{le="0.05"} 4"#,
            r#"nexus_proxy_overhead_seconds_bucket{le="0.0001"} 2"#,
            "nexus_request_bytes_total 11",
            "nexus_response_bytes_total 25",
        ] {
            assert!(text.lines().any(|had| had == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_opens_and_closes_is_balanced() {
        let metrics = Metrics::new();
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        metrics.tunnel_opened(true);
        metrics.tunnel_opened(false);
        metrics.tunnel_closed(true);
        metrics.refreshed(RefreshResult::Failed);
        metrics.audit_written(true);
        metrics.audit_written(false);
        metrics.config_reloaded(true);
        metrics.config_reloaded(false);
        let text = metrics.render();
        for line in [
            "nexus_connections_total 2",
            "nexus_connections_active 1",
            "nexus_tunnels_active 1",
            r#"nexus_tunnels_total{kind="intercepted"} 1"#,
            r#"nexus_tunnels_total{kind="blind"} 1"#,
            r#"nexus_credential_refresh_total{result="failed"} 1"#,
            r#"nexus_credential_refresh_total{result="refreshed"} 0"#,
            r#"nexus_audit_events_total{result="ok"} 1"#,
            r#"nexus_audit_events_total{result="error"} 1"#,
            "nexus_audit_dropped_total 1",
            "nexus_config_reload_success_total 1",
            "nexus_config_reload_failure_total 1",
        ] {
            assert!(text.lines().any(|had| had == line), "{line} in {text}");
        }
        assert!(!text.contains("last_reload_success_timestamp_seconds 0"));
    }
}
