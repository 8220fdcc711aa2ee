//! Real peers for the tests of this module: a CA, a TLS server and a name server, on loopback.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::resolver::Resolver;
use super::{Egress, EgressSettings};
use crate::types::{Host, Target};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig};
use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// Longer than anything takes unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    file: NamedTempFile,
}

impl TestCa {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), file }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn serve(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.serve_with(names, &[], |_| ())
    }

    pub(super) fn serve_with(
        &self,
        names: &[&str],
        alpn: &[&str],
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// What became of one accepted connection.
#[derive(Debug)]
pub(super) struct Served {
    /// Of the TLS handshake; none when it failed or there was none.
    pub(super) handshake: Option<HandshakeKind>,
    pub(super) server_name: Option<String>,
    /// Application bytes.
    pub(super) received: Vec<u8>,
}

/// Reads until `end` has come, writes `reply`, closes.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    served: mpsc::UnboundedReceiver<Served>,
}

impl Peer {
    pub(super) async fn start(tls: Option<Arc<ServerConfig>>, end: &'static str, reply: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, served) = mpsc::unbounded_channel();
        let reply: Arc<[u8]> = reply.into().into();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, sender, reply) = (tls.clone(), sender.clone(), Arc::clone(&reply));
                tokio::spawn(async move {
                    let mut served = Served { handshake: None, server_name: None, received: Vec::new() };
                    match tls {
                        None => talk(stream, end, &reply, &mut served.received).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                served.handshake = stream.get_ref().1.handshake_kind();
                                served.server_name = stream.get_ref().1.server_name().map(str::to_owned);
                                talk(stream, end, &reply, &mut served.received).await;
                            }
                        }
                    }
                    let _ = sender.send(served);
                });
            }
        });
        Self { address, served }
    }

    /// The next connection that has come to its end.
    pub(super) async fn served(&mut self) -> Served {
        tokio::time::timeout(PATIENCE, self.served.recv()).await.unwrap().unwrap()
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, end: &str, reply: &[u8], received: &mut Vec<u8>) {
    while memchr::memmem::find(received, end.as_bytes()).is_none() {
        match stream.read_buf(received).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let _ = stream.write_all(reply).await;
    let _ = stream.shutdown().await;
}

/// A name server that answers from a table and keeps the questions. A name that is not in the table does not exist.
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    pub(super) questions: Arc<Mutex<Vec<(String, RecordType)>>>,
}

impl NameServer {
    pub(super) async fn start(table: &[(&str, &[&str])]) -> Self {
        let table: HashMap<String, Vec<IpAddr>> = table
            .iter()
            .map(|(name, ips)| ((*name).to_owned(), ips.iter().map(|ip| ip.parse().unwrap()).collect()))
            .collect();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&questions);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
                let question = query.queries[0].clone();
                let name = question.name.to_ascii();
                kept.lock().push((name.clone(), question.query_type));
                let mut answer = query.into_response();
                match table.get(&name) {
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                    Some(ips) => {
                        for ip in ips {
                            let data = RData::from(*ip);
                            if data.record_type() == question.query_type {
                                answer.add_answer(Record::from_rdata(question.name.clone(), 60, data));
                            }
                        }
                    }
                }
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { address, questions }
    }

    /// A resolver that asks this server, with a search domain to be ignored.
    pub(super) fn resolver(&self) -> Resolver {
        resolver_at(self.address)
    }
}

pub(super) fn resolver_at(address: SocketAddr) -> Resolver {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![udp]);
    let config = ResolverConfig::from_parts(
        Some("corp.test.".parse().unwrap()),
        vec!["search.test.".parse().unwrap()],
        vec![server],
    );
    let mut options = ResolverOpts::default();
    options.ndots = 5;
    Resolver::with_config(config, options)
}

/// Loopback open, `hosts` at 127.0.0.1, the CA trusted.
pub(super) fn settings(hosts: &[&str], ca: Option<&TestCa>) -> EgressSettings {
    EgressSettings {
        hosts: hosts
            .iter()
            .map(|name| (Host::parse(name.as_bytes()).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST)))
            .collect(),
        allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
        ca_files: ca.iter().map(|ca| ca.path().to_owned()).collect(),
        connect: PATIENCE,
        ..EgressSettings::default()
    }
}

pub(super) fn egress(settings: EgressSettings) -> Egress {
    Egress::new(settings, None).unwrap()
}

pub(super) fn target(text: &str) -> Target {
    text.parse().unwrap()
}
