//! Tests of the program from the outside.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cli;
mod demo;
mod layers;
mod redaction;
