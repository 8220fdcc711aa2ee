//! How a credential goes onto a request: pure functions from secret fields to a list of edits.
//!
//! Nothing here touches a request; `proxy::upstream` is the only place that applies an [`Injection`].

mod injection;
mod placement;
mod template;

pub use injection::{Edit, Injection};
pub use placement::{Placement, PlacementError, Strategy, StrategyError};
pub use template::{Template, TemplateError};
