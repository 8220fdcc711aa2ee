#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

fn path(text: &str) -> CanonicalPath {
    CanonicalPath::parse(text.as_bytes()).unwrap()
}

#[test]
fn accepted_paths_keep_their_bytes() {
    for text in [
        "/",
        "/a",
        "/a/",
        "/a/b?c=d",
        "/?",
        "/?a?b",
        "/a%20b",
        "/caf%C3%A9",
        "/%f0%9f%98%80",
        "/a%2Fb",
        "/a;b=c",
        "/a...b",
        "/...",
        "/.well-known",
        "/a.",
        "/..a",
        "/a..",
        "/a/b:c@d!$&'()*+,=~_-",
        "/a[0]|{b}^\"",
        "/a?//../%2e%2e/%zz/100%/[]|`{}\\^",
        "/%25",
        "/%0a",
    ] {
        let parsed = path(text);
        assert_eq!(parsed.as_str(), text);
        assert_eq!(parsed.to_string(), text);
    }
    assert_eq!(path("").as_str(), "/");
}

#[test]
fn path_and_query_are_apart() {
    for (text, before, query) in
        [("/a", "/a", None), ("/a?", "/a", Some("")), ("/a?b?c", "/a", Some("b?c")), ("", "/", None)]
    {
        assert_eq!((path(text).path(), path(text).query()), (before, query), "{text}");
    }
}

