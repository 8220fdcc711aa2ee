//! One refresh: the lease row, the call, the write, in that order.

use super::oauth::TokenRequest;
use super::pace::{Landing, Record};
use super::{CredentialSettings, RefreshError, Refreshed, TokenAnswer, TokenError};
use crate::connection::{Access, Connection, Frozen};
use crate::net::{ClientError, Egress, NetError};
use crate::secret::{Keyring, SecretFields};
use crate::store::{ConnectionRecord, ConnectionState, CredentialUpdate, LeaseOutcome, LeaseOwner, Store, StoreError};
use crate::telemetry::{Metrics, RefreshResult};
use crate::types::{Clock, UnixSeconds};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How much longer than the call the lease lasts.
const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// Between two looks at a lease that another process holds.
const LEASE_POLL: Duration = Duration::from_millis(150);

/// How long requests wait for a store that does not take the new credential.
const SAVE_PATIENCE: Duration = Duration::from_secs(3);

/// The longest pause between tries in the background.
const SAVE_PAUSE: Duration = Duration::from_secs(30);

/// What every refresh needs.
#[derive(Clone)]
pub(super) struct Refresher {
    pub(super) keyring: Arc<Keyring>,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) settings: CredentialSettings,
    pub(super) owner: LeaseOwner,
    pub(super) tasks: TaskTracker,
}

/// One refresh of one version.
pub(super) struct Flight {
    pub(super) connection: Arc<Connection>,
    pub(super) egress: Arc<Egress>,
    pub(super) record: Arc<Record>,
    pub(super) version: u64,
}

/// Where a new version came from.
enum Arrival {
    /// From the token endpoint, by this process.
    Refreshed(u64),
    /// From the store: another process or a person was first.
    Adopted(u64),
}

/// What became of a new credential that was to be stored.
enum Saved {
    Stored,
    /// The store has that version already, written by someone else.
    Superseded(Box<ConnectionRecord>),
    /// The connection was deleted.
    Gone(StoreError),
    /// The store does not take it for now.
    NotYet(StoreError),
}

impl Refresher {
    /// Runs the refresh to its end and tells everybody who waits.
    pub(super) async fn fly(self: Arc<Self>, flight: Flight, sender: watch::Sender<Landing>) {
        let arrival = self.run(&flight).await;
        let (name, id) = (&flight.connection.name, &flight.connection.id);
        let (metric, result) = match arrival {
            Ok(Arrival::Refreshed(version)) => {
                tracing::info!(connection = %id, version, "refreshed the credential of {name}");
                (RefreshResult::Refreshed, Ok(Refreshed::Version(version)))
            }
            Ok(Arrival::Adopted(version)) => {
                tracing::info!(connection = %id, version, "took a newer credential of {name} from the store");
                (RefreshResult::Adopted, Ok(Refreshed::Version(version)))
            }
            Err(error) => {
                tracing::warn!(connection = %id, version = flight.version, "could not refresh the credential of {name}: {}", chain(&error));
                let rejected = matches!(error, RefreshError::Token(TokenError::Rejected { .. }));
                (if rejected { RefreshResult::Rejected } else { RefreshResult::Failed }, Err(error))
            }
        };
        self.metrics.refreshed(metric);
        {
            let mut state = flight.record.state.lock();
            state.landed(flight.version, &result, self.clock.now());
            state.flight = None;
        }
        sender.send_replace(Some(result.map_err(Arc::new)));
    }

    async fn run(&self, flight: &Flight) -> Result<Arrival, RefreshError> {
        if let Some(arrival) = self.save_first(flight).await? {
            return Ok(arrival);
        }
        let (fence, interrupted) = match self.take_lease(flight).await? {
            LeaseOutcome::Acquired { fence, interrupted } => (fence, interrupted),
            LeaseOutcome::Moved(record) => return adopt(flight, &record),
            LeaseOutcome::Held { .. } => return Err(RefreshError::Timeout),
        };
        let arrival = self.under_lease(flight, fence, interrupted).await;
        if !matches!(arrival, Ok(Arrival::Refreshed(_)))
            && let Err(error) = self.store.release_refresh_lease(&flight.connection.id, fence).await
        {
            // It ends by itself.
            tracing::debug!(connection = %flight.connection.id, "could not give the refresh lease back: {error}");
        }
        arrival
    }

    /// A version that the store does not have yet is stored before it is refreshed: with two versions in memory only,
    /// a crash would lose both.
    async fn save_first(&self, flight: &Flight) -> Result<Option<Arrival>, RefreshError> {
        let Some((update, fence)) = flight.record.state.lock().unsaved.clone() else { return Ok(None) };
        match self.save(flight, &update, Some(fence), Duration::ZERO).await {
            Saved::Stored => Ok(None),
            Saved::Superseded(record) if record.version > flight.version => adopt(flight, &record).map(Some),
            Saved::Superseded(_) => Ok(None),
            Saved::Gone(error) | Saved::NotYet(error) => Err(error.into()),
        }
    }

