//! A strategy: all placements of one connection, checked against each other, and the edits they make.

use super::placement::is_header_byte;
use super::template::{NOT_UNRESERVED, Part, Template, field_value, filtered, percent_encoded};
use super::{Edit, Injection, Placement, PlacementError};
use crate::secret::{Secret, SecretFields};
use crate::types::CanonicalPath;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};
use percent_encoding::AsciiSet;
use std::collections::HashSet;
use zeroize::Zeroizing;

/// Values shorter than this are not looked for in answers: they would match by chance.
const SHORTEST_SCRUBBED: usize = 8;

/// What a field becomes in a path: one part of a segment. `:` is kept, which every segment may have.
const NOT_SEGMENT: &AsciiSet = &NOT_UNRESERVED.remove(b':');

/// Why a credential could not be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// The credential has no such field.
    #[error("the credential has no field {0}")]
    FieldMissing(String),
    /// The value has characters that this place cannot carry (controls, CR, LF, NUL, outside ASCII; empty).
    #[error("the credential is empty or has characters that {0} cannot carry")]
    Value(String),
}

/// Everything that goes onto a request for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy(Vec<Placement>);

impl Strategy {
    /// Checks that placements do not collide.
    ///
    /// # Errors
    /// [`PlacementError::Twice`].
    pub fn new(placements: Vec<Placement>) -> Result<Self, PlacementError> {
        let mut taken = HashSet::new();
        match placements.iter().map(place).find(|place| !taken.insert(place.clone())) {
            Some(place) => Err(PlacementError::Twice(place)),
            None => Ok(Self(placements)),
        }
    }

    /// The placements.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.0
    }

    /// The names of all fields that it needs, in order, each once.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.0.iter().flat_map(Placement::fields) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// The headers that it sets: the agent's copies go first.
    #[must_use]
    pub fn header_names(&self) -> Vec<HeaderName> {
        let name = |placement: &Placement| match placement {
            Placement::Header { name, .. } => Some(name.clone()),
            Placement::Basic { .. } => Some(header::AUTHORIZATION),
            Placement::Query { .. } | Placement::Path { .. } => None,
        };
        self.0.iter().filter_map(name).collect()
    }

    /// The query parameters that it sets, decoded: the agent's copies go first.
    #[must_use]
    pub fn query_names(&self) -> Vec<&str> {
        let names = self.0.iter().filter_map(|placement| match placement {
            Placement::Query { name, .. } => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }

    /// Splits an agent's path (what follows the base path) that already has the prefix of this strategy, as SDKs write
    /// it (`/botPLACEHOLDER/getMe`): what stands in the fields' places, and the rest, which starts with `/`.
    ///
    /// A prefix without fixed text in its segment fits any path, so the caller looks at the values before it cuts.
    #[must_use]
    pub fn split_path<'p>(&self, path: &'p str) -> Option<(Vec<&'p str>, &'p str)> {
        let prefix = self.0.iter().find_map(|placement| match placement {
            Placement::Path { prefix } => Some(prefix),
            _ => None,
        })?;
        let mut values = Vec::new();
        let mut rest = path;
        let mut parts = prefix.parts().iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Field { .. } => {
                    // Two fields side by side cannot be told apart.
                    let Some(Part::Literal(next)) = parts.peek() else { return None };
                    let stop = next.split_inclusive('/').next().unwrap_or(next);
                    let end = rest.find(stop).filter(|end| *end > 0 && !rest[..*end].contains('/'))?;
                    values.push(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
        // The prefix's last `/` is the first of the rest.
        Some((values, &path[path.len() - rest.len() - 1..]))
    }

    /// The edits for one request.
    ///
    /// # Errors
    /// See [`StrategyError`].
    pub fn inject(&self, fields: &SecretFields) -> Result<Injection, StrategyError> {
        let edits = self.0.iter().map(|placement| edit(placement, fields)).collect::<Result<_, _>>()?;
        Ok(Injection { edits })
    }

    /// What must not come back in an answer: each raw field value of 8 bytes or more that a placement uses, what
    /// filters and encodings make of it where that differs, and Basic's base64; deduplicated, longest first.
    #[must_use]
    pub fn reflections(&self, fields: &SecretFields) -> Vec<Secret> {
        let mut found: Vec<Zeroizing<String>> = Vec::new();
        for placement in &self.0 {
            for (value, filters) in used_values(placement, fields) {
                // Each form is kept as a secret again.
                let sent = filtered(value.expose(), filters);
                match placement {
                    Placement::Query { .. } => found.push(Zeroizing::new(percent_encoded(&sent, NOT_UNRESERVED))),
                    Placement::Path { .. } => found.push(Zeroizing::new(percent_encoded(&sent, NOT_SEGMENT))),
                    Placement::Header { .. } | Placement::Basic { .. } => {}
                }
                found.push(Zeroizing::new(value.expose().to_owned()));
                found.push(sent);
            }
            if let Placement::Basic { user, password } = placement
                && let Ok(encoded) = basic_credentials(user, password, fields)
            {
                found.push(encoded);
            }
        }
        found.retain(|value| value.len() >= SHORTEST_SCRUBBED);
        found.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.as_str().cmp(b.as_str())));
        found.dedup();
        found.into_iter().map(|mut value| Secret::new(std::mem::take(&mut *value))).collect()
    }

    /// The used fields whose values are too short to be found in answers, so that they cannot be scrubbed there.
    #[must_use]
    pub fn warn_short(&self, fields: &SecretFields) -> Vec<String> {
        let is_short = |value: &Secret| (1..SHORTEST_SCRUBBED).contains(&value.len());
        self.fields().into_iter().filter(|name| field_value(fields, name).is_some_and(is_short)).collect()
    }
}