#[test]
fn dangerous_paths_are_refused() {
    use PathError::*;
    let long = format!("/{}", "a".repeat(65_534));
    for (text, error) in [
        ("a", NoSlash),
        ("*", NoSlash),
        ("?a", NoSlash),
        ("%2fa", NoSlash),
        ("https://good.test/", NoSlash),
        ("/allowed/../admin", DotSegment),
        ("/..", DotSegment),
        ("/.", DotSegment),
        ("/./a", DotSegment),
        ("/a/.", DotSegment),
        ("/a/..", DotSegment),
        ("/a/..?x", DotSegment),
        ("/%2e%2e/", DotSegment),
        ("/%2E./a", DotSegment),
        ("/.%2e/a", DotSegment),
        ("/%2e", DotSegment),
        ("/..;/a", DotSegment),
        ("/..;x=y/a", DotSegment),
        ("/.;x", DotSegment),
        ("/%2e%2e;x/a", DotSegment),
        ("/..%3bx/a", DotSegment),
        ("/..%2fa", DotSegment),
        ("/a%2f..", DotSegment),
        ("/a%2f%2e%2e%2fb", DotSegment),
        ("/..%20/a", DotSegment),
        ("/..%09/a", DotSegment),
        ("/a\\b", Backslash),
        ("/..\\a", Backslash),
        ("/a%5cb", Backslash),
        ("/a%5Cb", Backslash),
        ("/a#b", Fragment),
        ("/a?b#c", Fragment),
        ("/#", Fragment),
        ("/a%00", Escape),
        ("/a%", Escape),
        ("/a%2", Escape),
        ("/a%zz", Escape),
        ("/a%+1", Escape),
        ("/a%u002e", Escape),
        ("/%c0%ae%c0%ae/", Escape),
        ("/%c0%af", Escape),
        ("/%e0%80%ae", Escape),
        ("/%ff", Escape),
        ("/caf%e9", Escape),
        ("/%ed%a0%80", Escape),
        ("/a b", Character),
        ("/a ", Character),
        ("/a\tb", Character),
        ("/a\r\nb", Character),
        ("/a\0", Character),
        ("/a\x7f", Character),
        ("/café", Character),
        ("/a<b>", Character),
        ("/a`", Character),
        ("/a?b c", Character),
        ("/a?b\r\n", Character),
        ("/a?é", Character),
        ("/a?<", Character),
        ("/a?\"", Character),
        ("//admin", EmptySegment),
        ("//", EmptySegment),
        ("/a//b", EmptySegment),
        ("/a//", EmptySegment),
        (long.as_str(), TooLong),
    ] {
        assert_eq!(CanonicalPath::parse(text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn paths_with_two_readings_are_ambiguous() {
    for (text, ambiguous) in [
        ("/a", false),
        ("/a?b;c%2f", false),
        ("/a%20b", false),
        ("/a%2e", false),
        ("/100%25", false),
        ("/100%25%20", false),
        ("/a%2520b", false),
        ("/a%2fb", true),
        ("/a%2Fb", true),
        ("/a;b", true),
        ("/a%3bb", true),
        ("/a%3Bb", true),
        ("/%252e%252e/a", true),
        ("/%252E", true),
        ("/a%252fb", true),
        ("/a%25252fb", true),
        ("/a%255cb", true),
        ("/a%253bb", true),
    ] {
        assert_eq!(path(text).is_ambiguous(), ambiguous, "{text}");
    }
}

#[test]
fn base_paths_cover_whole_segments() {
    for (base, text, covers) in [
        ("/", "/", true),
        ("", "/a/b", true),
        ("/", "/a%2fb;c", true),
        ("/v1", "/v1", true),
        ("/v1/", "/v1", true),
        ("/v1", "/v1/", true),
        ("/v1", "/v1/x", true),
        ("/v1", "/v1?x", true),
        ("/v1", "/v10", false),
        ("/v1", "/v", false),
        ("/v1", "/", false),
        ("/v1", "/V1/x", false),
        ("/v1", "/%76%31/x", false),
        ("/v1", "/x?/v1/", false),
        ("/v1", "/v1/a%2f%62", false),
        ("/v1", "/v1/a;b", false),
        ("/v1", "/v1/%252e%252e/b", false),
        ("/v1", "/v1;x/b", false),
    ] {
        assert_eq!(BasePath::parse(base).unwrap().covers(&path(text)), covers, "{base} {text}");
    }
}

#[test]
fn base_paths_are_joined_and_shown() {
    for (base, text, joined) in
        [("/", "/a?b", "/a?b"), ("/v1", "/a?b", "/v1/a?b"), ("/v1/", "/", "/v1/"), ("/v1/x", "/?q", "/v1/x/?q")]
    {
        let parsed = BasePath::parse(base).unwrap().join(&path(text));
        assert_eq!(parsed, path(joined), "{base} {text}");
    }
    assert_eq!(BasePath::parse("/v1/").unwrap().to_string(), "/v1");
    assert_eq!(BasePath::default().to_string(), "/");
    assert_eq!(serde_json::from_str::<BasePath>("\"/\"").unwrap(), BasePath::default());
    for text in ["v1", "/v1?x", "/v1/..", "/v1;x", "/a%2fb", "//", "/v1//"] {
        assert!(BasePath::parse(text).is_err(), "{text}");
    }
}

#[test]
fn patterns_match_segments() {
    for (pattern, text, matches) in [
        ("/", "/", true),
        ("/", "/a", false),
        ("/repos", "/repos", true),
        ("/repos", "/repos/", false),
        ("/repos/", "/repos/", true),
        ("/repos", "/repos?x", true),
        ("/repos/**", "/repos", true),
        ("/repos/**", "/repos/", true),
        ("/repos/**", "/repos/a", true),
        ("/repos/**", "/repos/a/b/", true),
        ("/repos/**", "/reposx", false),
        ("/repos/**", "/", false),
        ("/repos/*", "/repos/a", true),
        ("/repos/*", "/repos/", false),
        ("/repos/*", "/repos", false),
        ("/repos/*", "/repos/a/b", false),
        ("/repos/*", "/repos/a/", false),
        ("/repos/*/issues", "/repos/a/issues", true),
        ("/repos/*/issues", "/repos/a/b/issues", false),
        ("/repos/a*z", "/repos/az", true),
        ("/repos/a*z", "/repos/abcz", true),
        ("/repos/a*z", "/repos/a/z", false),
        ("/repos/a*b*c", "/repos/aXbYbZc", true),
        ("/repos/*.json", "/repos/.json", true),
        ("/repos/a**z", "/repos/axz", true),
        ("/**", "/", true),
        ("/**", "/a/b", true),
        ("/**", "/a%2fb;c", true),
        ("/**/c", "/c", true),
        ("/**/c", "/a/b/c", true),
        ("/**/c", "/a/b/cc", false),
        ("/a/**/c", "/a/c", true),
        ("/a/**/c", "/a/c/x/c", true),
        ("/a/**/b/**/c", "/a/x/b/y/b/z/c", true),
        ("/a/**/b/**/c", "/a/x/y/z/c", false),
        ("/a/**/**", "/a", true),
        ("/repos/**", "/repos/a%2fb", false),
        ("/repos/**", "/repos/a;b", false),
        ("/repos/**", "/repos/%252e%252e", false),
        ("/Repos", "/repos", false),
        ("/a.b", "/axb", false),
        ("/[ab]", "/a", false),
    ] {
        assert_eq!(PathPattern::parse(pattern).unwrap().matches(&path(text)), matches, "{pattern} {text}");
    }
    for text in ["", "repos", "**", "/a?b", "/a/../b", "/a//b", "/a;b", "/a%2fb", "/a b", "/a#"] {
        assert!(PathPattern::parse(text).is_err(), "{text}");
    }
}

#[test]
fn patterns_cover_patterns() {
    for (own, other, covers) in [
        ("/**", "/**", true),
        ("/**", "/a/*", true),
        ("/a/**", "/**", false),
        ("/**/**", "/**", false),
        ("/a/**", "/a/**", true),
        ("/a/**", "/a", true),
        ("/a/**", "/a/", true),
        ("/a/**", "/a/b/*/c", true),
        ("/a/**", "/a/**/c", true),
        ("/a/**", "/ab", false),
        ("/a/**", "/ab/**", false),
        ("/a/**", "/*", false),
        ("/a/*", "/a/**", false),
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/", false),
        ("/a/*", "/a/*", true),
        ("/a/*", "/a/b*", true),
        ("/a/b*", "/a/*", false),
        ("/a/b*", "/a/bc*d", true),
        ("/a/b*d", "/a/bc*", false),
        ("/a/*b*", "/a/*b", true),
        ("/a/*b", "/a/*b*", false),
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a/**/c", "/a/**/b/c", true),
        ("/a/**/b/c", "/a/**/c", false),
        ("/**/c", "/a/*/c", true),
        ("/**/c", "/a/*", false),
        ("/*/*", "/**/x", false),
        ("/**/*/**", "/**/a", true),
        // True, and not found: a refusal is the safe side.
        ("/*/**", "/**/a", false),
    ] {
        let parse = |text| PathPattern::parse(text).unwrap();
        assert_eq!(parse(own).covers(&parse(other)), covers, "{own} {other}");
    }
}

#[test]
fn long_inputs_are_matched_without_backtracking_over_and_over() {
    let stars = |n| "*a".repeat(n);
    for (pattern, text, matches) in [
        (format!("/{}", stars(200)), format!("/{}b", "a".repeat(10_000)), false),
        (format!("/{}*", stars(5_000)), format!("/{}", "a".repeat(10_000)), true),
        (format!("{}/x", "/**/a".repeat(100)), "/a".repeat(10_000), false),
        (format!("{}/x", "/**/a*a*a".repeat(100)), "/aaaa".repeat(5_000), false),
        ("/**".repeat(10_000), "/a".repeat(10_000), true),
    ] {
        assert_eq!(PathPattern::parse(&pattern).unwrap().matches(&path(&text)), matches);
    }
}

/// The meaning of a pattern, told by recursion.
fn matches_slowly(pattern: &[&str], path: &[&str]) -> bool {
    fn segment(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|n| segment(rest, &text[n..])),
            [byte, rest @ ..] => text.first() == Some(byte) && segment(rest, &text[1..]),
        }
    }
    match pattern {
        [] => path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|n| matches_slowly(rest, &path[n..])),
        [own, rest @ ..] => path.split_first().is_some_and(|(first, others)| {
            (own.is_empty() || !first.is_empty())
                && segment(own.as_bytes(), first.as_bytes())
                && matches_slowly(rest, others)
        }),
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = CanonicalPath::parse(&bytes);
    }

    #[test]
    fn what_parses_is_what_hyper_would_send(text in "/[ -~]{0,40}") {
        if let Ok(path) = CanonicalPath::parse(text.as_bytes()) {
            prop_assert_eq!(path.as_str(), &text);
            let uri: http::Uri = path.as_str().parse().unwrap();
            prop_assert_eq!(uri.to_string(), text);
            prop_assert_eq!(uri.path(), path.path());
            prop_assert_eq!(uri.query(), path.query());
        }
    }

    #[test]
    fn decoding_an_unambiguous_path_shows_no_dot_segment(text in "/(a|b|\\.|/|%2e|%2f|%25|2e|;|%3b|%5c|\\?){0,12}") {
        if let Ok(path) = CanonicalPath::parse(text.as_bytes()) {
            let mut decoded = path.path().to_owned();
            for times in 0..4 {
                let dots = decoded
                    .split(['/', '\\'])
                    .any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
                prop_assert!(!dots || times > 1 && path.is_ambiguous(), "{}", decoded);
                decoded = percent_decode(decoded.as_bytes()).decode_utf8_lossy().into_owned();
            }
        }
    }

    #[test]
    fn patterns_mean_what_the_recursion_says(pattern in "(/(a|\\*|\\*\\*|a\\*|\\*a|\\*b\\*)){1,5}/?", text in "(/(a|b|ab|ba)){0,6}/?") {
        let parsed = CanonicalPath::parse(text.as_bytes()).unwrap();
        let expected = matches_slowly(
            &pattern[1..].split('/').collect::<Vec<_>>(),
            &parsed.path()[1..].split('/').collect::<Vec<_>>(),
        );
        prop_assert_eq!(PathPattern::parse(&pattern).unwrap().matches(&parsed), expected);
    }

    #[test]
    fn what_a_covered_pattern_matches_its_cover_matches(
        own in "(/(a|\\*|\\*\\*|a\\*|\\*b)){1,4}/?",
        other in "(/(a|b|\\*|\\*\\*|a\\*|\\*b|a\\*b)){1,4}/?",
        texts in prop::collection::vec("(/(a|b|ab|aab|%2f|;)){0,5}/?", 20),
    ) {
        let (own, other) = (PathPattern::parse(&own).unwrap(), PathPattern::parse(&other).unwrap());
        if own.covers(&other) {
            for path in texts.iter().filter_map(|text| CanonicalPath::parse(text.as_bytes()).ok()) {
                prop_assert!(own.matches(&path) || !other.matches(&path), "{} {} {}", own, other, path);
            }
        }
    }

    #[test]
    fn a_base_path_covers_what_is_joined_to_it(base in "(/[a-z0-9]{1,4}){0,3}", rest in "(/[a-z0-9]{1,4}){0,3}/?(\\?[a-z]*)?") {
        if let Ok(rest) = CanonicalPath::parse(rest.as_bytes()) {
            let base = BasePath::parse(&base).unwrap();
            let joined = base.join(&rest);
            prop_assert!(base.covers(&joined));
            prop_assert_eq!(&CanonicalPath::parse(joined.as_str().as_bytes()).unwrap(), &joined);
        }
    }
}
