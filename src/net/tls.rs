//! Upstream TLS: one rustls `ClientConfig` per trust root and ALPN, so that sessions resume. TLS 1.2 or later.

use super::NetError;
use crate::types::Host;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Which trust roots a connection was verified against: a digest of the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrustRootId(pub u64);

/// Which protocols are offered to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2` then `http/1.1`.
    H2OrHttp1,
    /// `http/1.1` only (upgrades).
    Http1,
}

/// The trust roots and what is negotiated with them. Sessions live in it, so it is shared for as long as the roots stay
/// the same.
pub(super) struct UpstreamTls {
    id: TrustRootId,
    h2_or_http1: TlsConnector,
    http1: TlsConnector,
}

/// A client certificate and its key. Share by `Arc`.
#[derive(Clone)]
pub struct ClientIdentity(Arc<SingleCertAndKey>);

impl ClientIdentity {
    /// Reads them from PEM files.
    ///
    /// # Errors
    /// [`NetError::CaFile`] with the file that cannot be used.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, NetError> {
        let error = |path: &Path, reason: String| NetError::CaFile { path: path.display().to_string(), reason };
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|e| error(certificate, e.to_string()))?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| error(key, e.to_string()))?;
        let pair = CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider());
        Ok(Self(Arc::new(pair.map_err(|e| error(certificate, e.to_string()))?.into())))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(..)")
    }
}

/// The fewest versions that are safe: nothing before TLS 1.2 exists in rustls, and this says so.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Sessions kept for resumption, over all hosts.
const SESSIONS: usize = 1024;

impl UpstreamTls {
    pub(super) fn new(roots: RootCertStore, identity: Option<&ClientIdentity>) -> Self {
        let id = trust_root_id(&roots);
        let roots = Arc::new(roots);
        let connector = |protocols: &[&[u8]]| {
            // Named here: a process-wide default provider could be another one.
            let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&VERSIONS)
                .expect("aws-lc-rs supports TLS 1.2 and 1.3")
                .with_root_certificates(Arc::clone(&roots));
            let mut config = match identity {
                Some(ClientIdentity(identity)) => builder.with_client_cert_resolver(Arc::clone(identity) as _),
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            TlsConnector::from(Arc::new(config))
        };
        Self { id, h2_or_http1: connector(&[b"h2", b"http/1.1"]), http1: connector(&[b"http/1.1"]) }
    }

    pub(super) fn id(&self) -> TrustRootId {
        self.id
    }

    /// Verifies the upstream as `host` and nothing else.
    pub(super) async fn handshake(&self, host: &Host, stream: TcpStream, alpn: Alpn) -> io::Result<UpstreamStream> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.to_string())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no certificate can have this host name"))?,
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        };
        let connector = match alpn {
            Alpn::H2OrHttp1 => &self.h2_or_http1,
            Alpn::Http1 => &self.http1,
        };
        Ok(UpstreamStream::Tls(Box::new(connector.connect(name, stream).await?)))
    }
}

/// The system's roots (the bundled Mozilla ones where there are none) and those in `ca_files`, without `distrusted`.
pub(super) fn load_roots(ca_files: &[PathBuf], distrusted: &[CertificateDer<'_>]) -> Result<RootCertStore, NetError> {
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::warn!(%error, "part of the system's trust roots cannot be read: {error}");
    }
    collect_roots(system.certs, ca_files, distrusted)
}

/// The roots in `ca_files` and no others.
pub(super) fn load_ca_files(ca_files: &[PathBuf]) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    add_files(&mut roots, ca_files, &|_| false)?;
    Ok(roots)
}

fn collect_roots(
    system: Vec<CertificateDer<'static>>,
    ca_files: &[PathBuf],
    distrusted: &[CertificateDer<'_>],
) -> Result<RootCertStore, NetError> {
    let mut without = RootCertStore::empty();
    without.add_parsable_certificates(distrusted.iter().map(CertificateDer::clone));
    // By key: the same CA may have been issued anew.
    let distrusts = |root: &TrustAnchor<'_>| {
        without.roots.iter().any(|other| other.subject_public_key_info == root.subject_public_key_info)
    };

    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system);
    roots.roots.retain(|root| !distrusts(root));
    if roots.is_empty() {
        tracing::warn!("the system has no trust roots; using the bundled ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    add_files(&mut roots, ca_files, &distrusts)?;
    Ok(roots)
}

/// Adds what the files have; a file without a certificate, or with one that is not to be trusted, is an error.
fn add_files(
    roots: &mut RootCertStore,
    ca_files: &[PathBuf],
    distrusts: &dyn Fn(&TrustAnchor<'_>) -> bool,
) -> Result<(), NetError> {
    for file in ca_files {
        let error = |reason: String| NetError::CaFile { path: file.display().to_string(), reason };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| error(e.to_string()))? {
            let certificate = certificate.map_err(|e| error(e.to_string()))?;
            roots.add(certificate).map_err(|e| error(e.to_string()))?;
        }
        match &roots.roots[before..] {
            [] => return Err(error("has no PEM certificate in it".to_owned())),
            added if added.iter().any(distrusts) => {
                return Err(error("has this install's own interception CA in it; remove it".to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The same for the same set of roots, in whatever order and however often each was found.
fn trust_root_id(roots: &RootCertStore) -> TrustRootId {
    let mut digests: Vec<[u8; 32]> = roots.roots.iter().map(digest).collect();
    digests.sort_unstable();
    digests.dedup();
    let all = Sha256::digest(digests.concat());
    TrustRootId(all[..8].iter().fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

/// Over what rustls uses of a root: its name, key and constraints, in DER.
fn digest(root: &TrustAnchor<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [Some(&root.subject), Some(&root.subject_public_key_info), root.name_constraints.as_ref()] {
        let part = part.map_or(&[][..], |der| der.as_ref());
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A connection to an upstream, in clear or over TLS.
#[derive(Debug)]
pub enum UpstreamStream {
    /// In clear, for connections registered with `--allow-http`.
    Plain(TcpStream),
    /// Over verified TLS.
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl UpstreamStream {
    /// Whether the upstream chose h2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::net::testing::TestCa;

    #[test]
    fn the_interception_ca_is_no_root_even_in_the_systems_store() {
        let (own, other) = (TestCa::new("interception"), TestCa::new("other"));
        let system = || vec![own.certificate(), other.certificate()];
        let both = collect_roots(system(), &[], &[]).unwrap();
        let one = collect_roots(system(), &[], &[own.certificate()]).unwrap();
        assert_eq!((both.len(), one.len()), (2, 1));
        assert_eq!(one.roots[0], collect_roots(vec![other.certificate()], &[], &[]).unwrap().roots[0]);
    }

    #[test]
    fn without_system_roots_the_bundled_ones_are_used() {
        let own = TestCa::new("interception");
        for system in [Vec::new(), vec![own.certificate()]] {
            let roots = collect_roots(system, &[], &[own.certificate()]).unwrap();
            assert_eq!(roots.len(), webpki_roots::TLS_SERVER_ROOTS.len());
        }
    }

    #[test]
    fn both_configurations_are_strict() {
        let tls = UpstreamTls::new(collect_roots(Vec::new(), &[], &[]).unwrap(), None);
        for (connector, protocols) in
            [(&tls.h2_or_http1, vec![&b"h2"[..], b"http/1.1"]), (&tls.http1, vec![&b"http/1.1"[..]])]
        {
            let config = connector.config();
            assert_eq!(config.alpn_protocols, protocols);
            assert!(config.enable_sni && !config.enable_early_data);
        }
    }
}
