//! The steps: each sends a request as the agent, compares what both ends got with what is claimed, and tells it.

use super::agent::{Got, contains};
use super::sample::{API, OTHER, Seen};
use super::stage::{AGENT, Play};
use super::telling::{Telling, mask};
use crate::app::Home;
use crate::audit::{Event, Filter, Kind, Reader};
use crate::cli::CliError;
use crate::secret::Secret;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;

/// What many SDKs want to have before they send anything.
const PLACEHOLDER: &str = "Bearer placeholder";

const MESSAGE: &str = r#"{"to":"ada","text":"hello"}"#;

/// Longer than the last audit lines take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Steps 1 to 5.
pub(super) async fn play(play: &Play, telling: &mut Telling) -> Result<(), CliError> {
    inject(play, telling).await?;
    refresh(play, telling).await?;
    reflect(play, telling).await?;
    refuse(play, telling).await
}

async fn inject(play: &Play, telling: &mut Telling) -> Result<(), CliError> {
    let request = request(&Method::GET, "/files/hello", &api(play), "");
    let sent = headers(request.headers(), &[]);
    let carried = carries(request.headers(), &play.sample.shared.known.api_key);
    let got = play.agent.send(request).await?;
    let seen = one(play.sample.shared.take_seen(), "the API got the agent's request once")?;

    telling.step("what the agent sends: it holds only its nexus token", "agent_sent");
    telling.line(format!("CONNECT {}", api(play)))?;
    // Exposed to show its first characters.
    telling.line(format!("  proxy-authorization: Basic x:{}", mask(play.agent.token().expose())))?;
    telling.lines("GET /files/hello", &sent)?;
    telling.fact("request", json!("GET /files/hello"));
    telling.fact("token", json!(mask(play.agent.token().expose())));
    telling.fact("headers", sent);
    telling.check("the agent's request carries no credential of the API", !carried)?;

    let known = &play.sample.shared.known;
    let values = seen.headers.get_all(AUTHORIZATION).iter().count();
    telling.step("what the API gets: nexus has put the credential on", "api_got");
    let shown = headers(&seen.headers, &[&known.api_key]);
    telling.lines(&seen.line, &shown)?;
    telling.fact("request", json!(seen.line));
    telling.fact("headers", shown);
    telling.fact("status", json!(got.status.as_u16()));
    telling.check(
        "the API got its key, in place of what the agent had put there",
        values == 1 && is_bearer(&seen, &known.api_key),
    )?;
    let leaked = [play.agent.token(), &play.agent.proof()].iter().any(|secret| carries(&seen.headers, secret))
        || seen.headers.contains_key(PROXY_AUTHORIZATION);
    telling.check("the API got nothing of the agent's nexus token", !leaked)?;
    telling.check("the agent got the API's answer", got.status == StatusCode::OK && got.text().contains("world"))
}

async fn refresh(play: &Play, telling: &mut Telling) -> Result<(), CliError> {
    let shared = &play.sample.shared;
    let got = play.agent.send(request(&Method::POST, "/mail/send", &api(play), MESSAGE)).await?;
    let seen = shared.take_seen();
    telling.step("an access token has expired: nexus refreshes it and sends the request again", "refresh");
    for attempt in &seen {
        let token =
            attempt.headers.get(AUTHORIZATION).map(|value| shown(value, &[&shared.known.expired, &shared.known.fresh]));
        let (line, status) = (&attempt.line, attempt.status.as_u16());
        telling.line(format!("{line}  authorization: {}  ->  {status}", token.unwrap_or_default()))?;
    }
    telling.line(format!("times that the token endpoint was asked: {}", shared.refreshes()))?;
    telling.line(format!("the agent saw  {} {}", got.status.as_u16(), got.text()))?;
    telling.fact("api_statuses", json!(seen.iter().map(|seen| seen.status.as_u16()).collect::<Vec<_>>()));
    telling.fact("refreshes", json!(shared.refreshes()));
    telling.fact("agent_status", json!(got.status.as_u16()));
    let is_replayed = matches!(
        seen.as_slice(),
        [first, second]
            if first.status == StatusCode::UNAUTHORIZED && is_bearer(first, &shared.known.expired)
            && second.status == StatusCode::OK && is_bearer(second, &shared.known.fresh)
    );
    telling.check("the API got the expired token, refused it, and then got the new one", is_replayed)?;
    telling.check("the body came whole both times", seen.iter().all(|seen| seen.body == MESSAGE))?;
    telling.check("there was one refresh", shared.refreshes() == 1)?;
    let clean = got.status == StatusCode::OK && got.header("x-nexus-error").is_empty();
    telling.check("the agent saw the 200 only", clean && got.text().contains("sent"))
}

