//! One request from its intake to its answer: route, decide, lease, record, connect, inject, send, and on the first 401
//! refresh and send once more.

use super::body::{Progress, RequestBody, ResponseBody};
use super::downstream::{AgentBody, Intake};
use super::finish::Record;
use super::hygiene;
use super::live::Asked;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::replay::Replay;
use super::response;
use super::scrub::Scrubber;
use super::upstream::{Outbound, without_agent_copies};
use crate::config::{Config, Limits, Snapshot, Unmatched};
use crate::connection::{Choice, RouteError};
use crate::credential::{Lease, RefreshError};
use crate::net::{Alpn, PoolKey, Upstream, UpstreamBody};
use crate::policy::{self, Permit};
use crate::strategy::Injection;
use crate::types::{Scheme, Target};
use http::{Response, StatusCode};
use http_body::Body;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bodies of unknown length are kept up to this size for a replay.
const UNKNOWN_LENGTH_KEPT: usize = 64 * 1024;

/// An authorised request: the connection that it uses, leave to use it, and its opened credential.
struct Authorized {
    choice: Choice,
    permit: Permit,
    lease: Lease,
}

/// Carries one request through. The record is started before the dial and given to the answer, which finishes it.
///
/// # Errors
/// A [`Rejection`]; the record is still the caller's then.
pub async fn exchange(
    plane: &Arc<Plane>,
    snapshot: &Arc<Snapshot>,
    record: &mut Option<Record>,
    mut intake: Intake,
) -> Result<Response<ResponseBody>, Rejection> {
    let this = record.as_mut().ok_or_else(Rejection::internal)?;
    policy::may_reach(&intake.principal, &intake.target.host)?;
    if plane.pseudonym.is_in(&intake.headers) {
        return Err(Rejection::new(Code::Loop, "the request came from this proxy", "check the proxy settings"));
    }
    let limits = &snapshot.config.limits;
    let tenant = intake.principal.scope.tenant.clone();
    let authorized = authorize(plane, snapshot, this, &mut intake).await?;

    let restricts_methods = intake.principal.grant.restricts_methods();
    let Intake { target, path, method, mut headers, body, upgrade, .. } = intake;
    let protocol = upgrade.is_some().then(|| http::HeaderValue::from_static("websocket"));
    let trailers = hygiene::asks_for_trailers(&headers);
    hygiene::clean_request(&mut headers);
    if restricts_methods {
        hygiene::remove_method_overrides(&mut headers);
    }
    let mut outbound = Outbound { method, target, path, headers, trailers, upgrade: protocol };
    let base = match &authorized {
        Some(Authorized { choice, .. }) => {
            let destination = choice.destination();
            hygiene::remove_agent_copies(&mut outbound.headers, &destination.strategy);
            hygiene::narrow_accept_encoding(&mut outbound.headers);
            for (name, value) in &choice.connection.frozen.default_headers {
                outbound.headers.entry(name).or_insert_with(|| value.clone());
            }
            destination.path.as_str().to_owned()
        }
        None => String::new(),
    };
    plane.pseudonym.add_to(&mut outbound.headers);

    let refreshable = authorized.as_ref().is_some_and(|authorized| authorized.lease.refreshable);
    let mut bodies = Bodies::new(plane, limits, body, refreshable, this.progress());
    let alpn = if outbound.upgrade.is_some() { Alpn::Http1 } else { Alpn::H2OrHttp1 };
    let key = PoolKey {
        tenant,
        connection: authorized.as_ref().map(|authorized| authorized.choice.connection.id.clone()),
        trust_root: snapshot.egress.trust_root(),
        target: outbound.target.clone(),
    };
    let mut route = Route { plane, snapshot, key, alpn, base };

    let Some(Authorized { choice, permit, lease }) = authorized else {
        let answer = route.send(this, outbound, &mut || Ok(Injection::default()), &mut bodies).await?;
        let record = record.take().ok_or_else(Rejection::internal)?;
        return Ok(response::pass_on(record, answer, None, limits, upgrade, plane));
    };
    let connection = Arc::clone(&choice.connection);
    let strategy = &choice.destination().strategy;
    let inject = |lease: &Lease| strategy.inject(&lease.fields).map_err(|_| Rejection::unusable(&connection));
    // Judged before anything is dialled: an unusable credential means that nothing is sent.
    drop(inject(&lease)?);
    this.credential_version(lease.version);

    let again = refreshable.then(|| outbound.clone());
    let answer = route.send(this, outbound, &mut || inject(&lease), &mut bodies).await?;
    let scrubber = |leases: &[&Lease]| {
        Some(Scrubber::new(leases.iter().flat_map(|lease| strategy.reflections(&lease.fields)).collect()))
    };
    let Some(again) = again.filter(|_| answer.status() == StatusCode::UNAUTHORIZED) else {
        if refreshable && answer.status() != StatusCode::UNAUTHORIZED {
            plane.credentials.worked(&connection, lease.version);
            bodies.forget();
        }
        let record = record.take().ok_or_else(Rejection::internal)?;
        return Ok(response::pass_on(record, answer, scrubber(&[&lease]), limits, upgrade, plane));
    };

    let Some(body) = bodies.again() else {
        // The body is gone, so this 401 is the agent's; the next request finds a fresh credential.
        let (plane, connection, egress) = (Arc::clone(plane), Arc::clone(&connection), Arc::clone(&snapshot.egress));
        let version = lease.version;
        let background = Arc::clone(&plane);
        tokio::spawn(async move {
            if let Err(error) = background.credentials.refresh(&connection, version, &egress).await {
                tracing::warn!(connection = %connection.name, "refresh after a 401 failed: {error}");
            }
        });
        let record = record.take().ok_or_else(Rejection::internal)?;
        return Ok(response::pass_on(record, answer, scrubber(&[&lease]), limits, upgrade, &plane));
    };
    match Box::pin(plane.credentials.refresh(&connection, lease.version, &snapshot.egress)).await {
        Ok(_) => {}
        Err(error) if matches!(*error, RefreshError::Timeout) => {
            return Err(Rejection::new(
                Code::RefreshTimeout,
                format!("the refresh of {} did not end in time", connection.name),
                "try again in a few seconds",
            ));
        }
        Err(error) => {
            tracing::warn!(connection = %connection.name, "refresh after a 401 failed: {error}");
            plane.credentials.refused(&connection, lease.version);
            let record = record.take().ok_or_else(Rejection::internal)?;
            let mut passed = response::pass_on(record, answer, scrubber(&[&lease]), limits, upgrade, plane);
            let value = http::HeaderValue::from_static("refresh_failed");
            passed.headers_mut().insert("x-nexus-error", value);
            return Ok(passed);
        }
    }
    drop(answer);
    let fresh = Box::pin(plane.credentials.lease(&permit, &connection, &snapshot.egress)).await?;
    this.credential_version(fresh.version);
    this.replayed();
    bodies.set_next(body);
    let answer = route.send(this, again, &mut || inject(&fresh), &mut bodies).await?;
    bodies.forget();
    if answer.status() == StatusCode::UNAUTHORIZED {
        plane.credentials.refused(&connection, fresh.version);
    } else {
        plane.credentials.worked(&connection, fresh.version);
    }
    let record = record.take().ok_or_else(Rejection::internal)?;
    Ok(response::pass_on(record, answer, scrubber(&[&lease, &fresh]), limits, upgrade, plane))
}

