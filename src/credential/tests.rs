//! Leases and refreshes over a real store and a real TLS token endpoint.
#![expect(clippy::unwrap_used, reason = "tests")]

mod endpoint;
mod harness;
mod leases;
mod processes;
mod refreshes;
