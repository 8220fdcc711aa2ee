//! `POST /v1/call`: one uniform call for agent frameworks.

use super::body::ResponseBody;
use super::downstream::{AgentBody, Intake, admit, authenticate, standing_proof};
use super::exchange::exchange;
use super::finish::Record;
use super::live::Asked;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::tokens::TOKEN_HEADER;
use super::tunnel::Entry;
use crate::config::Snapshot;
use crate::connection::destination_for;
use crate::identity::{Directory, Presented};
use crate::types::{CanonicalPath, PathError, Url};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest time that a call may take to come in.
const CALL_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// The call, as JSON.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    connection_id: String,
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Value>,
    body: Option<String>,
    body_base64: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// Answers a call.
///
/// # Errors
/// A [`Rejection`].
pub(super) async fn call(
    plane: &Arc<Plane>,
    snapshot: &Arc<Snapshot>,
    entry: &Entry,
    record: &mut Option<Record>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Rejection> {
    let this = record.as_mut().ok_or_else(Rejection::internal)?;
    this.method(request.method());
    let (parts, body) = request.into_parts();
    let (proof, principal) = match token(&snapshot.directory, &parts.headers)? {
        Some(presented) => admit(plane, snapshot, this.client(), &presented).await?,
        None => {
            let proof = standing_proof(entry, &parts.headers)?;
            let principal = authenticate(plane, snapshot, this.client(), &proof).await?;
            (proof, principal)
        }
    };
    this.principal(&principal);
    entry.close.known();
    this.watch(snapshot, &proof, Asked::Nothing, &entry.close)?;
    if parts.method != Method::POST {
        return Err(Rejection::new(Code::BadRequest, "calls are POST requests", "POST a JSON object to /v1/call"));
    }
    let limit = snapshot.config.limits.call_body;
    // Base64 makes four bytes of three, and the other fields need room.
    let text = collect(body, limit / 3 * 4 + 256 * 1024, "the call").await?;
    let call: Call = serde_json::from_slice(&text).map_err(|error| {
        Rejection::new(
            Code::BadRequest,
            format!("the call is not valid: {}", super::tokens::mask_tokens(&error.to_string())),
            "send {connection_id, method, url, headers, json|body|body_base64}",
        )
    })?;
    let connection =
        snapshot.routes.granted(&principal, &call.connection_id).ok_or_else(Rejection::unknown_connection)?;
    let (base_target, base) = connection
        .frozen
        .base_url()
        .ok_or_else(|| Rejection::new(Code::BadRequest, "this connection has no base URL", "give an absolute url"))
        .or_else(|rejection| {
            if call.url.starts_with('/') {
                Err(rejection)
            } else {
                absolute(&call.url).map(|(t, _)| (t, Default::default()))
            }
        })?;
    let (target, path) = if call.url.starts_with('/') || call.url.is_empty() {
        (base_target, base.join(&CanonicalPath::parse(call.url.as_bytes())?))
    } else {
        absolute(&call.url)?
    };
    let method = Method::from_bytes(call.method.to_ascii_uppercase().as_bytes())
        .ok()
        .filter(|method| !matches!(*method, Method::CONNECT | Method::TRACE))
        .ok_or_else(|| {
            Rejection::new(Code::BadRequest, "the method is not one that can be called", "use GET, POST …")
        })?;
    this.method(&method);
    this.target(&target);
    this.path(&path);
    let routed = destination_for(&connection, &target, &path).ok_or_else(|| {
        if path.is_ambiguous() {
            return PathError::Ambiguous.into();
        }
        Rejection::new(Code::NoConnection, "the connection does not cover this url", "use a url under its base URL")
    })?;
    let (headers, body) = content(&call)?;
    if body.len() > limit {
        return Err(Rejection::new(
            Code::TooLarge,
            "the body is larger than limits.call_body",
            "use the proxy instead",
        ));
    }
    let intake = Intake {
        principal,
        target,
        path,
        method,
        headers,
        body: AgentBody::Fixed(body),
        prefix_taken: false,
        routed: Some(routed),
        choice: None,
        upgrade: None,
    };
    let answer = exchange(plane, snapshot, record, intake).await?;
    let (parts, body) = answer.into_parts();
    let body = whole_answer(body, limit).await?;
    if parts.headers.get("x-nexus-error").is_some_and(|code| code != "refresh_failed") {
        let mut refused = Response::new(ResponseBody::text(body));
        *refused.status_mut() = parts.status;
        *refused.headers_mut() = parts.headers;
        return Ok(refused);
    }
    Ok(answered(parts, &body))
}

/// The whole body of an answer, `limit` bytes at most.
async fn whole_answer(mut body: ResponseBody, limit: usize) -> Result<Bytes, Rejection> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            body.uncut()?;
            return Err(Rejection::new(Code::UpstreamUnreachable, "the answer broke off", "try again later"));
        };
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > limit {
            body.abort("too_large");
            return Err(Rejection::new(
                Code::TooLarge,
                "the answer is larger than limits.call_body",
                "use the proxy or base-URL mode, which stream",
            ));
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}

