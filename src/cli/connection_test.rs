//! `nexus connection test`: the provider's harmless request, made with the credential.

use super::connection::set_command;
use super::{CliError, Context, output};
use crate::app::Install;
use crate::config::Loader;
use crate::connection::{Connection, destination_for};
use crate::credential::{Credentials, Lease, LeaseError, RefreshError};
use crate::identity::{Grant, Principal};
use crate::net::{ClientResponse, Egress, HttpsClient};
use crate::policy::{self, Question};
use crate::provider::TestRequest;
use crate::secret::Secret;
use crate::store::{ConnectionState, Store};
use crate::strategy::{Edit, Injection};
use crate::telemetry::Metrics;
use crate::types::{AgentName, CanonicalPath, Url};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Make the provider's harmless request with the credential
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus test github\n  nexus connection test github -o json\n\nA custom connection is tested by GET of its base URL. Exit code 8: the API did not take the credential;\n7: it could not be reached."
)]
pub struct Test {
    /// Name or id
    connection: String,
}

const TIMEOUT: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 4 << 20;

impl Test {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open().await?;
        context.refuse_when_locked(&install).await?;
        let record = install.store.find_connection(&context.scope, &self.connection).await?;
        let connection = Arc::new(Connection::from_record(&record, None)?);
        if record.state == ConnectionState::Attention {
            return attention(context, &connection);
        }
        let store: Arc<dyn Store> = install.store.clone();
        let loader = Loader::start(context.home.path.clone(), context.config_file.clone(), store, Vec::new()).await?;
        let attempt = Attempt::new(&install, connection, loader.snapshot().egress.clone())?;
        let (version, response) = attempt.make().await?;
        context.notify().await;
        judge(context, &attempt, version, &response)
    }
}

/// A connection whose grant was rejected: a server may know that the access token is refused too, so it is not sent.
fn attention(context: &Context, connection: &Connection) -> Result<(), CliError> {
    let access = connection.access();
    let reason = access.state_reason.as_deref().unwrap_or("its grant was rejected");
    let problem = format!("needs attention: {}; run: {}", output::printable(reason), set_command(connection));
    let shown = json!({
        "connection": connection.name.as_str(),
        "ok": false,
        "version": access.version,
        "problem": problem,
    });
    output::print_object(context.format, &shown)?;
    Err(CliError::Check(format!("{} {problem}", connection.name)))
}

/// One test of one connection.
struct Attempt {
    connection: Arc<Connection>,
    egress: Arc<Egress>,
    credentials: Credentials,
    request: TestRequest,
    url: Url,
}

impl Attempt {
    fn new(install: &Install, connection: Arc<Connection>, egress: Arc<Egress>) -> Result<Self, CliError> {
        let credentials = Credentials::new(
            install.keyring.clone(),
            install.store.clone(),
            Arc::new(Metrics::new()),
            crate::types::Clock::system(),
        );
        let request = connection.frozen.test.clone().unwrap_or_else(|| TestRequest {
            method: "GET".to_owned(),
            url: "/".to_owned(),
            expect_status: Vec::new(),
            expect_json: None,
        });
        let url = test_url(&connection, &request)?;
        Ok(Self { connection, egress, credentials, request, url })
    }

    /// Makes the request; a 401 on a credential that can be refreshed gets one refresh and one more try.
    async fn make(&self) -> Result<(u64, ClientResponse), CliError> {
        let lease = self.lease().await?;
        let response = self.send(&lease).await?;
        if response.status != 401 || !lease.refreshable {
            return Ok((lease.version, response));
        }
        if let Err(error) = self.credentials.refresh(&self.connection, lease.version, &self.egress).await {
            return Err(refresh_failed(&self.connection, &error));
        }
        let lease = self.lease().await?;
        let response = self.send(&lease).await?;
        Ok((lease.version, response))
    }

    async fn lease(&self) -> Result<Lease, CliError> {
        let method = self.method()?;
        let principal = tester(&self.connection);
        let question = Question {
            connection: &self.connection.id,
            target: &self.url.target,
            method: &method,
            path: &self.url.path,
        };
        let permit = policy::decide(&principal, &question).map_err(|denial| CliError::Denied(denial.to_string()))?;
        match self.credentials.lease(&permit, &self.connection, &self.egress).await {
            Ok(lease) => Ok(lease),
            Err(LeaseError::Sealed { source, .. }) => Err(source.into()),
            Err(LeaseError::Refresh { source, .. }) => Err(refresh_failed(&self.connection, &source)),
            Err(LeaseError::Timeout { connection }) => {
                Err(CliError::Unreachable(format!("the refresh of {connection} did not end in time")))
            }
            Err(error) => Err(CliError::Check(error.to_string())),
        }
    }

