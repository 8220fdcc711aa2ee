//! Leases: an opened, fresh credential for one request, and its refresh.
//!
//! One refresh per connection and version, however many requests (in-process single flight) and processes (a lease row
//! in the store). The new version is persisted before its first use.

mod flight;
mod oauth;
mod pace;
mod refresh;

#[cfg(test)]
mod tests;

pub use oauth::{TokenAnswer, TokenError};
pub use refresh::{CredentialSettings, Credentials, LeaseError, RefreshError, Refreshed};

use crate::secret::SecretFields;

/// An opened credential for one request; wiped on drop.
#[derive(Debug)]
pub struct Lease {
    /// The version it is.
    pub version: u64,
    /// Its fields.
    pub fields: SecretFields,
    /// Whether a refresh is possible: the connection has an OAuth grant.
    pub refreshable: bool,
}
