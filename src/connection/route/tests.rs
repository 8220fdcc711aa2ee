#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::fixture::{connection, disabled, id, principal, scope};
use super::super::{Connection, RouteTable};
use super::{Choice, RouteError, destination_for};
use crate::identity::Principal;
use crate::types::{CanonicalPath, ConnectionId, Scope, Target, Url};
use proptest::prelude::*;
use std::sync::Arc;

fn url(text: &str) -> Url {
    Url::parse(text.as_bytes()).unwrap()
}

fn table(connections: Vec<Arc<Connection>>) -> RouteTable {
    RouteTable::default().updated(connections, &[])
}

/// `name#destination`, or why not.
fn shown(result: Result<Choice, RouteError>) -> String {
    match result {
        Ok(choice) => format!("{}#{}", choice.connection.name, choice.destination),
        Err(RouteError::None) => "none".to_owned(),
        Err(RouteError::Ambiguous(names)) => format!("ambiguous {}", names.join(" ")),
        Err(RouteError::AmbiguousPath) => "ambiguous path".to_owned(),
    }
}

fn route(table: &RouteTable, principal: &Principal, choice: Option<&str>, text: &str) -> String {
    let Url { target, path } = url(text);
    shown(table.route(principal, choice, &target, &path))
}

/// Connections of `default/default` and of others, and principals that were granted all of them but `ungranted`.
fn world() -> (RouteTable, Principal) {
    let own = Scope::default();
    let (other_namespace, other_tenant) = (scope("default/staging"), scope("acme/default"));
    let table = table(vec![
        connection(&own, "github", &["https://api.github.test", "https://github.test/git", "https://github.test/git"]),
        connection(&own, "plain", &["http://api.github.test:8080"]),
        connection(&own, "v1", &["https://base.test/v1"]),
        connection(&own, "v1-admin", &["https://base.test/v1/admin", "https://base.test/v1/admin/"]),
        connection(&own, "root", &["https://base.test"]),
        connection(&own, "wild", &["https://*.pattern.test/deep/path"]),
        connection(&own, "exact", &["https://a.pattern.test"]),
        connection(&own, "zwei", &["https://twice.test/x", "https://twice.test"]),
        connection(&own, "eins", &["https://twice.test/x"]),
        connection(&own, "pair-a", &["https://*.pair.test"]),
        connection(&own, "pair-b", &["https://*.pair.test", "https://b.pair.test"]),
        connection(&own, "address", &["https://192.0.2.7", "https://*.2.7.test"]),
        connection(&own, "restricted", &["https://restricted.test/v1"]),
        disabled(&own, "off", &["https://off.test", "https://base.test/v1/off"]),
        connection(&own, "ungranted", &["https://ungranted.test", "https://base.test/v1/secret"]),
        connection(&other_namespace, "staging", &["https://staging.test", "https://api.github.test/staging"]),
        connection(&other_namespace, "github", &["https://api.github.test"]),
        connection(&other_tenant, "acme", &["https://acme.test"]),
    ]);
    let names = [
        "github",
        "plain",
        "v1",
        "v1-admin",
        "root",
        "wild",
        "exact",
        "zwei",
        "eins",
        "pair-a",
        "pair-b",
        "address",
        "restricted",
        "off",
        "missing",
    ];
    let granted = names.map(|name| id(&own, name));
    let foreign = [id(&other_namespace, "staging"), id(&other_namespace, "github"), id(&other_tenant, "acme")];
    let principal = principal(&own, granted.into_iter().chain(foreign));
    (table, principal)
}

