//! From a request as it came in to what it asks for: way in, target, path, principal. All ways end in one [`Intake`].

use super::finish::Record;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::tunnel::Entry;
use crate::audit::Way;
use crate::config::Snapshot;
use crate::connection::{Choice, Connection, destination_for};
use crate::identity::{Principal, ProofError, proxy_authorization};
use crate::secret::{AgentToken, TokenDigest};
use crate::strategy::Placement;
use crate::types::{CanonicalPath, PathError, Scheme, Target};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, PROXY_AUTHORIZATION};
use http::{Method, Uri};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::sync::Arc;

/// Names the connection to use.
pub const CHOICE_HEADER: &str = "x-nexus-connection";
/// Carries an agent token in base-URL mode and calls.
pub const TOKEN_HEADER: &str = "x-nexus-token";
/// Headers in which SDKs send their key.
const KEY_HEADERS: &[&str] = &[TOKEN_HEADER, "authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// What a request asks for, whatever way it came in.
#[derive(Debug)]
pub struct Intake {
    /// Who calls.
    pub principal: Principal,
    /// Where to.
    pub target: Target,
    /// The path as it is judged and sent, before injection.
    pub path: CanonicalPath,
    /// The method.
    pub method: Method,
    /// The agent's headers, tokens taken out.
    pub headers: HeaderMap,
    /// The body.
    pub body: AgentBody,
    /// Whether the agent's own path prefix was taken out with its token.
    pub prefix_taken: bool,
    /// The connection, where the way in names it.
    pub routed: Option<Choice>,
    /// A choice among the granted connections.
    pub choice: Option<String>,
    /// The other end of an upgrade, if the request asks for one.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// The agent's body.
#[derive(Debug)]
pub enum AgentBody {
    /// Streams in.
    Live(Incoming),
    /// Came inside a call.
    Fixed(Bytes),
}

/// A request's way in, told from its target alone.
#[must_use]
pub fn way_of(entry: &Entry, uri: &Uri) -> Option<Way> {
    if entry.tunnel.is_some() {
        return Some(Way::Intercepted);
    }
    if uri.authority().is_some() {
        return Some(Way::Forward);
    }
    match uri.path() {
        "/v1/call" => Some(Way::Call),
        path if path.starts_with("/c/") => Some(Way::BaseUrl),
        _ => None,
    }
}

/// Takes in a request inside an intercepted tunnel.
///
/// # Errors
/// A [`Rejection`].
pub fn intercepted(
    plane: &Plane,
    snapshot: &Snapshot,
    entry: &Entry,
    record: &mut Record,
    request: http::Request<Incoming>,
) -> Result<Intake, Rejection> {
    let (mut parts, body) = request.into_parts();
    let tunnel = entry.tunnel.as_ref().ok_or_else(|| Rejection::new(Code::InternalError, "no tunnel", ""))?;
    record.method(&parts.method);
    record.target(&tunnel.target);
    let principal = snapshot.tokens.authenticate(&tunnel.token, plane.clock.now()).map_err(|_| {
        entry.close.notify_one();
        Rejection::token_invalid()
    })?;
    record.principal(&principal);
    if parts.method == Method::CONNECT {
        return Err(Rejection::new(Code::BadRequest, "CONNECT inside a tunnel", "open a tunnel of its own").and_close());
    }
    refuse_trace(&parts.method)?;
    let named = authority_of(&parts.uri, &parts.headers, Scheme::Https)?;
    let scheme_differs = parts.uri.scheme_str().is_some_and(|scheme| scheme != "https");
    if scheme_differs || named.iter().any(|named| *named != tunnel.target) {
        return Err(Rejection::new(
            Code::Misdirected,
            "the request names another host than its tunnel",
            "open a tunnel for each host",
        )
        .and_close());
    }
    let path = path_of(&parts.uri)?;
    record.path(&path);
    let choice = take_choice(&mut parts.headers)?.or_else(|| tunnel.choice.clone());
    Ok(Intake {
        principal,
        target: tunnel.target.clone(),
        path,
        method: parts.method,
        headers: parts.headers,
        body: AgentBody::Live(body),
        prefix_taken: false,
        routed: None,
        choice,
        upgrade: parts.extensions.remove(),
    })
}

/// Takes in a request in absolute form.
///
/// # Errors
/// A [`Rejection`].
pub fn forward(
    plane: &Plane,
    snapshot: &Snapshot,
    entry: &Entry,
    record: &mut Record,
    request: http::Request<Incoming>,
) -> Result<Intake, Rejection> {
    let (mut parts, body) = request.into_parts();
    record.method(&parts.method);
    let scheme = match parts.uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") if entry.is_private => Scheme::Https,
        Some("https") => {
            return Err(Rejection::new(
                Code::BadRequest,
                "absolute-form https:// is taken from loopback or over TLS only",
                "use CONNECT",
            ));
        }
        _ => {
            return Err(Rejection::new(
                Code::BadRequest,
                "the scheme is not http or https",
                "use an http or https URL",
            ));
        }
    };
    let named = authority_of(&parts.uri, &parts.headers, scheme)?;
    let [target, hosts @ ..] = named.as_slice() else {
        return Err(Rejection::new(Code::BadAuthority, "the request names no host", "send an absolute URL"));
    };
    if hosts.iter().any(|host| host != target) {
        return Err(
            Rejection::new(Code::BadAuthority, "Host differs from the request target", "send one host").and_close()
        );
    }
    let target = target.clone();
    record.target(&target);
    let (principal, user_choice) = proxy_principal(plane, snapshot, &parts.headers)?;
    record.principal(&principal);
    refuse_trace(&parts.method)?;
    let path = path_of(&parts.uri)?;
    record.path(&path);
    let choice = take_choice(&mut parts.headers)?.or(user_choice);
    Ok(Intake {
        principal,
        target,
        path,
        method: parts.method,
        headers: parts.headers,
        body: AgentBody::Live(body),
        prefix_taken: false,
        routed: None,
        choice,
        upgrade: parts.extensions.remove(),
    })
}

/// Takes in `/c/<connection>/<path>`.
///
/// # Errors
/// A [`Rejection`].
pub fn base_url(
    plane: &Plane,
    snapshot: &Snapshot,
    record: &mut Record,
    request: http::Request<Incoming>,
) -> Result<Intake, Rejection> {
    let (mut parts, body) = request.into_parts();
    record.method(&parts.method);
    refuse_trace(&parts.method)?;
    authority_of(&parts.uri, &parts.headers, Scheme::Http)?;
    let whole = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let rest = whole.strip_prefix("/c/").unwrap_or_default();
    let (name, rest) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if name.is_empty() || name.contains('%') {
        return Err(Rejection::unknown_connection());
    }
    let found = find_tokens(&parts.headers, rest)?;
    record.path(&path_under("", &mask_tokens(rest)).unwrap_or_else(|_| root()));
    let digest = found.as_ref().map(|found| found.digest).ok_or_else(Rejection::auth_required)?;
    let principal = authenticate(plane, snapshot, &digest)?;
    record.principal(&principal);
    let connection = snapshot.routes.granted(&principal, name).ok_or_else(Rejection::unknown_connection)?;
    if !found.is_some_and(|found| found.places.iter().any(|place| place.is_looked_at(&connection))) {
        return Err(Rejection::auth_required());
    }
    let (rest, prefix_taken) = take_tokens(&mut parts.headers, rest, &connection);
    let (target, base) = connection.frozen.base_url().ok_or_else(|| {
        Rejection::new(Code::NotFound, "this connection has no base URL", "use it through the proxy instead")
    })?;
    let path = path_under(base.as_str(), &rest)?;
    record.target(&target);
    record.path(&path);
    parts.headers.remove(HOST);
    let routed = match take_choice(&mut parts.headers)? {
        Some(choice) => snapshot.routes.route(&principal, Some(&choice), &target, &path)?,
        None => destination_for(&connection, &target, &path).ok_or_else(|| {
            if path.is_ambiguous() { PathError::Ambiguous.into() } else { Rejection::unknown_connection() }
        })?,
    };
    Ok(Intake {
        principal,
        target,
        path,
        method: parts.method,
        headers: parts.headers,
        body: AgentBody::Live(body),
        prefix_taken,
        routed: Some(routed),
        choice: None,
        upgrade: parts.extensions.remove(),
    })
}

/// The principal that `Proxy-Authorization` proves, and the user name's choice of connection.
///
/// # Errors
/// 407, or 400 for contradicting tokens.
pub fn proxy_principal(
    plane: &Plane,
    snapshot: &Snapshot,
    headers: &HeaderMap,
) -> Result<(Principal, Option<String>), Rejection> {
    let (_, principal, choice) = proxy_proof(plane, snapshot, headers)?;
    Ok((principal, choice))
}

/// Like [`proxy_principal`], with the token's digest, by which a tunnel checks again.
///
/// # Errors
/// 407, or 400 for contradicting tokens.
pub fn proxy_proof(
    plane: &Plane,
    snapshot: &Snapshot,
    headers: &HeaderMap,
) -> Result<(TokenDigest, Principal, Option<String>), Rejection> {
    let values = headers.get_all(PROXY_AUTHORIZATION).iter().map(http::HeaderValue::as_bytes);
    let proof = proxy_authorization(values).map_err(|error| match error {
        ProofError::Missing | ProofError::Malformed => Rejection::auth_required(),
        ProofError::Conflicting => {
            Rejection::new(Code::BadRequest, error.to_string(), "send one agent token").and_close()
        }
    })?;
    let principal = authenticate(plane, snapshot, &proof.token)?;
    Ok((proof.token, principal, proof.connection))
}

/// The principal of a token; wrong ones are counted.
///
/// # Errors
/// 407 or 401, the same for unknown, revoked and expired.
pub fn authenticate(plane: &Plane, snapshot: &Snapshot, token: &TokenDigest) -> Result<Principal, Rejection> {
    snapshot.tokens.authenticate(token, plane.clock.now()).map_err(|_| {
        plane.metrics.authentication_failed();
        Rejection::auth_required()
    })
}

/// TRACE would give back the request, credential included (RFC 9110 section 9.3.8).
fn refuse_trace(method: &Method) -> Result<(), Rejection> {
    if method == Method::TRACE {
        return Err(Rejection::new(Code::BadRequest, "TRACE is not forwarded", "use another method"));
    }
    Ok(())
}

/// Every host that the request names: in its target first, then in `Host`.
fn authority_of(uri: &Uri, headers: &HeaderMap, scheme: Scheme) -> Result<Vec<Target>, Rejection> {
    let mut named = Vec::with_capacity(2);
    if let Some(authority) = uri.authority() {
        named.push(Target::parse_authority(scheme, authority.as_str().as_bytes())?);
    }
    for host in headers.get_all(HOST) {
        named.push(Target::parse_authority(scheme, host.as_bytes())?);
    }
    Ok(named)
}

fn path_of(uri: &Uri) -> Result<CanonicalPath, Rejection> {
    let text = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(CanonicalPath::parse(text.as_bytes())?)
}

fn root() -> CanonicalPath {
    CanonicalPath::parse(b"/").expect("the root is a path")
}

/// The path under a base path; both are joined as text and judged as one.
fn path_under(base: &str, rest: &str) -> Result<CanonicalPath, Rejection> {
    let slash = if rest.starts_with('/')
        || (rest.is_empty() && !base.is_empty())
        || rest.starts_with('?') && !base.is_empty()
    {
        ""
    } else {
        "/"
    };
    Ok(CanonicalPath::parse(format!("{base}{slash}{rest}").as_bytes())?)
}

/// Takes the choice header out.
fn take_choice(headers: &mut HeaderMap) -> Result<Option<String>, Rejection> {
    let choice = choice_of(headers)?;
    headers.remove(CHOICE_HEADER);
    Ok(choice)
}

/// The connection that `X-Nexus-Connection` names.
///
/// # Errors
/// 400 when it is repeated or not text.
pub fn choice_of(headers: &HeaderMap) -> Result<Option<String>, Rejection> {
    let mut values = headers.get_all(CHOICE_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.to_str().map_err(|_| choice_error())?.to_owned())),
        _ => Err(choice_error()),
    }
}

