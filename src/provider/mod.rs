//! What a provider is: a kind of service, described by one TOML file in `providers/` (embedded) or
//! `$NEXUS_HOME/providers/`. No provider needs code. `docs/providers.md` is the format for people.

mod bind;
mod catalog;
mod check;
mod definition;
mod document;
mod file;
mod starter;
mod variables;

pub use bind::{BindError, Bound, BoundRoute};
pub use catalog::{Catalog, CatalogSource};
pub use definition::{Auth, AuthKind, Definition, Field, OAuth, Route, TestRequest, TokenClientAuth};
pub use file::{FileProblem, parse_file};
pub use starter::starter_file;

#[cfg(test)]
mod tests;
