//! Tables and laws of placements and strategies.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Edit, Injection, Placement, PlacementError, Strategy, StrategyError, TemplateError};
use crate::secret::{Secret, SecretFields};
use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

fn fields(pairs: &[(&str, &str)]) -> SecretFields {
    let mut fields = SecretFields::default();
    pairs.iter().for_each(|(name, value)| fields.insert(name, Secret::new((*value).to_owned())));
    fields
}

fn strategy(placements: &[&str]) -> Strategy {
    Strategy::new(placements.iter().map(|text| Placement::parse(text).unwrap()).collect()).unwrap()
}

/// Edits as text, for comparison.
fn shown(injection: &Injection) -> Vec<String> {
    injection
        .edits
        .iter()
        .map(|edit| match edit {
            Edit::Header { name, value } => {
                assert!(value.is_sensitive(), "{name} is sensitive");
                format!("{name}: {}", value.to_str().unwrap())
            }
            Edit::Query { pair } => format!("?{}", pair.expose()),
            Edit::PathPrefix { prefix } => prefix.expose().to_owned(),
        })
        .collect()
}

#[test]
fn placements_parse_and_display_gives_them_back() {
    for (name, text, expected) in [
        ("header", "header Authorization: Bearer {token}", "header authorization: Bearer {token}"),
        ("no space", "header X-Api-Key:{token}", "header x-api-key: {token}"),
        ("colon in value", "header X-K: a:{token}", "header x-k: a:{token}"),
        ("space around", "  HEADER   X-K :  {token}  ", "header x-k: {token}"),
        ("tab", "header\tX-K: {token}", "header x-k: {token}"),
        ("filters", "header X-K: {token|lower|base64}", "header x-k: {token|lower|base64}"),
        ("basic", "basic {user}:{password}", "basic {user}:{password}"),
        ("basic keyword", "Basic {user}:{password}", "basic {user}:{password}"),
        ("no password", "basic {token}:", "basic {token}:"),
        ("no user", "basic :{token}", "basic :{token}"),
        ("literal user", "basic x-access-token:{token}", "basic x-access-token:{token}"),
        ("decorated user", "basic {email}/token:{token}", "basic {email}/token:{token}"),
        ("colon in password", "basic {user}:a:{password}", "basic {user}:a:{password}"),
        ("query", "query key={token}", "query key={token}"),
        ("query equals", "query key=a={token}", "query key=a={token}"),
        ("path", "path /bot{token}/", "path /bot{token}/"),
        ("path without slash", "path /bot{token}", "path /bot{token}/"),
        ("path of two", "path /{user}/x:{token}/", "path /{user}/x:{token}/"),
        ("braces", "header X-K: {{{token}}}", "header x-k: {{{token}}}"),
    ] {
        let placement = Placement::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(placement.to_string(), expected, "{name}");
        assert_eq!(Placement::parse(expected).as_ref(), Ok(&placement), "{name}");
    }
}

#[test]
fn bad_placements_are_refused() {
    use PlacementError as E;
    let form = |text: &str| E::Form(text.to_owned());
    for (name, text, expected) in [
        ("empty", "", form("")),
        ("keyword alone", "header", form("header")),
        ("unknown", "cookie a={token}", form("cookie a={token}")),
        ("header without colon", "header X-K {token}", form("header X-K {token}")),
        ("basic without colon", "basic {user}", form("basic {user}")),
        ("query without equals", "query key", form("query key")),
        ("query without name", "query ={token}", form("query ={token}")),
        ("field as query name", "query {token}=a", form("query {token}=a")),
        ("space in query name", "query a b={token}", form("query a b={token}")),
        ("header name", "header X Key: {token}", E::Header("X Key".to_owned())),
        ("no header name", "header : {token}", E::Header(String::new())),
        ("brace", "header X-K: {token", E::Template(TemplateError::Brace("{token".to_owned()))),
        ("no field", "header X-K: secret", E::NoField("header X-K: secret".to_owned())),
        ("no field in basic", "basic a:b", E::NoField("basic a:b".to_owned())),
        ("newline in a header", "header X-K: a\n{token}", E::Literal("header X-K: a\n{token}".to_owned())),
        ("outside ASCII in a header", "header X-K: é{token}", E::Literal("header X-K: é{token}".to_owned())),
        ("control in basic", "basic a\u{7}:{token}", E::Literal("basic a\u{7}:{token}".to_owned())),
        ("relative path", "path bot{token}/", E::Literal("path bot{token}/".to_owned())),
        ("empty segment", "path //{token}/", E::Literal("path //{token}/".to_owned())),
        ("two slashes at the end", "path /{token}//", E::Literal("path /{token}//".to_owned())),
        ("dot segment", "path /../{token}/", E::Literal("path /../{token}/".to_owned())),
        ("escape in a path", "path /%2e/{token}/", E::Literal("path /%2e/{token}/".to_owned())),
        ("query in a path", "path /{token}/?a", E::Literal("path /{token}/?a".to_owned())),
    ] {
        assert_eq!(Placement::parse(text), Err(expected), "{name}");
    }
}