#[test]
fn routes_by_rule() {
    let (table, principal) = world();
    let own_id = id(&Scope::default(), "v1").to_string();
    let foreign_id = id(&scope("default/staging"), "staging").to_string();
    let ungranted_id = id(&Scope::default(), "ungranted").to_string();
    let off_id = id(&Scope::default(), "off").to_string();
    let cases: Vec<(&str, Option<&str>, &str, &str)> = vec![
        ("host", None, "https://api.github.test/user", "github#0"),
        ("host in another spelling", None, "https://API.GitHub.test./user", "github#0"),
        ("second destination, the first of equals", None, "https://github.test/git/x", "github#1"),
        ("outside the base path", None, "https://github.test/gitx", "none"),
        ("suffix of the host", None, "https://xapi.github.test/", "none"),
        ("host as a prefix", None, "https://api.github.test.evil.test/", "none"),
        ("other port", None, "https://api.github.test:8443/user", "none"),
        ("other scheme", None, "http://api.github.test/user", "none"),
        ("other scheme on the same port", None, "http://api.github.test:443/user", "none"),
        ("in clear where the connection is", None, "http://api.github.test:8080/user", "plain#0"),
        ("over TLS where the connection is in clear", None, "https://api.github.test:8080/user", "none"),
        ("root", None, "https://base.test/x", "root#0"),
        ("base path", None, "https://base.test/v1/x", "v1#0"),
        ("base path alone", None, "https://base.test/v1?a=b", "v1#0"),
        ("whole segments", None, "https://base.test/v10", "root#0"),
        ("longest base path", None, "https://base.test/v1/admin/x", "v1-admin#0"),
        ("case of the base path", None, "https://base.test/V1/x", "root#0"),
        ("a longer one that is disabled", None, "https://base.test/v1/off", "v1#0"),
        ("a longer one that is not granted", None, "https://base.test/v1/secret", "v1#0"),
        ("ambiguous path goes to the root", None, "https://base.test/v1/a%2Fb", "root#0"),
        ("ambiguous path and only a base path", None, "https://restricted.test/v1/a%2Fb;", "ambiguous path"),
        ("pattern", None, "https://b.pattern.test/deep/path/x", "wild#0"),
        ("pattern is for one label", None, "https://c.b.pattern.test/deep/path", "none"),
        ("pattern is not for the apex", None, "https://pattern.test/deep/path", "none"),
        ("exact before a pattern of a longer path", None, "https://a.pattern.test/deep/path", "exact#0"),
        ("address", None, "https://192.0.2.7/", "address#0"),
        ("address in another spelling", None, "https://0xC0000207/", "address#0"),
        ("address and a pattern", None, "https://192.0.2.8/", "none"),
        ("equally good", None, "https://twice.test/x/y", "ambiguous eins zwei"),
        ("equal on one path only", None, "https://twice.test/y", "zwei#1"),
        ("equal patterns", None, "https://a.pair.test/", "ambiguous pair-a pair-b"),
        ("equal patterns, one exact too", None, "https://b.pair.test/", "pair-b#1"),
        ("disabled", None, "https://off.test/", "none"),
        ("not granted", None, "https://ungranted.test/", "none"),
        ("another namespace, though granted", None, "https://staging.test/", "none"),
        ("another tenant, though granted", None, "https://acme.test/", "none"),
        ("unknown host", None, "https://unknown.test/", "none"),
        ("choice by name", Some("zwei"), "https://twice.test/x/y", "zwei#0"),
        ("choice by id", Some(&own_id), "https://base.test/v1/x", "v1#0"),
        ("choice of a less specific one", Some("root"), "https://base.test/v1/admin", "root#0"),
        ("choice does not widen the host", Some("github"), "https://base.test/", "none"),
        ("choice does not widen the path", Some("v1"), "https://base.test/v2", "none"),
        ("choice does not widen the port", Some("github"), "https://api.github.test:8443/", "none"),
        ("choice does not widen the scheme", Some("github"), "http://api.github.test:443/", "none"),
        ("choice with an ambiguous path", Some("v1"), "https://base.test/v1/a;b", "ambiguous path"),
        ("choice of an exact destination", Some("pair-b"), "https://b.pair.test/", "pair-b#1"),
        ("choice unknown", Some("nobody"), "https://api.github.test/", "none"),
        ("choice empty", Some(""), "https://api.github.test/", "none"),
        ("choice in another case", Some("GitHub"), "https://api.github.test/", "none"),
        ("choice disabled", Some("off"), "https://off.test/", "none"),
        ("choice disabled by id", Some(&off_id), "https://off.test/", "none"),
        ("choice not granted", Some("ungranted"), "https://ungranted.test/", "none"),
        ("choice not granted by id", Some(&ungranted_id), "https://ungranted.test/", "none"),
        ("choice of another namespace", Some("staging"), "https://staging.test/", "none"),
        ("choice of another namespace by id", Some(&foreign_id), "https://staging.test/", "none"),
    ];
    for (name, choice, text, expected) in &cases {
        assert_eq!(route(&table, &principal, *choice, text), *expected, "{name}");
    }
    // The same by the other walk: a token with many more connections than a host has places.
    let many = (0..100).map(|n| id(&Scope::default(), &format!("n{n}")));
    let wide =
        super::super::fixture::principal(&Scope::default(), principal.grant.connections.iter().cloned().chain(many));
    for (name, choice, text, expected) in &cases {
        assert_eq!(route(&table, &wide, *choice, text), *expected, "{name}, by host");
    }
}

