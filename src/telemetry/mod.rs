//! Metrics and tracing set-up: every Prometheus handle and name in one struct, logs without secrets.

mod logging;
mod metrics;
mod process;

pub use logging::init_logging;
pub use metrics::{Decision, Metrics, RefreshResult};
