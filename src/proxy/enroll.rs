//! `POST /v1/enroll` and `/v1/enroll/renew`: a client certificate for the key of a certificate request, against the
//! one-time code of an invitation, or against the certificate that is about to end. TLS listeners only.

use super::body::ResponseBody;
use super::call::collect;
use super::downstream::authenticate;
use super::finish::Record;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::tunnel::Entry;
use crate::config::Snapshot;
use crate::identity::{AgentAuthority, CertificateRequest, Principal, Proof, certificate_name};
use crate::secret::{EnrolmentCode, Secret, TokenDigest};
use crate::store::{Store, StoreError};
use crate::types::UnixSeconds;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

/// The largest request that is read. Certificate requests have some kilobytes.
const LARGEST: usize = 16 * 1024;

/// How long a certificate lives when nothing is asked for.
const LIFETIME: i64 = 86_400;

/// How long one lives at most.
const LONGEST: i64 = 365 * 86_400;

/// Clocks differ; a certificate begins this much before it is made.
const CLOCK_SKEW: i64 = 300;

/// What certificates are issued with.
pub struct Enrolment {
    /// Where invitations are.
    pub store: Arc<dyn Store>,
    /// The CA of agents.
    pub authority: AgentAuthority,
    /// The interception CA, PEM, which the agent's programs have to trust.
    pub interception: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default, deserialize_with = "secret")]
    code: Option<Secret>,
    csr: String,
    ttl_seconds: Option<i64>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(<Option<String> as serde::Deserialize>::deserialize(deserializer)?.map(Secret::new))
}

/// What the caller comes with.
enum Right {
    Invitation(TokenDigest),
    Certificate,
}

/// Issues a certificate.
///
/// # Errors
/// A [`Rejection`].
pub(super) async fn enroll(
    plane: &Arc<Plane>,
    snapshot: &Arc<Snapshot>,
    entry: &Entry,
    record: &mut Option<Record>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Rejection> {
    let this = record.as_mut().ok_or_else(Rejection::internal)?;
    this.method(request.method());
    let (parts, body) = request.into_parts();
    let is_renewal = parts.uri.path().ends_with("/renew");
    let (principal, right, asked) = if is_renewal {
        // Before anything of the body is looked at: this caller has proved itself already.
        let proof = match &entry.standing {
            Some(proof @ Proof::Certificate(certificate)) if certificate.record.is_some() => proof.clone(),
            _ => return Err(Rejection::auth_required()),
        };
        let principal = authenticate(plane, snapshot, this.client(), &proof).await?;
        (principal, Right::Certificate, read(&parts.method, body).await?)
    } else {
        let turn = entry.close.enrol().ok_or_else(|| {
            Rejection::new(Code::RateLimited, "another enrolment is under way on this connection", "await its answer")
        })?;
        let asked = read(&parts.method, body).await?;
        drop(turn);
        // Exposed to look it up by its digest.
        let code = asked.code.as_ref().map(Secret::expose).filter(|code| EnrolmentCode::has_form(code));
        let digest = EnrolmentCode::digest(code.ok_or_else(Rejection::auth_required)?);
        let principal = authenticate(plane, snapshot, this.client(), &Proof::Code(digest)).await?;
        (principal, Right::Invitation(digest), asked)
    };
    this.principal(&principal);
    entry.close.known();
    // Before the code is used up.
    let request = CertificateRequest::parse(&asked.csr).map_err(|error| {
        Rejection::new(
            Code::BadRequest,
            error.to_string(),
            "send csr as PEM, made with `nexus agent enroll` or openssl",
        )
    })?;
    let lifetime = asked.ttl_seconds.unwrap_or(LIFETIME);
    if !(60..=LONGEST).contains(&lifetime) {
        return Err(Rejection::new(
            Code::BadRequest,
            "ttl_seconds is not between one minute and one year",
            "leave it out for 24 hours",
        ));
    }
    this.start().await?;
    let now = plane.clock.now();
    if let Right::Invitation(digest) = right {
        redeem(plane, digest, now).await?;
    }
    let answer = issue(plane, snapshot, &principal, &request, now, lifetime)?;
    let mut record = record.take().ok_or_else(Rejection::internal)?;
    record.answered(StatusCode::OK);
    record.end(0);
    Ok(answer)
}

async fn read(method: &Method, body: Incoming) -> Result<Asked, Rejection> {
    if *method != Method::POST {
        return Err(Rejection::new(Code::BadRequest, "enrolments are POST requests", "POST a JSON object"));
    }
    let text = collect(body, LARGEST, "the request").await?;
    // The parser's own message may repeat the code.
    serde_json::from_slice(&text).map_err(|error| {
        Rejection::new(
            Code::BadRequest,
            format!("the request is not valid JSON of its form (line {}, column {})", error.line(), error.column()),
            "send {code, csr, ttl_seconds}, and no code to renew",
        )
    })
}

async fn redeem(plane: &Plane, code: TokenDigest, now: UnixSeconds) -> Result<(), Rejection> {
    match plane.enrolment.store.redeem_code(code, now).await {
        Ok(_) => Ok(()),
        // Somebody was faster.
        Err(StoreError::NotFound { .. }) => {
            plane.metrics.authentication_failed();
            Err(Rejection::auth_required())
        }
        Err(error) => {
            tracing::error!("an enrolment could not be stored: {error}");
            Err(Rejection::new(
                Code::Overloaded,
                "the store cannot be written",
                "try again later; the code still works",
            ))
        }
    }
}

fn issue(
    plane: &Plane,
    snapshot: &Snapshot,
    principal: &Principal,
    request: &CertificateRequest,
    now: UnixSeconds,
    lifetime: i64,
) -> Result<Response<ResponseBody>, Rejection> {
    let enrolment = &plane.enrolment;
    let token_id = principal.token_id.as_ref().ok_or_else(Rejection::internal)?;
    let end = snapshot.directory.tokens.end_of(token_id).unwrap_or(UnixSeconds::MAX);
    let not_after = now.saturating_add(lifetime).min(end).min(enrolment.authority.not_after());
    let name = certificate_name(enrolment.store.install_id(), token_id);
    let certificate = enrolment
        .authority
        .issue(request, &name, &principal.agent, now.saturating_sub(CLOCK_SKEW)..not_after)
        .map_err(|error| {
            tracing::error!("a certificate could not be issued: {error}");
            Rejection::internal()
        })?;
    let text = serde_json::json!({
        "token_id": token_id.as_str(),
        "agent": principal.agent.as_str(),
        "not_after": jiff::Timestamp::from_second(not_after).map(|time| time.to_string()).ok(),
        "certificate": certificate + enrolment.authority.certificate(),
        "ca": enrolment.interception,
    });
    let mut response = Response::new(ResponseBody::text(text.to_string() + "\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
