//! What a lease gives, and when it refreshes first.

use super::harness::{Install, START, Setup, answer, fields, permit, token};
use crate::connection::{Connection, Grant};
use crate::credential::refresh::{Age, age};
use crate::credential::{CredentialSettings, Credentials, Lease, LeaseError, RefreshError, Refreshed, TokenError};
use crate::provider::TokenClientAuth;
use crate::secret::Secret;
use crate::store::ConnectionState;
use std::sync::Arc;
use std::time::Duration;

async fn lease(
    credentials: &Credentials,
    install: &Install,
    connection: &Arc<Connection>,
) -> Result<Lease, LeaseError> {
    credentials.lease(&permit(connection), connection, &install.egress).await
}

fn access_token(lease: &Lease) -> &str {
    lease.fields.get("access_token").map_or("", Secret::expose)
}

#[test]
fn age_follows_the_lifetime() {
    // name, issued, expires, now, age
    let rows = [
        ("unknown end", Some(0), None, 1_000_000, Age::Fresh),
        ("long: before a tenth", Some(0), Some(36_000), 32_399, Age::Fresh),
        ("long: a tenth before the end", Some(0), Some(36_000), 32_400, Age::NearEnd),
        ("ten minutes: 60 s before the end", Some(0), Some(600), 540, Age::NearEnd),
        ("ten minutes: before that", Some(0), Some(600), 539, Age::Fresh),
        ("short: not before half", Some(0), Some(60), 29, Age::Fresh),
        ("short: half", Some(0), Some(60), 30, Age::NearEnd),
        ("at the end", Some(0), Some(60), 60, Age::Expired),
        ("unknown start", None, Some(600), 540, Age::NearEnd),
        ("unknown start, earlier", None, Some(600), 539, Age::Fresh),
        ("start after the end", Some(900), Some(600), 599, Age::Fresh),
        ("extremes", Some(i64::MIN), Some(i64::MAX), 0, Age::NearEnd),
    ];
    for (name, issued, expires, now, expected) in rows {
        if name == "extremes" {
            // Only that nothing overflows.
            let _ = age(issued, expires, now);
        } else {
            assert_eq!(age(issued, expires, now), expected, "{name}");
        }
    }
}

#[tokio::test]
async fn static_credentials_are_opened_as_they_are() {
    let install = Install::new(|_| unreachable!()).await;
    let connection = install.insert(None, &fields(&[("token", "abc")]), None, None, Some(START - 1)).await;
    let lease = lease(&install.credentials(), &install, &connection).await.unwrap();
    assert_eq!((lease.version, lease.refreshable), (1, false));
    assert_eq!(lease.fields.get("token").unwrap().expose(), "abc");
}

#[tokio::test]
async fn fresh_token_is_leased_without_a_call() {
    let install = Install::new(|_| unreachable!()).await;
    let connection = install.register(Setup::default()).await;
    let lease = lease(&install.credentials(), &install, &connection).await.unwrap();
    assert_eq!((lease.version, access_token(&lease), lease.refreshable), (1, "access-1", true));
    assert_eq!(install.endpoint.calls(), 0);
}

#[tokio::test]
async fn expired_token_is_refreshed_first() {
    let install = Install::new(|_| token("access-2", 3600, None)).await;
    let connection = install.register(Setup { expires_at: Some(START), ..Setup::default() }).await;
    let credentials = install.credentials();
    let lease = lease(&credentials, &install, &connection).await.unwrap();
    assert_eq!((lease.version, access_token(&lease)), (2, "access-2"));
    assert_eq!(install.stored(&connection).await.access_expires_at, Some(START + 3600));
}

#[tokio::test]
async fn a_thousand_requests_with_an_expired_token_make_one_call() {
    let install = Arc::new(Install::new(|_| token("access-2", 3600, None)).await);
    let connection = install.register(Setup { expires_at: Some(START), ..Setup::default() }).await;
    let credentials = Arc::new(install.credentials());
    install.endpoint.hold();
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let (install, connection, credentials) = (install.clone(), connection.clone(), credentials.clone());
            tokio::spawn(async move { lease(&credentials, &install, &connection).await })
        })
        .collect();
    install.endpoint.called(1).await;
    install.endpoint.release();
    for task in tasks {
        assert_eq!(access_token(&task.await.unwrap().unwrap()), "access-2");
    }
    assert_eq!(install.endpoint.calls(), 1);
}