/// Routes, decides and leases; `None` when no connection covers the request and it may travel without a credential.
async fn authorize(
    plane: &Plane,
    snapshot: &Arc<Snapshot>,
    record: &mut Record,
    intake: &mut Intake,
) -> Result<Option<Authorized>, Rejection> {
    let routed = match &intake.routed {
        Some(choice) => Ok(choice.clone()),
        None => snapshot.routes.route(&intake.principal, intake.choice.as_deref(), &intake.target, &intake.path),
    };
    let choice = match routed {
        Ok(choice) => choice,
        Err(RouteError::None) if intake.choice.is_none() && may_pass_without(&snapshot.config, &intake.target) => {
            record.asks(snapshot, Asked::Bare(intake.target.clone()))?;
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    record.connection(&choice.connection);
    let destination = choice.destination();
    let (strategy, base) = (&destination.strategy, destination.path.as_str());
    // What is judged and recorded is what is sent, without the credential.
    intake.path = without_agent_copies(intake.path.clone(), strategy, base, intake.prefix_taken)?;
    record.path(&intake.path);
    let question = policy::Question {
        connection: &choice.connection.id,
        target: &intake.target,
        method: &intake.method,
        path: &intake.path,
    };
    let permit = policy::decide(&intake.principal, &question)?;
    let asked = Asked::With {
        connection: Arc::clone(&choice.connection),
        target: intake.target.clone(),
        method: intake.method.clone(),
        path: intake.path.clone(),
    };
    record.asks(snapshot, asked)?;
    let lease = Box::pin(plane.credentials.lease(&permit, &choice.connection, &snapshot.egress)).await?;
    let now = plane.clock.now();
    plane.usage.connection(&choice.connection.id, now);
    if let Some(token) = &intake.principal.token_id {
        plane.usage.token(token, now, record.client());
    }
    Ok(Some(Authorized { choice, permit, lease }))
}

/// Whether a request or tunnel to a host that no connection covers may go there without a credential.
#[must_use]
pub fn may_pass_without(config: &Config, target: &Target) -> bool {
    let egress = &config.egress;
    egress.unmatched == Unmatched::Tunnel
        && egress.allow_hosts.iter().any(|pattern| pattern.matches(&target.host))
        && (target.scheme == Scheme::Http && target.port == 80 || egress.connect_ports.contains(&target.port))
}

/// How attempts reach the upstream.
struct Route<'a> {
    plane: &'a Arc<Plane>,
    snapshot: &'a Arc<Snapshot>,
    key: PoolKey,
    alpn: Alpn,
    base: String,
}

type UpstreamAnswer = Response<UpstreamBody<RequestBody>>;

impl Route<'_> {
    /// One attempt; a second one over a new connection when a kept one turns out to be closed and nothing can have
    /// happened.
    async fn send(
        &mut self,
        record: &mut Record,
        outbound: Outbound,
        inject: &mut (dyn FnMut() -> Result<Injection, Rejection> + Send),
        bodies: &mut Bodies,
    ) -> Result<UpstreamAnswer, Rejection> {
        let upstream = self.upstream(record, true).await?;
        record.uncut()?;
        let spare = upstream.is_reused().then(|| outbound.clone());
        let failure = match self.attempt(upstream, outbound, inject, bodies).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if let (Some(spare), Failure::Broke { unsent }) = (spare, &failure)
            && (*unsent || spare.method.is_idempotent())
            && let Some(body) = bodies.again()
        {
            bodies.set_next(body);
            let upstream = self.upstream(record, false).await?;
            record.uncut()?;
            return self.attempt(upstream, spare, inject, bodies).await.map_err(|failure| self.rejection(failure));
        }
        Err(self.rejection(failure))
    }

    /// A connection to the upstream: a kept one, or a new one to a vetted address. The record is started first.
    async fn upstream(&self, record: &mut Record, may_reuse: bool) -> Result<Upstream<RequestBody>, Rejection> {
        let Self { plane, snapshot, key, alpn, .. } = self;
        if let Some(upstream) = may_reuse.then(|| plane.pool.checkout(key, *alpn)).flatten() {
            record.address(upstream.address());
            start(record).await?;
            return Ok(upstream);
        }
        let egress = &snapshot.egress;
        let addresses = Box::pin(egress.resolve(&key.target)).await.map_err(|error| refused(&error))?;
        start(record).await?;
        let connecting = plane.pool.connect(egress, key, &addresses, *alpn);
        let upstream = Box::pin(connecting).await.map_err(|error| refused(&error))?;
        record.address(upstream.address());
        Ok(upstream)
    }

    async fn attempt(
        &self,
        upstream: Upstream<RequestBody>,
        outbound: Outbound,
        inject: &mut (dyn FnMut() -> Result<Injection, Rejection> + Send),
        bodies: &mut Bodies,
    ) -> Result<UpstreamAnswer, Failure> {
        let injection = inject().map_err(Failure::Refused)?;
        let request = outbound
            .request(&upstream, injection, &self.base, bodies.next())
            .map_err(|_| Failure::Refused(Rejection::internal()))?;
        let limit = self.snapshot.config.limits.first_byte;
        let sending = upstream.send(request);
        let answer = match limit {
            None => sending.await,
            Some(limit) => match first_byte(sending, limit, &bodies.progress).await {
                Some(answer) => answer,
                None => return Err(Failure::Late),
            },
        };
        answer.map_err(|error| {
            if bodies.progress.has_failed() {
                return Failure::Agent;
            }
            tracing::debug!(target_host = %self.key.target.host, "an upstream broke off: {}", error.source);
            let unsent = error.unsent.is_some();
            if let Some(request) = error.unsent {
                bodies.set_next(request.into_body());
            }
            Failure::Broke { unsent }
        })
    }

    fn rejection(&self, failure: Failure) -> Rejection {
        let target = self.key.target.authority();
        match failure {
            Failure::Refused(rejection) => rejection,
            Failure::Agent => {
                Rejection::new(Code::BadRequest, "the request body is malformed or broke off", "send it whole")
                    .and_close()
            }
            Failure::Late => {
                Rejection::new(Code::UpstreamTimeout, format!("{target} did not answer in time"), "try again later")
            }
            Failure::Broke { .. } => Rejection::new(
                Code::UpstreamUnreachable,
                format!("{target} closed the connection without an answer"),
                "try again later",
            ),
        }
    }
}

