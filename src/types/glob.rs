//! A pattern over texts.

use super::path::wildcard_matches;
use std::fmt;

/// A text in which `*` stands for any characters, none included, and everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(Box<str>);

impl Glob {
    /// A pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Box::from(text))
    }

    /// Whether the whole text matches. Linear in both for each `*`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        wildcard_matches(self.0.as_bytes(), text.as_bytes(), |own| *own == b'*', |own, byte| own == byte)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn a_star_stands_for_any_characters() {
        let rows = [
            ("main", "main", true),
            ("main", "Main", false),
            ("main", "main2", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("refs/heads/*", "refs/heads/main", true),
            ("refs/heads/*", "refs/heads/", true),
            ("refs/heads/*", "refs/head", false),
            ("*/main", "refs/heads/main", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("a*ab", "aab", true),
            ("a*ab", "aaab", true),
            ("acme/*", "acme/é", true),
            ("*é", "acme/é", true),
            ("a?", "ab", false),
            ("[ab]", "a", false),
        ];
        for (pattern, text, matches) in rows {
            assert_eq!(Glob::new(pattern).matches(text), matches, "{pattern:?} over {text:?}");
        }
    }
}
