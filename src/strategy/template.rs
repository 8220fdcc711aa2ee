//! Templates such as `Bearer {token}`: literals and fields, with the filters `base64`, `urlencode` and `lower`
//! (`{field|base64}`, also chained). `{{` and `}}` are literal braces.

use crate::secret::{Secret, SecretFields};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use zeroize::Zeroizing;

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`, or the other way round.
    #[error("the template {0:?} has an unbalanced brace; write {{{{ or }}}} for a brace itself")]
    Brace(String),
    /// A field name that is not `[a-z0-9_]+`.
    #[error("the template has a field {0:?}; field names are a-z, 0-9 and _")]
    Field(String),
    /// An unknown filter.
    #[error("the template has a filter {0:?}; known are base64, urlencode and lower")]
    Filter(String),
}

/// A parsed template. `Display` gives back its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(Vec<Part>);

/// Neighbouring literals are one part, and no literal is empty, so that equal texts are equal templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Field { name: String, filters: Vec<Filter> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Base64,
    Urlencode,
    Lower,
}

/// Everything but RFC 3986's unreserved characters.
pub(super) const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let unbalanced = || TemplateError::Brace(shorten(text));
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            template.push_literal(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                template.push_literal(brace);
                rest = after;
            } else if brace == "{" {
                let end = rest.find(['{', '}']).filter(|end| rest[*end..].starts_with('}')).ok_or_else(unbalanced)?;
                template.0.push(parse_field(&rest[..end])?);
                rest = &rest[end + 1..];
            } else {
                return Err(unbalanced());
            }
        }
        template.push_literal(rest);
        Ok(template)
    }

    /// The names of its fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Field { name, .. } => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The text with the fields put in; `Err` names the field that is missing. `token` and `access_token` stand in for
    /// each other.
    ///
    /// # Errors
    /// The missing field's name.
    pub fn render(&self, fields: &SecretFields) -> Result<Secret, String> {
        self.render_with(fields, |value| value)
    }

    /// This template with a plain value in place of a field (after the field's filters).
    #[must_use]
    pub fn substitute(&self, field: &str, value: &str) -> Self {
        let mut template = Self::default();
        for part in &self.0 {
            match part {
                Part::Literal(text) => template.push_literal(text),
                Part::Field { name, filters } if name == field => {
                    template.push_literal(&filtered(value, filters));
                }
                Part::Field { .. } => template.0.push(part.clone()),
            }
        }
        template
    }

    /// Like [`Template::render`], with a last change to each field's value (literals stay as they are).
    pub(super) fn render_with(
        &self,
        fields: &SecretFields,
        finish: impl Fn(Zeroizing<String>) -> Zeroizing<String>,
    ) -> Result<Secret, String> {
        let mut pieces: Vec<Zeroizing<String>> = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            pieces.push(match part {
                Part::Literal(text) => Zeroizing::new(text.clone()),
                Part::Field { name, filters } => {
                    let value = field_value(fields, name).ok_or_else(|| name.clone())?;
                    // The value goes into the rendered text, which is a `Secret` again.
                    finish(filtered(value.expose(), filters))
                }
            });
        }
        // One allocation of the final size: a growing string would leave copies behind that nothing wipes.
        let mut text = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| text.push_str(piece));
        Ok(Secret::new(text))
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The two templates around the first `:` that is not part of a field.
    pub(super) fn split_at_colon(&self) -> Option<(Self, Self)> {
        let (index, at) = self.0.iter().enumerate().find_map(|(index, part)| match part {
            Part::Literal(text) => text.find(':').map(|at| (index, at)),
            Part::Field { .. } => None,
        })?;
        let Part::Literal(text) = &self.0[index] else { return None };
        let mut before = Self(self.0[..index].to_vec());
        before.push_literal(&text[..at]);
        let mut after = Self::default();
        after.push_literal(&text[at + 1..]);
        after.0.extend_from_slice(&self.0[index + 1..]);
        Some((before, after))
    }

    fn push_literal(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Literal(last)) => last.push_str(text),
            _ => self.0.push(Part::Literal(text.to_owned())),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Field { name, filters } => {
                    write!(f, "{{{name}")?;
                    filters.iter().try_for_each(|filter| write!(f, "|{}", filter.name()))?;
                    f.write_str("}")?;
                }
            }
        }
        Ok(())
    }
}

impl Filter {
    const ALL: [Self; 3] = [Self::Base64, Self::Urlencode, Self::Lower];

    fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Urlencode => "urlencode",
            Self::Lower => "lower",
        }
    }

    fn apply(self, value: &str) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Base64 => STANDARD.encode(value),
            Self::Urlencode => percent_encoded(value, NOT_UNRESERVED),
            Self::Lower => value.to_ascii_lowercase(),
        })
    }
}

/// A field's value; `token` and `access_token` stand in for each other.
pub(super) fn field_value<'a>(fields: &'a SecretFields, name: &str) -> Option<&'a Secret> {
    fields.get(name).or_else(|| match name {
        "token" => fields.get("access_token"),
        "access_token" => fields.get("token"),
        _ => None,
    })
}

pub(super) fn filtered(value: &str, filters: &[Filter]) -> Zeroizing<String> {
    filters.iter().fold(Zeroizing::new(value.to_owned()), |value, filter| filter.apply(&value))
}

/// Percent-encodes in one allocation, so that no partial copy of a secret stays behind.
pub(super) fn percent_encoded(value: &str, set: &'static AsciiSet) -> String {
    let mut text = String::with_capacity(utf8_percent_encode(value, set).map(str::len).sum());
    text.extend(utf8_percent_encode(value, set));
    text
}

fn parse_field(text: &str) -> Result<Part, TemplateError> {
    let mut words = text.split('|');
    let name = words.next().unwrap_or_default();
    if !is_field_name(name) {
        return Err(TemplateError::Field(shorten(name)));
    }
    let filters = words
        .map(|word| {
            let known = Filter::ALL.into_iter().find(|filter| filter.name() == word);
            known.ok_or_else(|| TemplateError::Filter(shorten(word)))
        })
        .collect::<Result<_, _>>()?;
    Ok(Part::Field { name: name.to_owned(), filters })
}

/// Whether a text can be a field's name: `[a-z0-9_]+`.
#[must_use]
pub fn is_field_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What is shown of a refused text.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    fn fields(pairs: &[(&str, &str)]) -> SecretFields {
        let mut fields = SecretFields::default();
        pairs.iter().for_each(|(name, value)| fields.insert(name, Secret::new((*value).to_owned())));
        fields
    }

    #[test]
    fn templates_render() {
        let given = fields(&[("token", "Ab/+ z"), ("user", "me"), ("empty", "")]);
        for (name, template, expected) in [
            ("nothing", "", ""),
            ("literal", "Bearer", "Bearer"),
            ("field", "{token}", "Ab/+ z"),
            ("around", "Bearer {token}!", "Bearer Ab/+ z!"),
            ("alias", "{access_token}", "Ab/+ z"),
            ("two fields", "{user}:{token}", "me:Ab/+ z"),
            ("empty field", "[{empty}]", "[]"),
            ("base64", "{user|base64}", "bWU="),
            ("urlencode", "{token|urlencode}", "Ab%2F%2B%20z"),
            ("lower", "{token|lower}", "ab/+ z"),
            ("chained", "{user|base64|lower|urlencode}", "bwu%3D"),
            ("braces", "{{{user}}}", "{me}"),
            ("braces alone", "{{user}}", "{user}"),
            ("outside ascii", "é{user}", "éme"),
        ] {
            let rendered = Template::parse(template).unwrap().render(&given).unwrap();
            assert_eq!(rendered.expose(), expected, "{name}");
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        let brace = |text: &str| TemplateError::Brace(text.to_owned());
        let field = |text: &str| TemplateError::Field(text.to_owned());
        for (name, template, expected) in [
            ("open", "a{token", brace("a{token")),
            ("close", "a}b", brace("a}b")),
            ("nested", "{a{b}}", brace("{a{b}}")),
            ("no name", "{}", field("")),
            ("space", "{ token }", field(" token ")),
            ("capital", "{Token}", field("Token")),
            ("filter", "{token|md5}", TemplateError::Filter("md5".to_owned())),
            ("empty filter", "{token|}", TemplateError::Filter(String::new())),
            ("filter with space", "{token| lower}", TemplateError::Filter(" lower".to_owned())),
        ] {
            assert_eq!(Template::parse(template), Err(expected), "{name}");
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        let template = Template::parse("{user}:{password}").unwrap();
        assert_eq!(template.render(&fields(&[("user", "u")])).unwrap_err(), "password");
    }

    #[test]
    fn a_plain_value_takes_a_fields_place() {
        let template = Template::parse("{email|lower}/token:{token}").unwrap();
        let template = template.substitute("email", "A{b}@x.test");
        assert_eq!(template.to_string(), "a{{b}}@x.test/token:{token}");
        assert_eq!(template.fields().collect::<Vec<_>>(), ["token"]);
    }

    #[test]
    fn the_first_colon_outside_fields_splits() {
        for (text, expected) in [
            ("{user}:{password}", Some(("{user}", "{password}"))),
            ("{token}:", Some(("{token}", ""))),
            (":{token}", Some(("", "{token}"))),
            ("a:b:{c}", Some(("a", "b:{c}"))),
            ("{{a}}:{c}", Some(("{{a}}", "{c}"))),
            ("{user}", None),
        ] {
            let split = Template::parse(text).unwrap().split_at_colon();
            let split = split.map(|(a, b)| (a.to_string(), b.to_string()));
            assert_eq!(split, expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_and_display_gives_it_back(text in "[a-z{}|:é ]{0,24}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.to_string(), text);
            }
        }

        #[test]
        fn display_parses_back(
            parts in prop::collection::vec(prop_oneof!["[ -~]{0,6}".prop_map(Err), "[a-z0-9_]{1,8}".prop_map(Ok)], 0..6)
        ) {
            let mut template = Template::default();
            for part in parts {
                match part {
                    Ok(name) => template.0.push(Part::Field { name, filters: vec![Filter::Base64, Filter::Lower] }),
                    Err(text) => template.push_literal(&text),
                }
            }
            prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
        }
    }
}
