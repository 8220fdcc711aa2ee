#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Denial, Narrowing, Permit, Question, Wider, decide, narrow};
use crate::identity::{Grant, Principal};
use crate::store::TokenScope;
use crate::types::{AgentName, CanonicalPath, ConnectionId, HostPattern, PathPattern, Scheme, Scope, Target, TokenId};
use proptest::prelude::*;
use std::sync::Arc;

fn grant(methods: &[&str], paths: &[&str]) -> Grant {
    Grant {
        connections: vec![ConnectionId::parse("con_a").unwrap(), ConnectionId::parse("con_b").unwrap()],
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        paths: paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect(),
        ..Grant::default()
    }
}

fn ask(methods: &[&str], paths: &[&str], connection: &str, method: &str, path: &str) -> Result<Permit, Denial> {
    ask_by(grant(methods, paths), connection, method, path)
}

/// Asks for `https://api.test`.
fn ask_by(grant: Grant, connection: &str, method: &str, path: &str) -> Result<Permit, Denial> {
    let principal = Principal {
        scope: Scope::default(),
        agent: AgentName::parse("bot").unwrap(),
        run: None,
        token_id: Some(TokenId::parse("tok_a").unwrap()),
        issuer: None,
        grant: Arc::new(grant),
    };
    let connection = ConnectionId::parse(connection).unwrap();
    let permit = decide(
        &principal,
        &Question {
            connection: &connection,
            target: &Target::parse_authority(Scheme::Https, b"api.test").unwrap(),
            method: &http::Method::from_bytes(method.as_bytes()).unwrap(),
            path: &CanonicalPath::parse(path.as_bytes()).unwrap(),
        },
    )?;
    assert_eq!(permit.connection(), &connection);
    Ok(permit)
}

fn hosts(patterns: &[&str]) -> Vec<HostPattern> {
    patterns.iter().map(|pattern| HostPattern::parse(pattern).unwrap()).collect()
}

#[test]
fn hosts_and_scopes_narrow() {
    let host = |allowed: &str| Some(Denial::Host { host: "api.test".to_owned(), allowed: allowed.to_owned() });
    for (name, patterns, may_use, expected) in [
        ("no pattern is every host", &[][..], true, None),
        ("the host", &["api.test"], true, None),
        ("another spelling of it", &["API.test."], true, None),
        ("one of several", &["x.test", "*.test"], true, None),
        ("another host", &["x.test"], true, host("x.test")),
        ("a wildcard stands for one label", &["*.api.test", "*.x"], true, host("*.api.test, *.x")),
        ("a token that may only make tokens", &[], false, Some(Denial::Scope)),
        ("the scope comes first", &["x.test"], false, Some(Denial::Scope)),
    ] {
        let grant = Grant { hosts: hosts(patterns), may_use, may_mint: true, ..grant(&[], &[]) };
        assert_eq!(ask_by(grant, "con_a", "GET", "/").err(), expected, "{name}");
    }
}

#[test]
fn every_grant_of_a_chain_must_allow() {
    let wide = || grant(&[], &[]);
    let denied_by = |inner: fn(Grant) -> Grant| {
        let within = |own: Grant, outer: Grant| Grant { within: Some(Arc::new(outer)), ..own };
        let by_own = ask_by(within(inner(wide()), within(wide(), wide())), "con_a", "POST", "/x").err();
        let by_parent = ask_by(within(wide(), within(inner(wide()), wide())), "con_a", "POST", "/x").err();
        let by_first = ask_by(within(wide(), within(wide(), inner(wide()))), "con_a", "POST", "/x").err();
        assert!(by_own == by_parent && by_parent == by_first, "{by_own:?} {by_parent:?} {by_first:?}");
        by_own
    };
    let method = Denial::Method { method: "POST".to_owned(), allowed: "GET".to_owned() };
    let host = Denial::Host { host: "api.test".to_owned(), allowed: "b.test".to_owned() };
    assert_eq!(denied_by(|grant| grant), None);
    assert_eq!(denied_by(|grant| Grant { methods: vec!["GET".to_owned()], ..grant }), Some(method));
    assert_eq!(denied_by(|grant| Grant { hosts: hosts(&["b.test"]), ..grant }), Some(host));
    assert_eq!(denied_by(|grant| Grant { connections: Vec::new(), ..grant }), Some(Denial::NotGranted));
    assert_eq!(denied_by(|grant| Grant { may_use: false, ..grant }), Some(Denial::Scope));
    let path = |grant| Grant { paths: vec![PathPattern::parse("/y/**").unwrap()], ..grant };
    assert_eq!(denied_by(path), Some(Denial::Path { allowed: "/y/**".to_owned() }));
    assert_eq!(denied_by(|_| Grant::nothing()), Some(Denial::Scope));
}