#[test]
fn covered_hosts_are_intercepted_whatever_the_path() {
    let (table, principal) = world();
    for (authority, expected) in [
        ("api.github.test:443", true),
        ("restricted.test:443", true),
        ("b.pattern.test:443", true),
        ("c.b.pattern.test:443", false),
        ("twice.test:443", true),
        ("api.github.test:8443", false),
        ("api.github.test:8080", false),
        ("off.test:443", false),
        ("ungranted.test:443", false),
        ("staging.test:443", false),
        ("192.0.2.7:443", true),
    ] {
        let target = Target::parse_connect(authority.as_bytes()).unwrap();
        assert_eq!(table.covers_host(&principal, &target), expected, "{authority}");
    }
}

#[test]
fn granted_hides_what_is_not_the_principals() {
    let (table, principal) = world();
    let found = |text: &str| table.granted(&principal, text).map(|connection| connection.name.to_string());
    assert_eq!(found("github").unwrap(), "github");
    assert_eq!(found(id(&Scope::default(), "root").as_str()).unwrap(), "root");
    for hidden in ["off", "ungranted", "staging", "acme", "missing", "", id(&scope("acme/default"), "acme").as_str()] {
        assert_eq!(found(hidden), None, "{hidden}");
    }
    let staging = super::super::fixture::principal(&scope("default/staging"), principal.grant.connections.clone());
    assert_eq!(table.granted(&staging, "github").unwrap().id, id(&scope("default/staging"), "github"));
}

#[test]
fn a_name_that_is_another_connections_id() {
    let own = Scope::default();
    let hidden = id(&own, "hidden");
    let table = table(vec![
        connection(&own, "hidden", &["https://hidden.test"]),
        connection(&own, hidden.as_str(), &["https://impostor.test"]),
    ]);
    let impostor = id(&own, hidden.as_str());
    let found = |granted: Vec<ConnectionId>| {
        table.granted(&principal(&own, granted), hidden.as_str()).map(|connection| connection.id.clone())
    };
    assert_eq!(found(vec![impostor.clone()]).unwrap(), impostor);
    assert_eq!(found(vec![hidden.clone(), impostor]).unwrap(), hidden);
    assert_eq!(found(vec![]), None);
}

#[test]
fn base_url_requests_find_the_destination_of_one_connection() {
    let own = Scope::default();
    let one = connection(&own, "one", &["https://api.test/v1", "https://api.test/v1/admin", "https://*.test"]);
    for (text, expected) in [
        ("https://api.test/v1/x", "one#0"),
        ("https://api.test/v1/admin", "one#1"),
        ("https://api.test/v2", "one#2"),
        ("https://other.test/", "one#2"),
        ("https://other.example/", "none"),
    ] {
        let Url { target, path } = url(text);
        assert_eq!(shown(destination_for(&one, &target, &path).ok_or(RouteError::None)), expected, "{text}");
    }
}

