//! Which headers travel. One place for all ways in and both protocols.

use crate::strategy::Strategy;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

/// Never travels in a request: hop by hop (RFC 9110 section 7.6.1), proxy and control headers, and headers by which an
/// agent could pose as somebody else.
const NEVER_UP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
    "host",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    // What proxies that end TLS say of a client: RFC 9440, and the habits of nginx, Apache and others.
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "x-ssl-client-cert",
    "x-ssl-client-verify",
    "x-ssl-client-dn",
    "x-ssl-client-s-dn",
    "ssl-client-cert",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "x-agent-id",
];

/// Never travels in an answer. `alt-svc` would lead clients around the proxy.
const NEVER_DOWN: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "alt-svc",
    "refresh",
];

/// Headers that change the method for some servers; they would get around a restriction by method.
const METHOD_OVERRIDES: &[&str] = &["x-http-method", "x-http-method-override", "x-method-override"];

/// Beginnings of names that never travel in either direction: this proxy's own, and what proxies say of an agent.
const PREFIXES: &[&str] = &["x-nexus-", "x-forwarded-"];

/// Whether the request asks for a WebSocket (RFC 6455 section 4.1).
#[must_use]
pub fn asks_for_websocket(method: &http::Method, headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
        })
    };
    method == http::Method::GET && has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// Whether trailers were asked for (`TE: trailers`), as gRPC does.
#[must_use]
pub fn asks_for_trailers(headers: &HeaderMap) -> bool {
    headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// Takes out of a request what must not travel, the headers that `Connection` names first.
pub fn clean_request(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    remove(headers, NEVER_UP);
}

/// Takes out of an answer what must not travel.
pub fn clean_response(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    remove(headers, NEVER_DOWN);
}

/// Takes method overrides out, spellings with `_` too.
pub fn remove_method_overrides(headers: &mut HeaderMap) {
    let is_override = |name: &&HeaderName| METHOD_OVERRIDES.iter().any(|known| same_name(name.as_str(), known));
    let named: Vec<HeaderName> = headers.keys().filter(is_override).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// Whether two lower-case names are the same to a server that takes `_` for `-`.
fn same_name(a: &str, b: &str) -> bool {
    let alike = |(a, b): (u8, u8)| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(alike)
}

fn remove(headers: &mut HeaderMap, names: &[&'static str]) {
    for name in names {
        if let Entry::Occupied(entry) = headers.entry(HeaderName::from_static(name)) {
            entry.remove_entry_mult();
        }
    }
    let has_prefix = |name: &&HeaderName| {
        let name = name.as_str();
        PREFIXES.iter().any(|prefix| name.get(..prefix.len()).is_some_and(|start| same_name(start, prefix)))
    };
    if headers.keys().any(|name| has_prefix(&name)) {
        let named: Vec<HeaderName> = headers.keys().filter(has_prefix).cloned().collect();
        for name in named {
            headers.remove(name);
        }
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // What says how the body is to be read is not hop by hop, whatever `Connection` says.
        .filter(|name| !name.as_str().starts_with("content-") && name != header::HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Removes the agent's own copies of everything that `strategy` sets, and spellings with `_` for `-`.
pub fn remove_agent_copies(headers: &mut HeaderMap, strategy: &Strategy) {
    let names = strategy.header_names();
    let copies: Vec<HeaderName> = headers
        .keys()
        .filter(|name| names.iter().any(|injected| same_name(name.as_str(), injected.as_str())))
        .cloned()
        .collect();
    for name in copies {
        headers.remove(name);
    }
}

/// Cuts `Accept-Encoding` to what answers are scrubbed in: identity and gzip.
pub fn narrow_accept_encoding(headers: &mut HeaderMap) {
    let gzip = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused =
                parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)));
            (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
        })
    });
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(if gzip { "gzip" } else { "identity" }));
    // A part of an answer could end in the middle of a credential, and the next part begin there.
    headers.remove(header::RANGE);
    headers.remove(header::IF_RANGE);
}

/// The pseudonym under which this install stands in `Via` (RFC 9110 section 7.6.3).
#[derive(Debug, Clone)]
pub struct Pseudonym {
    text: String,
    value: HeaderValue,
}

impl Pseudonym {
    /// Made from the install's id.
    #[must_use]
    pub fn new(install_id: &str) -> Self {
        let short: String = install_id.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let text = format!("nexus-{short}");
        let value = HeaderValue::from_str(&format!("1.1 {text}")).expect("letters and digits are a header value");
        Self { text, value }
    }

    /// Whether the request went through this install already.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::VIA).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value.split(',').any(|hop| hop.split_ascii_whitespace().nth(1) == Some(self.text.as_str()))
            })
        })
    }

    /// Adds it.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.append(header::VIA, self.value.clone());
    }
}

#[cfg(test)]
mod tests;