#[test]
fn framing_hop_by_hop_and_control_headers_are_refused() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Proxy-Authorization",
        "Proxy-Connection",
        "proxy-anything",
        "X-Nexus-Token",
        "x-nexus-connection",
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-host",
        "Content_Length",
        "X_Forwarded_For",
    ] {
        let text = format!("header {name}: {{token}}");
        assert_eq!(Placement::parse(&text), Err(PlacementError::Header(name.to_owned())), "{name}");
    }
    for name in ["Authorization", "Cookie", "X-Api-Key", "hostname", "Upgrade-Key"] {
        Placement::parse(&format!("header {name}: {{token}}")).unwrap();
    }
}

#[test]
fn placements_that_collide_are_refused() {
    for (name, placements, place) in [
        ("header", ["header X-K: {a}", "header x-k: {b}"], "the header x-k"),
        ("underscore twin", ["header X-K: {a}", "header X_K: {b}"], "the header x-k"),
        ("basic", ["basic {a}:{b}", "header AUTHORIZATION: Bearer {c}"], "the header authorization"),
        ("query", ["query k={a}", "query k={b}"], "the query parameter k"),
        ("path", ["path /{a}/", "path /{b}/"], "the path"),
    ] {
        let placements = placements.iter().map(|text| Placement::parse(text).unwrap()).collect();
        assert_eq!(Strategy::new(placements), Err(PlacementError::Twice(place.to_owned())), "{name}");
    }
    strategy(&["header X-K: {a}", "header X-L: {a}", "query k={a}", "query K={a}", "path /{a}/", "basic {a}:"]);
}

#[test]
fn a_strategy_tells_what_it_needs_and_sets() {
    let strategy = strategy(&["basic {user}:{token}", "header X-K: {token}", "query k={key}", "path /x{user}/"]);
    assert_eq!(strategy.fields(), ["user", "token", "key"]);
    assert_eq!(strategy.header_names(), ["authorization", "x-k"]);
    assert_eq!(strategy.query_names(), ["k"]);
}

#[test]
fn injections_are_exact() {
    let given = fields(&[("token", "s3cr&t/+ é?"), ("user", "me"), ("key", "K-1_2.3~4"), ("empty", "")]);
    for (name, placements, expected) in [
        ("bearer", vec!["header Authorization: Bearer {key}"], vec!["authorization: Bearer K-1_2.3~4"]),
        ("two headers", vec!["header A: {key}", "header B: {user|base64}"], vec!["a: K-1_2.3~4", "b: bWU="]),
        ("basic", vec!["basic {user}:{key}"], vec!["authorization: Basic bWU6Sy0xXzIuM340"]),
        ("basic, any character", vec!["basic {user}:{token}"], vec!["authorization: Basic bWU6czNjciZ0Lysgw6k/"]),
        ("no password", vec!["basic {user}:{empty}"], vec!["authorization: Basic bWU6"]),
        ("literal user", vec!["basic x:{user}"], vec!["authorization: Basic eDptZQ=="]),
        ("query encoded", vec!["query a&b={token}"], vec!["?a%26b=s3cr%26t%2F%2B%20%C3%A9%3F"]),
        ("query kept", vec!["query k={key}"], vec!["?k=K-1_2.3~4"]),
        ("path", vec!["path /bot{user}:{key}/x"], vec!["/botme:K-1_2.3~4/x"]),
        ("path encoded", vec!["path /bot{token}/"], vec!["/bots3cr%26t%2F%2B%20%C3%A9%3F"]),
        ("header from encoded", vec!["header A: {token|urlencode}"], vec!["a: s3cr%26t%2F%2B%20%C3%A9%3F"]),
    ] {
        let injection = strategy(&placements).inject(&given).unwrap();
        assert_eq!(shown(&injection), expected, "{name}");
    }
}

