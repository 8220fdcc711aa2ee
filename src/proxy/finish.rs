//! The one exit of a request: its terminal audit line and its metrics.

use super::body::Progress;
use super::live::{Asked, Cut, Side};
use super::plane::Plane;
use super::reject::Rejection;
use super::tokens::mask_tokens;
use super::tunnel::Closing;
use crate::audit::{AuditError, Event, Kind, Way};
use crate::config::Snapshot;
use crate::connection::Connection;
use crate::identity::{Principal, Proof};
use crate::telemetry::Decision;
use crate::types::{CanonicalPath, RequestId, Scheme, Target, TokenId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What is known of a request so far. Dropped without an end, it writes `aborted`.
pub struct Record {
    plane: Arc<Plane>,
    event: Box<Event>,
    way: Way,
    client: Option<SocketAddr>,
    started: Instant,
    sent: Option<Instant>,
    progress: Arc<Progress>,
    response_bytes: u64,
    done: bool,
}

impl Record {
    /// Of a request that has just come in.
    #[must_use]
    pub fn new(plane: &Arc<Plane>, way: Way, client: Option<SocketAddr>) -> Self {
        let mut event = Event::new(Kind::Start, RequestId::generate());
        event.way = Some(way);
        event.client = client.map(|client| client.to_string());
        Self {
            plane: Arc::clone(plane),
            event: Box::new(event),
            way,
            client,
            started: Instant::now(),
            sent: None,
            progress: Arc::default(),
            response_bytes: 0,
            done: false,
        }
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        &self.event.request_id
    }

    /// How it came in.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// Corrects how it came in.
    pub fn set_way(&mut self, way: Way) {
        self.way = way;
        self.event.way = Some(way);
    }

    /// The caller's address.
    #[must_use]
    pub fn client(&self) -> Option<std::net::IpAddr> {
        self.client.map(|client| client.ip())
    }

    /// The counter of the request body's bytes.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The method, as sent.
    pub fn method(&mut self, method: &http::Method) {
        self.event.method = Some(method.as_str().to_owned());
    }

    /// Where it goes.
    pub fn target(&mut self, target: &Target) {
        self.event.scheme = Some(match target.scheme {
            Scheme::Http => "http".to_owned(),
            Scheme::Https => "https".to_owned(),
        });
        self.event.host = Some(target.host.to_string());
        self.event.port = Some(target.port);
    }

    /// The path, after agent tokens were taken out of it and before a credential goes into it.
    pub fn path(&mut self, path: &CanonicalPath) {
        self.event.path = Some(mask_tokens(path.path()));
        self.event.query_keys = path
            .query()
            .into_iter()
            .flat_map(|query| query.split('&'))
            .filter(|pair| !pair.is_empty())
            .map(|pair| mask_tokens(pair.split('=').next().unwrap_or_default()))
            .collect();
    }

    /// Who calls.
    pub fn principal(&mut self, principal: &Principal) {
        self.event.tenant = Some(principal.scope.tenant.to_string());
        self.event.namespace = Some(principal.scope.namespace.to_string());
        self.event.agent = Some(principal.agent.to_string());
        self.event.run = principal.run.as_ref().map(ToString::to_string);
        self.event.token_id = principal.token_id.as_ref().map(ToString::to_string);
        self.event.issuer = principal.issuer.as_ref().map(ToString::to_string);
    }

    /// The caller was recognised by `proof` in `used`: from now on it is under way, and cut when the proof is no good
    /// any more.
    ///
    /// # Errors
    /// When that is so already.
    pub fn watch(&self, used: &Snapshot, proof: &Proof, asked: Asked, closing: &Arc<Closing>) -> Result<(), Rejection> {
        let enter = || self.plane.live.enter(proof.clone(), asked, &self.progress, closing);
        self.progress.watch().get_or_init(enter);
        self.judge(used)
    }

    /// What it does is known.
    ///
    /// # Errors
    /// When it may not any more.
    pub fn asks(&self, used: &Snapshot, asked: Asked) -> Result<(), Rejection> {
        if let Some(watch) = self.progress.watch().get() {
            watch.set_asked(asked);
        }
        self.judge(used)
    }

    /// Whoever published a newer snapshot than `used` may have looked before this was there.
    fn judge(&self, used: &Snapshot) -> Result<(), Rejection> {
        let current = self.plane.loader.snapshot();
        if !std::ptr::eq(Arc::as_ptr(&current), used)
            && let Some(watch) = self.progress.watch().get()
            && let Some(cut) = watch.judge(&current, self.plane.clock.now())
        {
            return Err(cut.into());
        }
        self.uncut()
    }

    /// # Errors
    /// When it was cut.
    pub fn uncut(&self) -> Result<(), Rejection> {
        self.progress.fuse().cut().map_or(Ok(()), |cut| Err(cut.into()))
    }

    /// Ready when it was cut.
    pub(super) fn poll_cut(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Cut> {
        self.progress.fuse().poll_cut(Side::Agent, cx)
    }

    /// With which connection.
    pub fn connection(&mut self, connection: &Connection) {
        self.event.connection = Some(connection.name.to_string());
        self.event.connection_id = Some(connection.id.to_string());
    }

    /// With which version of the credential.
    pub fn credential_version(&mut self, version: u64) {
        self.event.credential_version = Some(version);
    }

    /// Which token the request made.
    pub fn minted(&mut self, token: &TokenId) {
        self.event.minted_token_id = Some(token.to_string());
    }

    /// The server name of a tunnel.
    pub fn sni(&mut self, sni: &str) {
        self.event.sni = Some(sni.to_owned());
    }

    /// The dialled address.
    pub fn address(&mut self, address: SocketAddr) {
        self.event.address = Some(address.to_string());
    }

    /// The request was sent again after a refresh.
    pub fn replayed(&mut self) {
        self.event.replayed = true;
    }

    /// The answer's head came.
    pub fn answered(&mut self, status: http::StatusCode) {
        self.event.status = Some(status.as_u16());
    }

    /// Body bytes went to the agent.
    pub fn add_response_bytes(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// Writes the `start` line. Only after it may anything be dialled or sent.
    ///
    /// # Errors
    /// [`AuditError`]: nothing must be sent.
    pub async fn start(&mut self) -> Result<(), AuditError> {
        let result = self.plane.spool.start(&mut *self.event).await;
        self.plane.metrics.audit_written(result.is_ok());
        result?;
        self.sent = Some(Instant::now());
        Ok(())
    }

    /// Whether the `start` line was written.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.sent.is_some()
    }

    /// The request was refused, or failed before an answer came.
    pub fn refuse(&mut self, rejection: &Rejection) {
        self.event.status = Some(rejection.status(self.way).as_u16());
        let cut = self.progress.fuse().cut();
        self.event.reason = Some(cut.map_or(rejection.code.as_str(), Cut::as_str).to_owned());
        let kind = if self.has_started() { Kind::Aborted } else { Kind::Denied };
        self.terminal(kind);
    }

    /// The answer went to the agent whole.
    pub fn end(&mut self, redacted: u64) {
        if redacted > 0 && !self.done {
            self.event.redacted = Some(redacted);
            self.plane.metrics.redacted(redacted);
        }
        self.terminal(Kind::End);
    }

    /// The request was begun and broke off.
    pub fn abort(&mut self, reason: &'static str) {
        self.event.reason = Some(reason.to_owned());
        self.terminal(Kind::Aborted);
    }

    /// A tunnel or upgraded connection ended; its bytes were counted on the way.
    pub fn end_stream(&mut self) {
        self.terminal(Kind::End);
    }

    /// Nothing is to be written: the requests inside a tunnel have records of their own.
    pub fn forget(mut self) {
        self.done = true;
    }

    fn terminal(&mut self, kind: Kind) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let total = self.started.elapsed();
        let event = &mut self.event;
        event.event = kind;
        event.duration_ms = Some(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
        let request_bytes = self.progress.bytes();
        self.response_bytes += self.progress.to_agent();
        if self.sent.is_some() {
            event.request_bytes = Some(request_bytes);
            event.response_bytes = Some(self.response_bytes);
        }
        let decision = match kind {
            Kind::Denied => Decision::Denied,
            _ if self.way == Way::Mint => Decision::Answered,
            _ if event.connection.is_some() => Decision::Injected,
            _ => Decision::Tunnelled,
        };
        let overhead = self.sent.map(|sent| sent.duration_since(self.started));
        let status = event.status;
        self.plane.metrics.request_finished(decision, status, total, overhead, request_bytes, self.response_bytes);
        let spent = Event::new(kind, event.request_id.clone());
        let event = std::mem::replace(&mut **event, spent);
        self.plane.spool.finish(event);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.done {
            self.abort(if let Some(cut) = self.progress.fuse().cut() {
                cut.as_str()
            } else if std::thread::panicking() {
                "internal_error"
            } else if self.plane.ending.is_cancelled() {
                "shutting_down"
            } else {
                "client_gone"
            });
        }
    }
}