/// Writes the `start` line, once a request.
async fn start(record: &mut Record) -> Result<(), Rejection> {
    if !record.has_started() {
        record.start().await?;
    }
    Ok(())
}

fn refused(error: &crate::net::NetError) -> Rejection {
    tracing::info!("an upstream could not be reached: {error}");
    Rejection::from(error)
}

/// Why an attempt gave no answer.
enum Failure {
    Refused(Rejection),
    Agent,
    Late,
    Broke { unsent: bool },
}

/// Waits for the answer's head, `limit` at most from the end of the request's body.
async fn first_byte<T>(sending: impl Future<Output = T>, limit: Duration, progress: &Progress) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    let mut deadline = Instant::now() + limit;
    let mut seen = (progress.bytes(), progress.is_done());
    loop {
        if let Ok(answer) = tokio::time::timeout_at(deadline, &mut sending).await {
            return Some(answer);
        }
        let now = (progress.bytes(), progress.is_done());
        if now.1 && now == seen {
            return None;
        }
        seen = now;
        deadline = Instant::now() + limit;
    }
}

/// The bodies of a request's attempts.
struct Bodies {
    next: Option<RequestBody>,
    replay: Option<Arc<Replay>>,
    fixed: Option<bytes::Bytes>,
    length: Option<u64>,
    progress: Arc<Progress>,
    empty: bool,
}

