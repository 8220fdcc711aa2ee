#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::fixture::{destination, frozen, strategy};
use super::{Frozen, Grant, OAuthGrant, Source};
use crate::provider::{TestRequest, TokenClientAuth};
use crate::types::{CanonicalPath, PathError, Target, Url};
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

fn url(text: &str) -> Url {
    Url::parse(text.as_bytes()).unwrap()
}

/// A definition with everything in it.
fn full() -> Frozen {
    let mut full = frozen(&["https://api.github.test/v1", "https://*.github.test", "http://[2001:db8::1]:8080"]);
    full.destinations[1].strategy =
        strategy(&["basic {user}:{password}", "query key={token|urlencode}", "path /bot{token}/"]);
    full.oauth = Some(OAuthGrant {
        grant: Grant::RefreshToken,
        token_url: url("https://github.test/login/oauth/access_token?x=1"),
        client_auth: TokenClientAuth::Basic,
        scope: Some("repo user".to_owned()),
    });
    full.default_headers = vec![
        (HeaderName::from_static("accept"), HeaderValue::from_static("application/json")),
        (HeaderName::from_static("x-bytes"), HeaderValue::from_bytes(b"a\x80\xff\tz\"\\").unwrap()),
    ];
    full.test = Some(TestRequest {
        method: "GET".to_owned(),
        url: "/user".to_owned(),
        expect_status: vec![200, 204],
        expect_json: Some("a.b".to_owned()),
    });
    full.revision = Some("ab".repeat(32));
    full
}

#[test]
fn json_is_stable() {
    let json = r#"{"format":1,"destinations":[{"scheme":"https","host":"api.github.test","port":443,"path":"/v1","inject":["header authorization: Bearer {token}"]},{"scheme":"https","host":"*.github.test","port":443,"path":"/","inject":["basic {user}:{password}","query key={token|urlencode}","path /bot{token}/"]},{"scheme":"http","host":"[2001:db8::1]","port":8080,"path":"/","inject":["header authorization: Bearer {token}"]}],"oauth":{"grant":"refresh_token","token_url":"https://github.test/login/oauth/access_token?x=1","client_auth":"basic","scope":"repo user"},"default_headers":[{"name":"accept","value":"application/json"},{"name":"x-bytes","value":"a\u0080ÿ\tz\"\\"}],"test":{"method":"GET","url":"/user","expect_status":[200,204],"expect_json":"a.b"},"revision":"REVISION"}"#
        .replace("\\u0080", "\u{80}")
        .replace("REVISION", &"ab".repeat(32));
    assert_eq!(full().to_json(), json);
    assert_eq!(Frozen::from_json(&json).unwrap(), full());
    let least = r#"{"format":1,"destinations":[{"scheme":"https","host":"a.test","port":443,"path":"/","inject":["header authorization: Bearer {token}"]}]}"#;
    assert_eq!(frozen(&["https://a.test"]).to_json(), least);
    assert_eq!(Frozen::from_json(least).unwrap(), frozen(&["https://a.test"]));
}

