//! Data on standard output (as a table or JSON), messages on standard error.

use super::CliError;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;
use std::io::Write;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: lists are arrays, show and create are objects.
    Json,
}

/// Prints data, as it is.
///
/// # Errors
/// When standard output is closed or fails.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::OutputClosed,
        _ => CliError::Io { path: "standard output".into(), source: error },
    })
}

/// Prints a line of data.
pub(super) fn print_line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

/// Prints JSON, indented.
pub(super) fn print_json(value: &Value) -> Result<(), CliError> {
    print_line(&serde_json::to_string_pretty(value).expect("a JSON value has a text"))
}

/// A message for the person, on standard error. Nothing is done about a closed standard error.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A warning for the person.
pub(super) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Prints a list: a table with these columns, or an array. A column is a heading and a key of the objects.
pub(super) fn print_list(format: Format, columns: &[(&str, &str)], rows: &[Value]) -> Result<(), CliError> {
    if format == Format::Json {
        return print_json(&Value::Array(rows.to_vec()));
    }
    let mut table = plain_table();
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for row in rows {
        table.add_row(columns.iter().map(|(_, key)| cell(&row[*key])));
    }
    print_table(&table)
}

/// Prints one object: its keys and values below each other, or JSON.
pub(super) fn print_object(format: Format, object: &Value) -> Result<(), CliError> {
    if format == Format::Json {
        return print_json(object);
    }
    let mut table = plain_table();
    for (key, value) in object.as_object().into_iter().flatten() {
        if !value.is_null() {
            table.add_row([key.replace('_', " "), cell(value)]);
        }
    }
    print_table(&table)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn print_table(table: &Table) -> Result<(), CliError> {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    print(&text)
}

/// A JSON value as it stands in a table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => printable(&other.to_string()),
    }
}

/// The text with everything escaped that could move the cursor or turn the reading direction: names and audit lines
/// may have been chosen by an agent.
#[must_use]
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || turns {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// RFC 3339 in UTC, to the second.
#[must_use]
pub(super) fn time(seconds: crate::types::UnixSeconds) -> Value {
    jiff::Timestamp::from_second(seconds).map_or(Value::Null, |time| Value::String(time.to_string()))
}

/// A span as people say it, such as `3d`, `5h`, `12m`: the largest unit, rounded down.
#[must_use]
pub(super) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s if s >= 86_400 => format!("{}d", s / 86_400),
        s if s >= 3_600 => format!("{}h", s / 3_600),
        s if s >= 60 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_fool_a_terminal_is_escaped() {
        for (name, text, shown) in [
            ("plain", "github-work", "github-work"),
            ("escape", "a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("line break", "a\nb", "a\\u{a}b"),
            ("bidi", "a\u{202e}b", "a\\u{202e}b"),
            ("other scripts", "böb 東京", "böb 東京"),
        ] {
            assert_eq!(printable(text), shown, "{name}");
        }
    }

    #[test]
    fn cells_are_short_words() {
        for (name, value, shown) in [
            ("nothing", Value::Null, "-"),
            ("yes", serde_json::json!(true), "yes"),
            ("list", serde_json::json!(["a", "b"]), "a, b"),
            ("empty list", serde_json::json!([]), "-"),
            ("number", serde_json::json!(3), "3"),
        ] {
            assert_eq!(cell(&value), shown, "{name}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(0), serde_json::json!("1970-01-01T00:00:00Z"));
        assert_eq!(time(i64::MAX), Value::Null);
    }

    #[test]
    fn ages_use_the_largest_unit() {
        for (seconds, shown) in [(-5, "0s"), (59, "59s"), (60, "1m"), (7_200, "2h"), (200_000, "2d")] {
            assert_eq!(age(seconds), shown);
        }
    }
}
