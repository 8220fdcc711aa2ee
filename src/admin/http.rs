//! Health, readiness and metrics over HTTP.

use crate::telemetry::Metrics;
use crate::types::{Host, Scheme, Target};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long open requests may take at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// What the endpoints need.
#[derive(Clone)]
pub struct AdminState {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What is not ready, as words; empty means ready. Asked at each `/readyz`.
    pub readiness: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// Serves until `shutdown` resolves. `Host` must be an IP address or `localhost` or the listen address (DNS rebinding:
/// else 421). Everything but the three paths is 404.
pub async fn serve_admin(
    listener: tokio::net::TcpListener,
    state: AdminState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (stopping, stopped) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // Nobody waits once the server has ended by itself.
        let _ = stopping.send(());
    };
    let overdue = async {
        // The sender is dropped only with the server.
        let _ = stopped.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = axum::serve(listener, router(state)).with_graceful_shutdown(shutdown) => {
            if let Err(error) = served {
                tracing::error!("the admin listener ended: {error}");
            }
        }
        () = overdue => {}
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "not_found", "use /healthz, /readyz or /metrics"))
        .method_not_allowed_fallback(async || refusal(StatusCode::METHOD_NOT_ALLOWED, "bad_request", "use GET"))
        .with_state(state)
        .layer(axum::middleware::from_fn(check_host))
}

async fn readiness(State(state): State<AdminState>) -> Response {
    let reasons = (state.readiness)();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

/// A page of another site can make a browser send requests here under that site's name; under an address it cannot.
async fn check_host(request: Request, next: Next) -> Response {
    let mut response = if is_local(&request) {
        next.run(request).await
    } else {
        refusal(StatusCode::MISDIRECTED_REQUEST, "misdirected", "use the admin listener's IP address or localhost")
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, const { axum::http::HeaderValue::from_static("no-store") });
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    response
}

const NOSNIFF: (HeaderName, axum::http::HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), axum::http::HeaderValue::from_static("nosniff"));

/// Whether every name that the request gives this server is an IP address or `localhost`.
fn is_local(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    [Some(host.as_bytes()), authority].into_iter().flatten().all(is_local_authority)
}

fn is_local_authority(authority: &[u8]) -> bool {
    Target::parse_authority(Scheme::Http, authority).is_ok_and(|target| match target.host {
        Host::Ip(_) => true,
        Host::Name(name) => &*name == "localhost",
    })
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}

#[cfg(test)]
mod tests;
