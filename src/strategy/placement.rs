//! Where a credential goes: header, Basic, query parameter, path segment; several at once.

use super::{Injection, Template, TemplateError};
use crate::secret::{Secret, SecretFields};
use http::HeaderName;

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
    /// `basic {user}:{password}`: `Authorization: Basic base64(user:password)`.
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
        /// The prefix.
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
    /// Two placements go to the same place.
    #[error("two placements go to {0}")]
    Twice(String),
}

/// Why a credential could not be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// The credential has no such field.
    #[error("the credential has no field {0}")]
    FieldMissing(String),
    /// The value has characters that this place cannot carry (controls, CR, LF, NUL, outside ASCII; empty).
    #[error("the credential has characters that {0} cannot carry")]
    Value(String),
}

impl Placement {
    /// Parses the form used on the command line and in provider files. `Display` gives it back.
    ///
    /// # Errors
    /// See [`PlacementError`].
    pub fn parse(_text: &str) -> Result<Self, PlacementError> {
        todo!()
    }
}

/// Everything that goes onto a request for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy(Vec<Placement>);

impl Strategy {
    /// Checks that placements do not collide.
    ///
    /// # Errors
    /// [`PlacementError::Twice`].
    pub fn new(_placements: Vec<Placement>) -> Result<Self, PlacementError> {
        todo!()
    }

    /// The placements.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.0
    }

    /// The names of all fields that it needs.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        todo!()
    }

    /// The edits for one request.
    ///
    /// # Errors
    /// See [`StrategyError`].
    pub fn inject(&self, _fields: &SecretFields) -> Result<Injection, StrategyError> {
        todo!()
    }

    /// What must not come back in an answer: each raw field value of 8 bytes or more that a placement uses, the whole
    /// rendered value where it differs in more than a prefix (Basic's base64), deduplicated, longest first.
    #[must_use]
    pub fn reflections(&self, _fields: &SecretFields) -> Vec<Secret> {
        todo!()
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
