#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Denial, Permit, Question, decide};
use crate::identity::{Grant, Principal};
use crate::types::{AgentName, CanonicalPath, ConnectionId, PathPattern, Scheme, Scope, Target, TokenId};
use proptest::prelude::*;
use std::sync::Arc;

fn ask(methods: &[&str], paths: &[&str], connection: &str, method: &str, path: &str) -> Result<Permit, Denial> {
    let grant = Grant {
        connections: vec![ConnectionId::parse("con_a").unwrap(), ConnectionId::parse("con_b").unwrap()],
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        paths: paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect(),
        ..Grant::default()
    };
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
