//! TLS of listeners, from the files that the config names.

use super::{ListenerConfig, TlsFiles, read};
use crate::identity::{ClientCas, ClientCertificate, RootId};
use crate::types::UnixSeconds;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of a listener's files something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOf {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The CAs of client certificates.
    ClientCa,
}

/// Why a listener's TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    /// Which file.
    pub file: FileOf,
    /// Its path.
    pub path: String,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// The TLS of one listener.
#[derive(Debug)]
pub struct ListenerTls {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    clients: Option<ClientCas>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl ListenerTls {
    /// Who the caller is by the certificate that the handshake took.
    ///
    /// # Errors
    /// When the certificate does not verify any more, which a resumed session can bring: the caller is nobody then.
    pub fn identify(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        now: UnixSeconds,
    ) -> Result<Option<ClientCertificate>, rustls::Error> {
        match (chain, &self.clients) {
            (Some(chain), Some(clients)) if !chain.is_empty() => clients.identify(chain, now).map(Some),
            _ => Ok(None),
        }
    }

    /// What the certificate calls the server that listens there: the address itself if it has it, else its first name.
    #[must_use]
    pub fn host(&self, address: IpAddr) -> String {
        let literal = || crate::types::Host::Ip(address).to_string();
        if self.addresses.contains(&address) {
            return literal();
        }
        self.names.iter().find(|name| !name.contains('*')).cloned().unwrap_or_else(literal)
    }
}

/// The TLS of every listener, in the order of the config.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenersTls {
    each: Vec<Option<Arc<ListenerTls>>>,
    /// Of every file that it was made from.
    digests: Vec<Option<[u8; 32]>>,
}

impl ListenersTls {
    /// Loads it all, or gives what there is when no file has changed.
    pub(super) fn load(
        listeners: &[ListenerConfig],
        home: &Path,
        install: &str,
        previous: &Arc<Self>,
    ) -> Result<Arc<Self>, TlsError> {
        let files: Vec<&TlsFiles> = listeners.iter().filter_map(|listener| listener.tls.as_ref()).collect();
        if files.is_empty() {
            // What is running changes its listeners by a restart only, so there was nothing before.
            return Ok(Arc::clone(previous));
        }
        let paths = files.iter().flat_map(|files| files.paths()).cloned().chain(own_cas(home));
        let digests: Vec<_> = paths.map(|path| read::digest(&path)).collect();
        if digests == previous.digests {
            return Ok(Arc::clone(previous));
        }
        let load = |listener: &ListenerConfig| {
            listener.tls.as_ref().map(|files| load(files, home, install).map(Arc::new)).transpose()
        };
        Ok(Arc::new(Self { each: listeners.iter().map(load).collect::<Result<_, _>>()?, digests }))
    }

    /// The CAs of client certificates, of all listeners.
    pub(super) fn client_roots(&self) -> HashSet<RootId> {
        let clients = self.each.iter().flatten().filter_map(|tls| tls.clients.as_ref());
        clients.flat_map(ClientCas::roots).collect()
    }

    pub(super) fn of(&self, index: usize) -> Option<&Arc<ListenerTls>> {
        self.each.get(index)?.as_ref()
    }
}

/// The CAs of the install itself: of agents, and of interception.
fn own_cas(home: &Path) -> [PathBuf; 2] {
    [home.join("ca/agents.pem"), home.join("ca/ca.pem")]
}

/// Everything that is wrong with the files.
pub(super) fn problems(files: &TlsFiles, home: &Path) -> Vec<TlsError> {
    let certificate = certified_key(files).err();
    let clients = files.client_ca.as_deref().and_then(|path| clients(path, home, "").err());
    // A key that is missing is told beside a certificate that is.
    let key = match &certificate {
        Some(error) if error.file == FileOf::Certificate => read_key(&files.key).err(),
        _ => None,
    };
    certificate.into_iter().chain(key).chain(clients).collect()
}

fn load(files: &TlsFiles, home: &Path, install: &str) -> Result<ListenerTls, TlsError> {
    let key = certified_key(files)?;
    let clients = files.client_ca.as_deref().map(|path| clients(path, home, install)).transpose()?;
    let (names, addresses) = key.cert.first().map(|leaf| names(leaf)).unwrap_or_default();
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3");
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 1;
    // The keys of tickets end with this configuration: a session of before a change of files is not resumed.
    if let Ok(tickets) = aws_lc_rs::Ticketer::new() {
        config.ticketer = tickets;
    }
    Ok(ListenerTls { config: Arc::new(config), clients, names, addresses })
}

fn certified_key(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let error = |reason: String| TlsError { file: FileOf::Certificate, path: files.cert.display().to_string(), reason };
    let chain = read_certificates(&files.cert).map_err(error)?;
    if chain.is_empty() {
        return Err(error("holds no certificate; write it as PEM, the server's own first".to_owned()));
    }
    let key = read_key(&files.key)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|cause| match cause {
        rustls::Error::InconsistentKeys(_) => TlsError {
            file: FileOf::Key,
            path: files.key.display().to_string(),
            reason: format!("is not the key of the first certificate in {}", files.cert.display()),
        },
        cause => error(format!("cannot be used: {cause}")),
    })
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|cause| TlsError {
        file: FileOf::Key,
        path: path.display().to_string(),
        reason: match cause {
            rustls::pki_types::pem::Error::NoItemsFound => "holds no private key in PEM".to_owned(),
            cause => cause.to_string(),
        },
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    certificates.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn clients(path: &Path, home: &Path, install: &str) -> Result<ClientCas, TlsError> {
    let error = |reason: String| TlsError { file: FileOf::ClientCa, path: path.display().to_string(), reason };
    let roots = read_certificates(path).map_err(error)?;
    let [agents, interception] = own_cas(home).map(|path| read_certificates(&path).unwrap_or_default());
    ClientCas::new(roots, &agents, &interception, install).map_err(|cause| error(cause.to_string()))
}

fn names(leaf: &CertificateDer<'_>) -> (Vec<String>, Vec<IpAddr>) {
    use x509_parser::extensions::GeneralName;
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else { return Default::default() };
    let Ok(Some(alternatives)) = leaf.subject_alternative_name() else { return Default::default() };
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for name in &alternatives.value.general_names {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok());
            }
            _ => {}
        }
    }
    (names, addresses)
}

#[cfg(test)]
mod tests;
