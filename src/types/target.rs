//! Where a request goes: scheme, host and port, parsed once and carried everywhere.

use super::{CanonicalPath, Host, HostError, PathError};

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The one parsed destination that decides, is dialled, is named in SNI and Host, and is audited.
///
/// `Display` is `https://host:port` with the port left out when it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The scheme.
    pub scheme: Scheme,
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// Why an authority was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The host part.
    #[error(transparent)]
    Host(#[from] HostError),
    /// `user@host`.
    #[error("the authority has user information")]
    Userinfo,
    /// Empty, 0, above 65535, not plain decimal digits, or with a leading zero.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// CONNECT needs `host:port`.
    #[error("the port is missing")]
    PortMissing,
}

impl Target {
    /// Parses `host` or `host:port`, strictly (RFC 9110 section 7.2 without userinfo).
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn parse_authority(_scheme: Scheme, _authority: &[u8]) -> Result<Self, AuthorityError> {
        todo!()
    }

    /// Parses the target of a CONNECT request: `host:port`, the port not optional. The scheme is [`Scheme::Https`].
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn parse_connect(_authority: &[u8]) -> Result<Self, AuthorityError> {
        todo!()
    }

    /// `host` or `host:port`, as it goes into `Host` and `:authority`; IPv6 in brackets; no port when it is the
    /// scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        todo!()
    }
}

/// An absolute URL: a target and a path. No userinfo, no fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Scheme, host and port.
    pub target: Target,
    /// Path and query.
    pub path: CanonicalPath,
}

impl std::fmt::Display for Url {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not `http://` or `https://` (case-insensitive).
    #[error("the URL does not start with https:// or http://")]
    Scheme,
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl Url {
    /// Parses an absolute `http` or `https` URL from raw bytes.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(_text: &[u8]) -> Result<Self, UrlError> {
        todo!()
    }
}
