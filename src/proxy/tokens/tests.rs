#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::connection::{Connection, Frozen};
use crate::secret::Sealed;
use crate::store::{ConnectionRecord, ConnectionState};
use crate::strategy::Strategy;
use crate::types::{ConnectionId, ConnectionName, ProviderId, Scope, Url};
use http::HeaderValue;

fn token() -> String {
    // Exposed to be put where an agent puts it.
    AgentToken::generate().value().expose().to_owned()
}

fn connection(placements: &[&str]) -> Connection {
    let placements = placements.iter().map(|text| Placement::parse(text).unwrap()).collect();
    let frozen =
        Frozen::custom(&Url::parse(b"https://api.example.test").unwrap(), Strategy::new(placements).unwrap(), None)
            .unwrap();
    let record = ConnectionRecord {
        id: ConnectionId::generate(),
        scope: Scope::default(),
        name: ConnectionName::parse("acme").unwrap(),
        provider: ProviderId::parse("custom").unwrap(),
        definition: frozen.to_json(),
        version: 1,
        access: Sealed::from_bytes(b""),
        grant: None,
        access_issued_at: None,
        access_expires_at: None,
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: 0,
        updated_at: 0,
        orphaned_at: None,
    };
    Connection::from_record(&record, None).unwrap()
}

fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn tokens_are_found_where_the_connection_injects_and_where_sdks_send_keys() {
    let t = token();
    let basic = format!("Basic {}", STANDARD.encode(format!("user:{t}")));
    #[rustfmt::skip]
    let cases: Vec<(&str, HeaderMap, String, &[&str], bool)> = vec![
        ("bearer", headers(&[("authorization", format!("Bearer {t}"))]), "/a".into(), &["header X: {token}"], true),
        ("own header", headers(&[("x-nexus-token", t.clone())]), "/a".into(), &["header X: {token}"], true),
        ("anthropic's", headers(&[("x-api-key", t.clone())]), "/a".into(), &["header X: {token}"], true),
        ("injected header", headers(&[("x", t.clone())]), "/a".into(), &["header X: {token}"], true),
        ("another header", headers(&[("y", t.clone())]), "/a".into(), &["header X: {token}"], false),
        ("basic password", headers(&[("authorization", basic)]), "/a".into(), &["basic {user}:{password}"], true),
        ("query", HeaderMap::new(), format!("/a?key={t}"), &["query key={token}"], true),
        ("another parameter", HeaderMap::new(), format!("/a?other={t}"), &["query key={token}"], false),
        ("path", HeaderMap::new(), format!("/bot{t}/getMe"), &["path /bot{token}/"], true),
        ("path without placement", HeaderMap::new(), format!("/bot{t}/getMe"), &["header X: {token}"], false),
    ];
    for (name, headers, path, placements, looked_at) in cases {
        let found = find_tokens(&Directory::default(), &headers, &path).unwrap().expect(name);
        assert_eq!(found.presented, opaque(&t), "{name}");
        assert_eq!(found.is_looked_at(&connection(placements)), looked_at, "{name}");
    }
    assert!(find_tokens(&Directory::default(), &HeaderMap::new(), "/a?b=c").unwrap().is_none());
}

#[test]
fn two_different_tokens_are_refused_and_equal_ones_are_not() {
    let (t, other) = (token(), token());
    let both = headers(&[("authorization", format!("Bearer {t}")), ("x-api-key", t.clone())]);
    assert!(find_tokens(&Directory::default(), &both, "/").is_ok());
    let differing = headers(&[("authorization", format!("Bearer {t}")), ("x-api-key", other.clone())]);
    assert!(find_tokens(&Directory::default(), &differing, "/").is_err());
    assert!(find_tokens(&Directory::default(), &headers(&[("x-api-key", t)]), &format!("/?key={other}")).is_err());
}

#[test]
fn every_place_is_taken_out() {
    let t = token();
    let telegram = connection(&["path /bot{token}/"]);
    let mut all =
        headers(&[("authorization", "Bearer mine".to_owned()), ("x-api-key", t.clone()), ("cookie", "a=b".to_owned())]);
    let (path, had_prefix) =
        take_tokens(&Directory::default(), &mut all, &format!("/bot{t}/getMe?a=1&key={t}&b=2"), &telegram);
    assert_eq!((path.as_str(), had_prefix), ("/getMe?a=1&b=2", true));
    assert_eq!(all.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["cookie"]);
}

#[test]
fn tokens_are_masked() {
    let t = token();
    assert_eq!(mask_tokens(&format!("/bot{t}/x/{t}")), "/botnxt_***/x/nxt_***");
    assert_eq!(mask_tokens("/nxt_short/x"), "/nxt_short/x");
    assert_eq!(mask_tokens("/a/eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.sig_-/b/eyJ.eyJ.c"), "/a/eyJ***/b/eyJ***");
    assert_eq!(mask_tokens("/eyJwb2ludGVy/eyJ.x"), "/eyJwb2ludGVy/eyJ.x");
}
