//! `nexus`: an egress proxy that puts credentials on outbound requests, so that the program which makes the request
//! never holds them.
//!
//! The modules stand lowest first. **A module imports only from modules listed above it**; `tests/it/layers.rs` names
//! the line that breaks the rule. `docs/ARCHITECTURE.md` walks one request through them.

pub mod types;

pub mod secret;

pub mod telemetry;

pub mod net;

pub mod store;

pub mod audit;

pub mod identity;

pub mod strategy;

pub mod provider;

pub mod policy;

pub mod connection;

pub mod credential;

pub mod config;

pub mod admin;

pub mod proxy;

pub mod listener;

pub mod app;

pub mod cli;
