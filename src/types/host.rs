//! Hosts: a canonical DNS name or an IP address, and patterns over names.

use std::net::IpAddr;
use std::sync::Arc;

/// A canonical host. Two spellings of one host are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name: lower case, IDNA (UTS 46, strict) in its ASCII form, no trailing dot.
    Name(Arc<str>),
    /// An IP address, written in any form that WHATWG URL calls an IPv4 address, or a bracketed IPv6 literal.
    Ip(IpAddr),
}

/// Why a host was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// A character that no host has (`@`, `/`, `\`, `%`, space, controls …) or a broken IPv6 literal or zone id.
    #[error("the host has a character that no host name has")]
    Character,
    /// Not a valid name by UTS 46 and RFC 1035 length rules.
    #[error("the host is not a valid name")]
    Name,
    /// A last label of digits that is not an IPv4 address.
    #[error("the host ends in a number but is not an IPv4 address")]
    Ipv4,
    /// Brackets without a valid IPv6 address inside.
    #[error("the host is not a valid IPv6 literal")]
    Ipv6,
}

impl Host {
    /// Parses a host as it stands in an authority (IPv6 in brackets).
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn parse(_text: &[u8]) -> Result<Self, HostError> {
        todo!()
    }
}

impl std::fmt::Display for Host {
    /// As in an authority: IPv6 in brackets.
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// A host or `*.suffix`, where `*` stands for exactly one label. Never matches an IP address by a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(Host, bool);

impl HostPattern {
    /// Parses `host` or `*.host`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn parse(_text: &str) -> Result<Self, HostError> {
        todo!()
    }

    /// Whether the host matches. A wildcard stands for exactly one label and never matches an IP address.
    #[must_use]
    pub fn matches(&self, _host: &Host) -> bool {
        todo!()
    }

    /// The one host it matches, if it has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<&Host> {
        (!self.1).then_some(&self.0)
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
