#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::net::testing::{PATIENCE, Peer, TestCa, egress, settings};
use std::net::SocketAddr;

fn client(ca: &TestCa) -> HttpsClient {
    HttpsClient::new(Arc::new(egress(settings(&["good.test"], Some(ca)))))
}

fn url(scheme: &str, address: SocketAddr, path: &str) -> Url {
    Url::parse(format!("{scheme}://good.test:{}{path}", address.port()).as_bytes()).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[tokio::test]
async fn a_form_is_posted_and_the_answer_read() {
    let ca = TestCa::new("test root");
    let reply = "HTTP/1.1 429 Too Many\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
    let mut peer = Peer::start(Some(ca.serve(&["good.test"])), "a=b&c=d", reply).await;
    let url = url("https", peer.address, "/token?x=y");
    let headers = [(http::header::AUTHORIZATION, secret("Basic eDp5"))];
    let answer = client(&ca).post_form(&url, &headers, &secret("a=b&c=d"), 1024, PATIENCE).await.unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    assert_eq!(answer.retry_after, Some(7));
    assert_eq!(answer.body.unwrap().expose(), "{\"a\": 1}");

    let request = String::from_utf8(peer.served().await.received).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "POST /token?x=y HTTP/1.1".to_owned(),
            "accept: application/json".to_owned(),
            "authorization: Basic eDp5".to_owned(),
            "content-length: 7".to_owned(),
            "content-type: application/x-www-form-urlencoded".to_owned(),
            format!("host: good.test:{}", peer.address.port()),
            format!("user-agent: nexus/{}", env!("CARGO_PKG_VERSION")),
        ]
    );
    assert_eq!(body, "a=b&c=d");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let ca = TestCa::new("test root");
    let reply = "HTTP/1.1 307 Moved\r\nLocation: https://evil.test/\r\nContent-Length: 0\r\n\r\n";
    let mut peer = Peer::start(Some(ca.serve(&["good.test"])), "\r\n\r\n", reply).await;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("evil.test"));
    headers.insert(USER_AGENT, HeaderValue::from_static("own"));
    let url = url("https", peer.address, "/user");
    let answer = client(&ca).request(http::Method::GET, &url, headers, 0, PATIENCE).await.unwrap();
    assert_eq!((answer.status, answer.body.unwrap().len()), (307, 0));
    let request = String::from_utf8(peer.served().await.received).unwrap();
    assert!(request.starts_with("GET /user HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("user-agent: own\r\n") && !request.contains("evil"), "{request}");
}

#[tokio::test]
async fn an_http_url_is_dialled_in_clear() {
    let ca = TestCa::new("test root");
    let peer = Peer::start(None, "\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n").await;
    let url = url("http", peer.address, "/");
    let answer = client(&ca).request(http::Method::HEAD, &url, HeaderMap::new(), 0, PATIENCE).await.unwrap();
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn large_answers_are_refused_however_they_are_framed() {
    let ca = TestCa::new("test root");
    let body = "x".repeat(100_000);
    for (name, reply) in [
        ("with length", format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{body}")),
        ("chunked", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n")),
        ("until close", format!("HTTP/1.1 200 OK\r\n\r\n{body}")),
    ] {
        let peer = Peer::start(Some(ca.serve(&["good.test"])), "\r\n\r\n", reply).await;
        let url = url("https", peer.address, "/");
        for (limit, fits) in [(100_000, true), (99_999, false)] {
            let result = client(&ca).request(http::Method::GET, &url, HeaderMap::new(), limit, PATIENCE).await;
            match result {
                Ok(answer) => assert!(fits && answer.body.unwrap().expose() == body, "{name}"),
                Err(ClientError::TooLarge(named)) => assert!(!fits && named == limit, "{name}"),
                Err(other) => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_text_is_left_out() {
    let ca = TestCa::new("test root");
    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe".to_vec();
    let peer = Peer::start(Some(ca.serve(&["good.test"])), "\r\n\r\n", reply).await;
    let url = url("https", peer.address, "/");
    let answer = client(&ca).request(http::Method::GET, &url, HeaderMap::new(), 10, PATIENCE).await.unwrap();
    assert!(answer.body.is_none());
}

#[tokio::test]
async fn answers_that_are_cut_off_or_not_http_are_errors() {
    let ca = TestCa::new("test root");
    for reply in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "SSH-2.0-x\r\n"] {
        let peer = Peer::start(Some(ca.serve(&["good.test"])), "\r\n\r\n", reply).await;
        let url = url("https", peer.address, "/");
        let error = client(&ca).request(http::Method::GET, &url, HeaderMap::new(), 99, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ClientError::Net(NetError::Http { .. })), "{reply:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_silent_endpoint_ends_at_the_timeout() {
    let ca = TestCa::new("test root");
    let peer = Peer::start(Some(ca.serve(&["good.test"])), "never", "").await;
    let url = url("https", peer.address, "/");
    let limit = Duration::from_millis(300);
    let error = client(&ca).post_form(&url, &[], &secret("a=b"), 99, limit).await.unwrap_err();
    assert!(matches!(error, ClientError::Net(NetError::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn nothing_is_sent_to_an_endpoint_that_does_not_verify() {
    let (ca, other) = (TestCa::new("test root"), TestCa::new("other root"));
    let mut peer = Peer::start(Some(other.serve(&["good.test"])), "a=b", "").await;
    let url = url("https", peer.address, "/");
    let error = client(&ca).post_form(&url, &[], &secret("a=b"), 99, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ClientError::Net(NetError::Tls { .. })), "{error:?}");
    assert_eq!(peer.served().await.received, b"");
}

#[tokio::test]
async fn a_value_that_no_header_can_have_is_refused_and_not_shown() {
    let ca = TestCa::new("test root");
    let url = Url::parse(b"https://good.test/").unwrap();
    let headers = [(http::header::AUTHORIZATION, secret("Bearer CANARY\r\nX: y"))];
    let error = client(&ca).post_form(&url, &headers, &secret("a=b"), 99, PATIENCE).await.unwrap_err();
    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
}

#[test]
fn secrets_in_headers_are_marked() {
    let value = sensitive(&secret("Bearer CANARY")).unwrap();
    assert!(value.is_sensitive());
    assert_eq!(format!("{value:?}"), "Sensitive");
}
