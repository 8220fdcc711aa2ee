//! Refreshes by several processes on one store.

use super::harness::{Call, Install, START, Setup, answer, fields, token};
use crate::connection::Connection;
use crate::credential::{CredentialSettings, RefreshError, Refreshed, TokenError};
use crate::secret::RootKey;
use crate::store::{
    ConnectionState, CredentialUpdate, Cursor, LeaseOutcome, LeaseOwner, Record, Resealed, SqliteStore, Store,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// An endpoint that takes each refresh token once, and counts those that came again.
fn single_use(reused: Arc<Mutex<usize>>) -> impl Fn(&Call) -> Vec<u8> + Send + Sync + 'static {
    let current = Mutex::new(1);
    move |call| {
        let mut current = current.lock();
        if call.form["refresh_token"] != format!("refresh-{current}") {
            *reused.lock() += 1;
            return answer(400, r#"{"error":"invalid_grant"}"#);
        }
        *current += 1;
        token(&format!("access-{current}"), 3600, Some(&format!("refresh-{current}")))
    }
}

/// Writes a version as a person or another process would.
pub(super) async fn write_version(
    install: &Install,
    connection: &Connection,
    version: u64,
    access: &str,
    refresh: &str,
) {
    let access = fields(&[("access_token", access)]);
    let grant = fields(&[("client_id", "the client"), ("refresh_token", refresh)]);
    let update = CredentialUpdate {
        version,
        access: connection.seal_access(&install.keyring, version, &access),
        grant: Some(connection.seal_grant(&install.keyring, version, &grant)),
        access_issued_at: Some(START),
        access_expires_at: Some(START + 3600),
        now: START,
    };
    install.store.update_credential(&connection.id, &update, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_use_a_single_use_token_once() {
    let reused = Arc::new(Mutex::new(0));
    let install = Arc::new(Install::new(single_use(reused.clone())).await);
    let ours = install.register(Setup::default()).await;
    let (other, theirs) = install.other_process(&ours).await;
    let processes = [(Arc::new(install.credentials()), ours.clone()), (Arc::new(other), theirs.clone())];
    let rounds = 10;
    for round in 1..=rounds {
        let tasks: Vec<_> = (0..50)
            .flat_map(|_| &processes)
            .map(|(credentials, connection)| {
                let (install, credentials, connection) = (install.clone(), credentials.clone(), connection.clone());
                tokio::spawn(async move { credentials.refresh(&connection, round, &install.egress).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), Refreshed::Version(round + 1));
        }
        for (credentials, connection) in &processes {
            credentials.worked(connection, round + 1);
        }
    }
    assert_eq!(*reused.lock(), 0);
    assert_eq!(install.endpoint.calls(), usize::try_from(rounds).unwrap());
    let last = format!("access-{}", rounds + 1);
    for connection in [&ours, &theirs] {
        let fields = connection.open_access(&install.keyring, &connection.access()).unwrap();
        assert_eq!(fields.get("access_token").unwrap().expose(), last);
    }
}

#[tokio::test]
async fn loser_of_a_race_takes_the_winners_version() {
    let install = Install::new(|_| answer(400, r#"{"error":"invalid_grant"}"#)).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.endpoint.hold();
    let winner = async {
        install.endpoint.called(1).await;
        write_version(&install, &connection, 2, "access-2", "refresh-2").await;
        install.endpoint.release();
    };
    let (refreshed, ()) = tokio::join!(credentials.refresh(&connection, 1, &install.egress), winner);
    assert_eq!(refreshed.unwrap(), Refreshed::Version(2));
    let stored = install.stored(&connection).await;
    assert_eq!((stored.version, stored.state), (2, ConnectionState::Active));
    assert_eq!(connection.access().version, 2);
}

#[tokio::test]
async fn version_in_the_store_is_taken_without_a_call() {
    let install = Install::new(|_| unreachable!()).await;
    let connection = install.register(Setup::default()).await;
    write_version(&install, &connection, 2, "access-2", "refresh-2").await;
    let refreshed = install.credentials().refresh(&connection, 1, &install.egress).await;
    assert_eq!(refreshed.unwrap(), Refreshed::Version(2));
    assert_eq!(install.endpoint.calls(), 0);
}

#[tokio::test]
async fn version_written_during_the_call_wins() {
    let install = Install::new(|_| token("access-x", 3600, Some("refresh-x"))).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.endpoint.hold();
    let person = async {
        install.endpoint.called(1).await;
        write_version(&install, &connection, 2, "access-2", "refresh-2").await;
        install.endpoint.release();
    };
    let (refreshed, ()) = tokio::join!(credentials.refresh(&connection, 1, &install.egress), person);
    assert_eq!(refreshed.unwrap(), Refreshed::Version(2));
    assert_eq!(install.stored_tokens(&connection).await.0, "access-2");
}

#[tokio::test]
async fn rejection_by_another_process_is_not_tried_again() {
    let install = Install::new(|_| unreachable!()).await;
    let connection = install.register(Setup::default()).await;
    let attention = ConnectionState::Attention;
    install.store.set_connection_state(&connection.id, 1, attention, Some("invalid_grant")).await.unwrap();
    let error = install.credentials().refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert!(matches!(&*error, RefreshError::Token(TokenError::Rejected { code }) if code == "invalid_grant"));
    assert_eq!(connection.access().state, attention);
    assert_eq!(install.endpoint.calls(), 0);
}

#[tokio::test]
async fn attempt_of_a_dead_process_is_tried_once_more() {
    let install = Install::new(|_| answer(400, r#"{"error":"invalid_grant"}"#)).await;
    let connection = install.register(Setup::default()).await;
    let alive = LeaseOwner::current();
    // No process of this id has started at that time.
    let dead = LeaseOwner { started: alive.started + 1, ..alive };
    let taken = install.store.acquire_refresh_lease(&connection.id, 1, &dead, START, 3600).await.unwrap();
    assert!(matches!(taken, LeaseOutcome::Acquired { interrupted: false, .. }), "{taken:?}");
    install.credentials().refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert_eq!(install.endpoint.calls(), 1);
    assert_eq!(install.stored(&connection).await.state_reason.as_deref(), Some("refresh_interrupted"));
}

#[tokio::test]
async fn process_that_finds_the_lease_held_waits_and_takes_the_new_version() {
    let install = Install::new(|_| token("access-2", 3600, Some("refresh-2"))).await;
    let ours = install.register(Setup::default()).await;
    let (other, theirs) = install.other_process(&ours).await;
    let credentials = install.credentials();
    install.endpoint.hold();
    let second = async {
        install.endpoint.called(1).await;
        let waiting = other.refresh(&theirs, 1, &install.egress);
        tokio::pin!(waiting);
        // Past at least one look at the lease.
        assert!(tokio::time::timeout(Duration::from_millis(200), waiting.as_mut()).await.is_err());
        install.endpoint.release();
        waiting.await
    };
    let (first, second) = tokio::join!(credentials.refresh(&ours, 1, &install.egress), second);
    assert_eq!((first.unwrap(), second.unwrap()), (Refreshed::Version(2), Refreshed::Version(2)));
    assert_eq!(install.endpoint.calls(), 1);
    let fields = theirs.open_access(&install.keyring, &theirs.access()).unwrap();
    assert_eq!(fields.get("access_token").unwrap().expose(), "access-2");
}

#[tokio::test]
async fn lease_that_is_held_too_long_is_a_timeout() {
    let install = Install::new(|_| unreachable!()).await;
    let connection = install.register(Setup::default()).await;
    let owner = LeaseOwner::current();
    install.store.acquire_refresh_lease(&connection.id, 1, &owner, START, 30).await.unwrap();
    let settings = CredentialSettings { wait: Duration::from_millis(200), ..CredentialSettings::default() };
    let error = install.impatient(settings).refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert!(matches!(*error, RefreshError::Timeout), "{error:?}");
    assert_eq!(install.endpoint.calls(), 0);
}

#[tokio::test]
async fn version_got_under_a_lease_that_ran_out_is_stored_all_the_same() {
    let install = Install::new(|_| token("access-2", 3600, Some("refresh-2"))).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.endpoint.hold();
    let taker = async {
        install.endpoint.called(1).await;
        install.clock.advance(60);
        let (id, owner) = (&connection.id, LeaseOwner::current());
        let taken = install.store.acquire_refresh_lease(id, 1, &owner, START + 60, 30).await.unwrap();
        assert!(matches!(taken, LeaseOutcome::Acquired { .. }), "{taken:?}");
        install.endpoint.release();
    };
    let (refreshed, ()) = tokio::join!(credentials.refresh(&connection, 1, &install.egress), taker);
    assert_eq!(refreshed.unwrap(), Refreshed::Version(2));
    assert_eq!(install.stored_tokens(&connection).await.1, "refresh-2");
}

#[tokio::test]
async fn a_root_key_that_is_rotated_during_a_refresh_loses_no_token() {
    let install = Install::new(|_| token("access-2", 3600, Some("refresh-2"))).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    let next = RootKey::from_bytes(&[8; 32]);
    let next_id = install.keyring.add(&next);
    let other = SqliteStore::open(&install.path(), &RootKey::from_bytes(&[0xab; 32])).await.unwrap();
    other.keyring().add(&next);
    install.endpoint.hold();
    let refresh = credentials.refresh(&connection, 1, &install.egress);
    let rotate = async {
        install.endpoint.called(1).await;
        // The old key seals here for as long as this process has not looked at the store.
        other.rekey_manifest(next_id).await.unwrap();
        let (records, _) = other.stale(next_id, Cursor::default(), 10).await.unwrap();
        let Some(Record::Connection(old)) = records.into_iter().next() else { panic!("one is stale") };
        let (access, grant) = connection.reseal(other.keyring(), old.version, &old.access, old.grant.as_ref()).unwrap();
        let batch = [Resealed::Connection { old, access, grant }];
        assert_eq!(other.reseal(&batch).await.unwrap(), 1);
        assert_eq!(other.reseal(&batch).await.unwrap(), 0, "not what it was read as any more");
        assert_ne!(install.keyring.key_id(), next_id);
        install.endpoint.release();
    };
    assert_eq!(tokio::join!(refresh, rotate).0.unwrap(), Refreshed::Version(2));
    assert_eq!(install.stored_tokens(&connection).await, ("access-2".to_owned(), "refresh-2".to_owned()));
    let stored = install.stored(&connection).await;
    assert_eq!(stored.access.key_id(), Some(next_id));
    assert_eq!(stored.grant.unwrap().key_id(), Some(next_id));
    assert_eq!(other.count_stale(next_id).await.unwrap(), 0);
    assert_eq!(install.endpoint.calls(), 1);
}
