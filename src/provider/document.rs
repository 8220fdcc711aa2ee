//! A TOML document with places, read key by key.
//!
//! serde would stop at the first unknown key or wrong type; this reader notes each problem and goes on. A key that is
//! never asked for is unknown: reading is also the list of what is allowed.

use super::FileProblem;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The problems of one file, with what is needed to place them.
pub(super) struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<(usize, FileProblem)>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        let problem = FileProblem::at(self.file, self.text, place.offset, &place.key, message.into());
        self.found.push((place.offset, problem));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All, in the order of the text.
    pub(super) fn into_list(mut self) -> Vec<FileProblem> {
        self.found.sort_by_key(|(offset, _)| *offset);
        self.found.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// Where in the document something is: a byte offset and a key path such as `auth[0].inject[0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) key: String,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Parses a document; syntax errors are noted, and then there is no table.
pub(super) fn parse_document<'a>(text: &'a str, problems: &mut Problems<'_>) -> Option<Spanned<DeTable<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut lines = HashSet::new();
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        // What follows the first error of a line mostly follows from it.
        if lines.insert(text[..offset].matches('\n').count()) {
            problems.add(&Place { offset, key: String::new() }, error.message());
        }
    }
    errors.is_empty().then_some(table)
}

/// A table that is being read.
pub(super) struct Table<'t, 'd> {
    map: &'t DeTable<'d>,
    /// Of the table itself: its header or opening brace.
    pub(super) place: Place,
    asked: Vec<&'static str>,
}

impl<'t, 'd> Table<'t, 'd> {
    pub(super) fn root(document: &'t Spanned<DeTable<'d>>) -> Self {
        Self { map: document.get_ref(), place: Place { offset: 0, key: String::new() }, asked: Vec::new() }
    }

    pub(super) fn text(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Located<String>> {
        let (value, place) = self.ask(key)?;
        let text = as_text(value, &place, problems)?;
        Some(Located { value: text, place })
    }

    pub(super) fn required_text(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Located<String>> {
        self.require(problems, key);
        self.text(problems, key)
    }

    pub(super) fn texts(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Vec<Located<String>>> {
        let items = self.items(problems, key, "an array of strings")?;
        let texts = items.into_iter().filter_map(|(value, place)| {
            let text = as_text(value, &place, problems)?;
            Some(Located { value: text, place })
        });
        Some(texts.collect())
    }

    pub(super) fn boolean(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Located<bool>> {
        let (value, place) = self.ask(key)?;
        let Some(boolean) = value.as_bool() else {
            problems.add(&place, wrong_type("true or false", value));
            return None;
        };
        Some(Located { value: boolean, place })
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<u16>,
    ) -> Option<Located<u16>> {
        let (value, place) = self.ask(key)?;
        let number = as_number(value, &place, range, problems)?;
        Some(Located { value: number, place })
    }

    pub(super) fn numbers(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<u16>,
    ) -> Option<Vec<u16>> {
        let items = self.items(problems, key, "an array of numbers")?;
        Some(items.into_iter().filter_map(|(value, place)| as_number(value, &place, range.clone(), problems)).collect())
    }

    pub(super) fn table(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Table<'t, 'd>> {
        let (value, place) = self.ask(key)?;
        as_table(value, place, problems)
    }

    /// An array of tables; absent is empty.
    pub(super) fn tables(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Vec<Table<'t, 'd>> {
        let items = self.items(problems, key, "an array of tables").unwrap_or_default();
        items.into_iter().filter_map(|(value, place)| as_table(value, place, problems)).collect()
    }

    /// All keys, for a table whose keys are free; its values are strings.
    pub(super) fn free_texts(self, problems: &mut Problems<'_>) -> Vec<(Located<String>, Located<String>)> {
        let mut entries = Vec::new();
        for (key, value) in self.map {
            let key_place = self.inner(key);
            let value_place = Place { offset: value.span().start, key: key_place.key.clone() };
            if let Some(text) = as_text(value.get_ref(), &value_place, problems) {
                let name = Located { value: key.get_ref().to_string(), place: key_place };
                entries.push((name, Located { value: text, place: value_place }));
            }
        }
        entries.sort_by_key(|(name, _)| name.place.offset);
        entries
    }

    /// Notes a key that must be there and is not.
    pub(super) fn require(&self, problems: &mut Problems<'_>, key: &'static str) {
        if self.map.get(key).is_none() {
            problems.add(&self.place, format!("the key {key} is missing"));
        }
    }

    /// Notes each key that nobody asked for.
    pub(super) fn finish(self, problems: &mut Problems<'_>) {
        for (key, _) in self.map {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                problems.add(&self.inner(key), format!("unknown key{}", did_you_mean(name, &self.asked)));
            }
        }
    }

    fn ask(&mut self, key: &'static str) -> Option<(&'t DeValue<'d>, Place)> {
        self.asked.push(key);
        let value = self.map.get(key)?;
        Some((value.get_ref(), Place { offset: value.span().start, key: join(&self.place.key, key) }))
    }

    fn items(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        expected: &str,
    ) -> Option<Vec<(&'t DeValue<'d>, Place)>> {
        let (value, place) = self.ask(key)?;
        let Some(array) = value.as_array() else {
            problems.add(&place, wrong_type(expected, value));
            return None;
        };
        let item = |(index, item): (usize, &'t Spanned<DeValue<'d>>)| {
            (item.get_ref(), Place { offset: item.span().start, key: format!("{}[{index}]", place.key) })
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    fn inner(&self, key: &Spanned<toml::de::DeString<'_>>) -> Place {
        Place { offset: key.span().start, key: join(&self.place.key, key.get_ref()) }
    }
}

/// What to append to a complaint about `given`: the name that was probably meant, or all that there are.
pub(super) fn did_you_mean(given: &str, known: &[&str]) -> String {
    let closest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&given.to_lowercase(), name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match closest {
        Some((_, name)) => format!("; did you mean {name}?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are {}", known.join(", ")),
    }
}

fn as_text(value: &DeValue<'_>, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let Some(text) = value.as_str() else {
        problems.add(place, wrong_type("a string", value));
        return None;
    };
    if text.trim().is_empty() {
        problems.add(place, "is empty");
        return None;
    }
    Some(text.to_owned())
}

fn as_number(
    value: &DeValue<'_>,
    place: &Place,
    range: RangeInclusive<u16>,
    problems: &mut Problems<'_>,
) -> Option<u16> {
    let number = value.as_integer().and_then(|integer| u16::from_str_radix(integer.as_str(), integer.radix()).ok());
    let number = number.filter(|number| range.contains(number));
    if number.is_none() {
        problems.add(place, wrong_type(&format!("a number from {} to {}", range.start(), range.end()), value));
    }
    number
}

fn as_table<'t, 'd>(value: &'t DeValue<'d>, place: Place, problems: &mut Problems<'_>) -> Option<Table<'t, 'd>> {
    let Some(map) = value.as_table() else {
        problems.add(&place, wrong_type("a table", value));
        return None;
    };
    Some(Table { map, place, asked: Vec::new() })
}

fn wrong_type(expected: &str, value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => format!("expected {expected}, found {integer}"),
        _ => format!("expected {expected}, found {}", article(value.type_str())),
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
