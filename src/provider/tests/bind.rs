//! Choosing an auth and putting values in.

use super::*;

/// A file that uses variables and plain fields everywhere.
const WIDE: &str = r#"name = "Wide"
category = "tools"
verified = "never"

[[vars]]
name = "site"
label = "Site"

[[vars]]
name = "account"
label = "Account"
pattern = "A[0-9.]+"

[[routes]]
host = "{site}.wide.test"
port = 8443
path = "/v1/{account}"

[[routes]]
host = "files.wide.test"
inject = ["header X-File: {account} {token}"]

[[auth]]
id = "basic"
kind = "basic"
label = "Login"
inject = ["basic {email}/{account}:{token}"]

[[auth.fields]]
name = "email"
label = "Email"
secret = false
pattern = "[^ ]+@[^ ]+"

[[auth.fields]]
name = "token"
label = "Token"

[[auth]]
id = "oauth"
kind = "oauth2"
label = "OAuth"
inject = ["header Authorization: Bearer {access_token}"]

[auth.oauth]
authorize_url = "https://{site}.wide.test/authorize"
token_url = "https://{site}.wide.test/token"

[test]
url = "https://{site}.wide.test:8443/v1/{account}/me"
"#;

fn bind(auth: Option<&str>, set: &[(&str, &str)]) -> Result<Bound, BindError> {
    parse_file("wide.toml", WIDE).unwrap().bind(auth, &vars(set))
}

fn shown(bound: &Bound) -> Vec<String> {
    let placements =
        |route: &BoundRoute| route.placements.iter().map(ToString::to_string).collect::<Vec<_>>().join(" & ");
    bound
        .routes
        .iter()
        .map(|route| format!("{}:{}{} {}", route.host, route.port, route.path.as_str(), placements(route)))
        .collect()
}

#[test]
fn values_are_put_in_everywhere() {
    let set = [("site", "Acme"), ("account", "A1.2"), ("email", "me@x.test")];
    let bound = bind(None, &set).unwrap();
    assert_eq!(
        shown(&bound),
        ["acme.wide.test:8443/v1/A1.2 basic me@x.test/A1.2:{token}", "files.wide.test:443 header x-file: A1.2 {token}",]
    );
    assert_eq!(bound.auth.id, "basic");
    assert_eq!(bound.auth.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["token"]);
    assert_eq!(bound.test.unwrap().url, "https://Acme.wide.test:8443/v1/A1.2/me");
    assert_eq!(bound.oauth, None);
}

#[test]
fn a_plain_field_may_stay_a_field() {
    let bound = bind(Some("BASIC"), &[("site", "a"), ("account", "A1")]).unwrap();
    assert_eq!(shown(&bound)[0], "a.wide.test:8443/v1/A1 basic {email}/A1:{token}");
    assert_eq!(bound.auth.fields.len(), 2);
}

#[test]
fn oauth_endpoints_are_bound() {
    let set = [("site", "a"), ("account", "A1"), ("client_id", "my-client")];
    let bound = bind(Some("oauth"), &set).unwrap();
    let oauth = bound.oauth.unwrap();
    assert_eq!(oauth.token_url, "https://a.wide.test/token");
    assert_eq!(oauth.authorize_url.as_deref(), Some("https://a.wide.test/authorize"));
    // The client's id is in no placement, so it is still asked for.
    assert!(bound.auth.fields.iter().any(|field| field.name == "client_id"));
}

#[test]
fn bad_values_are_refused() {
    let site = |value: &'static str| vec![("site", value), ("account", "A1")];
    let account = |value: &'static str| vec![("site", "a"), ("account", value)];
    let email = |value: &'static str| vec![("site", "a"), ("account", "A1"), ("email", value)];
    for (name, auth, set, expected) in [
        ("auth", Some("key"), site("a"), "wide has no auth \"key\"; use one of basic, oauth"),
        ("missing", None, vec![("site", "a")], "account is missing (Account); give it with --set account=VALUE"),
        (
            "unknown",
            None,
            [site("a"), vec![("sit", "a")]].concat(),
            "wide has no variable \"sit\"; use site, account, email",
        ),
        (
            "other auth's field",
            Some("oauth"),
            email("me@x"),
            "wide has no variable \"email\"; use site, account, client_id",
        ),
        (
            "secret",
            None,
            [site("a"), vec![("token", "x")]].concat(),
            "token is a secret; give it by prompt or standard input, not with --set",
        ),
        (
            "two labels",
            None,
            site("a.evil"),
            "site \"a.evil\" is not valid; it has to be one label of a host name: letters, digits and inner hyphens",
        ),
        ("slash", None, site("evil.test/"), "site \"evil.test/\" is not valid"),
        ("userinfo", None, site("a@b"), "site \"a@b\" is not valid"),
        ("port", None, site("evil:443"), "site \"evil:443\" is not valid"),
        ("wildcard", None, site("*"), "site \"*\" is not valid"),
        ("empty", None, site(""), "site \"\" is not valid"),
        ("braces", None, site("{account}"), "site \"{account}\" is not valid"),
        ("line", None, site("a\n"), "site \"a\\n\" is not valid"),
        ("pattern", None, account("B1"), "account \"B1\" is not valid; it has to match A[0-9.]+"),
        ("pattern, part", None, account("A1/.."), "account \"A1/..\" is not valid; it has to match A[0-9.]+"),
        ("pattern, line", None, account("A1\n"), "account \"A1\\n\" is not valid"),
        ("field pattern", None, email("me"), "email \"me\" is not valid; it has to match [^ ]+@[^ ]+"),
        (
            "colon in user",
            None,
            email("a:b@x"),
            "email \"a:b@x\" is not valid; it has to fit into basic {email}/A1:{token}",
        ),
        ("control in user", None, email("a\u{7}@x"), "email \"a\\u{7}@x\" is not valid"),
    ] {
        let error = bind(auth, &set).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{name}: {error}");
    }
}

#[test]
fn a_variable_cannot_leave_its_place_whatever_its_pattern() {
    let text = WIDE.replace("A[0-9.]+", "(?s).*");
    let definition = parse_file("wide.toml", &text).unwrap();
    for value in ["a/b", "a?b", "a#b", "a%2fb", "..", ".", "a b", "", "a\\b", "é"] {
        let error = definition.bind(None, &vars(&[("site", "a"), ("account", value)]));
        assert!(error.is_err(), "{value:?}: {error:?}");
    }
    let text = WIDE.replace("label = \"Site\"", "label = \"Site\"\npattern = \".*\"");
    let definition = parse_file("wide.toml", &text).unwrap();
    for value in ["evil.test/", "a@evil", "a:1", "*", "", "..", "a..b"] {
        let error = definition.bind(None, &vars(&[("site", value), ("account", "A1")]));
        assert!(error.is_err(), "{value:?}: {error:?}");
    }
}