#[test]
fn damaged_json_is_refused() {
    let good = full().to_json();
    let cases = [
        ("nothing", String::new()),
        ("not JSON", "x".to_owned()),
        ("cut short", good[..good.len() - 1].to_owned()),
        ("more after it", format!("{good}{good}")),
        ("no format", good.replace(r#""format":1,"#, "")),
        ("another format", good.replace(r#""format":1"#, r#""format":2"#)),
        ("unknown field", good.replace(r#"{"format""#, r#"{"extra":1,"format""#)),
        ("unknown field of a destination", good.replace(r#""scheme":"https""#, r#""scheme":"https","extra":1"#)),
        ("unknown field of the token endpoint", good.replace(r#""oauth":{"#, r#""oauth":{"extra":1,"#)),
        ("unknown field of the test", good.replace(r#""test":{"#, r#""test":{"extra":1,"#)),
        ("a field twice", good.replace(r#"{"format":1"#, r#"{"format":1,"format":1"#)),
        ("no destination", r#"{"format":1,"destinations":[]}"#.to_owned()),
        ("unknown scheme", good.replace(r#""scheme":"http""#, r#""scheme":"ftp""#)),
        ("host", good.replace("[2001:db8::1]", "a b")),
        ("port 0", good.replace("8080", "0")),
        ("port too large", good.replace("8080", "65536")),
        ("base path", good.replace(r#""/v1""#, r#""/v1/../x""#)),
        ("placement", good.replace("basic {user}", "basis {user}")),
        ("placements that collide", good.replace("query key={token|urlencode}", "basic {a}:{b}")),
        ("token URL", good.replace("https://github.test/login", "ftp://github.test/login")),
        ("grant", good.replace("refresh_token", "password")),
        ("header name", good.replace("x-bytes", "x bytes")),
        ("header value", good.replace("application/json", "a\\nb")),
        ("header value beyond bytes", good.replace("application/json", "\u{100}")),
    ];
    for (name, json) in cases {
        assert_ne!(json, good, "{name}");
        assert!(Frozen::from_json(&json).is_err(), "{name}");
    }
}

fn hex(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A changed digest makes every stored credential unreadable.
#[test]
fn digests_stay_what_they_are() {
    assert_eq!(hex(full().access_digest()), "7eb834de1da906536c84946d319d321c8682181fc365f4302a4abed276404029");
    assert_eq!(hex(full().grant_digest()), "6b9b2f1eee751088ffe36f489655f1a3fac8a6e17c16ad23ca95acbe530148dd");
}

#[test]
fn digests_tell_what_they_are_bound_to() {
    type Change = fn(&mut Frozen);
    let cases: [(&str, Change, bool, bool); 14] = [
        ("scheme", |f| f.destinations[0].scheme = crate::types::Scheme::Http, true, true),
        ("host", |f| f.destinations[0].host = destination("https://evil.test").host, true, true),
        ("pattern", |f| f.destinations[0].host = destination("https://*.api.github.test").host, true, true),
        ("port", |f| f.destinations[0].port = 8443, true, true),
        ("base path", |f| f.destinations[0].path = destination("https://a.test/v2").path, true, true),
        ("placement", |f| f.destinations[0].strategy = strategy(&["header x-key: {token}"]), true, true),
        ("order", |f| f.destinations.swap(0, 1), true, true),
        ("one less", |f| drop(f.destinations.pop()), true, true),
        ("token URL", |f| f.oauth.as_mut().unwrap().token_url = url("https://evil.test/"), false, true),
        ("client authentication", |f| f.oauth.as_mut().unwrap().client_auth = TokenClientAuth::Post, false, true),
        ("no token endpoint", |f| f.oauth = None, false, true),
        ("scope", |f| f.oauth.as_mut().unwrap().scope = None, false, false),
        ("test request", |f| f.test = None, false, false),
        ("revision", |f| f.revision = None, false, false),
    ];
    for (name, change, access, grant) in cases {
        let mut changed = full();
        change(&mut changed);
        assert_eq!(changed.access_digest() != full().access_digest(), access, "{name}: access");
        assert_eq!(changed.grant_digest() != full().grant_digest(), grant, "{name}: grant");
    }
    assert_ne!(full().access_digest(), full().grant_digest());
}

#[test]
fn covers_by_rule() {
    let cases = [
        ("https://a.test/v1", "https://a.test/v1/x", true),
        ("https://a.test/v1", "https://a.test/v1?x", true),
        ("https://a.test/v1", "https://a.test/v10", false),
        ("https://a.test/v1", "https://a.test/", false),
        ("https://a.test/v1", "https://a.test/v1/a%2fb", false),
        ("https://a.test", "https://a.test/v1/a%2fb", true),
        ("https://a.test", "http://a.test/", false),
        ("https://a.test", "https://a.test:8443/", false),
        ("https://*.test", "https://a.test/", true),
        ("https://*.test", "https://a.b.test/", false),
        ("https://*.test", "https://test/", false),
    ];
    for (own, asked, expected) in cases {
        let Url { target, path } = url(asked);
        assert_eq!(destination(own).covers(&target, &path), expected, "{own} {asked}");
    }
}

#[test]
fn custom_takes_its_destination_from_the_base_url() {
    let bearer = || strategy(&["header authorization: Bearer {token}"]);
    let custom = Frozen::custom(&url("https://API.test:8443/v1/?ignored=1"), bearer(), None).unwrap();
    assert_eq!(custom, frozen(&["https://api.test:8443/v1"]));
    let (target, path) = custom.base_url().unwrap();
    assert_eq!((target.to_string(), path.as_str()), ("https://api.test:8443".to_owned(), "/v1"));
    let address = Frozen::custom(&url("http://[::1]:80"), bearer(), None).unwrap();
    assert_eq!(address, frozen(&["http://[::1]"]));
    assert_eq!(Frozen::custom(&url("https://api.test/a%2fb"), bearer(), None), Err(PathError::Ambiguous));
}

#[test]
fn a_pattern_is_no_base_url() {
    assert_eq!(frozen(&["https://*.a.test", "https://a.test"]).base_url(), None);
    assert!(frozen(&["https://a.test", "https://*.a.test"]).base_url().is_some());
}

fn an_oauth() -> impl Strategy<Value = OAuthGrant> {
    (
        prop::sample::select(vec![Grant::RefreshToken, Grant::ClientCredentials]),
        "https?://[a-z]{1,8}\\.test(:[1-9][0-9]{0,3})?(/[a-z%20]{0,0}[a-z0-9~._-]{0,0}[a-z]{1,6})?(\\?[a-z=&]{0,8})?",
        prop::sample::select(vec![TokenClientAuth::Basic, TokenClientAuth::Post, TokenClientAuth::None]),
        prop::option::of(any::<String>()),
    )
        .prop_map(|(grant, text, client_auth, scope)| OAuthGrant {
            grant,
            token_url: url(&text),
            client_auth,
            scope,
        })
}

fn a_source() -> impl Strategy<Value = Source> {
    let settings = prop::collection::btree_map("[a-z]{1,5}", any::<String>(), 0..3);
    let a_url = || prop::option::of("https://[a-z]{1,8}\\.test(:[1-9][0-9]{0,3})?/[a-z0-9]{0,5}");
    ("[a-z]{1,8}", settings, a_url(), a_url()).prop_map(|(auth, settings, base_url, token_url)| Source {
        auth,
        settings,
        base_url: base_url.map(|text| url(&text)),
        token_url: token_url.map(|text| url(&text)),
    })
}

fn a_definition() -> impl Strategy<Value = Frozen> {
    let placements = prop::sample::subsequence(
        vec![
            "header authorization: Bearer {token}",
            "header X-Api-Key: {{{key|base64}}} \"\\",
            "query key={token}",
            "query a%20b=x{token}y",
            "path /bot{token}",
        ],
        0..=5,
    );
    let destinations = prop::collection::vec(
        ("https?://(\\*\\.)?[a-z]{1,8}\\.test(:[1-9][0-9]{0,3})?(/[a-z0-9]{1,5}){0,3}/?", placements),
        1..4,
    );
    let header = ("x-[a-z]{1,8}", prop::collection::vec(prop_oneof![Just(9_u8), 32..=126_u8, 128..=255_u8], 0..12));
    let test = (any::<String>(), any::<String>(), any::<Vec<u16>>(), any::<Option<String>>());
    (
        destinations,
        prop::option::of(an_oauth()),
        prop::collection::vec(header, 0..3),
        prop::option::of(test),
        any::<Option<String>>(),
        prop::option::of(a_source()),
    )
        .prop_map(|(destinations, oauth, headers, test, revision, source)| Frozen {
            destinations: destinations
                .into_iter()
                .map(|(url, placements)| super::Destination { strategy: strategy(&placements), ..destination(&url) })
                .collect(),
            oauth,
            default_headers: headers
                .into_iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(&value).unwrap()))
                .collect(),
            test: test.map(|(method, url, expect_status, expect_json)| TestRequest {
                method,
                url,
                expect_status,
                expect_json,
            }),
            revision,
            source,
        })
}

proptest! {
    #[test]
    fn json_gives_back_what_it_was_made_from(frozen in a_definition()) {
        let read = Frozen::from_json(&frozen.to_json()).unwrap();
        prop_assert_eq!(read.to_json(), frozen.to_json());
        prop_assert_eq!(read.access_digest(), frozen.access_digest());
        prop_assert_eq!(read.grant_digest(), frozen.grant_digest());
        prop_assert_eq!(read, frozen);
    }

    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        let _ = Frozen::from_json(&text);
    }

    #[test]
    fn a_base_url_covers_what_is_joined_to_it(frozen in a_definition(), tail in "(/[a-z]{1,5}){1,3}") {
        if let Some((target, base)) = frozen.base_url() {
            let path = base.join(&CanonicalPath::parse(tail.as_bytes()).unwrap());
            prop_assert!(frozen.destinations[0].covers(&target, &path));
            let elsewhere = Target { port: target.port % 65_535 + 1, ..target };
            prop_assert!(!frozen.destinations[0].covers(&elsewhere, &path));
        }
    }
}
