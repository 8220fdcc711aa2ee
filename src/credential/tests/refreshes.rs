//! Refreshes within one process: single flight, pace, what is kept.

use super::harness::{Install, START, Setup, answer, answer_with, token};
use crate::credential::{RefreshError, Refreshed, TokenError};
use crate::store::{ConnectionState, Store};
use std::sync::Arc;

#[tokio::test]
async fn two_hundred_refreshes_are_one_call() {
    let install = Arc::new(Install::new(|_| token("access-2", 3600, Some("refresh-2"))).await);
    let connection = install.register(Setup::default()).await;
    let credentials = Arc::new(install.credentials());
    install.endpoint.hold();
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (install, connection, credentials) = (install.clone(), connection.clone(), credentials.clone());
            tokio::spawn(async move { credentials.refresh(&connection, 1, &install.egress).await })
        })
        .collect();
    install.endpoint.called(1).await;
    install.endpoint.release();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Refreshed::Version(2));
    }
    assert_eq!(install.endpoint.calls(), 1);
    assert_eq!(install.stored_tokens(&connection).await, ("access-2".to_owned(), "refresh-2".to_owned()));
    assert_eq!(install.stored(&connection).await.version, 2);
    let late = credentials.refresh(&connection, 1, &install.egress).await;
    assert_eq!(late.unwrap(), Refreshed::Version(2), "an older version needs no call");
    assert_eq!(install.endpoint.calls(), 1);
}

#[tokio::test]
async fn cancelled_waiter_does_not_cancel_the_refresh() {
    let install = Install::new(|_| token("access-2", 3600, Some("refresh-2"))).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.endpoint.hold();
    tokio::select! {
        _ = credentials.refresh(&connection, 1, &install.egress) => panic!("is held"),
        () = install.endpoint.called(1) => {}
    }
    install.endpoint.release();
    credentials.settle().await;
    assert_eq!(connection.access().version, 2);
    assert_eq!(install.stored_tokens(&connection).await.1, "refresh-2");
}

#[tokio::test]
async fn old_refresh_token_is_kept_when_there_is_no_new_one() {
    let install = Install::new(|call| {
        assert_eq!(call.form["refresh_token"], "refresh-1");
        token(&format!("access-{}", call.number + 1), 3600, (call.number == 2).then_some(""))
    })
    .await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    for version in 1..4 {
        let refreshed = credentials.refresh(&connection, version, &install.egress).await.unwrap();
        assert_eq!(refreshed, Refreshed::Version(version + 1));
        credentials.worked(&connection, version + 1);
    }
    assert_eq!(install.stored_tokens(&connection).await, ("access-4".to_owned(), "refresh-1".to_owned()));
}

#[tokio::test]
async fn upstream_that_refuses_fresh_tokens_gets_one_refresh_in_ten_seconds() {
    let install = Install::new(|call| token(&format!("access-{}", call.number + 1), 3600, None)).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    assert!(credentials.refresh(&connection, 1, &install.egress).await.is_ok());
    for _ in 0..=10 {
        let error = credentials.refresh(&connection, 2, &install.egress).await.unwrap_err();
        assert!(matches!(*error, RefreshError::TooSoon { .. }), "{error:?}");
        install.clock.advance(1);
    }
    assert!(credentials.refresh(&connection, 2, &install.egress).await.is_ok());
    assert_eq!(install.endpoint.calls(), 2);
    credentials.worked(&connection, 3);
    assert!(credentials.refresh(&connection, 3, &install.egress).await.is_ok(), "a version that worked may end soon");
}

