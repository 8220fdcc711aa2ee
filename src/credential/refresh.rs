//! Freshness and the single-flight refresh.

use super::flight::{Flight, Refresher};
use super::pace::{Landing, Record};
use super::{Lease, TokenError};
use crate::connection::{Access, Connection};
use crate::net::Egress;
use crate::policy::Permit;
use crate::secret::{Keyring, SealError, SecretFields};
use crate::store::{ConnectionState, LeaseOwner, Store, StoreError};
use crate::telemetry::Metrics;
use crate::types::{Clock, ConnectionId, UnixSeconds};
use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

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
    /// The install is locked down: nothing is opened.
    #[error("nexus is locked down")]
    LockedDown,
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
    /// The install is locked down: nothing is refreshed.
    #[error("nexus is locked down")]
    LockedDown,
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

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialSettings {
    /// One call of a token endpoint.
    pub token_timeout: Duration,
    /// A request's wait for a refresh, and a refresh's wait for another process.
    pub wait: Duration,
}

impl Default for CredentialSettings {
    fn default() -> Self {
        Self { token_timeout: Duration::from_secs(15), wait: Duration::from_secs(30) }
    }
}

/// Leases and refreshes for the whole process. Share by `Arc`.
pub struct Credentials {
    refresher: Arc<Refresher>,
    records: DashMap<ConnectionId, Arc<Record>>,
    tasks: TaskTracker,
    locked: AtomicBool,
}

/// Why a refresh is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The upstream answered 401.
    Refused,
    /// The token is past its end or near it, or there is none yet.
    Age,
}

/// How old an access token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// In its time, or of unknown end.
    Fresh,
    /// Still in its time, but to be refreshed ahead.
    NearEnd,
    /// Past its end.
    Expired,
}

/// A refresh that is under way, or what makes it needless.
enum Joined {
    Flight(watch::Receiver<Landing>),
    Moved(u64),
}

