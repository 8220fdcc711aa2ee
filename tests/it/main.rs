//! Tests of the program from the outside.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cli;
mod layers;
mod redaction;