fn choice_error() -> Rejection {
    Rejection::new(Code::BadRequest, "X-Nexus-Connection is repeated or malformed", "send one name or id")
}

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

struct Found {
    digest: TokenDigest,
    places: Vec<Place>,
}

/// Every agent token in headers, query and path; they must all be the same one.
fn find_tokens(headers: &HeaderMap, path: &str) -> Result<Option<Found>, Rejection> {
    let mut found: Option<Found> = None;
    let mut note = |token: &str, place: Place| {
        let digest = AgentToken::digest(token);
        match &mut found {
            None => found = Some(Found { digest, places: vec![place] }),
            Some(found) if found.digest == digest => found.places.push(place),
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
        for token in tokens_in_header(value.as_bytes()) {
            note(&token, Place::Header(name.as_str().to_owned()))?;
        }
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if AgentToken::has_form(value) {
            note(value, Place::Query(decoded(name).into_owned()))?;
        }
    }
    for (at, length) in token_spans(path) {
        note(&path[at..at + length], Place::Path)?;
    }
    Ok(found)
}

/// The tokens in a header value: the whole value, what follows a scheme word, user and password of Basic.
fn tokens_in_header(value: &[u8]) -> Vec<zeroize::Zeroizing<String>> {
    let Ok(text) = std::str::from_utf8(value) else { return Vec::new() };
    let text = text.trim();
    let mut tokens = Vec::new();
    let mut keep = |candidate: &str| {
        if AgentToken::has_form(candidate) {
            tokens.push(zeroize::Zeroizing::new(candidate.to_owned()));
        }
    };
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
    if !text.contains("nxt_") {
        return masked;
    }
    for (at, length) in token_spans(text).into_iter().rev() {
        masked.replace_range(at..at + length, "nxt_***");
    }
    masked
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// Takes every place out in which a token is looked for, whatever it held, and every other place that held one. Gives
/// the rest of the path, and whether it had the connection's path prefix.
fn take_tokens(headers: &mut HeaderMap, rest: &str, connection: &Arc<Connection>) -> (String, bool) {
    for name in KEY_HEADERS {
        headers.remove(*name);
    }
    let holding: Vec<_> = headers
        .iter()
        .filter(|(_, value)| !tokens_in_header(value.as_bytes()).is_empty())
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
