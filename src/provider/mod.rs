//! What a provider is: a kind of service, described by one TOML file in `providers/` (embedded) or
//! `$NEXUS_HOME/providers/`. No provider needs code.

mod catalog;
mod definition;
mod file;

pub use catalog::{Catalog, CatalogSource};
pub use definition::{Auth, AuthKind, Definition, Field, OAuth, Route, TestRequest, TokenClientAuth};
pub use file::{FileProblem, parse_file};
