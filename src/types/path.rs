//! Request paths: one canonical form that decides and is sent.

use memchr::memmem;
use percent_encoding::percent_decode;
use std::fmt;

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not start with `/`.
    #[error("the path does not start with '/'")]
    NoSlash,
    /// A dot segment, plain, encoded (`%2e`), or with a parameter (`..;x`).
    #[error("the path has a dot segment")]
    DotSegment,
    /// `\` or `%5c`.
    #[error("the path has a backslash")]
    Backslash,
    /// `#`.
    #[error("the path has a fragment")]
    Fragment,
    /// `%` without two hexadecimal digits, `%00`, or escapes that are overlong or invalid UTF-8.
    #[error("the path has an invalid escape")]
    Escape,
    /// A control character, space, a byte outside ASCII, or `<`, `>`, a quote or a backtick where a URI cannot have it.
    #[error("the path has a character that a path cannot have")]
    Character,
    /// An empty segment (`//`).
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `%2f` or `;` where paths are restricted by base path or policy.
    #[error("the path has an encoded slash or a parameter, which a connection restricted by path does not allow")]
    Ambiguous,
    /// Longer than a request line can be: 65,534 bytes. The head limit is usually lower.
    #[error("the path is too long")]
    TooLong,
}

/// A request's path and query as they are judged, sent and recorded: the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanonicalPath {
    text: String,
    query_at: Option<usize>,
}

impl CanonicalPath {
    /// Parses `path` or `path?query`. An empty text is `/`.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &[u8]) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Self { text: "/".to_owned(), query_at: None });
        }
        if text.len() > MAX_LENGTH {
            return Err(PathError::TooLong);
        }
        if text[0] != b'/' {
            return Err(PathError::NoSlash);
        }
        let query_at = memchr::memchr(b'?', text);
        let (path, query) = text.split_at(query_at.unwrap_or(text.len()));
        for byte in path {
            match byte {
                b'\\' => return Err(PathError::Backslash),
                b'#' => return Err(PathError::Fragment),
                b'<' | b'>' | b'`' => return Err(PathError::Character),
                byte if !byte.is_ascii_graphic() => return Err(PathError::Character),
                _ => {}
            }
        }
        for byte in query {
            match byte {
                b'#' => return Err(PathError::Fragment),
                b'"' | b'<' | b'>' => return Err(PathError::Character),
                byte if !byte.is_ascii_graphic() => return Err(PathError::Character),
                _ => {}
            }
        }
        check_escapes(path)?;
        check_segments(path)?;
        // Every byte is ASCII by the loops above.
        let text = String::from_utf8(text.to_vec()).map_err(|_| PathError::Character)?;
        Ok(Self { text, query_at })
    }

    /// Path and query, as they go on the request line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.query_at.unwrap_or(self.text.len())]
    }

    /// The query without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query_at.map(|at| &self.text[at + 1..])
    }

    /// Whether upstreams may read the path in more than one way, so that path restrictions cannot judge it: `;`, or
    /// an encoded slash or semicolon, or one of `. / ; \` encoded more than once.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        let path = self.path().as_bytes();
        memchr::memchr(b';', path).is_some()
            || memchr::memchr_iter(b'%', path).any(|at| {
                let mut escape = &path[at + 1..];
                let mut times = 1;
                while let Some(inner) = escape.strip_prefix(b"25") {
                    escape = inner;
                    times += 1;
                }
                match escape.get(..2).map(<[u8]>::to_ascii_lowercase).as_deref() {
                    Some(b"2f" | b"3b") => true,
                    Some(b"2e" | b"5c") => times > 1,
                    _ => false,
                }
            })
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

super::as_text!(CanonicalPath, PathError, |text: &str| CanonicalPath::parse(text.as_bytes()));

/// A path prefix on whole segments: `/v1` covers `/v1` and `/v1/x`, not `/v10`. `/` covers everything.
///
/// Kept without a trailing slash; the root is the empty text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct BasePath(String);

