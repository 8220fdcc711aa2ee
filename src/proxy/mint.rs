//! `POST /v1/tokens`: a token makes a narrower one, for a sub-agent.

use super::body::ResponseBody;
use super::call::{collect, token};
use super::downstream::admit;
use super::finish::Record;
use super::live;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::tunnel::Entry;
use crate::config::Snapshot;
use crate::identity::{MAX_GENERATIONS, Principal, Standing};
use crate::policy::{Narrowing, TokenRights, narrow};
use crate::secret::AgentToken;
use crate::store::{TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, HostPattern, PathPattern, TokenId, UnixSeconds, parse_duration};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a token works that is asked for without a time.
const DEFAULT_LIFE: Duration = Duration::from_secs(3_600);

/// How many tokens that still work one token may have made.
const MAX_CHILDREN: u32 = 1_000;

/// The largest body. Lists of some thousand entries fit.
const MAX_BODY: usize = 256 * 1024;

const FIELDS: &str = "send {use, name?, methods?, paths?, hosts?, scopes?, expires_in?}";

/// What is asked for. A field that is not here is refused, so that nobody believes that it did something.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: Option<String>,
    #[serde(rename = "use")]
    connections: Vec<String>,
    methods: Option<Vec<String>>,
    paths: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    expires_in: Option<Life>,
}

/// Seconds, or a duration as people write it.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(untagged)]
enum Life {
    Seconds(u64),
    Text(String),
}

/// Makes a token.
///
/// # Errors
/// A [`Rejection`].
pub(super) async fn mint(
    plane: &Arc<Plane>,
    snapshot: &Arc<Snapshot>,
    entry: &Entry,
    record: &mut Option<Record>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Rejection> {
    let this = record.as_mut().ok_or_else(Rejection::internal)?;
    this.method(request.method());
    let (parts, body) = request.into_parts();
    // What a connection proves by itself makes no tokens: there is none that they could end with.
    let presented = token(&snapshot.directory, &parts.headers)?.ok_or_else(Rejection::auth_required)?;
    let (proof, principal) = admit(plane, snapshot, this.client(), &presented).await?;
    this.principal(&principal);
    entry.close.known();
    this.watch(snapshot, &proof, live::Asked::Nothing, &entry.close)?;
    if parts.method != Method::POST {
        return Err(Rejection::new(
            Code::BadRequest,
            "tokens are made by POST requests",
            "POST a JSON object to /v1/tokens",
        ));
    }
    let (maker, standing) = standing(plane, snapshot, &principal)?;
    let text = collect(body, MAX_BODY, "the request").await?;
    let asked: Asked = serde_json::from_slice(&text).map_err(|error| {
        // The decoder repeats what was written, and an agent may have written a token there.
        bad(format!("the request is not valid: {}", super::tokens::mask_tokens(&error.to_string())))
    })?;
    let now = plane.clock.now();
    let names = asked.connections.clone();
    let (child, rights) = child(snapshot, &principal, maker, standing, asked, now)?;

    // On record before it exists.
    this.minted(&child.id);
    this.start().await?;
    let value = AgentToken::generate();
    // Hashed, because the store keeps no value.
    let digest = AgentToken::digest(value.value().expose());
    let child = TokenRecord { digest, ..child };
    plane.store.insert_child_token(&child, now, MAX_CHILDREN).await?;
    plane.usage.token(maker, now, this.client());
    if let Err(error) = plane.applies.now().await {
        tracing::error!("a token was made and could not be put into force: {error}");
        return Err(Rejection::new(
            Code::StoreUnavailable,
            "the store cannot be read, so the new token is not known yet",
            "try again later; `nexus doctor` tells more",
        ));
    }

    let answer = json!({
        "token_id": child.id.as_str(),
        // The one time that the value is shown, to the caller that asked for it.
        "token_value": value.value().expose(),
        "agent": child.agent.as_str(),
        "connections": names_of(snapshot, &rights, &names),
        "methods": child.methods,
        "paths": child.paths,
        "hosts": child.hosts,
        "scopes": child.scopes,
        "expires_at": child.expires_at.and_then(time),
        "parent": maker.as_str(),
    });
    let mut response = Response::new(ResponseBody::text(answer.to_string() + "\n"));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    this.answered(StatusCode::CREATED);
    this.end(0);
    Ok(response)
}

/// The token that asks and what it may give, if it may make tokens at all.
fn standing<'p>(
    plane: &Plane,
    snapshot: &Snapshot,
    principal: &'p Principal,
) -> Result<(&'p TokenId, Standing), Rejection> {
    let denied = |message: &'static str, hint: &'static str| Rejection::new(Code::Denied, message, hint);
    let Some(maker) = &principal.token_id else {
        return Err(denied(
            "only tokens of this install make tokens",
            "ask the issuer of this proof for another one, or use a token of `nexus token create`",
        ));
    };
    if !principal.grant.allows_mint() {
        return Err(denied(
            "the token may not make tokens: it has not the scope mint",
            "`nexus token create --scopes use,mint` makes one that may",
        ));
    }
    let tokens = &snapshot.directory.tokens;
    let standing = tokens.standing(maker, plane.clock.now()).ok_or_else(Rejection::auth_required)?;
    if standing.generation >= MAX_GENERATIONS {
        return Err(denied(
            "the token stands at the end of the longest chain of tokens, so it may not make another",
            "have a token make this one that was made by fewer others",
        ));
    }
    Ok((maker, standing))
}