async fn reflect(play: &Play, telling: &mut Telling) -> Result<(), CliError> {
    let known = &play.sample.shared.known;
    let got = play.agent.send(request(&Method::GET, "/files/reflect", &api(play), "")).await?;
    let seen = one(play.sample.shared.take_seen(), "the API got the agent's request once")?;
    telling.step("an API sends the credential back: nexus takes it out of the answer", "reflection");
    // Masked, in case it is there after all.
    let header = got.headers.get("x-your-authorization").map(|value| shown(value, &[&known.api_key]));
    let (header, body) = (header.unwrap_or_default(), masked(&got.text(), &[&known.api_key]));
    telling.line(format!("the agent saw  {body}"))?;
    telling.line(format!("               x-your-authorization: {header}"))?;
    telling.fact("status", json!(got.status.as_u16()));
    let stars = body.contains("***") && header.contains("***");
    telling.fact("body", json!(body));
    telling.fact("header", json!(header));
    let is_clean = !holds(&got, &known.api_key);
    telling.check("the API sent its key back", seen.status == StatusCode::OK && is_bearer(&seen, &known.api_key))?;
    telling.check("the key did not reach the agent, in no header and not in the body", is_clean)?;
    telling.check("*** stands in its place", got.status == StatusCode::OK && stars)
}

async fn refuse(play: &Play, telling: &mut Telling) -> Result<(), CliError> {
    let shared = &play.sample.shared;
    let host = format!("{OTHER}:{}", play.sample.other_port);
    let got = play.agent.send(request(&Method::GET, "/", &host, "")).await?;
    let code = got.header("x-nexus-error");
    telling.step("a host that no connection covers: refused", "uncovered");
    telling.line(format!("CONNECT {host}  ->  {} {code}", got.status.as_u16()))?;
    telling.line(format!("connections that the host got: {}", shared.dialled()))?;
    telling.fact("host", json!(host));
    telling.fact("status", json!(got.status.as_u16()));
    telling.fact("error", json!(code));
    telling.fact("dialled", json!(shared.dialled()));
    let is_refused = !got.in_tunnel && got.status == StatusCode::FORBIDDEN && code == "no_connection";
    telling.check("the proxy answered 403 no_connection", is_refused)?;
    telling.check("nothing was dialled", shared.dialled() == 0 && shared.take_seen().is_empty())
}

/// Step 6, after the proxy has stopped. `secrets` must not be in the record.
pub(super) async fn record(home: &Home, secrets: &[Secret], telling: &mut Telling) -> Result<(), CliError> {
    let reader = Reader::new(&home.audit());
    let filter = Filter { agent: Some(AGENT.to_owned()), ..Filter::default() };
    let is_terminal = |event: &Event| matches!(event.event, Kind::End | Kind::Denied | Kind::Aborted);
    let reading = async {
        loop {
            let events = reader.query(&filter).map_err(CliError::io(home.audit()))?;
            if events.iter().filter(|event| is_terminal(event)).count() >= 4 {
                return Ok::<_, CliError>(events);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let events = tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| CliError::Failed("the audit record has no line for the end of every request".to_owned()))??;
    telling.step("the audit record: who asked for what, by which connection", "audit");
    for event in &events {
        telling.line(crate::cli::audit::line(event))?;
    }
    let lines: Vec<Value> = events.iter().filter_map(|event| serde_json::to_value(event).ok()).collect();
    let texts: Vec<String> = lines.iter().map(Value::to_string).collect();
    telling.fact("events", Value::Array(lines));
    let count = |kind: Kind| events.iter().filter(|event| event.event == kind).count();
    let whole = (count(Kind::Start), count(Kind::End), count(Kind::Denied), count(Kind::Aborted)) == (3, 3, 1, 0);
    telling.check("every request has its lines: three served, one denied", whole)?;
    let ended = |connection: &str, what: &dyn Fn(&Event) -> bool| {
        let of = |event: &&Event| event.event == Kind::End && event.connection.as_deref() == Some(connection);
        events.iter().filter(of).any(what)
    };
    telling.check("the refresh and the removed key are in it", {
        ended("mail", &|event| event.replayed) && ended("files", &|event| event.redacted.is_some_and(|n| n >= 2))
    })?;
    // Exposed to be looked for.
    let leaked = secrets.iter().any(|secret| texts.iter().any(|text| text.contains(secret.expose())));
    telling.check("no credential and no token is in it", !leaked)
}

fn api(play: &Play) -> String {
    format!("{API}:{}", play.sample.api_port)
}

fn request(method: &Method, path: &str, host: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, PLACEHOLDER)
        .body(Full::from(body))
        .expect("the parts are right")
}

fn one(mut seen: Vec<Seen>, claim: &str) -> Result<Seen, CliError> {
    match (seen.pop(), seen.is_empty()) {
        (Some(seen), true) => Ok(seen),
        _ => Err(Telling::does_not_hold(claim)),
    }
}

// The values below are exposed to be compared with what went over the wire, which is what the demo is for.

fn is_bearer(seen: &Seen, token: &Secret) -> bool {
    let value = seen.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")) == Some(token.expose())
}

fn carries(headers: &HeaderMap, secret: &Secret) -> bool {
    headers.values().any(|value| contains(value, secret.expose()))
}

fn holds(got: &Got, secret: &Secret) -> bool {
    got.has(secret.expose())
}

/// The headers by name, with these values masked.
fn headers(headers: &HeaderMap, secrets: &[&Secret]) -> Value {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(shown(value, secrets))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn shown(value: &http::HeaderValue, secrets: &[&Secret]) -> String {
    masked(&String::from_utf8_lossy(value.as_bytes()), secrets)
}

fn masked(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret.expose(), &mask(secret.expose()));
    }
    text
}