    async fn send(&self, lease: &Lease) -> Result<ClientResponse, CliError> {
        let choice = destination_for(&self.connection, &self.url.target, &self.url.path).ok_or_else(|| {
            CliError::Failed(format!("{} does not cover its own test request {}", self.connection.name, self.url))
        })?;
        let destination = choice.destination();
        let injection =
            destination.strategy.inject(&lease.fields).map_err(|error| CliError::Check(error.to_string()))?;
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::USER_AGENT, http::HeaderValue::from_static("nexus"));
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("*/*"));
        for (name, value) in &self.connection.frozen.default_headers {
            headers.insert(name.clone(), value.clone());
        }
        let url = apply(injection, &self.url, destination.path.as_str(), &mut headers)?;
        let client = HttpsClient::new(self.egress.clone());
        Ok(client.request(self.method()?, &url, headers, LARGEST_ANSWER, TIMEOUT).await?)
    }

    fn method(&self) -> Result<http::Method, CliError> {
        http::Method::from_bytes(self.request.method.as_bytes())
            .map_err(|_| CliError::Failed(format!("{:?} is not a method", self.request.method)))
    }
}

/// The person at the keyboard, as policy sees a caller: granted this connection and nothing else.
fn tester(connection: &Connection) -> Principal {
    Principal {
        scope: connection.scope.clone(),
        agent: AgentName::parse("nexus connection test").expect("the name is right"),
        run: None,
        token_id: None,
        issuer: None,
        grant: Arc::new(Grant { connections: vec![connection.id.clone()], ..Grant::default() }),
    }
}

/// Where the test request goes: a full URL as it is, a path under the first destination. Without a test of its own: the
/// base URL.
fn test_url(connection: &Connection, request: &TestRequest) -> Result<Url, CliError> {
    let broken =
        |error: String| CliError::Failed(format!("the test request of {} is broken: {error}", connection.name));
    if request.url.contains("://") {
        return Url::parse(request.url.as_bytes()).map_err(|error| broken(error.to_string()));
    }
    let (target, base) = connection.frozen.base_url().ok_or_else(|| {
        CliError::Usage(format!("{} covers a pattern of hosts and has no test request", connection.name))
    })?;
    let path = match &connection.frozen.test {
        Some(_) => CanonicalPath::parse(request.url.as_bytes()).map(|path| base.join(&path)),
        None => CanonicalPath::parse(if base.is_root() { "/" } else { base.as_str() }.as_bytes()),
    };
    Ok(Url { target, path: path.map_err(|error| broken(error.to_string()))? })
}

/// Puts the injection on the request that is about to be sent. The request is our own, so there is nothing of an
/// agent's to strip.
fn apply(injection: Injection, url: &Url, base: &str, headers: &mut http::HeaderMap) -> Result<Url, CliError> {
    let mut prefix = Secret::new(String::new());
    let mut query: Vec<Secret> = Vec::new();
    for edit in injection.edits {
        match edit {
            Edit::Header { name, value } => {
                headers.insert(name, value);
            }
            Edit::Query { pair } => query.push(pair),
            Edit::PathPrefix { prefix: given } => prefix = given,
        }
    }
    if prefix.is_empty() && query.is_empty() {
        return Ok(url.clone());
    }
    let rest = url.path.path().strip_prefix(base).unwrap_or(url.path.path());
    // The credential goes into the request line; this text is sent and not shown.
    let mut text = zeroize::Zeroizing::new(format!("{base}{}{rest}", prefix.expose()));
    let mut separator = '?';
    let own = url.path.query().into_iter().filter(|query| !query.is_empty());
    for pair in own.chain(query.iter().map(Secret::expose)) {
        text.push(separator);
        text.push_str(pair);
        separator = '&';
    }
    let path = CanonicalPath::parse(text.as_bytes())
        .map_err(|_| CliError::Check("the credential does not fit into a URL".to_owned()))?;
    Ok(Url { target: url.target.clone(), path })
}

fn refresh_failed(connection: &Connection, error: &RefreshError) -> CliError {
    let text = format!("the credential of {} could not be refreshed: {}", connection.name, super::describe(error));
    match error {
        RefreshError::Token(crate::credential::TokenError::Unreachable(_)) | RefreshError::Timeout => {
            CliError::Unreachable(text)
        }
        _ => CliError::Check(text),
    }
}