impl BasePath {
    /// Parses `/v1` or `/v1/`; `/` and the empty text are the root.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let path = CanonicalPath::parse(text.as_bytes())?;
        if path.query().is_some() {
            return Err(PathError::Character);
        }
        if path.is_ambiguous() {
            return Err(PathError::Ambiguous);
        }
        let text = path.as_str();
        Ok(Self(text.strip_suffix('/').unwrap_or(text).to_owned()))
    }

    /// The text without a trailing slash; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root, which restricts nothing.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `path` lies under this prefix. Only the root covers an ambiguous path.
    #[must_use]
    pub fn covers(&self, path: &CanonicalPath) -> bool {
        self.is_root()
            || path.path().strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && !path.is_ambiguous()
    }

    /// This prefix followed by `path`.
    #[must_use]
    pub fn join(&self, path: &CanonicalPath) -> CanonicalPath {
        CanonicalPath { text: format!("{}{}", self.0, path.text), query_at: path.query_at.map(|at| at + self.0.len()) }
    }
}

impl fmt::Display for BasePath {
    /// The root is `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { &self.0 })
    }
}

super::as_text!(BasePath, PathError, BasePath::parse);

/// A glob over paths: `*` stands for one segment or a part of one, `**` as a whole segment for any number of segments.
/// `/repos/**` matches `/repos`, `/repos/` and all below. A whole-segment `*` does not match an empty segment. Only
/// `/**` matches an ambiguous path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::NoSlash);
        }
        let path = CanonicalPath::parse(text.as_bytes())?;
        if path.query().is_some() {
            return Err(PathError::Character);
        }
        if path.is_ambiguous() {
            return Err(PathError::Ambiguous);
        }
        Ok(Self(path.text))
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path (without query) matches. Linear in the path's length for each pattern.
    #[must_use]
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        if self.0 == "/**" {
            return true;
        }
        if path.is_ambiguous() {
            return false;
        }
        let pattern: Vec<&[u8]> = segments(&self.0).collect();
        let path: Vec<&[u8]> = segments(path.path()).collect();
        wildcard_matches(&pattern, &path, |p| *p == b"**", |p, s| segment_matches(p, s))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

super::as_text!(PathPattern, PathError, PathPattern::parse);

/// What `http::Uri` can hold.
const MAX_LENGTH: usize = 65_534;

fn segments(path: &str) -> impl Iterator<Item = &[u8]> {
    path.as_bytes()[1..].split(|b| *b == b'/')
}

/// Every `%` has two hexadecimal digits, and what they stand for is UTF-8 without NUL and backslash.
fn check_escapes(path: &[u8]) -> Result<(), PathError> {
    for at in memchr::memchr_iter(b'%', path) {
        let digits = path.get(at + 1..at + 3).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        match digits {
            None | Some(b"00") => return Err(PathError::Escape),
            Some(b"5c" | b"5C") => return Err(PathError::Backslash),
            Some(_) => {}
        }
    }
    percent_decode(path).decode_utf8().map(drop).map_err(|_| PathError::Escape)
}

fn check_segments(path: &[u8]) -> Result<(), PathError> {
    if memmem::find(path, b"//").is_some() {
        return Err(PathError::EmptySegment);
    }
    // An upstream may decode before it splits, so that encoded slashes and parameters end a segment as well.
    let decoded: Vec<u8> = percent_decode(path).collect();
    for segment in decoded.split(|b| *b == b'/') {
        let name = segment.split(|b| *b == b';').next().unwrap_or(segment);
        // `.. ` is `..` where the file system drops trailing space.
        if matches!(name.trim_ascii_end(), b"." | b"..") {
            return Err(PathError::DotSegment);
        }
    }
    Ok(())
}

/// `*` in a segment stands for any bytes; alone, for at least one.
fn segment_matches(pattern: &[u8], segment: &[u8]) -> bool {
    if segment.is_empty() {
        return pattern.is_empty();
    }
    wildcard_matches(pattern, segment, |p| *p == b'*', |p, s| p == s)
}

/// Matches items against a pattern in which some items stand for any number of items. Going back to the last such item
/// only is enough, so that each pair is compared at most once.
pub(super) fn wildcard_matches<P, T>(
    pattern: &[P],
    items: &[T],
    is_any: impl Fn(&P) -> bool,
    equal: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while i < items.len() {
        match pattern.get(p) {
            Some(own) if is_any(own) => {
                p += 1;
                retry = Some((p, i));
            }
            Some(own) if equal(own, &items[i]) => {
                p += 1;
                i += 1;
            }
            _ => {
                let Some((after_any, start)) = retry else { return false };
                p = after_any;
                i = start + 1;
                retry = Some((after_any, i));
            }
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests;
