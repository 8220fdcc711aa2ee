//! How a credential goes onto a request: pure functions from secret fields to a list of edits.
//!
//! Nothing here touches a request; `proxy::upstream` is the only place that applies an [`Injection`].

mod injection;
mod placement;
mod several;
mod template;

pub use injection::{Edit, Injection};
pub use placement::{Placement, PlacementError, is_injectable_header};
pub use several::{Strategy, StrategyError};
pub use template::{Template, TemplateError, is_field_name};

#[cfg(test)]
mod tests;