#[test]
fn updates_replace_rename_disable_and_delete() {
    let own = Scope::default();
    let all = principal(&own, ["a", "b", "c"].map(|name| id(&own, name)));
    let first = table(vec![
        connection(&own, "a", &["https://a.test", "https://*.w.test"]),
        connection(&own, "b", &["https://b.test", "https://a.test/b"]),
    ]);
    assert_eq!(first.len(), 2);

    let moved = first.updated(vec![connection(&own, "a", &["https://new.test"])], &[]);
    assert_eq!(route(&moved, &all, None, "https://a.test/x"), "none");
    assert_eq!(route(&moved, &all, None, "https://x.w.test/"), "none");
    assert_eq!(route(&moved, &all, None, "https://new.test/"), "a#0");
    assert_eq!(route(&moved, &all, None, "https://a.test/b"), "b#1");
    assert_eq!(route(&first, &all, None, "https://a.test/x"), "a#0", "an older table stays as it was");

    let off = first.updated(vec![disabled(&own, "a", &["https://a.test"])], &[]);
    assert_eq!(route(&off, &all, None, "https://a.test/x"), "none");
    assert!(off.get(&id(&own, "a")).is_some_and(|connection| connection.disabled));
    assert_eq!(off.in_scope(&own).len(), 1);
    assert_eq!(off.len(), 2);
    let on = off.updated(vec![connection(&own, "a", &["https://a.test"])], &[]);
    assert_eq!(route(&on, &all, None, "https://a.test/x"), "a#0");

    let deleted = first.updated(vec![], &[id(&own, "a"), id(&own, "unknown")]);
    assert_eq!(route(&deleted, &all, Some("a"), "https://a.test/x"), "none");
    assert_eq!(route(&deleted, &all, Some("b"), "https://a.test/b"), "b#1");
    assert!(deleted.get(&id(&own, "a")).is_none());
    let both = first.updated(vec![connection(&own, "a", &["https://a.test"])], &[id(&own, "a")]);
    assert!(both.get(&id(&own, "a")).is_none(), "deleted wins");

    let empty = deleted.updated(vec![], &[id(&own, "b")]);
    assert!(empty.is_empty() && empty.in_scope(&own).is_empty());
}

#[test]
fn a_name_passes_from_one_connection_to_another_in_one_change() {
    let own = Scope::default();
    let renamed = |name: &str, to: &str, url: &str| {
        let mut record = super::super::fixture::record(&own, name, &super::super::fixture::frozen(&[url]));
        record.name = to.parse().unwrap();
        Arc::new(Connection::from_record(&record, None).unwrap())
    };
    let all = principal(&own, ["a", "b"].map(|name| id(&own, name)));
    let first = table(vec![renamed("a", "work", "https://a.test"), renamed("b", "home", "https://b.test")]);
    let swapped =
        first.updated(vec![renamed("a", "home", "https://a.test"), renamed("b", "work", "https://b.test")], &[]);
    assert_eq!(route(&swapped, &all, Some("home"), "https://a.test/"), "home#0");
    assert_eq!(route(&swapped, &all, Some("work"), "https://b.test/"), "work#0");
    let taken = first.updated(vec![renamed("b", "work", "https://b.test")], &[id(&own, "a")]);
    assert_eq!(route(&taken, &all, Some("work"), "https://b.test/"), "work#0");
    assert_eq!(route(&taken, &all, Some("home"), "https://b.test/"), "none");
}

#[test]
fn in_scope_is_enabled_and_by_name() {
    let (table, _) = world();
    let names = |text: &str| {
        table.in_scope(&scope(text)).iter().map(|connection| connection.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("default/staging"), ["github", "staging"]);
    assert_eq!(names("acme/default"), ["acme"]);
    assert!(names("acme/staging").is_empty());
    assert!(!names("default/default").contains(&"off".to_owned()));
}

const HOSTS: [&str; 5] = ["a.test", "b.test", "x.a.test", "*.a.test", "*.test"];
const PATHS: [&str; 4] = ["", "/v1", "/v1/x", "/v2"];
const SCOPES: [&str; 3] = ["default/default", "default/staging", "acme/default"];

#[derive(Debug, Clone)]
struct Made {
    scope: &'static str,
    name: usize,
    urls: Vec<String>,
    disabled: bool,
}

impl Made {
    fn connection(&self) -> Arc<Connection> {
        let urls: Vec<&str> = self.urls.iter().map(String::as_str).collect();
        let make = if self.disabled { disabled } else { connection };
        make(&scope(self.scope), &format!("n{}", self.name), &urls)
    }
}

fn a_url(hosts: &'static [&'static str], paths: Vec<&'static str>) -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec!["https", "https", "https", "http"]);
    let port = prop::sample::select(vec![":443", ":443", ":443", ":80", ":8443"]);
    (scheme, prop::sample::select(hosts), port, prop::sample::select(paths))
        .prop_map(|(scheme, host, port, path)| format!("{scheme}://{host}{port}{path}"))
}

