//! How secrets come in: a prompt without echo, `--stdin`, `--stdin-json` or `--from-env VAR`; never the command line.

use super::{CliError, output};
use crate::secret::{Secret, SecretFields};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::io::{IsTerminal, Read};
use zeroize::Zeroizing;

/// Where a secret comes from. With none of them, a prompt asks for it.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "secret", multiple = false)]
pub struct SecretInput {
    /// Read the secret from standard input (one trailing newline is trimmed)
    #[arg(long, group = "secret")]
    pub stdin: bool,
    /// Read all secret fields from standard input, as one JSON object
    #[arg(long, group = "secret")]
    pub stdin_json: bool,
    /// Read the secret from this environment variable
    #[arg(long, value_name = "VAR", group = "secret")]
    pub from_env: Option<String>,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Given {
    /// Nothing was said: ask.
    Nothing,
    /// One value.
    One(Secret),
    /// Named values.
    Fields(SecretFields),
}

/// More than any credential: keys of service accounts have some kilobytes.
const LARGEST: u64 = 1 << 20;

impl SecretInput {
    /// Reads what the flags ask for.
    pub(super) fn read(&self) -> Result<Given, CliError> {
        if self.stdin {
            return Ok(Given::One(read_value("standard input", &read_stdin()?)?));
        }
        if self.stdin_json {
            return Ok(Given::Fields(parse_fields(&read_stdin()?)?));
        }
        if let Some(name) = &self.from_env {
            let value = std::env::var(name)
                .map_err(|_| CliError::NotFound(format!("the environment variable {name} is not set")))?;
            return Ok(Given::One(read_value(name, &Zeroizing::new(value))?));
        }
        Ok(Given::Nothing)
    }
}

/// Asks for one secret on the terminal, without echo.
pub(super) fn prompt(label: &str) -> Result<Secret, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage(format!(
            "{label} is needed and there is no terminal to ask on; give it by --stdin, --stdin-json or --from-env VAR"
        )));
    }
    let text = rpassword::prompt_password(format!("{label}: ")).map_err(CliError::io("terminal"))?;
    read_value(label, &Zeroizing::new(text))
}

/// Asks for one value that is no secret.
pub(super) fn ask(label: &str) -> Result<String, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{label} is needed; give it by --set FIELD=VALUE")));
    }
    use std::io::Write;
    let _ = write!(std::io::stderr(), "{label}: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(CliError::io("terminal"))?;
    Ok(line.trim().to_owned())
}

fn read_stdin() -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes).map_err(CliError::io("standard input"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(CliError::Usage("standard input has more than 1 MiB, which is no credential".to_owned()));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(CliError::Usage("standard input is not UTF-8 text".to_owned())),
    }
}

/// Trims one trailing newline; nothing else is changed.
fn read_value(origin: &str, text: &str) -> Result<Secret, CliError> {
    let trimmed = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
    if trimmed.is_empty() {
        return Err(CliError::Usage(format!("the secret from {origin} is empty")));
    }
    Ok(Secret::new(trimmed.to_owned()))
}

/// Reads an object of strings (numbers and booleans count as their text).
fn parse_fields(text: &str) -> Result<SecretFields, CliError> {
    // serde_json's own message may quote the input, so only the place is told.
    serde_json::from_str::<FieldMap>(text).map(|map| map.0).map_err(|error| {
        CliError::Usage(format!(
            "standard input is not one JSON object of strings such as {{\"token\":\"...\"}} (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

/// Warns about values that look like a mistake. They are taken all the same. The names of `plain` are no secrets.
pub(super) fn warn_about(fields: &SecretFields, plain: &[String]) {
    for (name, value) in fields.iter().filter(|(name, _)| !plain.iter().any(|plain| plain == name)) {
        // Looked at for its shape only; no part of it is shown.
        let text = value.expose();
        if text.trim() != text {
            output::warn(&format!("{name} has space around it"));
        }
        if value.len() < 8 && !matches!(name, "user" | "username" | "client_id" | "expires_in") {
            output::warn(&format!(
                "{name} is shorter than 8 characters: it is easy to guess, and it is not scrubbed from answers"
            ));
        }
    }
}

struct FieldMap(SecretFields);

impl<'de> Deserialize<'de> for FieldMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = FieldMap;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldMap, A::Error> {
                let mut fields = SecretFields::default();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.get(&name).is_some() {
                        return Err(A::Error::custom("a field is there twice"));
                    }
                    if let Some(value) = map.next_value::<FieldValue>()?.0 {
                        fields.insert(&name, value);
                    }
                }
                Ok(FieldMap(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

struct FieldValue(Option<Secret>);

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = FieldValue;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<FieldValue, E> {
                Ok(FieldValue(Some(Secret::new(text.to_owned()))))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<FieldValue, E> {
                Ok(FieldValue(Some(Secret::new(text))))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<FieldValue, E> {
                Ok(FieldValue(Some(Secret::new(number.to_string()))))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<FieldValue, E> {
                Ok(FieldValue(Some(Secret::new(number.to_string()))))
            }
            fn visit_unit<E: Error>(self) -> Result<FieldValue, E> {
                Ok(FieldValue(None))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_trailing_newline_is_trimmed() {
        for (name, text, value) in [
            ("none", "abc", Some("abc")),
            ("one", "abc\n", Some("abc")),
            ("windows", "abc\r\n", Some("abc")),
            ("two", "abc\n\n", Some("abc\n")),
            ("spaces stay", " abc ", Some(" abc ")),
            ("empty", "", None),
            ("only a newline", "\n", None),
        ] {
            let read = read_value("test", text);
            assert_eq!(read.as_ref().ok().map(Secret::expose), value, "{name}");
        }
    }

    #[test]
    fn fields_come_from_one_object() {
        let fields = parse_fields(r#"{"client_id":"a","expires_in":3600,"refresh_token":null}"#).unwrap();
        assert_eq!(fields.get("client_id").unwrap().expose(), "a");
        assert_eq!(fields.get("expires_in").unwrap().expose(), "3600");
        assert!(fields.get("refresh_token").is_none());
    }

    #[test]
    fn broken_json_is_refused_without_quoting_it() {
        for (name, text) in [
            ("not json", "hunter2hunter2"),
            ("a string", r#""hunter2""#),
            ("an array", r#"["hunter2"]"#),
            ("nested", r#"{"a":{"b":"hunter2"}}"#),
            ("twice", r#"{"a":"hunter2","a":"x"}"#),
            ("cut off", r#"{"a":"hunter2"#),
        ] {
            let error = parse_fields(text).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{name}");
            assert!(!error.to_string().contains("hunter2"), "{name}: {error}");
        }
    }
}
