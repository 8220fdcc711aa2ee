//! Reading one provider file: typed, spanned, `deny_unknown_fields`, all problems at once.

use super::Definition;

/// One problem of a file. `Display`: `github.toml:14:7 auth[0].inject[0]: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub file: String,
    /// 1-based line.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
    /// Where in the document, such as `auth[0].inject[0]`; may be empty.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for FileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, column, key, message } = self;
        if key.is_empty() {
            write!(f, "{file}:{line}:{column} {message}")
        } else {
            write!(f, "{file}:{line}:{column} {key}: {message}")
        }
    }
}

impl FileProblem {
    /// A problem at a byte offset of `text`.
    #[must_use]
    pub fn at(file: &str, text: &str, offset: usize, key: &str, message: String) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Self { file: file.to_owned(), line, column, key: key.to_owned(), message }
    }
}

/// Parses and checks a provider file. `file` is its name, whose stem must equal the id.
///
/// # Errors
/// Every problem found.
pub fn parse_file(_file: &str, _text: &str) -> Result<Definition, Vec<FileProblem>> {
    todo!()
}
