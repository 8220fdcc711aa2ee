//! Our own HTTPS client, for token endpoints (later JWKS and sinks): same resolver, guard and TLS as requests, no
//! redirects, size and time capped, no pool.

use super::{Egress, NetError};
use crate::secret::Secret;
use crate::types::Url;
use std::sync::Arc;
use std::time::Duration;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not reached, or cut off.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The answer is larger than the cap.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// An answer. The body is secret (a token endpoint answers tokens) and wiped on drop.
#[derive(Debug)]
pub struct ClientResponse {
    /// The status code; a 3xx is an answer like any other.
    pub status: u16,
    /// `Content-Type`, if any.
    pub content_type: Option<String>,
    /// `Retry-After` in seconds, if any and a number.
    pub retry_after: Option<u64>,
    /// The body, if it is UTF-8.
    pub body: Option<Secret>,
}

/// The client.
#[derive(Clone)]
pub struct HttpsClient(Arc<Egress>);

impl HttpsClient {
    /// A client that goes out by `egress`.
    #[must_use]
    pub fn new(egress: Arc<Egress>) -> Self {
        Self(egress)
    }

    /// POSTs a form. `headers` are extra headers (values marked sensitive). `allow_http` must be set for an `http` URL.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_form(
        &self,
        _url: &Url,
        _headers: &[(http::HeaderName, Secret)],
        _form: &Secret,
        _limit_bytes: usize,
        _timeout: Duration,
    ) -> Result<ClientResponse, ClientError> {
        let _ = &self.0;
        todo!()
    }

    /// Sends any request with an empty body, for `connection test`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request(
        &self,
        _method: http::Method,
        _url: &Url,
        _headers: http::HeaderMap,
        _limit_bytes: usize,
        _timeout: Duration,
    ) -> Result<ClientResponse, ClientError> {
        todo!()
    }
}