#[test]
fn decisions_by_rule() {
    const ANY: &[&str] = &[];
    let method =
        |method: &str, allowed: &str| Some(Denial::Method { method: method.to_owned(), allowed: allowed.to_owned() });
    let path = |allowed: &str| Some(Denial::Path { allowed: allowed.to_owned() });
    type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], (&'a str, &'a str, &'a str), Option<Denial>);
    let cases: Vec<Case<'_>> = vec![
        ("granted", ANY, ANY, ("con_b", "POST", "/x"), None),
        ("not granted", ANY, ANY, ("con_c", "GET", "/x"), Some(Denial::NotGranted)),
        ("not granted comes first", &["GET"], &["/a"], ("con_c", "POST", "/x"), Some(Denial::NotGranted)),
        ("method allowed", &["GET", "PUT"], ANY, ("con_a", "PUT", "/"), None),
        ("method denied", &["GET", "PUT"], ANY, ("con_a", "POST", "/"), method("POST", "GET, PUT")),
        ("HEAD goes where GET may", &["GET"], ANY, ("con_a", "HEAD", "/"), None),
        ("GET does not go where HEAD may", &["HEAD"], ANY, ("con_a", "GET", "/"), method("GET", "HEAD")),
        ("HEAD without GET", &["POST"], ANY, ("con_a", "HEAD", "/"), method("HEAD", "POST")),
        ("lower case is another method", &["GET"], ANY, ("con_a", "get", "/"), method("get", "GET")),
        ("own methods", &["PURGE"], ANY, ("con_a", "PURGE", "/"), None),
        ("path allowed", ANY, &["/a", "/repos/**"], ("con_a", "GET", "/repos/x/y?z=/etc"), None),
        ("path denied", ANY, &["/a", "/repos/**"], ("con_a", "GET", "/user"), path("/a, /repos/**")),
        ("a query is no path", ANY, &["/a"], ("con_a", "GET", "/b?/a"), path("/a")),
        ("whole segments", ANY, &["/repos/**"], ("con_a", "GET", "/repository"), path("/repos/**")),
        ("encoded slash", ANY, &["/repos/**"], ("con_a", "GET", "/repos/a%2Fb"), Some(Denial::AmbiguousPath)),
        ("parameter", ANY, &["/repos/**"], ("con_a", "GET", "/repos/a;b"), Some(Denial::AmbiguousPath)),
        ("ambiguous elsewhere", ANY, &["/repos/**"], ("con_a", "GET", "/x%2Fb"), Some(Denial::AmbiguousPath)),
        ("ambiguous without restriction", ANY, ANY, ("con_a", "GET", "/repos/a%2Fb"), None),
        ("ambiguous in the query only", ANY, &["/repos/**"], ("con_a", "GET", "/repos/a?b=c%2Fd;e"), None),
        ("all paths", ANY, &["/a", "/**"], ("con_a", "GET", "/repos/a%2Fb"), None),
        ("method before path", &["GET"], &["/a"], ("con_a", "PUT", "/b"), method("PUT", "GET")),
    ];
    for (name, methods, paths, (connection, verb, path), expected) in cases {
        assert_eq!(ask(methods, paths, connection, verb, path).err(), expected, "{name}");
    }
}

#[test]
fn a_long_method_is_cut_in_the_denial() {
    let Err(Denial::Method { method, .. }) = ask(&["GET"], &[], "con_a", &"M".repeat(10_000), "/") else {
        panic!("denied by method");
    };
    assert_eq!(method.len(), 40);
}

proptest! {
    #[test]
    fn what_is_permitted_is_in_the_grant(
        methods in prop::sample::subsequence(vec!["GET", "HEAD", "POST"], 0..3),
        paths in prop::sample::subsequence(vec!["/a", "/a/*", "/b/**"], 0..3),
        connection in prop::sample::select(vec!["con_a", "con_b", "con_c"]),
        method in prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
        path in prop::sample::select(vec!["/", "/a", "/a/x", "/a/x/y", "/b", "/b/x", "/a/%2fx", "/b/x;y"]),
    ) {
        let permitted = ask(&methods, &paths, connection, method, path).is_ok();
        let by_method = methods.is_empty() || methods.contains(&method) || (method == "HEAD" && methods.contains(&"GET"));
        let parsed = CanonicalPath::parse(path.as_bytes()).unwrap();
        let by_path = paths.is_empty()
            || (!parsed.is_ambiguous() && paths.iter().any(|p| PathPattern::parse(p).unwrap().matches(&parsed)));
        prop_assert_eq!(permitted, connection != "con_c" && by_method && by_path);
    }
}

