//! The file layer: the spanned document, read key by key. A key that nobody asked for is unknown; problems are collected
//! with their place instead of ending the reading.

use crate::provider::FileProblem;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// One file being read, and what is wrong with it so far.
pub(super) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    problems: Vec<FileProblem>,
    /// Dotted names of every key that was asked for, to tell where a misplaced key belongs.
    known: HashSet<String>,
    unknown: Vec<Unknown>,
    /// Where relative paths are looked for, if the files that they name are to be looked at.
    files_below: Option<PathBuf>,
}

/// A key that nobody asked for.
struct Unknown {
    section: String,
    name: String,
    offset: usize,
    siblings: Vec<&'static str>,
}

/// A place in the document that a problem can be reported at.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: String,
    offset: usize,
}

/// A value and where it stands.
pub(super) struct Value<'d> {
    pub(super) place: Place,
    value: &'d DeValue<'d>,
}

/// A table of which the keys are taken one by one; an absent table has none.
pub(super) struct Section<'d> {
    pub(super) place: Place,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

impl<'t> Document<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, problems: Vec::new(), known: HashSet::new(), unknown: Vec::new(), files_below: None }
    }

    /// The same, the files that it names being looked at too.
    pub(super) fn with_files_below(mut self, home: &Path) -> Self {
        self.files_below = Some(home.to_owned());
        self
    }

    /// Where relative paths are looked for, if files are to be looked at.
    pub(super) fn files_below(&self) -> Option<&Path> {
        self.files_below.as_deref()
    }

    /// The problem of a text that is not TOML at all.
    pub(super) fn syntax_problem(&self, error: &toml::de::Error) -> FileProblem {
        let offset = error.span().map_or(self.text.len(), |span| span.start);
        FileProblem::at(self.file, self.text, offset, "", format!("not valid TOML: {}", error.message()))
    }

    /// Adds a problem.
    pub(super) fn problem(&mut self, place: &Place, message: String) {
        self.problems.push(FileProblem::at(self.file, self.text, place.offset, &place.key, message));
    }

    /// Every key that was asked for.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }

    /// Every problem, in the order of the file; unknown keys are judged here, when all known ones have been asked for.
    pub(super) fn into_problems(mut self) -> Vec<FileProblem> {
        for unknown in std::mem::take(&mut self.unknown) {
            let key = join_key(&unknown.section, &unknown.name);
            let message = format!("unknown key; {}", self.advice(&unknown));
            self.problem(&Place { key, offset: unknown.offset }, message);
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    fn advice(&self, unknown: &Unknown) -> String {
        let near = unknown.siblings.iter().map(|known| (distance(&unknown.name, known), *known)).min();
        if let Some((steps, known)) = near
            && steps <= (unknown.name.chars().count() / 3).max(1)
        {
            return format!("did you mean {known}");
        }
        let elsewhere = self.known.iter().filter(|known| known.rsplit('.').next() == Some(unknown.name.as_str())).min();
        match elsewhere {
            Some(known) => format!("did you mean {known}"),
            None if unknown.siblings.is_empty() => "nothing can stand here".to_owned(),
            None => format!("known here: {}", unknown.siblings.join(", ")),
        }
    }
}

/// Edit steps between two keys, `-` and `_` and upper and lower case being the same.
fn distance(typed: &str, known: &str) -> usize {
    strsim::osa_distance(&typed.to_ascii_lowercase().replace('-', "_"), known)
}

impl<'d> Section<'d> {
    /// The whole document.
    pub(super) fn root(table: &'d DeTable<'d>) -> Self {
        Self { place: Place { key: String::new(), offset: 0 }, table: Some(table), asked: Vec::new() }
    }

    /// Whether the table is there.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<Value<'d>> {
        let dotted = join_key(&self.place.key, key);
        self.asked.push(key);
        document.known.insert(dotted.clone());
        let value = self.table?.get(key)?;
        Some(Value { place: Place { key: dotted, offset: value.span().start }, value: value.get_ref() })
    }

    /// The value of a key that must be there, as text.
    pub(super) fn required_text(&mut self, document: &mut Document<'_>, key: &'static str) -> Option<(&'d str, Place)> {
        match self.take(document, key) {
            Some(value) => value.text(document),
            None => {
                document.problem(&self.place, format!("{key} is missing"));
                None
            }
        }
    }

    /// A table inside this one, empty when absent.
    pub(super) fn section(&mut self, document: &mut Document<'_>, key: &'static str) -> Self {
        let absent = Place { key: join_key(&self.place.key, key), offset: self.place.offset };
        self.take(document, key).and_then(|value| value.section(document)).unwrap_or(Self {
            place: absent,
            table: None,
            asked: Vec::new(),
        })
    }

    /// Every entry, for tables whose keys are data: the key's text and place, and its value.
    pub(super) fn into_entries(self) -> Vec<(String, Place, Value<'d>)> {
        let entries = self.table.into_iter().flatten().map(|(key, value)| {
            let dotted = join_key(&self.place.key, key.get_ref());
            let place = Place { key: dotted.clone(), offset: key.span().start };
            let value = Value { place: Place { key: dotted, offset: value.span().start }, value: value.get_ref() };
            (key.get_ref().to_string(), place, value)
        });
        entries.collect()
    }

    /// Ends the reading: what was not taken is unknown.
    pub(super) fn finish(self, document: &mut Document<'_>) {
        for (key, _) in self.table.into_iter().flatten() {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                document.unknown.push(Unknown {
                    section: self.place.key.clone(),
                    name: key.get_ref().to_string(),
                    offset: key.span().start,
                    siblings: self.asked.clone(),
                });
            }
        }
    }
}

