//! CONNECT: who asks, for where, and whether the tunnel is intercepted, blind or refused.

use super::blind;
use super::front::Front;
use super::wire::Wire;
use crate::audit::Way;
use crate::config::Snapshot;
use crate::identity::Principal;
use crate::proxy::body::ResponseBody;
use crate::proxy::downstream::{choice_of, proxy_proof};
use crate::proxy::engine::{Serving, serve_http1, serve_http2};
use crate::proxy::exchange::may_pass_without;
use crate::proxy::finish::Record;
use crate::proxy::handle;
use crate::proxy::live::Asked;
use crate::proxy::reject::{Code, Rejection};
use crate::proxy::{Closing, Entry, Tunnel};
use crate::types::{Scheme, Target};
use http::{Request, Response};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// A tunnel that will be.
enum Opening {
    Intercepted(Tunnel),
    Blind { target: Target, addresses: Vec<SocketAddr> },
}

/// Answers a CONNECT request and goes on with its stream.
pub(super) async fn connect(
    front: Arc<Front>,
    mut request: Request<Incoming>,
    entry: Arc<Entry>,
) -> Response<ResponseBody> {
    let mut record = Record::new(&front.plane, Way::Connect, entry.client);
    record.method(request.method());
    let snapshot = front.plane.loader.snapshot();
    // Of the tunnel that will be; the stream that carries the CONNECT ends with its answer.
    let closing = Arc::<Closing>::default();
    let progress = record.progress();
    let opened = tokio::select! {
        biased;
        cut = progress.fuse().until_cut() => Err(cut.into()),
        opened = open(&front, &snapshot, &entry, &mut record, &request, &closing) => opened,
    };
    match opened {
        Err(rejection) => {
            if let Some(decision) = &entry.decision {
                decision.stayed();
            }
            let response = rejection.response(Way::Connect, record.request_id());
            record.refuse(&rejection);
            response
        }
        Ok((opening, principal)) => {
            let counted = (principal.scope.clone(), snapshot.directory.tokens.first_agent(&principal));
            let Some(slot) = front.tunnels.open(counted, snapshot.config.limits.tunnels_per_agent) else {
                if let Some(decision) = &entry.decision {
                    decision.stayed();
                }
                let rejection = Rejection::new(
                    Code::RateLimited,
                    "this agent has as many open tunnels as limits.tunnels_per_agent allows",
                    "close tunnels that are not used",
                );
                let response = rejection.response(Way::Connect, record.request_id());
                record.refuse(&rejection);
                return response;
            };
            if let Some(decision) = &entry.decision {
                decision.switched();
            }
            let upgrade = hyper::upgrade::on(&mut request);
            let client = entry.client;
            front.plane.tasks.clone().spawn(async move {
                let _slot = slot;
                let Ok(upgraded) = upgrade.await else { return record.abort("client_gone") };
                match Wire::of(upgraded) {
                    Wire::Raw(stream) => carry(front, snapshot, record, opening, stream, client, closing).await,
                    Wire::Tls(stream) => carry(front, snapshot, record, opening, stream, client, closing).await,
                    Wire::Stream(stream) => carry(front, snapshot, record, opening, stream, client, closing).await,
                }
            });
            Response::new(ResponseBody::empty())
        }
    }
}

/// What a tunnel is for, on whatever stream it runs.
async fn carry<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    front: Arc<Front>,
    snapshot: Arc<Snapshot>,
    record: Record,
    opening: Opening,
    stream: S,
    client: Option<SocketAddr>,
    closing: Arc<Closing>,
) {
    match opening {
        Opening::Intercepted(tunnel) => intercept(front, snapshot, record, stream, tunnel, client, closing).await,
        Opening::Blind { target, addresses } => {
            front.plane.metrics.tunnel_opened(false);
            blind::run(&front.plane, &snapshot, record, stream, &target, &addresses).await;
            front.plane.metrics.tunnel_closed(false);
        }
    }
}

