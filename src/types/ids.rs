//! Names that people choose and ids that the program makes.

use std::fmt;
use std::sync::Arc;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid; use {rule}")]
pub struct NameError {
    /// What was being named, such as `connection name`.
    pub kind: &'static str,
    /// What was given, cut to 80 characters and escaped.
    pub value: String,
    /// What would be accepted.
    pub rule: &'static str,
}

/// Cheap to clone (`Arc<str>`), validated at the edge by `parse`. serde goes through `parse` too.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// When the text breaks the rule for this kind of name.
            pub fn parse(value: &str) -> Result<Self, NameError> {
                if $check(value) {
                    Ok(Self(Arc::from(value)))
                } else {
                    let shown: String = value.chars().take(80).collect();
                    Err(NameError { kind: $kind, value: shown, rule: $rule })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::parse(&value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::parse(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, and nothing that looks like an agent token.
fn is_slug(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.as_bytes()[0].is_ascii_alphanumeric()
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !value.starts_with("nxt_")
}

/// 1 to 128 characters, none of them a control character; no surrounding space.
fn is_label(value: &str) -> bool {
    !value.is_empty()
        && value.chars().count() <= 128
        && value.trim() == value
        && !value.chars().any(char::is_control)
        && !value.starts_with("nxt_")
}

name!(
    /// A tenant: the boundary nothing crosses.
    TenantName, "tenant", is_slug, "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
);
name!(
    /// A part of a tenant (a deployment or environment).
    NamespaceName, "namespace", is_slug, "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
);
name!(
    /// What a connection is called by people and agents.
    ConnectionName, "connection name", is_slug, "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
);
name!(
    /// The id of a provider: the name of its file.
    ProviderId, "provider", is_slug, "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
);
name!(
    /// The agent that a token belongs to.
    AgentName, "agent name", is_label, "1 to 128 characters without control characters or surrounding space"
);
name!(
    /// One run of an agent (`nexus run`).
    RunId, "run", is_label, "1 to 128 characters without control characters or surrounding space"
);
name!(
    /// A connection's id, `con_` and 32 hexadecimal digits.
    ConnectionId, "connection id", is_slug, "con_ and 32 hexadecimal digits"
);
name!(
    /// A token's public id, `tok_` and 32 hexadecimal digits: safe to show.
    TokenId, "token id", is_slug, "tok_ and 32 hexadecimal digits"
);
name!(
    /// The id of one request: a UUID version 7, so that ids sort by time.
    RequestId, "request id", is_slug, "a UUID"
);

impl ConnectionId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(format!("con_{}", uuid::Uuid::now_v7().simple())))
    }
}

impl TokenId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(format!("tok_{}", uuid::Uuid::now_v7().simple())))
    }
}

impl RequestId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        Self(Arc::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text)))
    }
}

/// The tenant and namespace that a record lives in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantName,
    /// The namespace within it.
    pub namespace: NamespaceName,
}

impl Default for Scope {
    fn default() -> Self {
        Self { tenant: TenantName(Arc::from("default")), namespace: NamespaceName(Arc::from("default")) }
    }
}
