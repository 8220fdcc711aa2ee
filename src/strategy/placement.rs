//! Where one credential goes: a header, Basic, a query parameter, a path prefix. Parsing and display.

use super::template::{Part, shorten};
use super::{Template, TemplateError};
use http::{HeaderName, header};
use std::fmt;

/// One place on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// `header NAME: TEMPLATE`.
    Header {
        /// The header.
        name: HeaderName,
        /// Its value.
        value: Template,
    },
    /// `basic {user}:{password}`: `Authorization: Basic base64(user:password)`. Either side may be literal or empty.
    Basic {
        /// The user part.
        user: Template,
        /// The password part.
        password: Template,
    },
    /// `query NAME={f}`: the parameter is set, after the agent's own of that name are removed.
    Query {
        /// The parameter's name, decoded.
        name: String,
        /// Its value, before encoding.
        value: Template,
    },
    /// `path /prefix{f}/`: put in front of the request's path under the base path (Telegram's `/bot{token}/`).
    Path {
        /// The prefix; starts and ends with `/`.
        prefix: Template,
    },
}

/// Why a placement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Not one of `header`, `query`, `basic`, `path`.
    #[error(
        "{0:?} is not a placement; use 'header NAME: TEMPLATE', 'query NAME={{f}}', 'basic {{user}}:{{password}}' or 'path /prefix{{f}}/'"
    )]
    Form(String),
    /// Not a header name, or one that must not be injected (Host, Content-Length, Transfer-Encoding, Connection and
    /// other hop-by-hop or control headers).
    #[error("{0:?} is not a header that can carry a credential")]
    Header(String),
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A placement without any field carries no credential.
    #[error("{0:?} has no field such as {{token}} in it")]
    NoField(String),
    /// The fixed text has something that this place cannot carry: a control character, an empty or dot segment.
    #[error("{0:?} has fixed text that cannot be sent there")]
    Literal(String),
    /// Two placements go to the same place.
    #[error("two placements go to {0}")]
    Twice(String),
}

impl Placement {
    /// Parses the form used on the command line and in provider files. `Display` gives it back.
    ///
    /// # Errors
    /// See [`PlacementError`].
    pub fn parse(text: &str) -> Result<Self, PlacementError> {
        let text = text.trim();
        let form = || PlacementError::Form(shorten(text));
        let (keyword, rest) = text.split_once(char::is_whitespace).ok_or_else(form)?;
        let rest = rest.trim();
        let placement = match keyword.to_ascii_lowercase().as_str() {
            "header" => {
                let (name, value) = rest.split_once(':').ok_or_else(form)?;
                Self::Header { name: parse_header_name(name.trim())?, value: Template::parse(value.trim())? }
            }
            "basic" => {
                let (user, password) = Template::parse(rest)?.split_at_colon().ok_or_else(form)?;
                Self::Basic { user, password }
            }
            "query" => {
                let (name, value) = rest.split_once('=').ok_or_else(form)?;
                let name = name.trim();
                if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || "{}".contains(c)) {
                    return Err(form());
                }
                Self::Query { name: name.to_owned(), value: Template::parse(value.trim())? }
            }
            "path" => {
                let slash = if rest.ends_with('/') { "" } else { "/" };
                Self::Path { prefix: Template::parse(&format!("{rest}{slash}"))? }
            }
            _ => return Err(form()),
        };
        if placement.fields().next().is_none() {
            return Err(PlacementError::NoField(shorten(text)));
        }
        if !placement.literals_can_be_sent() {
            return Err(PlacementError::Literal(shorten(text)));
        }
        Ok(placement)
    }

    /// The names of the fields in it, as written; one may come twice.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.templates().into_iter().flatten().flat_map(Template::fields)
    }

    /// This placement with a plain value in place of a field. `None` when the value does not fit there, such as a user
    /// name with `:` in it, or when no field would be left.
    #[must_use]
    pub fn substitute(&self, field: &str, value: &str) -> Option<Self> {
        let put = |template: &Template| template.substitute(field, value);
        let placement = match self {
            Self::Header { name, value } => Self::Header { name: name.clone(), value: put(value) },
            Self::Basic { user, password } => Self::Basic { user: put(user), password: put(password) },
            Self::Query { name, value } => Self::Query { name: name.clone(), value: put(value) },
            Self::Path { prefix } => Self::Path { prefix: put(prefix) },
        };
        // What is frozen in a connection is the text: it must mean the same when it is read again.
        Self::parse(&placement.to_string()).ok().filter(|again| *again == placement)
    }

    pub(super) fn templates(&self) -> [Option<&Template>; 2] {
        match self {
            Self::Header { value, .. } | Self::Query { value, .. } => [Some(value), None],
            Self::Basic { user, password } => [Some(user), Some(password)],
            Self::Path { prefix } => [Some(prefix), None],
        }
    }

    fn literals_can_be_sent(&self) -> bool {
        let literals = || {
            self.templates().into_iter().flatten().flat_map(Template::parts).filter_map(|part| match part {
                Part::Literal(text) => Some(text.as_str()),
                Part::Field { .. } => None,
            })
        };
        match self {
            Self::Header { .. } => literals().all(|text| text.bytes().all(is_header_byte)),
            Self::Basic { .. } | Self::Query { .. } => literals().all(|text| !text.contains(char::is_control)),
            Self::Path { prefix } => {
                literals().all(|text| text.bytes().all(is_path_byte)) && has_whole_segments(prefix)
            }
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, value } => write!(f, "header {name}: {value}"),
            Self::Basic { user, password } => write!(f, "basic {user}:{password}"),
            Self::Query { name, value } => write!(f, "query {name}={value}"),
            Self::Path { prefix } => write!(f, "path {prefix}"),
        }
    }
}

/// Whether a header may be set by a placement or as a default: not one that frames, routes or hops, not one that the
/// proxy itself speaks, and not one that says who the client is.
#[must_use]
pub fn is_injectable_header(name: &HeaderName) -> bool {
    const REFUSED: [HeaderName; 9] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::FORWARDED,
    ];
    const REFUSED_PREFIXES: [&str; 3] = ["proxy-", "x-nexus-", "x-forwarded-"];
    // Some servers read `_` in a name as `-`.
    let plain = name.as_str().replace('_', "-");
    plain != "keep-alive"
        && !REFUSED.iter().any(|refused| plain == refused.as_str())
        && !REFUSED_PREFIXES.iter().any(|prefix| plain.starts_with(prefix))
}

/// What a header value may be made of: visible ASCII, space and tab.
pub(super) fn is_header_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

fn parse_header_name(text: &str) -> Result<HeaderName, PlacementError> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(is_injectable_header);
    name.ok_or_else(|| PlacementError::Header(shorten(text)))
}

/// Unreserved, `:`, `@` and sub-delims but `;` (which starts a parameter), and the separator itself.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,=/".contains(&byte)
}

/// Starts with `/` and has neither empty nor dot segments, each field taken as one character.
fn has_whole_segments(prefix: &Template) -> bool {
    let sample: String = prefix
        .parts()
        .iter()
        .map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Field { .. } => "x",
        })
        .collect();
    let inner = sample.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    inner.is_some_and(|inner| !inner.split('/').any(|segment| matches!(segment, "" | "." | "..")))
}
