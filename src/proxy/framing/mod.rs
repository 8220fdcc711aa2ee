//! A strict reading of HTTP/1.1 message framing in front of the engine.
//!
//! The engine is laxer than a credential proxy may be (bare LF, repeated lengths, dropped fragments). [`Scanner`] is the
//! judge, without I/O; [`GuardedStream`] holds each request head back until it has been judged whole, and puts a marked
//! stand-in request in the place of one that is refused, so that refusals take the same way as all others.

mod head;
mod scanner;
mod stream;

pub use head::{HeadLimits, Violation};
pub use scanner::{Scanner, Step, Verdict};
pub use stream::{Decision, GuardedStream, violation_of};
