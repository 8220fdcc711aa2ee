//! Where a request goes: scheme, host and port, parsed once and carried everywhere.

use super::{CanonicalPath, Host, HostError, PathError};
use std::fmt;

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

    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

super::as_text!(Target, UrlError, |text: &str| {
    let (scheme, authority) = split_scheme(text.as_bytes()).ok_or(UrlError::Scheme)?;
    Ok(Target::parse_authority(scheme, authority)?)
});

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
    pub fn parse_authority(scheme: Scheme, authority: &[u8]) -> Result<Self, AuthorityError> {
        let (host, port) = split_authority(authority)?;
        Ok(Self { scheme, host, port: port.unwrap_or_else(|| scheme.default_port()) })
    }

    /// Parses the target of a CONNECT request: `host:port`, the port not optional. The scheme is [`Scheme::Https`].
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn parse_connect(authority: &[u8]) -> Result<Self, AuthorityError> {
        let (host, port) = split_authority(authority)?;
        Ok(Self { scheme: Scheme::Https, host, port: port.ok_or(AuthorityError::PortMissing)? })
    }

    /// `host` or `host:port`, as it goes into `Host` and `:authority`; IPv6 in brackets; no port when it is the
    /// scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.host.to_string() } else { self.host_and_port() }
    }

    /// `host:port`, always with the port; IPv6 in brackets.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
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

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.target, self.path)
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
    pub fn parse(text: &[u8]) -> Result<Self, UrlError> {
        let (scheme, rest) = split_scheme(text).ok_or(UrlError::Scheme)?;
        let path_at = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        let target = Target::parse_authority(scheme, authority)?;
        let path = match path.first() {
            // `https://host?query` has an empty path, which is sent as `/` (RFC 9110 section 4.2.3).
            Some(b'?') => CanonicalPath::parse(&[b"/", path].concat())?,
            Some(b'#') => return Err(UrlError::Path(PathError::Fragment)),
            _ => CanonicalPath::parse(path)?,
        };
        Ok(Self { target, path })
    }
}

super::as_text!(Url, UrlError, |text: &str| Url::parse(text.as_bytes()));

fn split_scheme(text: &[u8]) -> Option<(Scheme, &[u8])> {
    let colon = text.iter().take(6).position(|b| *b == b':')?;
    let scheme = match &text[..colon] {
        name if name.eq_ignore_ascii_case(b"https") => Scheme::Https,
        name if name.eq_ignore_ascii_case(b"http") => Scheme::Http,
        _ => return None,
    };
    Some((scheme, text[colon + 1..].strip_prefix(b"//")?))
}

fn split_authority(authority: &[u8]) -> Result<(Host, Option<u16>), AuthorityError> {
    if authority.contains(&b'@') {
        return Err(AuthorityError::Userinfo);
    }
    // The colons of an IPv6 literal are inside its brackets.
    let host_end = match authority.first() {
        Some(b'[') => authority.iter().position(|b| *b == b']').ok_or(HostError::Ipv6)? + 1,
        _ => authority.iter().position(|b| *b == b':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    let host = Host::parse(host)?;
    let port = match rest.split_first() {
        None => None,
        Some((b':', digits)) => Some(parse_port(digits).ok_or(AuthorityError::Port)?),
        Some(_) => return Err(HostError::Ipv6.into()),
    };
    Ok((host, port))
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