    /// Takes the lease, waiting for another process that holds it.
    async fn take_lease(&self, flight: &Flight) -> Result<LeaseOutcome, RefreshError> {
        let deadline = Instant::now() + self.settings.wait;
        let lasts = self.settings.token_timeout + LEASE_MARGIN;
        let ttl_seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
        loop {
            let outcome = self
                .store
                .acquire_refresh_lease(
                    &flight.connection.id,
                    flight.version,
                    &self.owner,
                    self.clock.now(),
                    ttl_seconds,
                )
                .await?;
            if !matches!(outcome, LeaseOutcome::Held { .. }) || Instant::now() + LEASE_POLL > deadline {
                return Ok(outcome);
            }
            tokio::time::sleep(LEASE_POLL).await;
        }
    }

    async fn under_lease(&self, flight: &Flight, fence: i64, interrupted: bool) -> Result<Arrival, RefreshError> {
        let connection = &flight.connection;
        // The one before may have ended in a rejection, or a person may have deleted the connection.
        let record = self.store.find_connection(&connection.scope, connection.id.as_str()).await?;
        if record.version != flight.version {
            return adopt(flight, &record);
        }
        if record.state == ConnectionState::Attention {
            let code = record.state_reason.clone().unwrap_or_default();
            connection.adopt(Access::from(&record));
            return Err(TokenError::Rejected { code }.into());
        }
        let access = Access::from(&record);
        let oauth = connection.frozen.oauth.as_ref().ok_or(RefreshError::NotRefreshable)?;
        let grant = connection.open_grant(&self.keyring, &access)?.ok_or(RefreshError::NotRefreshable)?;
        // Opened before the call: once a new token is here nothing may go wrong but the store.
        let fields = connection.open_access(&self.keyring, &access)?;
        let request = TokenRequest::build(oauth, &grant).ok_or(RefreshError::NotRefreshable)?;
        let now = self.clock.now();
        match request.send(oauth, &flight.egress, self.settings.token_timeout).await {
            Ok(answer) => self.keep(flight, fence, self.seal(flight, fields, grant, answer, now)).await,
            Err(TokenError::Rejected { code }) => {
                let lost = interrupted || flight.record.state.lock().lost_answer == flight.version;
                self.rejected(flight, code, lost).await
            }
            Err(error) => {
                if may_have_spent(&error) {
                    flight.record.state.lock().lost_answer = flight.version;
                }
                Err(error.into())
            }
        }
    }

    /// The next version: the new tokens in place of the old ones, everything else kept.
    fn seal(
        &self,
        flight: &Flight,
        mut fields: SecretFields,
        mut grant: SecretFields,
        answer: TokenAnswer,
        now: UnixSeconds,
    ) -> CredentialUpdate {
        fields.insert("access_token", answer.access_token);
        if let Some(token) = answer.refresh_token {
            grant.insert("refresh_token", token);
        }
        let version = flight.version + 1;
        CredentialUpdate {
            version,
            access: flight.connection.seal_access(&self.keyring, version, &fields),
            grant: Some(flight.connection.seal_grant(&self.keyring, version, &grant)),
            access_issued_at: Some(now),
            access_expires_at: answer.expires_in.map(|seconds| now.saturating_add(seconds)),
            now,
        }
    }

    /// Stores the new version, then lets it be used.
    async fn keep(&self, flight: &Flight, fence: i64, update: CredentialUpdate) -> Result<Arrival, RefreshError> {
        let connection = &flight.connection;
        match self.save(flight, &update, Some(fence), SAVE_PATIENCE).await {
            Saved::Stored => {}
            Saved::Superseded(record) => return adopt(flight, &record),
            Saved::Gone(error) => return Err(error.into()),
            Saved::NotYet(error) => {
                // The old refresh token may be used up, so the new one is worth more in memory than nowhere.
                tracing::error!(
                    connection = %connection.id,
                    "the refreshed credential of {} could not be stored; it is used from memory and storing is tried \
                     again: {error}",
                    connection.name
                );
                flight.record.state.lock().unsaved = Some((update.clone(), fence));
                self.tasks.spawn(self.clone().save_in_background(flight.again()));
            }
        }
        let version = update.version;
        connection.adopt(Access {
            version,
            access: update.access,
            grant: update.grant,
            issued_at: update.access_issued_at,
            expires_at: update.access_expires_at,
            state: ConnectionState::Active,
            state_reason: None,
        });
        Ok(Arrival::Refreshed(version))
    }