#[tokio::test]
async fn connections_without_a_token_get_one_first() {
    for (name, grant, refresh_token, form) in [
        ("client credentials", Grant::ClientCredentials, None, "client_credentials"),
        ("refresh token only", Grant::RefreshToken, Some("refresh-1"), "refresh_token"),
    ] {
        let install = Install::new(move |call| {
            assert_eq!(call.form["grant_type"], form);
            assert_eq!(call.form.get("refresh_token").map(String::as_str), refresh_token);
            token("access-2", 3600, None)
        })
        .await;
        let setup =
            Setup { grant, refresh_token, access_token: None, issued_at: None, expires_at: None, ..Setup::default() };
        let connection = install.register(setup).await;
        let lease = lease(&install.credentials(), &install, &connection).await.unwrap();
        assert_eq!((lease.version, access_token(&lease)), (2, "access-2"), "{name}");
    }
}

#[tokio::test]
async fn basic_client_authentication_is_encoded_twice() {
    let install = Install::new(|call| {
        // base64("the+client:s%3A1")
        assert!(
            call.head.to_ascii_lowercase().contains("authorization: basic dghlk2nsawvuddpzjtnbmq=="),
            "{}",
            call.head
        );
        assert!(!call.form.contains_key("client_secret") && !call.form.contains_key("client_id"));
        assert_eq!(call.form["scope"], "a b");
        token("access-2", 3600, None)
    })
    .await;
    let setup = Setup { client_auth: TokenClientAuth::Basic, expires_at: Some(START), ..Setup::default() };
    let connection = install.register(setup).await;
    assert!(lease(&install.credentials(), &install, &connection).await.is_ok());
}

#[tokio::test]
async fn token_near_its_end_is_used_while_it_is_refreshed() {
    let install = Install::new(|_| token("access-2", 3600, None)).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.clock.advance(3300);
    install.endpoint.hold();
    for _ in 0..3 {
        let lease = lease(&credentials, &install, &connection).await.unwrap();
        assert_eq!(access_token(&lease), "access-1");
    }
    install.endpoint.called(1).await;
    install.endpoint.release();
    credentials.settle().await;
    let lease = lease(&credentials, &install, &connection).await.unwrap();
    assert_eq!((lease.version, access_token(&lease)), (2, "access-2"));
    assert_eq!(install.endpoint.calls(), 1);
}

#[tokio::test]
async fn endpoint_down_hurts_only_once_the_token_has_expired() {
    let install = Install::new(|_| answer(500, "")).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.clock.advance(3590);
    assert_eq!(access_token(&lease(&credentials, &install, &connection).await.unwrap()), "access-1");
    credentials.settle().await;
    install.clock.advance(10);
    let error = lease(&credentials, &install, &connection).await.unwrap_err();
    let LeaseError::Refresh { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, RefreshError::Token(TokenError::Unusable { .. })), "{source:?}");
    let error = lease(&credentials, &install, &connection).await.unwrap_err();
    let LeaseError::Refresh { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, RefreshError::TooSoon { .. }), "{source:?}");
    assert_eq!(install.stored(&connection).await.state, ConnectionState::Active);
}

#[tokio::test]
async fn hanging_refresh_times_out_for_the_request_only() {
    let install = Install::new(|_| token("access-2", 3600, None)).await;
    let connection = install.register(Setup { expires_at: Some(START), ..Setup::default() }).await;
    let settings = CredentialSettings { wait: Duration::from_millis(50), ..CredentialSettings::default() };
    let credentials = install.impatient(settings);
    install.endpoint.hold();
    let error = lease(&credentials, &install, &connection).await.unwrap_err();
    assert!(matches!(error, LeaseError::Timeout { .. }), "{error:?}");
    install.endpoint.release();
    credentials.settle().await;
    assert_eq!(access_token(&lease(&credentials, &install, &connection).await.unwrap()), "access-2");
    assert_eq!(install.endpoint.calls(), 1);
}

