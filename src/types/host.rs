//! Hosts: a canonical DNS name or an IP address, and patterns over names.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46, verify_dns_length};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(rest) = text.strip_prefix(b"[") {
            return parse_ipv6(rest);
        }
        if text.iter().any(|b| b.is_ascii() && !is_host_ascii(*b)) {
            return Err(HostError::Character);
        }
        // Before the mapping, whose cost grows faster than its input.
        if text.len() > MAX_UNMAPPED {
            return Err(HostError::Name);
        }
        let ascii = to_ascii(text)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if ends_in_number(name) {
            return Ok(Self::Ip(IpAddr::V4(parse_ipv4(name).ok_or(HostError::Ipv4)?)));
        }
        if !verify_dns_length(name, false) {
            return Err(HostError::Name);
        }
        Ok(Self::Name(Arc::from(name)))
    }

    /// The name, unless this is an IP address.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }
}

impl fmt::Display for Host {
    /// As in an authority: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

super::as_text!(Host, HostError, |text: &str| Host::parse(text.as_bytes()));

/// A host or `*.suffix`, where `*` stands for exactly one label. Never matches an IP address by a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(Host, bool);

impl HostPattern {
    /// Parses `host` or `*.host`.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            None => Ok(Self(Host::parse(text.as_bytes())?, false)),
            Some(suffix) => match Host::parse(suffix.as_bytes())? {
                host @ Host::Name(_) => Ok(Self(host, true)),
                Host::Ip(_) => Err(HostError::Name),
            },
        }
    }

    /// Whether the host matches. A wildcard stands for exactly one label and never matches an IP address.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self(own, false), host) => own == host,
            (Self(Host::Name(suffix), true), Host::Name(name)) => name
                .strip_suffix(&**suffix)
                .and_then(|head| head.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
            (Self(_, true), _) => false,
        }
    }

    /// Whether this pattern matches every host that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self == other || other.exact().is_some_and(|host| self.matches(host))
    }

    /// The one host it matches, if it has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<&Host> {
        (!self.1).then_some(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1 {
            f.write_str("*.")?;
        }
        self.0.fmt(f)
    }
}

super::as_text!(HostPattern, HostError, HostPattern::parse);

/// 253 characters of at most four bytes each, and some that the mapping removes.
const MAX_UNMAPPED: usize = 1024;

/// ASCII that a host may have. STD3 and the underscore, which real hosts have.
const DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

fn is_host_ascii(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// UTS 46 with hyphens in the third and fourth place allowed: content delivery networks have such names.
fn to_ascii(text: &[u8]) -> Result<Cow<'_, str>, HostError> {
    // Punycode labels can be invalid, so they take the long way; so do upper case and everything outside ASCII.
    let plain = text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'.');
    if plain && let Ok(text) = std::str::from_utf8(text) {
        return Ok(Cow::Borrowed(text));
    }
    Uts46::new().to_ascii(text, DENIED, Hyphens::CheckFirstLast, DnsLength::Ignore).map_err(|_| HostError::Name)
}

fn parse_ipv6(rest: &[u8]) -> Result<Host, HostError> {
    let inner = rest.strip_suffix(b"]").ok_or(HostError::Ipv6)?;
    let inner = std::str::from_utf8(inner).map_err(|_| HostError::Ipv6)?;
    // The standard library's parser takes neither zones nor prefixes.
    inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(IpAddr::V6(ip))).map_err(|_| HostError::Ipv6)
}

/// WHATWG URL, "ends in a number checker", after the removal of one trailing dot.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || parse_ipv4_number(last).is_some())
}

/// WHATWG URL, "IPv4 parser": one to four numbers, the last of which fills the rest of the address.
fn parse_ipv4(name: &str) -> Option<Ipv4Addr> {
    let mut numbers = [0u64; 4];
    let mut count = 0;
    for part in name.split('.') {
        *numbers.get_mut(count)? = parse_ipv4_number(part)?;
        count += 1;
    }
    let (last, first) = numbers[..count].split_last()?;
    let last_bits = 8 * (4 - first.len());
    if first.iter().any(|n| *n > 255) || *last >= 1 << last_bits {
        return None;
    }
    let high = first.iter().enumerate().fold(0, |sum, (i, n)| sum | n << (8 * (3 - i)));
    u32::try_from(high | last).ok().map(Ipv4Addr::from_bits)
}

/// Decimal, octal with `0`, hexadecimal with `0x`. Too large for an address becomes [`u64::MAX`].
fn parse_ipv4_number(part: &str) -> Option<u64> {
    let (digits, radix) = if part.is_empty() {
        return None;
    } else if let Some(hex) = part.strip_prefix("0x") {
        (hex, 16)
    } else if part.len() > 1 && part.starts_with('0') {
        (&part[1..], 8)
    } else {
        (part, 10)
    };
    digits.chars().try_fold(0u64, |sum, c| {
        let digit = c.to_digit(radix)?;
        Some(sum.saturating_mul(radix.into()).saturating_add(digit.into()))
    })
}

#[cfg(test)]
mod tests;
