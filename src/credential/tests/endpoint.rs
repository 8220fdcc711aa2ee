//! Token endpoints that misbehave, through real sockets.

use super::harness::{Endpoint, Install, Setup, answer, answer_with, token};
use crate::credential::{CredentialSettings, RefreshError, TokenError};
use crate::store::ConnectionState;
use std::sync::Arc;
use std::time::Duration;

/// What a misbehaviour is taken for.
#[derive(Debug, PartialEq)]
enum Kind {
    Busy(Option<u64>),
    Unusable,
    Unreachable,
}

fn kind(error: &RefreshError) -> Kind {
    match error {
        RefreshError::Token(TokenError::Busy { retry_after, .. }) => Kind::Busy(*retry_after),
        RefreshError::Token(TokenError::Unusable { .. }) => Kind::Unusable,
        RefreshError::Token(TokenError::Unreachable(_)) => Kind::Unreachable,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn misbehaving_endpoints_change_nothing() {
    let large = format!(r#"{{"access_token":"SECRET","padding":"{}"}}"#, "x".repeat(10 * 1024 * 1024));
    let rows: Vec<(&str, Vec<u8>, Kind)> = vec![
        ("429", answer_with(429, "retry-after: 7\r\n", r#"{"error":"invalid_grant"}"#), Kind::Busy(Some(7))),
        ("503 without a time", answer(503, "SECRET"), Kind::Busy(None)),
        ("500", answer(500, r#"{"error":"invalid_grant"}"#), Kind::Unusable),
        ("HTML", answer_with(200, "content-type: text/html\r\n", "<html>SECRET</html>"), Kind::Unusable),
        ("10 MB", answer(200, &large), Kind::Unusable),
        ("redirect", answer_with(302, "location: /elsewhere\r\n", ""), Kind::Unusable),
        ("no token", answer(200, r#"{"expires_in":3600}"#), Kind::Unusable),
        ("mac", answer(200, r#"{"access_token":"SECRET","token_type":"mac"}"#), Kind::Unusable),
        ("400 without an error", answer(400, "SECRET"), Kind::Unusable),
        ("an unknown error", answer(400, r#"{"error":"SECRET"}"#), Kind::Unusable),
        ("not UTF-8", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec(), Kind::Unusable),
        (
            "cut off",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"access_token\":\"SECRET".to_vec(),
            Kind::Unreachable,
        ),
        (
            "garbage chunks",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nSECRET\r\n".to_vec(),
            Kind::Unreachable,
        ),
        ("not HTTP", b"SECRET\r\n\r\n".to_vec(), Kind::Unreachable),
        ("nothing", Vec::new(), Kind::Unreachable),
    ];
    for (name, bytes, expected) in rows {
        let install = Install::new(move |_| bytes.clone()).await;
        let connection = install.register(Setup::default()).await;
        let error = install.credentials().refresh(&connection, 1, &install.egress).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{name}: {error:?}");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("SECRET"), "{name}: {said}");
        let stored = install.stored(&connection).await;
        assert_eq!((stored.version, stored.state), (1, ConnectionState::Active), "{name}");
        assert_eq!(install.endpoint.calls(), 1, "{name}");
    }
}

#[tokio::test]
async fn slow_endpoint_is_given_up() {
    let install = Install::new(|_| token("access-2", 3600, None)).await;
    let connection = install.register(Setup::default()).await;
    let settings = CredentialSettings { token_timeout: Duration::from_millis(100), ..CredentialSettings::default() };
    let credentials = install.impatient(settings);
    install.endpoint.hold();
    let error = credentials.refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert_eq!(kind(&error), Kind::Unreachable);
    install.endpoint.release();
    install.clock.advance(2);
    assert!(credentials.refresh(&connection, 1, &install.egress).await.is_ok());
}

#[tokio::test]
async fn redirect_takes_the_refresh_token_nowhere() {
    let install = Install::new(|_| unreachable!()).await;
    let evil = Endpoint::start(install.acceptor.clone(), Arc::new(|_| token("evil", 3600, None))).await;
    let location = format!("location: https://auth.test:{}/token\r\n", evil.address.port());
    for status in [301, 302, 303, 307, 308] {
        let headers = location.clone();
        let install = Install::new(move |_| answer_with(status, &headers, "")).await;
        let connection = install.register(Setup::default()).await;
        let error = install.credentials().refresh(&connection, 1, &install.egress).await.unwrap_err();
        assert_eq!(kind(&error), Kind::Unusable, "{status}");
    }
    assert_eq!(evil.calls(), 0);
}

#[tokio::test]
async fn endpoint_that_is_not_there_is_unreachable() {
    let install = Install::new(|_| unreachable!()).await;
    let mut oauth = install.oauth(&Setup::default());
    // Nothing listens on port 1.
    oauth.token_url.target.port = 1;
    let grant = super::harness::fields(&[("client_id", "c"), ("refresh_token", "r")]);
    let access = super::harness::fields(&[("access_token", "a")]);
    let connection = install.insert(Some(oauth), &access, Some(&grant), None, None).await;
    let error = install.credentials().refresh(&connection, 1, &install.egress).await.unwrap_err();
    assert_eq!(kind(&error), Kind::Unreachable);
}