impl<'d> Value<'d> {
    fn wrong_type(&self, document: &mut Document<'_>, expected: &str) {
        let found = match self.value {
            DeValue::Integer(_) => "an integer".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            other => format!("a {}", other.type_str()),
        };
        document.problem(&self.place, format!("expected {expected}, found {found}"));
    }

    /// Whether it is a text.
    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// The text.
    pub(super) fn text(self, document: &mut Document<'_>) -> Option<(&'d str, Place)> {
        self.text_or(document, "text in quotes")
    }

    fn text_or(self, document: &mut Document<'_>, expected: &str) -> Option<(&'d str, Place)> {
        match self.value {
            DeValue::String(text) if text.contains('\0') => {
                document.problem(&self.place, "the text has a NUL character".to_owned());
                None
            }
            DeValue::String(text) => Some((text, self.place)),
            _ => {
                self.wrong_type(document, expected);
                None
            }
        }
    }

    /// Text that `parse` understands; its error is the problem's message.
    pub(super) fn parsed<T>(
        self,
        document: &mut Document<'_>,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<(T, Place)> {
        let (text, place) = self.text_or(document, expected)?;
        match parse(text) {
            Ok(parsed) => Some((parsed, place)),
            Err(message) => {
                document.problem(&place, message);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, document: &mut Document<'_>) -> Option<bool> {
        let found = self.value.as_bool();
        if found.is_none() {
            self.wrong_type(document, "true or false");
        }
        found
    }

    /// An integer within `range`.
    pub(super) fn integer(&self, document: &mut Document<'_>, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type(document, &format!("an integer from {low} to {high}"));
            return None;
        };
        let found = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        if found.is_none() {
            document.problem(&self.place, format!("must be from {low} to {high}"));
        }
        found
    }

    /// A size within `range`: bytes as an integer, or text such as `64KiB`.
    pub(super) fn size(self, document: &mut Document<'_>, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (format_size(*range.start()), format_size(*range.end()));
        let (bytes, place) = match self.value {
            DeValue::Integer(integer) => {
                (u64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(u64::MAX), self.place)
            }
            _ => self.parsed(document, "a size such as \"64KiB\"", parse_size)?,
        };
        if range.contains(&bytes) {
            return Some(bytes);
        }
        document.problem(&place, format!("must be from {low} to {high}"));
        None
    }

    /// The elements of an array.
    pub(super) fn list(self, document: &mut Document<'_>, expected: &str) -> Option<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type(document, expected);
            return None;
        };
        let elements = array.iter().enumerate().map(|(index, element)| Self {
            place: Place { key: format!("{}[{index}]", self.place.key), offset: element.span().start },
            value: element.get_ref(),
        });
        Some(elements.collect())
    }

    /// The table.
    pub(super) fn section(self, document: &mut Document<'_>) -> Option<Section<'d>> {
        match self.value.as_table() {
            Some(table) => Some(Section { place: self.place, table: Some(table), asked: Vec::new() }),
            None => {
                self.wrong_type(document, "a table");
                None
            }
        }
    }
}

/// A text for a message: cut and escaped, because it goes to terminals.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    format!("{cut:?}{}", if cut.len() < text.len() { "…" } else { "" })
}

/// `section.key`, the key in quotes when TOML would need them.
fn join_key(section: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = if is_bare && key.len() <= 80 { key.to_owned() } else { shown(key) };
    if section.is_empty() { key } else { format!("{section}.{key}") }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Parses `64KiB`, `8MiB`, `1GiB`, `512B` or a plain number of bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let error =
        || format!("{} is not a size; write bytes or a number with KiB, MiB or GiB, such as 64KiB", shown(text));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| error())?;
    let unit = match &text[digits..] {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1,
    };
    number.checked_mul(unit).ok_or_else(error)
}

/// The shortest exact form that [`parse_size`] reads back.
fn format_size(bytes: u64) -> String {
    let (unit, size) =
        UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)).unwrap_or(&UNITS[3]);
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("512B", 512), ("64KiB", 65_536), ("8MiB", 8 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "64kb", "64 KiB", "-1", "1.5MiB", "99999999999GiB", "18446744073709551616", "6é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_with_other_characters_are_quoted() {
        assert_eq!(join_key("dns.hosts", "api.example.test"), "dns.hosts.\"api.example.test\"");
        assert_eq!(join_key("", "a_b-1"), "a_b-1");
        assert_eq!(join_key("", "a\u{1b}[2J"), "\"a\\u{1b}[2J\"");
    }
}