impl Credentials {
    /// Over a keyring and a store.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, store: Arc<dyn Store>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let tasks = TaskTracker::new();
        Self {
            refresher: Arc::new(Refresher {
                keyring,
                store,
                metrics,
                clock,
                settings: CredentialSettings::default(),
                owner: LeaseOwner::current(),
                tasks: tasks.clone(),
            }),
            records: DashMap::new(),
            tasks,
            locked: AtomicBool::new(false),
        }
    }

    /// The same with other limits of time.
    #[must_use]
    pub fn with_settings(self, settings: CredentialSettings) -> Self {
        Self { refresher: Arc::new(Refresher { settings, ..self.refresher.as_ref().clone() }), ..self }
    }

    /// A lease of the connection that the permit is for. An OAuth token that is past its end is refreshed first (waits
    /// at most 30 s); one that is near its end (min(max(60 s, 10 %), half the lifetime)) is refreshed in the background
    /// while the current one is used.
    ///
    /// # Errors
    /// See [`LeaseError`].
    ///
    /// # Panics
    /// When the permit is for another connection, which no caller may ever do.
    pub async fn lease(
        &self,
        permit: &Permit,
        connection: &Arc<Connection>,
        egress: &Arc<Egress>,
    ) -> Result<Lease, LeaseError> {
        assert!(permit.connection() == &connection.id, "a permit opens the connection that it was made for");
        self.fresh(connection, egress).await
    }

    /// While locked, no credential is opened and no refresh is started; one that is under way is stored, or its new
    /// token would be lost. Gives what was so before.
    pub fn set_locked(&self, locked: bool) -> bool {
        self.locked.swap(locked, Ordering::AcqRel)
    }

    async fn fresh(&self, connection: &Arc<Connection>, egress: &Arc<Egress>) -> Result<Lease, LeaseError> {
        if self.locked.load(Ordering::Acquire) {
            return Err(LeaseError::LockedDown);
        }
        let access = connection.access();
        let fields = self.open(connection, &access)?;
        if connection.frozen.oauth.is_none() {
            return Ok(Lease { version: access.version, fields, refreshable: false });
        }
        let age = age(access.issued_at, access.expires_at, self.refresher.clock.now());
        let dead = age == Age::Expired || fields.get("access_token").is_none();
        let refreshable = access.grant.is_some();
        if access.state == ConnectionState::Attention {
            if dead || self.is_refused(connection, access.version) {
                return Err(attention(connection, &access));
            }
        } else if dead {
            self.refresh_dead(connection, access.version, egress).await?;
            // What came of it is used as it is, however short it lives, or there would be no end to refreshing.
            let access = connection.access();
            let fields = self.open(connection, &access)?;
            return Ok(Lease { version: access.version, fields, refreshable });
        } else if age == Age::NearEnd {
            // An error here is a refresh that must wait; the current token still works.
            let _ = self.join(connection, access.version, egress, Cause::Age);
        }
        Ok(Lease { version: access.version, fields, refreshable })
    }

    fn open(&self, connection: &Connection, access: &Access) -> Result<SecretFields, LeaseError> {
        connection
            .open_access(&self.refresher.keyring, access)
            .map_err(|source| LeaseError::Sealed { connection: connection.name.to_string(), source })
    }

    /// Gets past a version that cannot be used.
    async fn refresh_dead(
        &self,
        connection: &Arc<Connection>,
        version: u64,
        egress: &Arc<Egress>,
    ) -> Result<(), LeaseError> {
        match self.refresh_for(connection, version, egress, Cause::Age).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let access = connection.access();
                let connection_name = connection.name.to_string();
                Err(match *error {
                    RefreshError::Timeout => LeaseError::Timeout { connection: connection_name },
                    RefreshError::Token(TokenError::Rejected { .. }) => attention(connection, &access),
                    _ => LeaseError::Refresh { connection: connection_name, source: error },
                })
            }
        }
    }

    /// The upstream answered 401 to `failed_version`. When the connection already has a newer version, that is the
    /// answer, without a call. Else one refresh for everybody who asks.
    ///
    /// # Errors
    /// See [`RefreshError`], shared by everybody who waited.
    pub async fn refresh(
        &self,
        connection: &Arc<Connection>,
        failed_version: u64,
        egress: &Arc<Egress>,
    ) -> Result<Refreshed, Arc<RefreshError>> {
        self.refresh_for(connection, failed_version, egress, Cause::Refused).await
    }

    async fn refresh_for(
        &self,
        connection: &Arc<Connection>,
        version: u64,
        egress: &Arc<Egress>,
        cause: Cause,
    ) -> Result<Refreshed, Arc<RefreshError>> {
        let mut flight = match self.join(connection, version, egress, cause)? {
            Joined::Moved(version) => return Ok(Refreshed::Version(version)),
            Joined::Flight(flight) => flight,
        };
        let landing = tokio::time::timeout(self.refresher.settings.wait, flight.wait_for(Option::is_some)).await;
        match landing {
            Ok(Ok(landing)) => landing.clone().unwrap_or_else(|| Err(Arc::new(RefreshError::Timeout))),
            // Too slow, or the flight's task is gone without a result.
            Ok(Err(_)) | Err(_) => Err(Arc::new(RefreshError::Timeout)),
        }
    }

    /// Joins the refresh that is under way, or starts one in a task of its own, which no cancelled waiter stops.
    fn join(
        &self,
        connection: &Arc<Connection>,
        version: u64,
        egress: &Arc<Egress>,
        cause: Cause,
    ) -> Result<Joined, RefreshError> {
        let record = self.records.entry(connection.id.clone()).or_default().clone();
        let mut state = record.state.lock();
        // Read under the lock: a flight that has just landed made its version visible before it left `state`.
        let access = connection.access();
        if access.version > version {
            return Ok(Joined::Moved(access.version));
        }
        if let Some(flight) = &state.flight
            && flight.has_changed().is_ok()
        {
            return Ok(Joined::Flight(flight.clone()));
        }
        if connection.frozen.oauth.is_none() || access.grant.is_none() {
            return Err(RefreshError::NotRefreshable);
        }
        if access.state == ConnectionState::Attention {
            let code = access.state_reason.clone().unwrap_or_default();
            return Err(TokenError::Rejected { code }.into());
        }
        if self.locked.load(Ordering::Acquire) {
            return Err(RefreshError::LockedDown);
        }
        let now = self.refresher.clock.now();
        let interval = match cause {
            Cause::Refused => record.interval_left(&state, access.version, now),
            Cause::Age => None,
        };
        if let Some(wait_seconds) = interval.max(state.breaker_left(access.version, now)) {
            return Err(RefreshError::TooSoon { wait_seconds });
        }
        let (sender, receiver) = watch::channel(None);
        state.flight = Some(receiver.clone());
        drop(state);
        let flight = Flight { connection: connection.clone(), egress: egress.clone(), record, version: access.version };
        self.tasks.spawn(self.refresher.clone().fly(flight, sender));
        Ok(Joined::Flight(receiver))
    }

    /// The upstream answered something other than 401 to `version`: the interval between refreshes ends. Cheap.
    pub fn worked(&self, connection: &Connection, version: u64) {
        if connection.frozen.oauth.is_some()
            && let Some(record) = self.records.get(&connection.id)
        {
            record.worked(version);
        }
    }

    /// The upstream answered 401 to `version` after it had been refreshed or could not be: it is known to be refused.
    pub fn refused(&self, connection: &Connection, version: u64) {
        if connection.frozen.oauth.is_some() {
            self.records.entry(connection.id.clone()).or_default().mark_refused(version);
        }
    }

    fn is_refused(&self, connection: &Connection, version: u64) -> bool {
        self.records.get(&connection.id).is_some_and(|record| record.is_refused(version))
    }

    /// Forgets what is known about a connection that was deleted.
    pub fn forget(&self, connection: &ConnectionId) {
        self.records.remove(connection);
    }

    /// Returns when no refresh is under way and every new credential is stored. A shutdown waits for it, up to a limit
    /// of its own: a refresh token that was used and whose successor was not stored is lost.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn attention(connection: &Connection, access: &Access) -> LeaseError {
    let reason = access.state_reason.clone().unwrap_or_else(|| "its grant was rejected".to_owned());
    LeaseError::Attention { connection: connection.name.to_string(), reason }
}

/// How old a token is. It is refreshed ahead by min(max(60 s, 10 % of its lifetime), half of it).
pub(super) fn age(issued_at: Option<UnixSeconds>, expires_at: Option<UnixSeconds>, now: UnixSeconds) -> Age {
    let Some(end) = expires_at else { return Age::Fresh };
    if now >= end {
        return Age::Expired;
    }
    let ahead = match issued_at {
        Some(start) => {
            let lifetime = end.saturating_sub(start).max(0);
            (lifetime / 10).max(60).min(lifetime / 2)
        }
        None => 60,
    };
    if now >= end.saturating_sub(ahead) { Age::NearEnd } else { Age::Fresh }
}