impl Bodies {
    fn new(plane: &Plane, limits: &Limits, body: AgentBody, refreshable: bool, progress: Arc<Progress>) -> Self {
        let mut bodies = Self { next: None, replay: None, fixed: None, length: None, progress, empty: false };
        let progress = Arc::clone(&bodies.progress);
        match body {
            AgentBody::Fixed(bytes) => {
                bodies.next = Some(RequestBody::fixed(bytes.clone(), progress));
                bodies.fixed = Some(bytes);
            }
            AgentBody::Live(incoming) if incoming.is_end_stream() => {
                bodies.empty = true;
                bodies.next = Some(RequestBody::nothing(progress));
            }
            AgentBody::Live(incoming) => {
                let length = incoming.size_hint().exact();
                let kept = match length.map(usize::try_from) {
                    None => Some(UNKNOWN_LENGTH_KEPT),
                    Some(Ok(length)) if length <= limits.replay_body => Some(length),
                    Some(_) => None,
                };
                bodies.length = length;
                bodies.next = Some(match kept.filter(|_| refreshable) {
                    None => RequestBody::live(incoming, progress),
                    Some(kept) => {
                        let replay = Replay::keep(incoming, kept, &plane.replay_budget, limits.replay_budget);
                        let first = replay.attempt();
                        bodies.replay = Some(replay);
                        first.map_or_else(
                            || RequestBody::nothing(Arc::clone(&progress)),
                            |body| RequestBody::replay(body, length, Arc::clone(&progress)),
                        )
                    }
                });
            }
        }
        bodies
    }

    fn next(&mut self) -> RequestBody {
        self.next.take().unwrap_or_else(|| RequestBody::nothing(Arc::clone(&self.progress)))
    }

    fn set_next(&mut self, body: RequestBody) {
        self.next = Some(body);
    }

    /// The same body from its start; `None` when it is not there any more.
    fn again(&mut self) -> Option<RequestBody> {
        let progress = || Arc::clone(&self.progress);
        if let Some(unsent) = self.next.take() {
            return Some(unsent);
        }
        if self.empty {
            return Some(RequestBody::nothing(progress()));
        }
        if let Some(bytes) = &self.fixed {
            return Some(RequestBody::fixed(bytes.clone(), progress()));
        }
        let body = self.replay.as_ref()?.attempt()?;
        Some(RequestBody::replay(body, self.length, progress()))
    }

    fn forget(&self) {
        if let Some(replay) = &self.replay {
            replay.forget();
        }
    }
}