fn judge(context: &Context, attempt: &Attempt, version: u64, response: &ClientResponse) -> Result<(), CliError> {
    let problem = problem(&attempt.request, response, &set_command(&attempt.connection));
    output::print_object(
        context.format,
        &json!({
            "connection": attempt.connection.name.as_str(),
            "ok": problem.is_none(),
            "request": format!("{} {}", attempt.request.method, attempt.url),
            "status": response.status,
            "version": version,
            "problem": problem,
        }),
    )?;
    match problem {
        None => Ok(()),
        Some(problem) => Err(CliError::Check(format!("{}: {problem}", attempt.connection.name))),
    }
}

/// What is wrong with the answer. Without expectations of the provider's file any status below 400 is fine, and 404 and
/// 405 too: a base URL need not be a resource.
fn problem(request: &TestRequest, response: &ClientResponse, set_command: &str) -> Option<String> {
    let status = response.status;
    let is_expected = if request.expect_status.is_empty() {
        status < 400 || status == 404 || status == 405
    } else {
        request.expect_status.contains(&status)
    };
    if !is_expected {
        return Some(match status {
            401 | 403 => {
                format!("the API answered {status}: it does not take the credential; run: {set_command}")
            }
            _ => format!("the API answered {status}"),
        });
    }
    let path = request.expect_json.as_deref()?;
    // Read for one fact; nothing of it is kept or shown.
    let body: Option<Value> = response.body.as_ref().and_then(|body| serde_json::from_str(body.expose()).ok());
    let found = body.as_ref().and_then(|body| path.split('.').try_fold(body, |value, key| value.get(key)));
    match found {
        None | Some(Value::Null | Value::Bool(false)) => {
            Some(format!("the answer has no {path}: it was given to nobody"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn request(expect_status: &[u16], expect_json: Option<&str>) -> TestRequest {
        TestRequest {
            method: "GET".to_owned(),
            url: "/".to_owned(),
            expect_status: expect_status.to_vec(),
            expect_json: expect_json.map(str::to_owned),
        }
    }

    #[test]
    fn answers_are_judged() {
        for (name, request, status, body, is_fine) in [
            ("plain ok", request(&[], None), 200, "", true),
            ("base URL is no resource", request(&[], None), 404, "", true),
            ("refused", request(&[], None), 401, "", false),
            ("forbidden", request(&[], None), 403, "", false),
            ("broken", request(&[], None), 500, "", false),
            ("expected", request(&[204], None), 204, "", true),
            ("not the expected one", request(&[200], None), 204, "", false),
            ("json there", request(&[200], Some("user.id")), 200, r#"{"user":{"id":3}}"#, true),
            ("json null", request(&[200], Some("user.id")), 200, r#"{"user":{"id":null}}"#, false),
            ("json false", request(&[200], Some("ok")), 200, r#"{"ok":false}"#, false),
            ("json true", request(&[200], Some("ok")), 200, r#"{"ok":true}"#, true),
            ("not json", request(&[200], Some("ok")), 200, "<html>", false),
        ] {
            let body = Some(Secret::new(body.to_owned()));
            let response = ClientResponse { status, content_type: None, retry_after: None, max_age: None, body };
            assert_eq!(problem(&request, &response, "").is_none(), is_fine, "{name}");
        }
    }

    #[test]
    fn the_injection_goes_onto_the_request() {
        let secret = |text: &str| Secret::new(text.to_owned());
        for (name, edits, base, url, sent) in [
            ("nothing in the URL", vec![], "", "https://a.test/x?y=1", "/x?y=1"),
            ("query", vec![Edit::Query { pair: secret("k=v") }], "", "https://a.test/x", "/x?k=v"),
            ("second query", vec![Edit::Query { pair: secret("k=v") }], "", "https://a.test/x?y=1", "/x?y=1&k=v"),
            ("path", vec![Edit::PathPrefix { prefix: secret("/botT") }], "", "https://a.test/getMe", "/botT/getMe"),
            (
                "path under a base",
                vec![Edit::PathPrefix { prefix: secret("/k") }],
                "/v1",
                "https://a.test/v1/x",
                "/v1/k/x",
            ),
        ] {
            let url = Url::parse(url.as_bytes()).unwrap();
            let mut headers = http::HeaderMap::new();
            let applied = apply(Injection { edits }, &url, base, &mut headers).unwrap();
            assert_eq!(applied.path.as_str(), sent, "{name}");
        }
    }
}