/// The record of the new token, without its value.
fn child(
    snapshot: &Snapshot,
    principal: &Principal,
    maker: &TokenId,
    standing: Standing,
    asked: Asked,
    now: UnixSeconds,
) -> Result<(TokenRecord, TokenRights), Rejection> {
    let agent = match &asked.name {
        None => principal.agent.clone(),
        Some(name) => agent_below(&principal.agent, name)?,
    };
    let wanted = wanted(snapshot, principal, &asked)?;
    let rights = narrow(&principal.grant, wanted)?;
    let lifetime = lifetime(snapshot, standing, asked.expires_in.as_ref(), now)?;
    let record = TokenRecord {
        id: TokenId::generate(),
        scope: principal.scope.clone(),
        agent,
        run: principal.run.clone(),
        digest: crate::secret::TokenDigest([0; 32]),
        previous: None,
        connections: rights.connections.clone(),
        methods: rights.methods.clone(),
        paths: texts(&rights.paths),
        hosts: texts(&rights.hosts),
        scopes: rights.scopes.clone(),
        kind: TokenKind::Opaque,
        parent: Some(maker.clone()),
        created_at: now,
        lifetime: Some(lifetime),
        expires_at: Some(now.saturating_add(lifetime)),
        revoked_at: None,
    };
    Ok((record, rights))
}

/// The agent's name with another below it, so that nobody takes a name that is not theirs to give.
fn agent_below(agent: &AgentName, name: &str) -> Result<AgentName, Rejection> {
    if name.contains('/') || AgentName::parse(name).is_err() {
        return Err(bad("name is not valid: 1 to 128 characters without '/' and control characters"));
    }
    AgentName::parse(&format!("{agent}/{name}"))
        .map_err(|_| bad("name is too long: with the agent's own name before it, it may have 128 characters"))
}

fn wanted(snapshot: &Snapshot, principal: &Principal, asked: &Asked) -> Result<Narrowing, Rejection> {
    if asked.connections.is_empty() {
        return Err(bad("use names no connection"));
    }
    let connections = asked
        .connections
        .iter()
        .map(|name| snapshot.routes.granted(principal, name).map(|connection| connection.id.clone()))
        .collect::<Option<_>>()
        .ok_or_else(Rejection::unknown_connection)?;
    Ok(Narrowing {
        connections,
        methods: list("methods", asked.methods.as_deref(), |text| {
            let upper = text.trim().to_ascii_uppercase();
            Method::from_bytes(upper.as_bytes()).map(|_| upper).map_err(|_| "it has what is not a method".to_owned())
        })?,
        paths: list("paths", asked.paths.as_deref(), |text| {
            PathPattern::parse(text).map_err(|error| error.to_string())
        })?,
        hosts: list("hosts", asked.hosts.as_deref(), |text| {
            HostPattern::parse(text).map_err(|error| error.to_string())
        })?,
        scopes: list("scopes", asked.scopes.as_deref(), |text| {
            text.parse::<TokenScope>().map_err(|_| "write use or mint".to_owned())
        })?,
    })
}

/// The entries of a list. An empty one could mean all and nothing, so it is refused.
fn list<T>(
    field: &'static str,
    texts: Option<&[String]>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, Rejection> {
    let Some(texts) = texts else { return Ok(None) };
    if texts.is_empty() {
        return Err(bad(format!("{field} is empty; leave it out to give what the token itself has")));
    }
    let parsed: Result<Vec<T>, String> = texts.iter().map(|text| parse(text)).collect();
    parsed.map(Some).map_err(|error| bad(format!("{field} is not valid: {error}")))
}

/// How long the new token works, in seconds: no longer than the one that makes it, and than the configured limit.
fn lifetime(snapshot: &Snapshot, standing: Standing, asked: Option<&Life>, now: UnixSeconds) -> Result<i64, Rejection> {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let rest = standing.expires_at.map_or(i64::MAX, |end| end.saturating_sub(now));
    let limit = snapshot.config.tokens.max_expires.map_or(i64::MAX, seconds).min(rest);
    let asked = match asked {
        None => return Ok(seconds(DEFAULT_LIFE).min(limit)),
        Some(Life::Seconds(asked)) => i64::try_from(*asked).unwrap_or(i64::MAX),
        Some(Life::Text(text)) => {
            let duration = parse_duration(text);
            seconds(duration.map_err(|_| bad("expires_in is neither a number of seconds nor a duration such as 15m"))?)
        }
    };
    if asked < 1 {
        return Err(bad("expires_in is less than a second"));
    }
    if asked > limit {
        return Err(Rejection::new(
            Code::Denied,
            format!("expires_in asks for {asked} s, and no more than {limit} s are allowed"),
            "a token ends with the one that made it; tokens.max_expires is a limit too",
        ));
    }
    Ok(asked)
}

/// The connections as they were called, each once.
fn names_of(snapshot: &Snapshot, rights: &TokenRights, asked: &[String]) -> Vec<String> {
    let names = rights.connections.iter().map(|id| snapshot.routes.get(id).map_or(id.as_str(), |c| c.name.as_str()));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_by_key(|name| asked.iter().position(|asked| asked == name).unwrap_or(usize::MAX));
    names
}

fn texts<T: ToString>(patterns: &[T]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn time(seconds: UnixSeconds) -> Option<Value> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| Value::String(time.to_string()))
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::new(Code::BadRequest, message, FIELDS)
}