#[test]
fn what_a_place_cannot_carry_is_refused() {
    let value = |place: &str| StrategyError::Value(place.to_owned());
    for (name, placement, given, expected) in [
        ("CR", "header A: {f}", "a\rb", value("the header a")),
        ("LF", "header A: {f}", "a\nb", value("the header a")),
        ("NUL", "header A: {f}", "a\0b", value("the header a")),
        ("DEL", "header A: {f}", "a\u{7f}b", value("the header a")),
        ("outside ASCII", "header A: {f}", "é", value("the header a")),
        ("empty", "header A: Bearer {f}", "", value("the header a")),
        ("colon in user", "basic {f}:x", "a:b", value("the header authorization")),
        ("LF in basic", "basic x:{f}", "a\nb", value("the header authorization")),
        ("empty basic", "basic x:{f}", "", value("the header authorization")),
        ("LF in query", "query k={f}", "a\nb", value("the query parameter k")),
        ("empty query", "query k={f}", "", value("the query parameter k")),
        ("empty path", "path /x{f}/", "", value("the path")),
        ("NUL in path", "path /x{f}/", "a\0", value("the path")),
        ("backslash in path", "path /x{f}/", "a\\b", value("the path")),
        ("dot", "path /{f}/", ".", value("the path")),
        ("dots", "path /{f}/", "..", value("the path")),
        ("dots with parameter", "path /{f}/", "..;x", value("the path")),
        ("dots by literal", "path /.{f}/", ".", value("the path")),
        ("missing", "header A: {g}", "x", StrategyError::FieldMissing("g".to_owned())),
        ("missing in basic", "basic {g}:{f}", "x", StrategyError::FieldMissing("g".to_owned())),
    ] {
        let error = strategy(&[placement]).inject(&fields(&[("f", given)])).unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert!(given.len() < 2 || !error.to_string().contains(given), "{name}: the value is not told");
    }
}

#[test]
fn reflections_are_what_could_come_back() {
    let given =
        fields(&[("token", "Abcdefgh/1"), ("user", "someone@x"), ("short", "1234567"), ("other", "unused-value")]);
    for (name, placements, expected) in [
        ("raw", vec!["header A: Bearer {token}"], vec!["Abcdefgh/1"]),
        ("alias", vec!["header A: {access_token}"], vec!["Abcdefgh/1"]),
        ("short", vec!["header A: {short}"], vec![]),
        ("filters", vec!["header A: {token|base64}"], vec!["QWJjZGVmZ2gvMQ==", "Abcdefgh/1"]),
        ("filter of a short one", vec!["header A: {short|base64}"], vec!["MTIzNDU2Nw=="]),
        ("basic", vec!["basic {user}:{token}"], vec!["c29tZW9uZUB4OkFiY2RlZmdoLzE=", "Abcdefgh/1", "someone@x"]),
        ("basic of a short one", vec!["basic x:{short}"], vec!["eDoxMjM0NTY3"]),
        ("query", vec!["query k={token}"], vec!["Abcdefgh%2F1", "Abcdefgh/1"]),
        ("path", vec!["path /x{user}/"], vec!["someone%40x", "someone@x"]),
        ("several", vec!["header A: {token}", "header B: {token}"], vec!["Abcdefgh/1"]),
        ("missing", vec!["header A: {nothing}"], vec![]),
    ] {
        let found = strategy(&placements).reflections(&given);
        let found: Vec<&str> = found.iter().map(Secret::expose).collect();
        assert_eq!(found, expected, "{name}");
    }
    let both = strategy(&["header A: {token}", "header B: {short}"]);
    assert_eq!(both.warn_short(&given), ["short"]);
}

#[test]
fn an_agents_own_prefix_is_split_off() {
    for (name, placement, path, expected) in [
        ("telegram", "path /bot{token}/", "/bot12:ab/getMe", Some((vec!["12:ab"], "/getMe"))),
        ("nothing behind", "path /bot{token}/", "/bot12/", Some((vec!["12"], "/"))),
        ("no slash", "path /bot{token}/", "/bot12", None),
        ("no value", "path /bot{token}/", "/bot/getMe", None),
        ("other path", "path /bot{token}/", "/getMe/x", None),
        ("two fields", "path /{a}/x-{b}-y/", "/1/x-2-y/z/", Some((vec!["1", "2"], "/z/"))),
        ("two segments", "path /v1/{a}/k/", "/v1/1/k/z", Some((vec!["1"], "/z"))),
        ("not across a segment", "path /{a}-k/", "/1/2-k/z", None),
        ("side by side", "path /{a}{b}/", "/12/z", None),
        ("no path placement", "header A: {token}", "/12/z", None),
    ] {
        assert_eq!(strategy(&[placement]).split_path(path), expected, "{name}");
    }
}

