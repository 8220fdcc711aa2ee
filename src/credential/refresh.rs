//! Freshness and the single-flight refresh.

use super::{Lease, TokenError};
use crate::connection::Connection;
use crate::net::Egress;
use crate::policy::Permit;
use crate::secret::{Keyring, SealError};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::types::Clock;
use std::sync::Arc;

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The record does not open.
    #[error("the credential of {connection} cannot be opened: {source}")]
    Sealed {
        /// The connection's name.
        connection: String,
        /// Why.
        #[source]
        source: SealError,
    },
    /// The access token is known to be expired or refused, and the grant was rejected: a person must connect again.
    #[error("{connection} needs attention: {reason}")]
    Attention {
        /// The connection's name.
        connection: String,
        /// Why.
        reason: String,
    },
    /// The access token is known to be expired and could not be refreshed now.
    #[error("the credential of {connection} has expired and could not be refreshed: {source}")]
    Refresh {
        /// The connection's name.
        connection: String,
        /// Why.
        #[source]
        source: Arc<RefreshError>,
    },
    /// Another refresh did not end within 30 s: 503 `refresh_timeout`.
    #[error("the refresh of {connection} did not end in time")]
    Timeout {
        /// The connection's name.
        connection: String,
    },
}

/// Why a refresh gave no new version.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The connection has no OAuth grant.
    #[error("the connection has no grant that could be refreshed")]
    NotRefreshable,
    /// The endpoint answered, but not with a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The store failed before or after the call.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The grant does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// Asked again too soon (10 s per connection while the newest version has had no other answer than 401), or the
    /// breaker is open after failures.
    #[error("not tried again yet, {wait_seconds} s to go")]
    TooSoon {
        /// Seconds until the next try.
        wait_seconds: u64,
    },
    /// Did not end within 30 s.
    #[error("the refresh did not end within 30 s")]
    Timeout,
}

/// What came of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// The connection now has this newer version.
    Version(u64),
}

/// Leases and refreshes for the whole process. Share by `Arc`.
pub struct Credentials(());

impl Credentials {
    /// Over a keyring and a store.
    #[must_use]
    pub fn new(_keyring: Arc<Keyring>, _store: Arc<dyn Store>, _metrics: Arc<Metrics>, _clock: Clock) -> Self {
        todo!()
    }

    /// A lease of the connection that the permit is for. An OAuth token that is past its end is refreshed first (waits
    /// at most 30 s); one that is near its end (min(max(60 s, 10 %), half the lifetime)) is refreshed in the background
    /// while the current one is used.
    ///
    /// # Errors
    /// See [`LeaseError`].
    pub async fn lease(
        &self,
        _permit: &Permit,
        _connection: &Arc<Connection>,
        _egress: &Arc<Egress>,
    ) -> Result<Lease, LeaseError> {
        todo!()
    }

    /// The upstream answered 401 to `failed_version`. When the connection already has a newer version, that is the
    /// answer, without a call. Else one refresh for everybody who asks.
    ///
    /// # Errors
    /// See [`RefreshError`], shared by everybody who waited.
    pub async fn refresh(
        &self,
        _connection: &Arc<Connection>,
        _failed_version: u64,
        _egress: &Arc<Egress>,
    ) -> Result<Refreshed, Arc<RefreshError>> {
        todo!()
    }

    /// The upstream answered something other than 401 to `version`: the interval between refreshes ends. Cheap.
    pub fn worked(&self, _connection: &Connection, _version: u64) {
        todo!()
    }

    /// The upstream answered 401 to `version` after it had been refreshed or could not be: it is known to be refused.
    pub fn refused(&self, _connection: &Connection, _version: u64) {
        todo!()
    }
}
