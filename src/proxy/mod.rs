//! The data plane: one request, from its head to its terminal audit line, one file a phase.
//!
//! Knows nothing of how a stream was accepted (listener). Every way in ends in [`handle`].

pub mod body;
pub mod downstream;
pub mod engine;
pub mod exchange;
pub mod finish;
pub mod framing;
pub mod guesses;
pub mod hygiene;
pub mod live;
pub mod plane;
pub mod reject;
pub mod replay;
pub mod response;
pub mod scrub;
pub mod splice;
pub mod tokens;
pub mod tunnel;
pub mod upstream;

mod call;
mod enroll;
mod mint;

pub use enroll::Enrolment;
pub use plane::Plane;
pub use tunnel::{Closing, Entry, Tunnel};

use body::ResponseBody;
use finish::Record;
use reject::{Code, Rejection};

use crate::audit::Way;
use crate::config::Snapshot;
use crate::types::RequestId;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Answers one request other than CONNECT outside a tunnel.
pub async fn handle(plane: Arc<Plane>, entry: Arc<Entry>, request: Request<Incoming>) -> Response<ResponseBody> {
    let way = downstream::way_of(&entry, request.uri());
    let mut record = Some(Record::new(&plane, way.unwrap_or(Way::Forward), entry.client));
    if let (Some(record), Some(tunnel)) = (&mut record, &entry.tunnel) {
        record.target(&tunnel.target);
        record.principal(&tunnel.opened_by);
    }
    let request_id = record.as_ref().map_or_else(RequestId::generate, |record| record.request_id().clone());
    let progress = record.as_ref().map(Record::progress).unwrap_or_default();
    let is_h2 = request.version() == http::Version::HTTP_2;
    // Only such a request has bytes behind it that wait for what its answer says.
    let decides = request.headers().contains_key(http::header::UPGRADE) && request.body().is_end_stream();
    let result = match framing::violation_of(request.headers()) {
        Some(violation) => Err(violation.into()),
        None => {
            let snapshot = plane.loader.snapshot();
            let answering = answer(&plane, &snapshot, &entry, way, &mut record, request);
            tokio::select! {
                biased;
                cut = progress.fuse().until_cut() => Err(cut.into()),
                // A panic is this request's alone, and on record.
                answered = AssertUnwindSafe(answering).catch_unwind() => {
                    answered.unwrap_or_else(|_| Err(Rejection::internal()))
                }
            }
        }
    };
    // What was cut may have failed by that before it was noticed here.
    let result = result.map_err(|rejection| progress.fuse().cut().map_or(rejection, Rejection::from));
    let mut response = result.unwrap_or_else(|rejection| {
        let way = way.unwrap_or(Way::Forward);
        let response = rejection.response(way, &request_id);
        if let Some(record) = &mut record {
            record.refuse(&rejection);
        }
        response
    });
    if is_h2 {
        response.headers_mut().remove(http::header::CONNECTION);
    }
    if let Some(decision) = entry.decision.as_ref().filter(|_| decides) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            decision.switched();
        } else {
            decision.stayed();
        }
    }
    response
}

async fn answer(
    plane: &Arc<Plane>,
    snapshot: &Arc<Snapshot>,
    entry: &Entry,
    way: Option<Way>,
    record: &mut Option<Record>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Rejection> {
    let this = record.as_mut().ok_or_else(Rejection::internal)?;
    let mut request = request;
    let upgrade =
        hygiene::asks_for_websocket(request.method(), request.headers()).then(|| hyper::upgrade::on(&mut request));
    let mut intake = match way {
        Some(Way::Intercepted) => downstream::intercepted(plane, snapshot, entry, this, request)?,
        Some(Way::BaseUrl) => downstream::base_url(plane, snapshot, entry, this, request).await?,
        Some(Way::Call) => return call::call(plane, snapshot, entry, record, request).await,
        Some(Way::Mint) => return mint::mint(plane, snapshot, entry, record, request).await,
        Some(Way::Enroll) => return enroll::enroll(plane, snapshot, entry, record, request).await,
        Some(_) => downstream::forward(plane, snapshot, entry, this, request).await?,
        None => {
            this.method(request.method());
            return Err(Rejection::new(
                Code::NotFound,
                "there is nothing here",
                "use this address as a proxy, or /c/<connection>/<path>, or POST /v1/call or /v1/tokens",
            ));
        }
    };
    intake.upgrade = upgrade;
    exchange::exchange(plane, snapshot, record, intake).await
}