async fn open(
    front: &Front,
    snapshot: &Snapshot,
    entry: &Entry,
    record: &mut Record,
    request: &Request<Incoming>,
    closing: &Arc<Closing>,
) -> Result<(Opening, Principal), Rejection> {
    if front.plane.draining.is_cancelled() {
        return Err(Rejection::new(Code::Overloaded, "the proxy is shutting down", "connect again").and_close());
    }
    let authority = request.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
    let target = Target::parse_connect(authority.as_bytes())?;
    for host in request.headers().get_all(http::header::HOST) {
        // Some clients leave the port out of Host.
        let host = Target::parse_authority(Scheme::Https, host.as_bytes())?;
        if host.host != target.host {
            return Err(
                Rejection::new(Code::BadAuthority, "Host differs from the CONNECT target", "send one host").and_close()
            );
        }
    }
    record.target(&target);
    let (proof, principal, user_choice) =
        proxy_proof(&front.plane, snapshot, record.client(), request.headers(), entry.standing.as_ref()).await?;
    record.principal(&principal);
    entry.close.known();
    record.watch(snapshot, &proof, Asked::Nothing, closing)?;
    if front.plane.pseudonym.is_in(request.headers()) {
        return Err(Rejection::new(Code::Loop, "the request came from this proxy", "check the proxy settings"));
    }
    crate::policy::may_reach(&principal, &target.host)?;
    let choice = choice_of(request.headers())?.or(user_choice);
    if snapshot.routes.covers_host(&principal, &target) {
        record.asks(snapshot, Asked::Tunnel)?;
        let tunnel = Tunnel { target, proof, opened_by: principal.clone(), choice };
        return Ok((Opening::Intercepted(tunnel), principal));
    }
    if !may_pass_without(&snapshot.config, &target) || choice.is_some() {
        return Err(Rejection::from(crate::connection::RouteError::None));
    }
    record.asks(snapshot, Asked::Bare(target.clone()))?;
    let addresses = snapshot.egress.resolve(&target).await.map_err(|error| Rejection::from(&error))?;
    Ok((Opening::Blind { target, addresses }, principal))
}

/// The TLS handshake as the host, and the requests inside.
async fn intercept<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    front: Arc<Front>,
    snapshot: Arc<Snapshot>,
    mut record: Record,
    stream: S,
    tunnel: Tunnel,
    client: Option<SocketAddr>,
    closing: Arc<Closing>,
) {
    // Held to the tunnel's end: as long it is under way.
    let progress = record.progress();
    let limits = &snapshot.config.limits;
    let Ok(config) = front.leaves.config(&tunnel.target.host) else {
        return record.refuse(&Rejection::new(Code::BadAuthority, "the host does not fit a certificate", ""));
    };
    let accepting = tokio::time::timeout(limits.header_time, TlsAcceptor::from(config).accept(stream));
    let accepted = tokio::select! {
        biased;
        cut = progress.fuse().until_cut() => return record.abort(cut.as_str()),
        accepted = accepting => accepted,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(host = %tunnel.target.host, "TLS with an agent failed: {error}");
            let reason = "TLS with the agent failed: it names another host, or does not trust the CA";
            return record.refuse(&Rejection::new(Code::Misdirected, reason, ""));
        }
        Err(_) => return record.abort("tls_handshake_timeout"),
    };
    // The requests inside have records of their own.
    record.forget();
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let entry = Entry {
        client,
        tunnel: Some(Arc::new(tunnel)),
        is_private: true,
        is_tls: false,
        standing: None,
        decision: None,
        close: closing,
    };
    let serving = Serving {
        head: Front::head_limits(limits),
        head_time: limits.header_time,
        first_head_is_due: false,
        idle: None,
        draining: front.plane.draining.clone(),
        ending: front.plane.ending.clone(),
    };
    let plane = Arc::clone(&front.plane);
    plane.metrics.tunnel_opened(true);
    let metrics = Arc::clone(&plane.metrics);
    let handle = move |request, entry| handle(Arc::clone(&plane), entry, request);
    if is_h2 {
        serve_http2(stream, entry, serving, handle).await;
    } else {
        serve_http1(stream, entry, serving, handle).await;
    }
    metrics.tunnel_closed(true);
}
