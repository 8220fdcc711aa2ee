//! The near side of the demo: a program with a proxy address, a token for it, and the install's CA as its only trust.
//!
//! It stands for any HTTP client that knows `HTTPS_PROXY` and `SSL_CERT_FILE`, so it shares no code with the proxy and
//! opens its socket to the proxy itself.

use crate::cli::CliError;
use crate::secret::Secret;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An agent.
pub(super) struct Agent {
    proxy: SocketAddr,
    token: Secret,
    tls: TlsConnector,
}

/// What the agent got.
pub(super) struct Got {
    /// Whether it came through the tunnel; else the proxy refused the tunnel.
    pub(super) in_tunnel: bool,
    /// The status.
    pub(super) status: StatusCode,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Bytes,
}

impl Got {
    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty when it is not there.
    pub(super) fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
    }

    /// Whether the text is anywhere in the answer.
    pub(super) fn has(&self, text: &str) -> bool {
        self.text().contains(text) || self.headers.values().any(|value| contains(value, text))
    }
}

/// Whether the text is in a header's value.
pub(super) fn contains(value: &HeaderValue, text: &str) -> bool {
    memchr::memmem::find(value.as_bytes(), text.as_bytes()).is_some()
}

impl Agent {
    /// An agent that trusts the certificate in this file and nothing else.
    pub(super) fn new(proxy: SocketAddr, token: Secret, ca: &Path) -> Result<Self, CliError> {
        let pem = std::fs::read(ca).map_err(CliError::io(ca))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.ok().map(|certificate| roots.add(certificate));
            if !matches!(added, Some(Ok(()))) {
                return Err(CliError::Failed(format!("{} is not a certificate", ca.display())));
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| CliError::Failed(format!("TLS of the agent: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { proxy, token, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// All that it holds.
    pub(super) fn token(&self) -> &Secret {
        &self.token
    }

    /// The token as it goes to the proxy: the credentials of the Basic scheme (RFC 7617 section 2).
    pub(super) fn proof(&self) -> Secret {
        // Exposed to be coded, which hides nothing.
        let pair = Secret::new(format!("x:{}", self.token.expose()));
        Secret::new(base64::engine::general_purpose::STANDARD.encode(pair.expose()))
    }

    /// Sends a request whose `Host` says where to, through the proxy.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Got, CliError> {
        let line = format!("{} {}", request.method(), request.uri());
        self.exchange(request).await.map_err(|error| CliError::Failed(format!("the agent's {line} failed: {error}")))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Got, Box<dyn std::error::Error + Send + Sync>> {
        let authority = request.headers().get(HOST).ok_or("the request has no Host")?.to_str()?.to_owned();
        // Exposed to be sent to the proxy, which is what the token is for.
        let mut proof = HeaderValue::from_str(&format!("Basic {}", self.proof().expose()))?;
        proof.set_sensitive(true);
        let connect = Request::connect(&authority)
            .header(HOST, &authority)
            .header(PROXY_AUTHORIZATION, proof)
            .body(Full::<Bytes>::default())?;
        let answer = send(TcpStream::connect(self.proxy).await?, connect).await?;
        if !answer.status().is_success() {
            return read(answer, false).await;
        }
        let tunnel = hyper::upgrade::on(answer).await?;
        let host = authority.split(':').next().unwrap_or_default().to_owned();
        let stream = self.tls.connect(ServerName::try_from(host)?, TokioIo::new(tunnel)).await?;
        read(send(stream, request).await?, true).await
    }
}

/// One request on a new connection.
async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself: the sender goes, and the peer closes.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

async fn read(answer: Response<Incoming>, in_tunnel: bool) -> Result<Got, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Got { in_tunnel, status: parts.status, headers: parts.headers, body })
}
