//! Agent tokens inside requests: where SDKs put their key, a token may stand instead. It is found, and taken out.

use super::reject::{Code, Rejection};
use crate::connection::Connection;
use crate::identity::{Directory, Presented};
use crate::secret::AgentToken;
use crate::strategy::Placement;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::{AUTHORIZATION, HeaderMap};
use std::borrow::Cow;

/// Carries an agent token in base-URL mode and calls.
pub const TOKEN_HEADER: &str = "x-nexus-token";
/// Headers in which SDKs send their key.
const KEY_HEADERS: &[&str] = &[TOKEN_HEADER, "authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// A place in which an agent token was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Header(String),
    Query(String),
    Path,
}

impl Place {
    /// Whether tokens are looked for there: the SDKs' key headers, and each place that the connection injects into.
    fn is_looked_at(&self, connection: &Connection) -> bool {
        let placements = || connection.frozen.destinations.iter().flat_map(|d| d.strategy.placements());
        match self {
            Self::Header(name) => {
                KEY_HEADERS.contains(&name.as_str())
                    || placements()
                        .any(|placement| matches!(placement, Placement::Header { name: n, .. } if n.as_str() == name))
            }
            Self::Query(name) => {
                placements().any(|placement| matches!(placement, Placement::Query { name: n, .. } if n == name))
            }
            Self::Path => placements().any(|placement| matches!(placement, Placement::Path { .. })),
        }
    }
}

/// The token of a request and where it stands.
pub(super) struct Found {
    /// The token.
    pub(super) presented: Presented,
    places: Vec<Place>,
}

impl Found {
    /// Whether it stands in a place where tokens are looked for, given the connection.
    pub(super) fn is_looked_at(&self, connection: &Connection) -> bool {
        self.places.iter().any(|place| place.is_looked_at(connection))
    }
}

/// Every agent token in headers, query and path; they must all be the same one. JWTs are looked for in headers only.
pub(super) fn find_tokens(directory: &Directory, headers: &HeaderMap, path: &str) -> Result<Option<Found>, Rejection> {
    let mut found: Option<Found> = None;
    let mut note = |presented: Presented, place: Place| {
        match &mut found {
            None => found = Some(Found { presented, places: vec![place] }),
            Some(found) if found.presented == presented => found.places.push(place),
            Some(_) => {
                return Err(Rejection::new(
                    Code::BadRequest,
                    "two different agent tokens were given",
                    "send one agent token",
                ));
            }
        }
        Ok(())
    };
    for (name, value) in headers {
        for presented in tokens_in_header(directory, value.as_bytes()) {
            note(presented, Place::Header(name.as_str().to_owned()))?;
        }
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if AgentToken::has_form(value) {
            note(opaque(value), Place::Query(decoded(name).into_owned()))?;
        }
    }
    for (at, length) in token_spans(path) {
        note(opaque(&path[at..at + length]), Place::Path)?;
    }
    Ok(found)
}

fn opaque(text: &str) -> Presented {
    Presented::Token(AgentToken::digest(text))
}

/// The tokens in a header value: the whole value, what follows a scheme word, user and password of Basic.
fn tokens_in_header(directory: &Directory, value: &[u8]) -> Vec<Presented> {
    let Ok(text) = std::str::from_utf8(value) else { return Vec::new() };
    let text = text.trim();
    let mut tokens = Vec::new();
    let mut keep = |candidate: &str| tokens.extend(directory.presented(candidate));
    keep(text);
    if let Some((scheme, rest)) = text.split_once(' ') {
        let rest = rest.trim();
        keep(rest);
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(rest).or_else(|_| STANDARD_NO_PAD.decode(rest));
            if let Some(pair) =
                decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).map(zeroize::Zeroizing::new)
            {
                let (user, password) = pair.split_once(':').unwrap_or((&pair, ""));
                keep(user);
                if user != password {
                    keep(password);
                }
            }
        }
    }
    tokens
}

/// Where texts of token form stand in a path.
fn token_spans(path: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(found) = path[from..].find("nxt_") {
        let at = from + found;
        let is_token_byte = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let length = path.as_bytes()[at..].iter().take_while(|b| is_token_byte(b)).count();
        if AgentToken::has_form(&path[at..at + length]) {
            spans.push((at, length));
        }
        from = at + length.max(4);
    }
    spans
}

/// A text with the agent tokens in it overwritten.
#[must_use]
pub fn mask_tokens(text: &str) -> String {
    let mut masked = text.to_owned();
    if text.contains("nxt_") {
        for (at, length) in token_spans(text).into_iter().rev() {
            masked.replace_range(at..at + length, "nxt_***");
        }
    }
    mask_jwts(masked)
}

/// JWTs are no tokens in paths, but somebody may put one there.
fn mask_jwts(mut text: String) -> String {
    let mut from = 0;
    // The base64 of `{"`.
    while let Some(found) = text[from..].find("eyJ") {
        let at = from + found;
        let is_jwt_byte = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let length = text.as_bytes()[at..].iter().take_while(|b| is_jwt_byte(b)).count();
        if text[at..at + length].bytes().filter(|b| *b == b'.').count() >= 2 {
            text.replace_range(at..at + length, "eyJ***");
            from = at + "eyJ***".len();
        } else {
            from = at + length;
        }
    }
    text
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// Takes every place out in which a token is looked for, whatever it held, and every other place that held one. Gives
/// the rest of the path, and whether it had the connection's path prefix.
pub(super) fn take_tokens(
    directory: &Directory,
    headers: &mut HeaderMap,
    rest: &str,
    connection: &Connection,
) -> (String, bool) {
    for name in KEY_HEADERS {
        headers.remove(*name);
    }
    let holding: Vec<_> = headers
        .iter()
        .filter(|(_, value)| !tokens_in_header(directory, value.as_bytes()).is_empty())
        .map(|(name, _)| name.clone())
        .collect();
    for name in holding {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let mut path = path.to_owned();
    let mut prefix_taken = false;
    for destination in &connection.frozen.destinations {
        if let Some(rest) = super::upstream::without_path_prefix(&path, &destination.strategy) {
            path = rest.to_owned();
            prefix_taken = true;
            break;
        }
    }
    for (at, length) in token_spans(&path).into_iter().rev() {
        path.replace_range(at..at + length, "");
    }
    let Some(query) = query else { return (path, prefix_taken) };
    let holds_token = |pair: &&str| pair.split_once('=').is_some_and(|(_, value)| AgentToken::has_form(value));
    let kept: Vec<&str> = query.split('&').filter(|pair| !holds_token(pair)).collect();
    if kept.is_empty() { (path, prefix_taken) } else { (format!("{path}?{}", kept.join("&")), prefix_taken) }
}

#[cfg(test)]
mod tests;
