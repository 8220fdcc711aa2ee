#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::strategy::Placement;

#[test]
fn agents_copies_in_the_path_are_taken_out() {
    let token = AgentToken::generate();
    // Exposed to be put where an agent puts it.
    let bare = format!("/{}/x/y", token.value().expose());
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str, &str)] = &[
        ("telegram with a placeholder", "path /bot{token}/", "", "/bot123:abc/getMe?x=1", "/getMe?x=1"),
        ("telegram without", "path /bot{token}/", "", "/getMe", "/getMe"),
        ("under a base path", "path /bot{token}/", "/v1", "/v1/botX/getMe", "/v1/getMe"),
        ("no fixed text keeps the path", "path /{token}/", "", "/allowed/admin", "/allowed/admin"),
        ("no fixed text and an agent token", "path /{token}/", "", &bare, "/x/y"),
        ("parameter", "query key={token}", "", "/a?key=mine&b=1", "/a?b=1"),
        ("parameter twice", "query key={token}", "", "/a?key=1&b=1&key=2", "/a?b=1"),
        ("parameter encoded", "query key={token}", "", "/a?%6bey=mine&b=1", "/a?b=1"),
        ("parameter without value", "query key={token}", "", "/a?key&b=1", "/a?b=1"),
        ("parameter behind a semicolon", "query key={token}", "", "/a?b=1;key=mine", "/a?b=1"),
        ("only the parameter", "query key={token}", "", "/a?key=mine", "/a"),
        ("like a parameter", "query key={token}", "", "/a?keys=1", "/a?keys=1"),
        ("header", "header X: {token}", "", "/a?key=1", "/a?key=1"),
    ];
    for (name, placement, base, path, expected) in cases {
        let strategy = Strategy::new(vec![Placement::parse(placement).unwrap()]).unwrap();
        let path = CanonicalPath::parse(path.as_bytes()).unwrap();
        let left = without_agent_copies(path, &strategy, base, false).unwrap();
        assert_eq!(left.as_str(), *expected, "{name}");
    }
}

#[test]
fn a_prefix_that_was_taken_out_is_not_taken_out_again() {
    let strategy = Strategy::new(vec![Placement::parse("path /bot{token}/").unwrap()]).unwrap();
    let path = CanonicalPath::parse(b"/botany/list").unwrap();
    assert_eq!(without_agent_copies(path, &strategy, "", true).unwrap().as_str(), "/botany/list");
}
