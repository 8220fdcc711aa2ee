//! `{var}` in hosts, paths and URLs.

/// What is wrong with the braces of a text.
pub(super) const UNBALANCED: &str = "has an unbalanced brace; write {name} for a variable";

/// The names between braces, in order; `None` when a brace has no partner.
pub(super) fn names(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{')?;
        let end = inner.find(['{', '}']).filter(|end| inner[*end..].starts_with('}'))?;
        names.push(&inner[..end]);
        rest = &inner[end + 1..];
    }
    Some(names)
}

/// The text with each `{name}` replaced by what `value` gives; braces are balanced and `value` knows each name.
pub(super) fn put_in<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = text.to_owned();
    for name in names(text).unwrap_or_default() {
        if let Some(value) = value(name) {
            out = out.replace(&format!("{{{name}}}"), value);
        }
    }
    out
}

/// Whether a value is one DNS label: letters, digits and inner hyphens, at most 63.
pub(super) fn is_label(value: &str) -> bool {
    (1..=63).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !value.starts_with('-')
        && !value.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        for (text, expected) in [
            ("a.b", Some(vec![])),
            ("{site}.b", Some(vec!["site"])),
            ("{a}{b}", Some(vec!["a", "b"])),
            ("{}", Some(vec![""])),
            ("{a", None),
            ("a}", None),
            ("{a{b}}", None),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
        assert_eq!(put_in("{a}.{b}.x", |name| (name == "a").then_some("1")), "1.{b}.x");
    }

    #[test]
    fn labels() {
        for (value, expected) in [
            ("a", true),
            ("us-1", true),
            ("", false),
            ("a.b", false),
            ("-a", false),
            ("a-", false),
            ("é", false),
            ("a_b", false),
        ] {
            assert_eq!(is_label(value), expected, "{value}");
        }
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
    }
}
