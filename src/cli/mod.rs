//! The command line: one file per command. With `main.rs` the only place that prints and exits.
//!
//! Data goes to standard output, messages to standard error; errors become exit codes in `error.rs` alone.

mod agent;
mod agent_enroll;
mod app;
mod arguments;
mod audit;
mod ca;
mod certs;
mod child;
mod config;
mod confirm;
mod connection;
mod connection_set;
mod connection_test;
mod connection_upgrade;
mod context;
mod demo;
mod doctor;
mod env;
mod envelopes;
mod environment;
mod error;
mod explain;
mod init;
mod key;
mod lockdown;
mod narrowing;
mod output;
mod process;
mod provider;
mod register;
mod register_custom;
mod register_provider;
mod run;
mod secret_input;
mod shell;
mod store;
mod tenant;
mod token;
mod token_mint;
mod truststore;
mod up;

pub use arguments::{Arguments, Command};
pub use context::{Context, Global};
pub use error::{CliError, describe};
pub use output::Format;
pub use secret_input::SecretInput;
pub use shell::Shell;

pub use arguments::main;
