//! A tenant's connection with its frozen destinations, and the way from host, port and path to a connection.

mod definition;
#[cfg(test)]
mod fixture;
mod json;
mod live;
mod route;
mod table;

pub use definition::{DefinitionError, Destination, Frozen, Grant, OAuthGrant, Source};
pub use live::{Access, Connection};
pub use route::{Choice, RouteError, destination_for};
pub use table::RouteTable;