#[test]
fn plain_values_take_their_place() {
    for (name, placement, value, expected) in [
        ("basic user", "basic {email}:{token}", "a@b.test", Some("basic a@b.test:{token}")),
        ("colon in user", "basic {email}:{token}", "a:b", None),
        ("colon in password", "basic {token}:{email}", "a:b", Some("basic {token}:a:b")),
        ("brace", "basic {email}:{token}", "a{b", Some("basic a{{b:{token}")),
        ("header", "header A: {email} {token}", "a", Some("header a: a {token}")),
        ("line in header", "header A: {email} {token}", "a\nb", None),
        ("edge space", "header A: {token}{email}", "a ", None),
        ("no field left", "header A: {email}", "a", None),
        ("path", "path /{email}/{token}/", "a", Some("path /a/{token}/")),
        ("slash in path", "path /{email}/{token}/", "a/b", Some("path /a/b/{token}/")),
        ("dots in path", "path /{email}/{token}/", "..", None),
        ("escape in path", "path /{email}/{token}/", "a%2f", None),
    ] {
        let placement = Placement::parse(placement).unwrap().substitute("email", value);
        assert_eq!(placement.map(|p| p.to_string()).as_deref(), expected, "{name}");
    }
}

const PLACEMENTS: [&str; 7] = [
    "header A: Bearer {f}",
    "header A: {f|base64}-{g}",
    "header A: {f|urlencode}",
    "basic {f}:{g}",
    "query k={f}{g|lower}",
    "path /bot{f}/",
    "path /{f}/{g}-x/",
];

/// Any text, with what breaks messages and paths more often than by chance.
fn any_value() -> impl Generator<Value = String> {
    prop_oneof![
        ".{0,12}",
        "[\r\n\0\t :/?#%.;\\\\a]{0,8}",
        Just("..".to_owned()),
        Just("%2e%2e".to_owned()),
        "[ -~]{8,24}",
    ]
}

proptest! {
    #[test]
    fn no_injection_breaks_out(f in any_value(), g in any_value()) {
        for placement in PLACEMENTS {
            let strategy = strategy(&[placement]);
            let Ok(injection) = strategy.inject(&fields(&[("f", &f), ("g", &g)])) else { continue };
            for text in shown(&injection) {
                prop_assert!(!text.contains(['\r', '\n', '\0']), "{placement}");
            }
            for edit in injection.edits {
                match edit {
                    Edit::PathPrefix { prefix } => {
                        let prefix = prefix.expose();
                        let slashes = placement.matches('/').count() - 1;
                        prop_assert_eq!(prefix.matches('/').count(), slashes, "{}", placement);
                        prop_assert!(prefix.starts_with('/') && !prefix.ends_with('/'));
                        prop_assert!(!prefix.contains(['?', '#', '\\', ' ']));
                        prop_assert!(!prefix.split('/').skip(1).any(|s| matches!(s, "" | "." | "..")));
                    }
                    Edit::Query { pair } => {
                        prop_assert_eq!(pair.expose().matches('=').count(), 1);
                        prop_assert!(!pair.expose().contains(['&', '#', '?', ' ', '/']));
                    }
                    Edit::Header { value, .. } => prop_assert!(value.to_str().is_ok()),
                }
            }
        }
    }

    #[test]
    fn each_used_value_and_what_is_sent_is_looked_for(f in "[!-~]{8,24}", g in "[!-~]{8,24}") {
        for placement in PLACEMENTS {
            let strategy = strategy(&[placement]);
            let given = fields(&[("f", &f), ("g", &g)]);
            let found = strategy.reflections(&given);
            let found: Vec<&str> = found.iter().map(Secret::expose).collect();
            prop_assert!(found.contains(&f.as_str()), "{placement}");
            prop_assert!(!placement.contains("{g") || found.contains(&g.as_str()), "{placement}");
            prop_assert!(found.windows(2).all(|pair| pair[0].len() >= pair[1].len() && pair[0] != pair[1]));
            if let Ok(injection) = strategy.inject(&given) {
                // Whatever form was sent, one of the patterns is in it.
                for text in shown(&injection) {
                    prop_assert!(found.iter().any(|pattern| text.contains(pattern)), "{placement}");
                }
            }
        }
    }

    #[test]
    fn what_was_injected_into_a_path_splits_off_again(f in "[A-Za-z0-9:_-]{1,24}", g in "[A-Za-z0-9:_]{1,24}") {
        for placement in ["path /bot{f}/", "path /{f}/{g}-x/"] {
            let strategy = strategy(&[placement]);
            let injection = strategy.inject(&fields(&[("f", &f), ("g", &g)])).unwrap();
            let path = format!("{}/rest/x", shown(&injection)[0]);
            let (values, rest) = strategy.split_path(&path).unwrap();
            prop_assert_eq!(rest, "/rest/x");
            prop_assert_eq!(values[0], f.as_str());
        }
    }

    #[test]
    fn any_text_is_a_placement_or_an_error(text in ".{0,40}", keyword in "(header A:|basic |query k=|path /|)") {
        let text = format!("{keyword}{text}");
        if let Ok(placement) = Placement::parse(&text) {
            prop_assert_eq!(Placement::parse(&placement.to_string()), Ok(placement));
        }
    }
}
