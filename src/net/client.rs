//! Our own HTTPS client, for token endpoints: same resolver, guard and TLS as requests, no redirects, size and time
//! capped, no pool.

use super::{Alpn, Egress, NetError};
use crate::secret::Secret;
use crate::types::{Target, Url};
use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use zeroize::{Zeroize, Zeroizing};

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
    /// `Cache-Control: max-age` in seconds, if any; 0 for an answer that may not be kept.
    pub max_age: Option<u64>,
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

    /// POSTs a form. `headers` are extra headers (values marked sensitive). An `http` URL is dialled in clear: whether
    /// that is allowed is the caller's to decide.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_form(
        &self,
        url: &Url,
        headers: &[(HeaderName, Secret)],
        form: &Secret,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<ClientResponse, ClientError> {
        let mut map = HeaderMap::with_capacity(headers.len() + 4);
        for (name, value) in headers {
            map.append(name.clone(), sensitive(value).ok_or_else(|| bad_header(&url.target, name))?);
        }
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        // The form goes to the endpoint it was made for.
        let body = wiped_bytes(form.expose());
        self.exchange(http::Method::POST, url, map, body, limit_bytes, timeout).await
    }

    /// POSTs JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post_json(
        &self,
        url: &Url,
        json: &Secret,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<ClientResponse, ClientError> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The text goes to the server it was made for.
        self.exchange(http::Method::POST, url, headers, wiped_bytes(json.expose()), limit_bytes, timeout).await
    }

    /// Sends any request with an empty body, for `connection test`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request(
        &self,
        method: http::Method,
        url: &Url,
        headers: HeaderMap,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<ClientResponse, ClientError> {
        self.exchange(method, url, headers, Bytes::new(), limit_bytes, timeout).await
    }

    async fn exchange(
        &self,
        method: http::Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<ClientResponse, ClientError> {
        let exchange = Box::pin(self.send(method, url, headers, body, limit_bytes));
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(NetError::Timeout { target: url.target.host_and_port(), limit: timeout }.into()),
        }
    }

    async fn send(
        &self,
        method: http::Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
        limit_bytes: usize,
    ) -> Result<ClientResponse, ClientError> {
        let target = &url.target;
        let http_error = |source| NetError::Http { target: target.host_and_port(), source };
        let authority = HeaderValue::from_str(&target.authority()).map_err(|_| bad_header(target, &HOST))?;
        headers.insert(HOST, authority);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("nexus/", env!("CARGO_PKG_VERSION"))));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.path.as_str().parse().map_err(|_| bad_request(target, "the path is too long"))?;
        *request.headers_mut() = headers;

        let addresses = self.0.resolve(target).await?;
        let (stream, _) = self.0.connect(target, &addresses, Alpn::Http1).await?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(http_error)?;
        // Dropped with this future, and the connection with it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await.map_err(http_error)?;

        let (head, body) = response.into_parts();
        let body = read(body, limit_bytes, http_error).await?;
        let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Ok(ClientResponse {
            status: head.status.as_u16(),
            content_type: text(CONTENT_TYPE).map(str::to_owned),
            retry_after: text(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()),
            max_age: max_age(&head.headers),
            body: into_secret(body),
        })
    }
}

/// RFC 9111 section 5.2.2; a value in quotes counts too.
fn max_age(headers: &HeaderMap) -> Option<u64> {
    let mut found = None;
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    for directive in values.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(0),
            "max-age" => found = found.or(value.trim().trim_matches('"').parse().ok()),
            _ => {}
        }
    }
    found
}

/// Heads of answers to our own requests are small.
const MAX_HEAD: usize = 64 * 1024;

/// Collects a body of at most `limit` bytes, wiping what it leaves behind where it grows.
async fn read(
    mut body: Incoming,
    limit: usize,
    http_error: impl Fn(hyper::Error) -> NetError,
) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let mut collected = Zeroizing::new(Vec::with_capacity(limit.min(8 * 1024)));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(&http_error)?.into_data() else { continue };
        let length = collected.len() + data.len();
        if length > limit {
            return Err(ClientError::TooLarge(limit));
        }
        if length > collected.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * collected.capacity())));
            larger.extend_from_slice(&collected);
            collected = larger;
        }
        collected.extend_from_slice(&data);
        if let Ok(mut data) = data.try_into_mut() {
            data.as_mut().zeroize();
        }
    }
    Ok(collected)
}

fn into_secret(mut body: Zeroizing<Vec<u8>>) -> Option<Secret> {
    match String::from_utf8(std::mem::take(&mut *body)) {
        Ok(text) => Some(Secret::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

/// A copy that is wiped when the last part of the program lets go of it.
fn wiped_bytes(text: &str) -> Bytes {
    Bytes::from_owner(Zeroizing::new(text.as_bytes().to_vec()))
}

fn sensitive(value: &Secret) -> Option<HeaderValue> {
    // The value goes onto the request it was made for.
    let mut header = HeaderValue::from_maybe_shared(wiped_bytes(value.expose())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn bad_header(target: &Target, name: &HeaderName) -> NetError {
    bad_request(target, &format!("{name} has a value that a header cannot have"))
}

/// A request that cannot be written, so nothing was sent.
fn bad_request(target: &Target, reason: &str) -> NetError {
    NetError::Connect { target: target.host_and_port(), source: io::Error::new(io::ErrorKind::InvalidInput, reason) }
}

#[cfg(test)]
mod tests;
