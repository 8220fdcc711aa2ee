//! The answer on its way back: hygiene, scrubbing, upgrades.

use super::body::{Answer, RequestBody, ResponseBody};
use super::finish::Record;
use super::hygiene;
use super::plane::Plane;
use super::reject::{Code, Rejection};
use super::scrub::{Gunzip, Scrubber};
use crate::config::Limits;
use crate::net::UpstreamBody;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode};
use http_body::Body;
use hyper_util::rt::TokioIo;
use std::sync::Arc;

/// How a body is coded.
enum Coding {
    Identity,
    Gzip,
    Other,
}

/// Turns an upstream's answer into the agent's. With a credential, the answer is scrubbed; when its coding hides what to
/// look for, a refusal (502) stands in its place and the record is finished with it.
pub fn pass_on(
    mut record: Record,
    answer: Response<UpstreamBody<RequestBody>>,
    scrubber: Option<Scrubber>,
    limits: &Limits,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    plane: &Arc<Plane>,
) -> Response<ResponseBody> {
    let (mut parts, mut body) = answer.into_parts();
    record.answered(parts.status);
    if !record.progress().is_done() && parts.status != StatusCode::SWITCHING_PROTOCOLS {
        body.detach();
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(record, parts.headers, body, scrubber, upgrade, plane);
    }
    let coding = coding(&parts.headers);
    hygiene::clean_response(&mut parts.headers);
    let mut answer = Answer::new(body, record);
    if !answer.body.is_end_stream() && !length_is_true(&parts.headers, &answer.body) {
        parts.headers.remove(CONTENT_LENGTH);
    }
    answer.idle = limits.stream_idle;
    answer.trailers =
        parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if let Some(mut scrubber) = scrubber {
        // A cookie is a credential that the agent would hold.
        parts.headers.remove(SET_COOKIE);
        scrubber.scrub_headers(&mut parts.headers);
        match coding {
            Coding::Identity => {}
            Coding::Gzip => {
                parts.headers.remove(CONTENT_ENCODING);
                if !answer.body.is_end_stream() {
                    parts.headers.remove(CONTENT_LENGTH);
                    answer.gunzip = Some(Gunzip::default());
                }
            }
            Coding::Other if answer.body.is_end_stream() => {}
            Coding::Other => {
                let rejection = Rejection::new(
                    Code::UpstreamEncoding,
                    "the answer has a content coding in which reflected credentials cannot be looked for",
                    "ask for identity or gzip",
                );
                answer.record.refuse(&rejection);
                return rejection.response(answer.record.way(), answer.record.request_id());
            }
        }
        answer.scrubber = Some(scrubber);
    }
    let mut response = Response::new(ResponseBody::answer(answer));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// Whether Content-Length, if there is one, is the length of the body that comes (RFC 9112 section 6.3).
fn length_is_true(headers: &http::HeaderMap, body: &UpstreamBody<RequestBody>) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            length.is_some() && body.size_hint().exact() == length
        }
        _ => false,
    }
}

fn coding(headers: &http::HeaderMap) -> Coding {
    let hop_by_hop = headers.get_all(TRANSFER_ENCODING).iter().collect::<Vec<_>>();
    if hop_by_hop.len() > 1 || hop_by_hop.iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Coding::Other;
    }
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Coding::Identity,
        (Some(value), None) => match value.as_bytes().trim_ascii() {
            value if value.is_empty() || value.eq_ignore_ascii_case(b"identity") => Coding::Identity,
            value if value.eq_ignore_ascii_case(b"gzip") || value.eq_ignore_ascii_case(b"x-gzip") => Coding::Gzip,
            _ => Coding::Other,
        },
        _ => Coding::Other,
    }
}

/// The upstream switched protocols: hand both streams to each other.
fn switch(
    mut record: Record,
    mut headers: http::HeaderMap,
    body: UpstreamBody<RequestBody>,
    scrubber: Option<Scrubber>,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    plane: &Arc<Plane>,
) -> Response<ResponseBody> {
    let is_websocket = headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let (Some(upgrade), true) = (upgrade, is_websocket) else {
        let rejection = Rejection::new(
            Code::UpstreamUnreachable,
            "the upstream switched to a protocol that was not asked for",
            "report this to the upstream",
        );
        record.refuse(&rejection);
        return rejection.response(record.way(), record.request_id());
    };
    hygiene::clean_response(&mut headers);
    headers.remove(CONTENT_LENGTH);
    if let Some(mut scrubber) = scrubber {
        headers.remove(SET_COOKIE);
        scrubber.scrub_headers(&mut headers);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    let ending = plane.ending.clone();
    let progress = record.progress();
    plane.tasks.spawn(async move {
        let copied = async {
            let upstream = body.upgrade().await.ok().flatten()?;
            let mut downstream = TokioIo::new(upgrade.await.ok()?);
            let (early, progress) = (upstream.early, Arc::clone(&progress));
            super::splice::splice(&mut downstream, upstream.stream, early, bytes::Bytes::new(), progress).await.ok()
        };
        tokio::select! {
            biased;
            cut = progress.fuse().until_cut() => record.abort(cut.as_str()),
            copied = copied => match copied {
                Some(()) => record.end_stream(),
                None => record.abort("upgrade_failed"),
            },
            () = ending.cancelled() => record.abort("shutting_down"),
        }
    });
    response
}
