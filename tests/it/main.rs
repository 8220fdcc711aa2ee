//! Tests of the program from the outside.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cli;
mod demo;
mod files;
mod home;
mod layers;
mod redaction;
mod tokens;
