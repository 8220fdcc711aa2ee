//! Request paths: one canonical form that decides and is sent.

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
    /// A control character, space or a byte outside ASCII.
    #[error("the path has a character that a path cannot have")]
    Character,
    /// An empty segment (`//`).
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `%2f` or `;` where paths are restricted by base path or policy.
    #[error("the path has an encoded slash or a parameter, which a connection restricted by path does not allow")]
    Ambiguous,
    /// Longer than 8 KiB... the limit is the caller's head limit.
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
    pub fn parse(_text: &[u8]) -> Result<Self, PathError> {
        todo!()
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

    /// Whether the path has `%2f`, `%5c`-free by parse, or `;`, which path restrictions cannot judge.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        todo!()
    }
}

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
    pub fn parse(_text: &str) -> Result<Self, PathError> {
        todo!()
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

    /// Whether `path` lies under this prefix.
    #[must_use]
    pub fn covers(&self, _path: &CanonicalPath) -> bool {
        todo!()
    }

    /// This prefix followed by `path`.
    #[must_use]
    pub fn join(&self, _path: &CanonicalPath) -> CanonicalPath {
        todo!()
    }
}

/// A glob over paths: `*` stands for one segment or a part of one, `**` as a whole segment for any number of segments.
/// `/repos/**` matches `/repos`, `/repos/` and all below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(_text: &str) -> Result<Self, PathError> {
        todo!()
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path (without query) matches. Linear in the path's length for each pattern.
    #[must_use]
    pub fn matches(&self, _path: &CanonicalPath) -> bool {
        todo!()
    }
}