#[tokio::test]
async fn rejected_grant_needs_attention_once_the_token_is_known_dead() {
    let install = Install::new(|_| answer(400, r#"{"error":"invalid_grant","error_description":"SECRET"}"#)).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    let error = credentials.refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert!(matches!(&*error, RefreshError::Token(TokenError::Rejected { code }) if code == "invalid_grant"));
    let stored = install.stored(&connection).await;
    assert_eq!((stored.state, stored.state_reason.as_deref()), (ConnectionState::Attention, Some("invalid_grant")));

    assert_eq!(access_token(&lease(&credentials, &install, &connection).await.unwrap()), "access-1", "may still work");
    credentials.refused(&connection, 1);
    let error = lease(&credentials, &install, &connection).await.unwrap_err();
    assert_eq!(error.to_string(), "api needs attention: invalid_grant");

    // In a process that has not seen it refused, the end of the token's time tells.
    let (other, connection) = install.other_process(&connection).await;
    assert!(lease(&other, &install, &connection).await.is_ok());
    install.clock.advance(3600);
    assert!(matches!(lease(&other, &install, &connection).await, Err(LeaseError::Attention { .. })));
    let error = other.refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert!(matches!(&*error, RefreshError::Token(TokenError::Rejected { .. })));
    assert_eq!(install.endpoint.calls(), 1, "a rejected grant is not tried again");
}

#[tokio::test]
async fn rejection_of_an_expired_token_needs_attention_at_once() {
    let install = Install::new(|_| answer(401, r#"{"error":"invalid_client"}"#)).await;
    let connection = install.register(Setup { expires_at: Some(START), ..Setup::default() }).await;
    let error = lease(&install.credentials(), &install, &connection).await.unwrap_err();
    assert_eq!(error.to_string(), "api needs attention: invalid_client");
}

#[tokio::test]
async fn new_secret_ends_attention() {
    let install = Install::new(|call| match call.number {
        1 => answer(400, r#"{"error":"invalid_grant"}"#),
        _ => token("access-3", 3600, None),
    })
    .await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    credentials.refresh(&connection, 1, &install.egress).await.unwrap_err();
    credentials.refused(&connection, 1);
    super::processes::write_version(&install, &connection, 2, "access-2", "refresh-2").await;
    let record = install.stored(&connection).await;
    let connection = Arc::new(Connection::from_record(&record, Some(&connection)).unwrap());
    assert_eq!(access_token(&lease(&credentials, &install, &connection).await.unwrap()), "access-2");
    assert_eq!(credentials.refresh(&connection, 2, &install.egress).await.unwrap(), Refreshed::Version(3));
}

#[tokio::test]
async fn edited_record_does_not_open() {
    let install = Install::new(|_| unreachable!()).await;
    let connection = install.register(Setup::default()).await;
    let mut record = install.stored(&connection).await;
    record.version = 7;
    let edited = Arc::new(Connection::from_record(&record, None).unwrap());
    let error = lease(&install.credentials(), &install, &edited).await.unwrap_err();
    assert!(matches!(error, LeaseError::Sealed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_lockdown_opens_and_refreshes_nothing() {
    let install = Install::new(|_| token("fresh", 3_600, None)).await;
    let setup = Setup { issued_at: Some(START - 100), expires_at: Some(START + 10), ..Setup::default() };
    let connection = install.register(setup).await;
    let credentials = install.credentials();
    assert!(!credentials.set_locked(true));
    assert!(matches!(lease(&credentials, &install, &connection).await, Err(LeaseError::LockedDown)));
    let refreshed = credentials.refresh(&connection, 1, &install.egress).await;
    assert!(matches!(*refreshed.unwrap_err(), RefreshError::LockedDown));
    assert_eq!(install.endpoint.calls(), 0);
    assert!(credentials.set_locked(false));
    assert!(lease(&credentials, &install, &connection).await.is_ok());
    // Near its end, it was refreshed in the background.
    credentials.settle().await;
    assert_eq!((install.endpoint.calls(), connection.access().version), (1, 2));
}