    /// Writes a new version, trying again for as long as `patience`.
    async fn save(
        &self,
        flight: &Flight,
        update: &CredentialUpdate,
        mut fence: Option<i64>,
        patience: Duration,
    ) -> Saved {
        let connection = &flight.connection;
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(50);
        let mut resealed = None;
        loop {
            let sealed = resealed.as_ref().unwrap_or(update);
            let error = match self.store.update_credential(&connection.id, sealed, fence).await {
                Ok(()) => {
                    flight.saved(update);
                    return Saved::Stored;
                }
                Err(error @ StoreError::NotFound { .. }) => {
                    flight.saved(update);
                    return Saved::Gone(error);
                }
                // The root key was rotated between sealing and storing; the keyring has the new one by now.
                Err(error @ StoreError::OldKey) if resealed.is_none() => {
                    match connection.reseal(&self.keyring, update.version, &update.access, update.grant.as_ref()) {
                        Ok((access, grant)) => {
                            resealed = Some(CredentialUpdate { access, grant, ..update.clone() });
                            continue;
                        }
                        Err(_) => error,
                    }
                }
                Err(error @ StoreError::Conflict { .. }) => {
                    match self.store.find_connection(&connection.scope, connection.id.as_str()).await {
                        Ok(record) if record.version >= update.version => {
                            flight.saved(update);
                            return Saved::Superseded(Box::new(record));
                        }
                        // The lease ran out, but nobody has written since: the version alone still keeps writers
                        // apart, and a token that is not stored is lost.
                        Ok(_) if fence.take().is_some() => continue,
                        Err(error @ StoreError::NotFound { .. }) => {
                            flight.saved(update);
                            return Saved::Gone(error);
                        }
                        Ok(_) | Err(_) => error,
                    }
                }
                Err(error) => error,
            };
            if Instant::now() + pause > deadline {
                return Saved::NotYet(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Goes on trying to store a version that is used from memory.
    async fn save_in_background(self, flight: Flight) {
        let mut pause = Duration::from_secs(1);
        loop {
            tokio::time::sleep(pause).await;
            // A refresh may have stored it meanwhile.
            let Some((update, fence)) = flight.record.state.lock().unsaved.clone() else { return };
            let connection = &flight.connection;
            match self.save(&flight, &update, Some(fence), Duration::ZERO).await {
                Saved::Stored => {
                    tracing::info!(connection = %connection.id, "the credential of {} is stored now", connection.name);
                    return;
                }
                Saved::Superseded(record) => {
                    // Another definition comes with the next snapshot.
                    let _ = adopt(&flight, &record);
                    return;
                }
                Saved::Gone(_) => return,
                Saved::NotYet(_) => pause = (pause * 2).min(SAVE_PAUSE),
            }
        }
    }

    /// The endpoint refused the grant: unless someone else was first with it, a person must connect again.
    async fn rejected(&self, flight: &Flight, code: String, lost: bool) -> Result<Arrival, RefreshError> {
        let connection = &flight.connection;
        // An answer that never arrived is the likely reason that the refresh token is used up, and worth telling.
        let reason = if lost && code == "invalid_grant" { "refresh_interrupted" } else { code.as_str() };
        for _ in 0..2 {
            match self.store.find_connection(&connection.scope, connection.id.as_str()).await {
                Ok(record) if record.version > flight.version => return adopt(flight, &record),
                Err(error @ StoreError::NotFound { .. }) => return Err(error.into()),
                // Not readable now; the state below is still right for this process.
                Ok(_) | Err(_) => {}
            }
            let state = ConnectionState::Attention;
            match self.store.set_connection_state(&connection.id, flight.version, state, Some(reason)).await {
                Ok(()) => break,
                // Moved since it was read: look again.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::error!(
                        connection = %connection.id,
                        "could not store that {} needs attention ({reason}): {error}",
                        connection.name
                    );
                    break;
                }
            }
        }
        let access = connection.access();
        if access.version == flight.version {
            let state_reason = Some(reason.to_owned());
            connection.adopt(Access { state: ConnectionState::Attention, state_reason, ..access.as_ref().clone() });
        }
        tracing::error!(
            connection = %connection.id,
            "{} needs attention ({reason}): its grant was rejected; connect it again",
            connection.name
        );
        Err(TokenError::Rejected { code }.into())
    }
}

impl Flight {
    /// The version needs no more storing.
    fn saved(&self, update: &CredentialUpdate) {
        let mut state = self.record.state.lock();
        if state.unsaved.as_ref().is_some_and(|(unsaved, _)| unsaved.version <= update.version) {
            state.unsaved = None;
        }
    }

    fn again(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            egress: self.egress.clone(),
            record: self.record.clone(),
            version: self.version,
        }
    }
}

/// Takes a newer version from the store.
fn adopt(flight: &Flight, record: &ConnectionRecord) -> Result<Arrival, RefreshError> {
    let connection = &flight.connection;
    // A record that was registered anew has envelopes for another definition; the next snapshot has its connection.
    let same = Frozen::from_json(&record.definition).is_ok_and(|frozen| frozen == connection.frozen);
    if !same || record.version <= flight.version {
        return Err(StoreError::Conflict { kind: "connection", name: connection.name.to_string() }.into());
    }
    connection.adopt(Access::from(record));
    Ok(Arrival::Adopted(record.version))
}

/// Whether the endpoint may have taken the refresh token and given out its successor, in an answer that never came or
/// could not be read.
fn may_have_spent(error: &TokenError) -> bool {
    match error {
        TokenError::Unusable { .. } => true,
        TokenError::Unreachable(ClientError::Net(error)) => {
            matches!(error, NetError::Http { .. } | NetError::Timeout { .. })
        }
        TokenError::Unreachable(ClientError::TooLarge(_)) => true,
        TokenError::Busy { .. } | TokenError::Rejected { .. } => false,
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