/// What a placement sets, in words; equal for two that collide.
fn place(placement: &Placement) -> String {
    match placement {
        // Some servers read `_` in a name as `-`: the two spellings are one place.
        Placement::Header { name, .. } => format!("the header {}", name.as_str().replace('_', "-")),
        Placement::Basic { .. } => format!("the header {}", header::AUTHORIZATION),
        Placement::Query { name, .. } => format!("the query parameter {name}"),
        Placement::Path { .. } => "the path".to_owned(),
    }
}

fn edit(placement: &Placement, fields: &SecretFields) -> Result<Edit, StrategyError> {
    let refused = || StrategyError::Value(place(placement));
    // The values are looked at to refuse what cannot be sent; nothing of them is kept.
    let all_fit = |fits: &dyn Fn(&str) -> bool| {
        let mut values = used_values(placement, fields).map(|(value, filters)| filtered(value.expose(), filters));
        if values.all(|value| fits(&value)) { Ok(()) } else { Err(refused()) }
    };
    let rendered = |template: &Template| template.render(fields).map_err(StrategyError::FieldMissing);
    match placement {
        Placement::Header { name, value } => {
            let value = rendered(value)?;
            all_fit(&|value| !value.is_empty())?;
            // The value goes onto the upstream request.
            Ok(Edit::Header { name: name.clone(), value: header_value(value.expose()).ok_or_else(refused)? })
        }
        Placement::Basic { user, password } => {
            // A user name ends at the first colon (RFC 7617 section 2), so one inside would move the boundary.
            if rendered(user)?.expose().contains(':') {
                return Err(refused());
            }
            let encoded = basic_credentials(user, password, fields)?;
            all_fit(&|value| !value.contains(char::is_control))?;
            // An empty password is common; a credential of nothing but empty values is none.
            if used_values(placement, fields).all(|(value, _)| value.is_empty()) {
                return Err(refused());
            }
            let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + encoded.len()));
            value.push_str("Basic ");
            value.push_str(&encoded);
            Ok(Edit::Header { name: header::AUTHORIZATION, value: header_value(&value).ok_or_else(refused)? })
        }
        Placement::Query { name, value } => {
            let value = rendered(value)?;
            all_fit(&|value| !value.is_empty() && !value.contains(char::is_control))?;
            // The value goes onto the upstream request, as a secret until then.
            let value = Zeroizing::new(percent_encoded(value.expose(), NOT_UNRESERVED));
            let name = percent_encoded(name, NOT_UNRESERVED);
            let mut pair = String::with_capacity(name.len() + 1 + value.len());
            [name.as_str(), "=", value.as_str()].iter().for_each(|text| pair.push_str(text));
            Ok(Edit::Query { pair: Secret::new(pair) })
        }
        Placement::Path { prefix } => {
            let encode = |value: Zeroizing<String>| Zeroizing::new(percent_encoded(&value, NOT_SEGMENT));
            let text = prefix.render_with(fields, encode).map_err(StrategyError::FieldMissing)?;
            // No server takes an encoded backslash or control for data without doubt, and request paths have neither.
            all_fit(&|value| !value.is_empty() && !value.contains(|c: char| c.is_control() || c == '\\'))?;
            // The prefix is judged as a request's path will be, and handed on as a secret.
            let text = text.expose();
            CanonicalPath::parse(text.as_bytes()).map_err(|_| refused())?;
            Ok(Edit::PathPrefix { prefix: Secret::new(text.strip_suffix('/').unwrap_or(text).to_owned()) })
        }
    }
}

/// Base64 of `user:password` (RFC 7617).
fn basic_credentials(
    user: &Template,
    password: &Template,
    fields: &SecretFields,
) -> Result<Zeroizing<String>, StrategyError> {
    let user = user.render(fields).map_err(StrategyError::FieldMissing)?;
    let password = password.render(fields).map_err(StrategyError::FieldMissing)?;
    let mut pair = Zeroizing::new(String::with_capacity(user.len() + 1 + password.len()));
    // Both are part of the header's value, which is base64 of them.
    [user.expose(), ":", password.expose()].iter().for_each(|text| pair.push_str(text));
    Ok(Zeroizing::new(STANDARD.encode(pair.as_bytes())))
}

fn header_value(text: &str) -> Option<HeaderValue> {
    let is_sendable = !text.is_empty() && text.bytes().all(is_header_byte);
    let mut value = HeaderValue::from_str(text).ok().filter(|_| is_sendable)?;
    value.set_sensitive(true);
    Some(value)
}

/// The value and filters of each field that a placement uses and the credential has.
fn used_values<'a>(
    placement: &'a Placement,
    fields: &'a SecretFields,
) -> impl Iterator<Item = (&'a Secret, &'a [super::template::Filter])> {
    placement.templates().into_iter().flatten().flat_map(Template::parts).filter_map(|part| match part {
        Part::Field { name, filters } => Some((field_value(fields, name)?, filters.as_slice())),
        Part::Literal(_) => None,
    })
}
