//! From a request as it came in to what it asks for: way in, target, path, principal. All ways end in one [`Intake`].

use super::finish::Record;
use super::live::Asked;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::tokens::{find_tokens, mask_tokens, take_tokens};
use super::tunnel::Entry;
use crate::audit::Way;
use crate::config::Snapshot;
use crate::connection::{Choice, destination_for};
use crate::identity::{
    BasicPair, JwtError, Presented, Principal, Proof, ProofError, Rejected, connection_choice, proxy_authorization,
};
use crate::types::{CanonicalPath, Host, PathError, Scheme, Target};
use bytes::Bytes;
use http::header::{HOST, HeaderMap, ORIGIN, PROXY_AUTHORIZATION};
use http::{Method, Uri};
use hyper::body::Incoming;
use std::net::IpAddr;

/// Names the connection to use.
pub const CHOICE_HEADER: &str = "x-nexus-connection";

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
        "/v1/tokens" => Some(Way::Mint),
        // A certificate is for the key of whoever asks: nobody in between may put in another one.
        "/v1/enroll" | "/v1/enroll/renew" if entry.is_tls => Some(Way::Enroll),
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
    let principal = snapshot.directory.recognise(&tunnel.proof, plane.clock.now()).map_err(|_| {
        entry.close.gently();
        Rejection::token_invalid()
    })?;
    record.principal(&principal);
    record.watch(snapshot, &tunnel.proof, Asked::Nothing, &entry.close)?;
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
pub async fn forward(
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
    let (proof, principal, user_choice) =
        proxy_proof(plane, snapshot, record.client(), &parts.headers, entry.standing.as_ref()).await?;
    record.principal(&principal);
    entry.close.known();
    record.watch(snapshot, &proof, Asked::Nothing, &entry.close)?;
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
pub async fn base_url(
    plane: &Plane,
    snapshot: &Snapshot,
    entry: &Entry,
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
    let found = find_tokens(&snapshot.directory, &parts.headers, rest)?;
    record.path(&path_under("", &mask_tokens(rest)).unwrap_or_else(|_| root()));
    let (proof, principal) = match &found {
        Some(found) => admit(plane, snapshot, record.client(), &found.presented).await?,
        None => {
            let proof = standing_proof(entry, &parts.headers)?;
            let principal = authenticate(plane, snapshot, record.client(), &proof).await?;
            (proof, principal)
        }
    };
    record.principal(&principal);
    entry.close.known();
    record.watch(snapshot, &proof, Asked::Nothing, &entry.close)?;
    let connection = snapshot.routes.granted(&principal, name).ok_or_else(Rejection::unknown_connection)?;
    if found.is_some_and(|found| !found.is_looked_at(&connection)) {
        return Err(Rejection::auth_required());
    }
    let (rest, prefix_taken) = take_tokens(&snapshot.directory, &mut parts.headers, rest, &connection);
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

/// What `Proxy-Authorization` holds, the principal that it proves, and the user name's choice of connection. Without a
/// token there, what the connection itself proves counts.
///
/// # Errors
/// 407, or 400 for contradicting tokens.
pub async fn proxy_proof(
    plane: &Plane,
    snapshot: &Snapshot,
    client: Option<IpAddr>,
    headers: &HeaderMap,
    standing: Option<&Proof>,
) -> Result<(Proof, Principal, Option<String>), Rejection> {
    let values = headers.get_all(PROXY_AUTHORIZATION).iter().map(http::HeaderValue::as_bytes);
    let credentials = match proxy_authorization(values, |text| snapshot.directory.presented(text)) {
        Ok(credentials) => credentials,
        Err(ProofError::Missing) if standing.is_some() => {
            let proof = standing.cloned().ok_or_else(Rejection::auth_required)?;
            let principal = authenticate(plane, snapshot, client, &proof).await?;
            return Ok((proof, principal, choice_alone(headers)));
        }
        // What is there and is no token is a wrong one; what is not there is none.
        Err(ProofError::Missing | ProofError::Malformed) if presents(headers) => {
            return Err(wrong_token(plane, snapshot, client));
        }
        Err(ProofError::Missing | ProofError::Malformed) => return Err(Rejection::auth_required()),
        Err(error @ ProofError::Conflicting) => {
            return Err(Rejection::new(Code::BadRequest, error.to_string(), "send one agent token").and_close());
        }
    };
    let (proof, principal) = admit(plane, snapshot, client, &credentials.token).await?;
    Ok((proof, principal, credentials.connection))
}

/// The choice of connection in the user name of proxy credentials without a token.
fn choice_alone(headers: &HeaderMap) -> Option<String> {
    let pair = BasicPair::from_header(headers.get(PROXY_AUTHORIZATION)?.as_bytes())?;
    // Exposed to see whether it names a connection: there is no token in it.
    connection_choice(pair.user.expose())
}

/// What the connection itself proves, for a request to this server's own paths without a token. A web page must not be
/// able to make it: the browser of a person at this machine reaches loopback listeners too.
pub(super) fn standing_proof(entry: &Entry, headers: &HeaderMap) -> Result<Proof, Rejection> {
    let proof = entry.standing.clone().ok_or_else(Rejection::auth_required)?;
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Err(Rejection::new(
            Code::Denied,
            "a web page's request needs an agent token",
            "send the token in X-Nexus-Token",
        ));
    }
    // Under a name of its own a page is not another origin: DNS may point it here.
    let is_by_name = |host: &http::HeaderValue| {
        Target::parse_authority(Scheme::Http, host.as_bytes()).is_ok_and(|target| match target.host {
            Host::Ip(_) => false,
            Host::Name(name) => &*name != "localhost",
        })
    };
    if matches!(proof, Proof::Bound(_)) && entry.client.is_some() && headers.get_all(HOST).iter().any(is_by_name) {
        return Err(Rejection::new(
            Code::Misdirected,
            "without an agent token this listener answers to its address and to localhost",
            "use the address in the URL, or send the token in X-Nexus-Token",
        ));
    }
    Ok(proof)
}

/// The proof that a caller presents and the principal that it proves; wrong ones are counted.
///
/// # Errors
/// 407 or 401, the same for unknown, revoked, expired and forged.
pub async fn admit(
    plane: &Plane,
    snapshot: &Snapshot,
    client: Option<IpAddr>,
    presented: &Presented,
) -> Result<(Proof, Principal), Rejection> {
    let proof = plane.verifier.prove(&snapshot.directory, &snapshot.egress, presented).await.map_err(|error| {
        tracing::info!("a JWT is refused: {error}");
        match error {
            // Without keys nobody knows whether it is wrong.
            JwtError::NoKeys => Rejection::auth_required(),
            _ => wrong_token(plane, snapshot, client),
        }
    })?;
    let principal = authenticate(plane, snapshot, client, &proof).await?;
    Ok((proof, principal))
}

/// The principal that a proof proves; wrong ones are counted.
///
/// # Errors
/// 407 or 401, the same for unknown, revoked and expired.
pub async fn authenticate(
    plane: &Plane,
    snapshot: &Snapshot,
    client: Option<IpAddr>,
    proof: &Proof,
) -> Result<Principal, Rejection> {
    snapshot.directory.recognise(proof, plane.clock.now()).map_err(|error| match (error, proof) {
        // During a lockdown good ones are refused too; and where nothing was shown, nothing wrong was.
        (Rejected::LockedOut, _) | (_, Proof::Bound(_)) => Rejection::auth_required(),
        _ => wrong_token(plane, snapshot, client),
    })
}

/// Counts a wrong token against its address. Whatever is wrong with it, the answer is the same, and so is the way to it.
fn wrong_token(plane: &Plane, snapshot: &Snapshot, client: Option<IpAddr>) -> Rejection {
    plane.metrics.authentication_failed();
    // A Unix socket has no address; its file's mode says who may connect.
    let Some(client) = client else { return Rejection::auth_required() };
    match plane.wrong_tokens.count(client, snapshot.config.limits.wrong_tokens_per_minute) {
        Ok(()) => Rejection::auth_required(),
        Err(wait) => {
            plane.metrics.authentication_limited();
            Rejection::wrong_tokens(wait)
        }
    }
}

fn presents(headers: &HeaderMap) -> bool {
    headers.get_all(PROXY_AUTHORIZATION).iter().any(|value| !value.as_bytes().trim_ascii().is_empty())
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