#[tokio::test]
async fn breaker_holds_calls_back_and_obeys_retry_after() {
    let install = Install::new(|call| match call.number {
        1 => answer(500, ""),
        2 => answer_with(429, "retry-after: 60\r\n", ""),
        _ => token("access-2", 3600, None),
    })
    .await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    let refresh = || credentials.refresh(&connection, 1, &install.egress);
    assert!(matches!(*refresh().await.unwrap_err(), RefreshError::Token(TokenError::Unusable { .. })));
    assert!(matches!(*refresh().await.unwrap_err(), RefreshError::TooSoon { wait_seconds: 2 }));
    install.clock.advance(2);
    assert!(matches!(*refresh().await.unwrap_err(), RefreshError::Token(TokenError::Busy { status: 429, .. })));
    assert!(matches!(*refresh().await.unwrap_err(), RefreshError::TooSoon { wait_seconds: 61 }));
    install.clock.advance(60);
    assert!(matches!(*refresh().await.unwrap_err(), RefreshError::TooSoon { wait_seconds: 1 }));
    install.clock.advance(1);
    assert_eq!(refresh().await.unwrap(), Refreshed::Version(2));
    assert_eq!(install.endpoint.calls(), 3);
}

#[tokio::test]
async fn static_connection_is_not_refreshable() {
    let install = Install::new(|_| unreachable!()).await;
    let access = super::harness::fields(&[("access_token", "abc")]);
    let connection = install.insert(None, &access, None, None, None).await;
    let credentials = install.credentials();
    let error = credentials.refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert!(matches!(*error, RefreshError::NotRefreshable));
    credentials.worked(&connection, 1);
    credentials.refused(&connection, 1);
}

#[tokio::test]
async fn connection_deleted_during_the_refresh_stays_deleted() {
    let install = Install::new(|_| token("access-2", 3600, None)).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    install.endpoint.hold();
    let delete = async {
        install.endpoint.called(1).await;
        install.store.delete_connection(&connection.scope, "api").await.unwrap();
        install.endpoint.release();
    };
    let (refreshed, ()) = tokio::join!(credentials.refresh(&connection, 1, &install.egress), delete);
    assert!(matches!(*refreshed.unwrap_err(), RefreshError::Store(_)));
    assert_eq!(connection.access().version, 1);
    assert!(install.store.list_connections(&connection.scope).await.unwrap().is_empty());
}

/// A store that takes no new credential, by a trigger: as on a full disk, the lease was taken before.
async fn break_store(install: &Install) -> sqlx::SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(install.path());
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(
        "CREATE TRIGGER full BEFORE UPDATE OF access_sealed ON connections BEGIN SELECT RAISE(FAIL, 'disk full'); END",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool
}

#[tokio::test]
async fn token_that_cannot_be_stored_is_used_from_memory_and_stored_later() {
    let install = Install::new(|_| token("access-2", 3600, Some("refresh-2"))).await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    let pool = break_store(&install).await;
    assert_eq!(credentials.refresh(&connection, 1, &install.egress).await.unwrap(), Refreshed::Version(2));
    assert_eq!(connection.access().version, 2);
    assert_eq!(install.stored(&connection).await.version, 1);

    // Never a second unsaved version: the endpoint is not asked.
    credentials.worked(&connection, 2);
    let error = credentials.refresh(&connection, 2, &install.egress).await.unwrap_err();
    assert!(matches!(*error, RefreshError::Store(_)), "{error:?}");
    assert_eq!(install.endpoint.calls(), 1);

    sqlx::query("DROP TRIGGER full").execute(&pool).await.unwrap();
    credentials.settle().await;
    assert_eq!(install.stored_tokens(&connection).await, ("access-2".to_owned(), "refresh-2".to_owned()));
    assert_eq!(install.stored(&connection).await.version, 2);
}

#[tokio::test]
async fn lost_answer_is_named_when_the_grant_is_then_rejected() {
    let install = Install::new(|call| match call.number {
        // The endpoint may have given out the next refresh token here.
        1 => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access".to_vec(),
        _ => answer(400, r#"{"error":"invalid_grant"}"#),
    })
    .await;
    let connection = install.register(Setup::default()).await;
    let credentials = install.credentials();
    let error = credentials.refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert!(matches!(*error, RefreshError::Token(TokenError::Unreachable(_))), "{error:?}");
    install.clock.advance(2);
    credentials.refresh(&connection, 1, &install.egress).await.unwrap_err();
    let stored = install.stored(&connection).await;
    assert_eq!(stored.state, ConnectionState::Attention);
    assert_eq!(stored.state_reason.as_deref(), Some("refresh_interrupted"));
    assert_eq!(stored.access_issued_at, Some(START), "nothing else changed");
}