fn made() -> impl Strategy<Value = Made> {
    let urls = prop::collection::vec(a_url(&HOSTS, PATHS.to_vec()), 1..4);
    (prop::sample::select(&SCOPES[..]), 0..6_usize, urls, prop::bool::weighted(0.2))
        .prop_map(|(scope, name, urls, disabled)| Made { scope, name, urls, disabled })
}

/// What the rules say, by looking at every connection.
fn by_rule(
    all: &[Arc<Connection>],
    principal: &Principal,
    choice: Option<&str>,
    target: &Target,
    path: &CanonicalPath,
) -> Option<Vec<(String, usize)>> {
    let mut found: Vec<((bool, usize), String, usize)> = Vec::new();
    for connection in all {
        let chosen = choice.is_none_or(|text| text == connection.name.as_str() || text == connection.id.as_str());
        let granted = principal.grant.connections.contains(&connection.id);
        if !chosen || !granted || connection.disabled || connection.scope != principal.scope {
            continue;
        }
        for (at, destination) in connection.frozen.destinations.iter().enumerate() {
            if destination.covers(target, path) {
                let rank = (destination.host.exact().is_some(), destination.path.as_str().len());
                found.push((rank, connection.name.to_string(), at));
            }
        }
    }
    let best = found.iter().map(|(rank, ..)| *rank).max()?;
    found.retain(|(rank, ..)| *rank == best);
    found.sort();
    found.dedup_by(|later, first| later.1 == first.1);
    Some(found.into_iter().map(|(_, name, at)| (name, at)).collect())
}

proptest! {
    #[test]
    fn routing_is_what_the_rules_say_after_any_updates(
        first in prop::collection::vec(made(), 0..12),
        second in prop::collection::vec(made(), 0..6),
        deleted in prop::collection::vec((prop::sample::select(&SCOPES[..]), 0..6_usize), 0..3),
        granted in prop::collection::vec((prop::sample::select(&SCOPES[..]), 0..6_usize), 0..12),
        asked_scope in prop::sample::select(&SCOPES[..]),
        choice in prop::option::of((0..6_usize, any::<bool>())),
        text in a_url(
            &["a.test", "b.test", "x.a.test", "y.a.test", "z.x.a.test", "c.test", "192.0.2.1"],
            vec!["", "/v1", "/v1/x/y", "/v10", "/v1/a%2fb", "/v1;x"],
        ),
    ) {
        let ids = |list: &[(&str, usize)]| -> Vec<ConnectionId> {
            list.iter().map(|(text, name)| id(&scope(text), &format!("n{name}"))).collect()
        };
        let deleted = ids(&deleted);
        let table = table(first.iter().map(Made::connection).collect())
            .updated(second.iter().map(Made::connection).collect(), &deleted);

        let mut all: Vec<Arc<Connection>> = Vec::new();
        for made in first.iter().chain(&second) {
            let connection = made.connection();
            all.retain(|other| other.id != connection.id);
            all.push(connection);
        }
        all.retain(|connection| !deleted.contains(&connection.id));
        prop_assert_eq!(table.len(), all.len());

        let asked_scope = scope(asked_scope);
        let principal = principal(&asked_scope, ids(&granted));
        let choice = choice.map(|(name, by_id)| {
            let name = format!("n{name}");
            if by_id { id(&asked_scope, &name).to_string() } else { name }
        });
        let Url { target, path } = url(&text);
        let expected = by_rule(&all, &principal, choice.as_deref(), &target, &path);
        match (table.route(&principal, choice.as_deref(), &target, &path), expected.as_deref()) {
            (Ok(found), Some([(name, at)])) => {
                prop_assert_eq!((found.connection.name.as_str(), found.destination), (name.as_str(), *at));
                prop_assert!(found.destination().covers(&target, &path));
                prop_assert!(table.covers_host(&principal, &target));
            }
            (Err(RouteError::Ambiguous(names)), Some(several)) => {
                prop_assert!(several.len() > 1);
                prop_assert_eq!(names, several.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
            }
            (Err(RouteError::None), None) => {}
            (Err(RouteError::AmbiguousPath), None) => prop_assert!(path.is_ambiguous()),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
