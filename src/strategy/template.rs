//! Templates such as `Bearer {token}`: literals and fields, with the filters `base64`, `urlencode` and `lower`
//! (`{field|base64}`). `{{` and `}}` are literal braces.

use crate::secret::{Secret, SecretFields};

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`, or the other way round.
    #[error("the template {0:?} has an unbalanced brace")]
    Brace(String),
    /// A field name that is not `[a-z0-9_]+`.
    #[error("the template has a field {0:?}; field names are a-z, 0-9 and _")]
    Field(String),
    /// An unknown filter.
    #[error("the template has a filter {0:?}; known are base64, urlencode and lower")]
    Filter(String),
}

/// A parsed template. `Display` gives back its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(());

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(_text: &str) -> Result<Self, TemplateError> {
        todo!()
    }

    /// The names of its fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// The text with the fields put in; `Err` names the field that is missing. `token` and `access_token` stand in for
    /// each other.
    ///
    /// # Errors
    /// The missing field's name.
    pub fn render(&self, _fields: &SecretFields) -> Result<Secret, String> {
        todo!()
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
