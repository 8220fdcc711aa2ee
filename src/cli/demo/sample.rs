//! The far side of the demo: an HTTPS API, its token endpoint, and a host that nobody should reach, on loopback.
//!
//! They stand for servers on the internet, so they are hyper and rcgen directly and nothing of the proxy's own HTTP or
//! TLS. Everything that reaches them is kept, because the demo compares it with what it claims.

use crate::cli::CliError;
use crate::secret::{Secret, random_bytes};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The sample API's name.
pub(super) const API: &str = "api.demo.test";
/// The token endpoint's name.
pub(super) const AUTH: &str = "auth.demo.test";
/// The name of the host that no connection covers.
pub(super) const OTHER: &str = "other.demo.test";

/// A request as the API got it.
pub(super) struct Seen {
    /// Method and path.
    pub(super) line: String,
    /// All headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Bytes,
    /// What the API answered.
    pub(super) status: StatusCode,
}

/// The values that the API and its token endpoint know. Made for one demo, worth nothing after it.
pub(super) struct Known {
    /// The API key of `/files`.
    pub(super) api_key: Secret,
    /// The access token of `/mail` that has expired.
    pub(super) expired: Secret,
    /// What the token endpoint gives a new access token for.
    pub(super) refresh_token: Secret,
    /// That new access token.
    pub(super) fresh: Secret,
}

/// What the servers share.
pub(super) struct Shared {
    /// The values.
    pub(super) known: Known,
    seen: Mutex<Vec<Seen>>,
    refreshes: AtomicUsize,
    dialled: AtomicUsize,
}

impl Shared {
    /// What the API got since this was last asked.
    pub(super) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock())
    }

    /// How many access tokens were given out.
    pub(super) fn refreshes(&self) -> usize {
        self.refreshes.load(Ordering::SeqCst)
    }

    /// How often anybody connected to the host that no connection covers.
    pub(super) fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }
}

/// The running servers; they end when this is dropped.
pub(super) struct Sample {
    /// The API's port.
    pub(super) api_port: u16,
    /// The token endpoint's port.
    pub(super) auth_port: u16,
    /// The port of the host that no connection covers.
    pub(super) other_port: u16,
    /// The CA that the servers' certificates come from.
    pub(super) ca: String,
    /// What they know and keep.
    pub(super) shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Sample {
    /// Starts them on free ports.
    pub(super) async fn start() -> Result<Self, CliError> {
        let (ca, tls) = certificates().map_err(|error| CliError::Failed(format!("sample certificates: {error}")))?;
        let known = Known {
            api_key: random_value("sk_demo_"),
            expired: random_value("at_old_"),
            refresh_token: random_value("rt_demo_"),
            fresh: random_value("at_new_"),
        };
        let (seen, refreshes, dialled) = Default::default();
        let shared = Arc::new(Shared { known, seen, refreshes, dialled });
        let (api, api_port) = listen().await?;
        let (auth, auth_port) = listen().await?;
        let (other, other_port) = listen().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(api, tls.clone(), Arc::clone(&shared), answer_api));
        tasks.spawn(serve(auth, tls, Arc::clone(&shared), answer_auth));
        let counted = Arc::clone(&shared);
        tasks.spawn(async move {
            while other.accept().await.is_ok() {
                counted.dialled.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { api_port, auth_port, other_port, ca, shared, _tasks: tasks })
    }
}

fn random_value(prefix: &str) -> Secret {
    Secret::new(random_bytes::<16>().iter().fold(prefix.to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// A CA in PEM, and the TLS settings of a server with a certificate from it.
fn certificates() -> Result<(String, TlsAcceptor), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "nexus demo API CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![API.to_owned(), AUTH.to_owned()])?.signed_by(&leaf_key, &issuer)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(leaf_key.serialize_der())?)?;
    Ok((ca, TlsAcceptor::from(Arc::new(config))))
}

async fn listen() -> Result<(TcpListener, u16), CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(CliError::io("127.0.0.1:0"))?;
    let port = listener.local_addr().map_err(CliError::io("127.0.0.1:0"))?.port();
    Ok((listener, port))
}

type Answer = fn(&Shared, &http::request::Parts, &Bytes) -> Response<Full<Bytes>>;

/// Accepts until it is dropped, and its connections with it.
async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>, answer: Answer) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let shared = Arc::clone(&shared);
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    Ok::<_, Infallible>(answer(&shared, &parts, &body))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// `/files/*` wants the API key, `/mail/*` the fresh access token; `/files/reflect` sends back what it got.
fn answer_api(shared: &Shared, parts: &http::request::Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let path = parts.uri.path();
    let got = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wanted = if path.starts_with("/mail/") { &shared.known.fresh } else { &shared.known.api_key };
    // Exposed to be compared, which is what an API does with it. `fresh` counts only once it was given out.
    let knows =
        got.strip_prefix("Bearer ") == Some(wanted.expose()) && (path.starts_with("/files/") || shared.refreshes() > 0);
    let mut response = match (knows, path) {
        (false, _) => reply(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid or expired token" })),
        (true, "/files/reflect") => reply(StatusCode::OK, &json!({ "your_authorization": got })),
        (true, "/files/hello") => reply(StatusCode::OK, &json!({ "hello": "world" })),
        (true, "/mail/send") => reply(StatusCode::OK, &json!({ "sent": true })),
        (true, _) => reply(StatusCode::NOT_FOUND, &json!({ "error": "not found" })),
    };
    if path == "/files/reflect"
        && let Some(value) = parts.headers.get(AUTHORIZATION)
    {
        response.headers_mut().insert("x-your-authorization", value.clone());
    }
    shared.seen.lock().push(Seen {
        line: format!("{} {path}", parts.method),
        headers: parts.headers.clone(),
        body: body.clone(),
        status: response.status(),
    });
    response
}

/// A token endpoint (RFC 6749 section 6) with one client and one grant.
fn answer_auth(shared: &Shared, _: &http::request::Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let form = String::from_utf8_lossy(body);
    let has = |name: &str, value: &str| form.split('&').any(|pair| pair.split_once('=') == Some((name, value)));
    // Exposed to be compared, which is what a token endpoint does with it.
    let is_right = has("grant_type", "refresh_token") && has("refresh_token", shared.known.refresh_token.expose());
    if !is_right {
        return reply(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_grant" }));
    }
    shared.refreshes.fetch_add(1, Ordering::SeqCst);
    // Exposed to be given to the client, which is what the endpoint is for.
    let token = shared.known.fresh.expose();
    reply(StatusCode::OK, &json!({ "access_token": token, "token_type": "bearer", "expires_in": 3_600 }))
}

fn reply(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