fn absolute(url: &str) -> Result<(crate::types::Target, CanonicalPath), Rejection> {
    let Url { target, path } = Url::parse(url.as_bytes())?;
    Ok((target, path))
}

/// The token of a request to the proxy itself, if it has one.
pub(super) fn token(directory: &Directory, headers: &HeaderMap) -> Result<Option<Presented>, Rejection> {
    let mut found: Option<Presented> = None;
    for value in headers.get_all(TOKEN_HEADER).iter().chain(headers.get_all(AUTHORIZATION)) {
        let text = value.to_str().unwrap_or_default().trim();
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => text,
        };
        let Some(presented) = directory.presented(token) else { continue };
        if found.is_some_and(|found| found != presented) {
            return Err(Rejection::new(Code::BadRequest, "two different agent tokens were given", "send one"));
        }
        found = Some(presented);
    }
    Ok(found)
}

/// A whole body, `limit` bytes at most.
pub(super) async fn collect(body: Incoming, limit: usize, what: &'static str) -> Result<Bytes, Rejection> {
    let collecting = Limited::new(body, limit).collect();
    let Ok(collected) = tokio::time::timeout(CALL_TIME, collecting).await else {
        return Err(
            Rejection::new(Code::BadRequest, format!("{what} took too long to come"), "send it at once").and_close()
        );
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Rejection::new(
            Code::TooLarge,
            format!("{what} is larger than it may be"),
            "use the proxy instead of a call; limits.call_body is the limit of calls",
        )
        .and_close()),
        Err(_) => {
            Err(Rejection::new(Code::BadRequest, format!("{what} is malformed or broke off"), "send it whole")
                .and_close())
        }
    }
}

/// The headers and body that a call describes.
fn content(call: &Call) -> Result<(HeaderMap, Bytes), Rejection> {
    let bad =
        |message: &'static str| Rejection::new(Code::BadRequest, message, "see the call API in the documentation");
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("a header name is not valid"))?;
        let value = HeaderValue::from_str(value).map_err(|_| bad("a header value is not valid"))?;
        if matches!(name.as_str(), "content-length" | "transfer-encoding") {
            return Err(bad("content-length and transfer-encoding are set by the proxy"));
        }
        headers.append(name, value);
    }
    let body = match (&call.json, &call.body, &call.body_base64) {
        (None, None, None) => Bytes::new(),
        (Some(json), None, None) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            Bytes::from(json.to_string())
        }
        (None, Some(body), None) => Bytes::from(body.clone()),
        (None, None, Some(coded)) => {
            Bytes::from(STANDARD.decode(coded).map_err(|_| bad("body_base64 is not valid base64"))?)
        }
        _ => return Err(bad("json, body and body_base64 exclude each other")),
    };
    Ok((headers, body))
}

/// `{ok, status_code, headers, json, body|body_base64}`.
fn answered(parts: http::response::Parts, body: &Bytes) -> Response<ResponseBody> {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    let is_json = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"));
    let json: Value = if is_json { serde_json::from_slice(body).unwrap_or(Value::Null) } else { Value::Null };
    let mut answer = serde_json::json!({
        "ok": parts.status.as_u16() < 400,
        "status_code": parts.status.as_u16(),
        "headers": headers,
        "json": json,
    });
    match std::str::from_utf8(body) {
        Ok(text) => answer["body"] = Value::from(text),
        Err(_) => answer["body_base64"] = Value::from(STANDARD.encode(body)),
    }
    let mut response = Response::new(ResponseBody::text(answer.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