#[test]
fn what_is_wider_is_refused_by_its_field() {
    let maker = Grant { hosts: hosts(&["*.test"]), may_mint: true, ..grant(&["GET", "PUT"], &["/a/**", "/b"]) };
    let paths = |texts: &[&str]| Some(texts.iter().map(|text| PathPattern::parse(text).unwrap()).collect());
    let methods = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let wanted = || Narrowing { connections: vec![ConnectionId::parse("con_a").unwrap()], ..Narrowing::default() };
    let cases = [
        ("nothing but a connection", wanted(), None),
        ("connection", Narrowing { connections: vec![ConnectionId::parse("con_c").unwrap()], ..wanted() }, Some("use")),
        ("fewer methods", Narrowing { methods: methods(&["PUT"]), ..wanted() }, None),
        ("HEAD is of GET", Narrowing { methods: methods(&["HEAD"]), ..wanted() }, None),
        ("more methods", Narrowing { methods: methods(&["GET", "POST"]), ..wanted() }, Some("methods")),
        ("all methods", Narrowing { methods: Some(Vec::new()), ..wanted() }, Some("methods")),
        ("narrower paths", Narrowing { paths: paths(&["/a/x/*", "/b"]), ..wanted() }, None),
        ("wider paths", Narrowing { paths: paths(&["/a/x/*", "/**"]), ..wanted() }, Some("paths")),
        ("all paths", Narrowing { paths: Some(Vec::new()), ..wanted() }, Some("paths")),
        ("a host", Narrowing { hosts: Some(hosts(&["x.test"])), ..wanted() }, None),
        ("another host", Narrowing { hosts: Some(hosts(&["x.y.test"])), ..wanted() }, Some("hosts")),
        ("all hosts", Narrowing { hosts: Some(Vec::new()), ..wanted() }, Some("hosts")),
        ("both scopes", Narrowing { scopes: Some(vec![TokenScope::Mint, TokenScope::Use]), ..wanted() }, None),
    ];
    for (name, wanted, field) in cases {
        let refused = narrow(&maker, wanted.clone()).err().map(|Wider { field, .. }| field);
        assert_eq!(refused, field, "{name}");
        // What the maker is within counts as much.
        let outer = Grant { within: Some(Arc::new(maker.clone())), may_mint: true, ..grant(&[], &[]) };
        let explicit = wanted.methods.is_some() || wanted.paths.is_some() || wanted.hosts.is_some();
        if field.is_some() && explicit {
            assert_eq!(narrow(&outer, wanted).err().map(|wider| wider.field).is_some(), true, "{name}, above");
        }
    }
    let no_mint = Narrowing { scopes: Some(vec![TokenScope::Mint]), ..wanted() };
    assert_eq!(narrow(&grant(&[], &[]), no_mint).unwrap_err().field, "scopes");
    let rights = narrow(&maker, wanted()).unwrap();
    assert_eq!(rights.methods, maker.methods);
    assert_eq!((rights.paths, rights.hosts), (maker.paths.clone(), maker.hosts.clone()));
    assert_eq!(rights.scopes, [TokenScope::Use, TokenScope::Mint]);
}

/// Some of these, or all, as a record says it: empty.
fn lists(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(of, 0..=2.min(of.len()))
}

const METHODS: &[&str] = &["GET", "HEAD", "POST"];
const PATTERNS: &[&str] = &["/**", "/a/**", "/a/*", "/a/*/c", "/a/b*", "/a/b", "/**/c", "/*/*", "/b/**"];
const HOSTS: &[&str] = &["api.test", "x.test", "*.test", "*.api.test"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn what_a_made_token_may_its_maker_may(
        grants in prop::collection::vec((lists(METHODS), lists(PATTERNS), lists(HOSTS), any::<bool>()), 2..5),
        connections in prop::sample::subsequence(vec!["con_a", "con_b"], 1..=2),
        questions in prop::collection::vec(
            (
                prop::sample::select(vec!["con_a", "con_b"]),
                prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
                prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/bc", "/a/b/c", "/b/c", "/a%2fb", "/a;b/c"]),
            ),
            8,
        ),
    ) {
        let parse_paths = |texts: &[&str]| texts.iter().map(|text| PathPattern::parse(text).unwrap()).collect::<Vec<_>>();
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let ids: Vec<_> = connections.iter().map(|id| ConnectionId::parse(id).unwrap()).collect();
        let mut grants = grants.into_iter();
        let (methods, paths, patterns, _) = grants.next().unwrap();
        let mut maker = Grant { connections: ids.clone(), hosts: hosts(&patterns), may_mint: true, ..grant(&methods, &paths) };
        for (methods, paths, patterns, absent) in grants {
            let given = |list: &[&'static str]| !(absent && list.is_empty());
            let wanted = Narrowing {
                connections: ids.clone(),
                methods: given(&methods).then(|| owned(&methods)),
                paths: given(&paths).then(|| parse_paths(&paths)),
                hosts: given(&patterns).then(|| hosts(&patterns)),
                scopes: None,
            };
            let Ok(rights) = narrow(&maker, wanted) else { continue };
            // Judged without the maker's grant around it: the rights that were given are fewer by themselves.
            let child = Grant {
                connections: rights.connections,
                methods: rights.methods,
                paths: rights.paths,
                hosts: rights.hosts,
                may_use: rights.scopes.contains(&TokenScope::Use),
                may_mint: rights.scopes.contains(&TokenScope::Mint),
                within: None,
            };
            for (connection, method, path) in &questions {
                let may = |grant: &Grant| ask_by(grant.clone(), connection, method, path).is_ok();
                prop_assert!(!may(&child) || may(&maker), "{connection} {method} {path} {child:?} {maker:?}");
                let inside = Grant { within: Some(Arc::new(maker.clone())), ..child.clone() };
                prop_assert_eq!(may(&inside), may(&child));
            }
            maker = child;
        }
    }
}
