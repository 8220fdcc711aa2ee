#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::strategy::Placement;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(HeaderName::as_str).collect()
}

#[test]
fn what_must_not_travel_is_taken_out() {
    let mut request = headers(&[
        ("accept", "*/*"),
        ("connection", "close, x-named, content-length, host"),
        ("content-length", "3"),
        ("x-named", "1"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("x-nexus-connection", "a"),
        ("x_nexus_token", "a"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x_forwarded_host", "evil.test"),
        ("x-real-ip", "1.2.3.4"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
    ]);
    clean_request(&mut request);
    assert_eq!(names(&request), ["accept", "content-length"]);

    let mut answer = headers(&[
        ("content-type", "a/b"),
        ("connection", "x-named, content-encoding"),
        ("content-encoding", "gzip"),
        ("x-named", "1"),
        ("alt-svc", "h3=x"),
        ("refresh", "0"),
        ("x-nexus-error", "denied"),
    ]);
    clean_response(&mut answer);
    assert_eq!(names(&answer), ["content-type", "content-encoding"]);
}

#[test]
fn agents_copies_go_in_every_spelling() {
    let strategy = Strategy::new(vec![
        Placement::parse("header X-Api-Key: {token}").unwrap(),
        Placement::parse("basic {user}:{password}").unwrap(),
    ])
    .unwrap();
    let mut request = headers(&[
        ("authorization", "mine"),
        ("authorization", "mine too"),
        ("x-api-key", "mine"),
        ("x_api_key", "mine"),
        ("x-api-key2", "other"),
    ]);
    remove_agent_copies(&mut request, &strategy);
    assert_eq!(names(&request), ["x-api-key2"]);
}

#[test]
fn method_overrides_go_in_every_spelling() {
    let mut request = headers(&[("x-http-method-override", "DELETE"), ("x_http_method", "PUT"), ("x-method", "kept")]);
    remove_method_overrides(&mut request);
    assert_eq!(names(&request), ["x-method"]);
}

#[test]
fn accepted_codings_are_cut_to_what_is_scrubbed() {
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&[], "identity"),
        (&["br, zstd"], "identity"),
        (&["br, gzip;q=0.5"], "gzip"),
        (&["gzip;q=0"], "identity"),
        (&["gzip; q=0.000"], "identity"),
        (&["*"], "gzip"),
        (&["deflate", "GZIP"], "gzip"),
    ];
    for (values, expected) in cases {
        let mut request = HeaderMap::new();
        for value in *values {
            request.append(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        request.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        narrow_accept_encoding(&mut request);
        assert_eq!(request[header::ACCEPT_ENCODING], expected, "{values:?}");
        assert!(!request.contains_key(header::RANGE));
    }
}

#[test]
fn websockets_are_asked_for_by_get_and_both_headers() {
    type Fields = &'static [(&'static str, &'static str)];
    #[rustfmt::skip]
    let cases: &[(&str, http::Method, Fields, bool)] = &[
        ("usual", http::Method::GET, &[("connection", "Upgrade"), ("upgrade", "websocket")], true),
        ("firefox", http::Method::GET, &[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], true),
        ("post", http::Method::POST, &[("connection", "upgrade"), ("upgrade", "websocket")], false),
        ("no connection", http::Method::GET, &[("upgrade", "websocket")], false),
        ("h2c", http::Method::GET, &[("connection", "upgrade"), ("upgrade", "h2c")], false),
    ];
    for (name, method, pairs, expected) in cases {
        let mut request = HeaderMap::new();
        for (name, value) in *pairs {
            request.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(asks_for_websocket(method, &request), *expected, "{name}");
    }
}

#[test]
fn a_request_of_our_own_is_known_by_via() {
    let ours = Pseudonym::new("0123456789abcdef-x");
    let mut request = headers(&[("via", "1.1 other, 1.0 nexus-ffff")]);
    assert!(!ours.is_in(&request));
    ours.add_to(&mut request);
    assert!(ours.is_in(&request));
    assert!(!Pseudonym::new("ffffffffffffffff").is_in(&request));
}
