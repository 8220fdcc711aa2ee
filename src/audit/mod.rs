//! The audit record: JSON lines in append-only segment files under `audit/node-N/`, joined by `request_id`.
//!
//! A `start` line before the dial, then exactly one terminal line (`end`, `aborted`); alone where nothing was dialled
//! (`denied`, `aborted`). Plain data: no Secret can be in an event.

mod event;
mod layout;
mod reader;
mod spool;

pub use event::{Event, Kind, Way};
pub use reader::{Filter, Reader};
pub use spool::{AuditError, AuditSettings, Durability, OnFull, Spool};
