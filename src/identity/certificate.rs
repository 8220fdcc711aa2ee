//! Client certificates: which CAs are believed, and what a verified certificate says of its holder. Only alternative
//! names count; subjects never do.

use super::{Attributes, Mapping};
use crate::types::{TokenId, UnixSeconds};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::extensions::GeneralName;

/// The beginning of the name of an agent of this install, before the install's id and the id of its token record.
const URN: &str = "urn:nexus:";

/// Why a set of CAs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// There is none.
    #[error("holds no certificate; write the CAs as PEM")]
    Empty,
    /// The interception CA is among them.
    #[error(
        "is the interception CA, whose certificates are those of servers and prove no agent; use ca/agents.pem, or a CA \
         of your own"
    )]
    Interception,
    /// One of them is no CA.
    #[error("cannot be used: {0}")]
    Form(String),
}

/// What tells one CA from another: a digest of its name and key.
pub type RootId = [u8; 32];

/// The CAs whose certificates prove an agent.
#[derive(Debug, Clone)]
pub struct ClientCas {
    all: Arc<dyn ClientCertVerifier>,
    roots: Vec<Root>,
    install: Arc<str>,
}

/// One of them, by itself.
#[derive(Debug, Clone)]
struct Root {
    id: RootId,
    /// Whether it is the install's own, which alone may name its token records.
    is_own: bool,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCas {
    /// Of these roots. Those that are the install's own agents' CA may name its token records.
    ///
    /// # Errors
    /// See [`ClientCaError`].
    pub fn new(
        roots: Vec<CertificateDer<'static>>,
        own: &[CertificateDer<'static>],
        interception: &[CertificateDer<'static>],
        install: &str,
    ) -> Result<Self, ClientCaError> {
        let roots = store(&roots)?;
        if roots.is_empty() {
            return Err(ClientCaError::Empty);
        }
        let (own, interception) = (store(own)?, store(interception)?);
        // By key: the same CA may have been issued anew.
        let is_in = |root: &TrustAnchor<'_>, of: &RootCertStore| {
            of.roots.iter().any(|other| other.subject_public_key_info == root.subject_public_key_info)
        };
        if roots.roots.iter().any(|root| is_in(root, &interception)) {
            return Err(ClientCaError::Interception);
        }
        let each = roots.roots.iter().map(|root| {
            let alone = RootCertStore { roots: vec![root.clone()] };
            Ok(Root { id: root_id(root), is_own: is_in(root, &own), verifier: verifier(alone)? })
        });
        let each = each.collect::<Result<_, ClientCaError>>()?;
        Ok(Self { all: verifier(roots)?, roots: each, install: install.into() })
    }

    /// What tells its CAs from others.
    pub fn roots(&self) -> impl Iterator<Item = RootId> {
        self.roots.iter().map(|root| root.id)
    }

    /// For the handshake: a certificate may be left out, and one that is given must verify.
    #[must_use]
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.all)
    }

    /// What a chain says of its holder, verified once more: a resumed session brings it without a handshake.
    ///
    /// # Errors
    /// When it does not verify now.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Result<ClientCertificate, Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        self.all.verify_client_cert(leaf, intermediates, time)?;
        let verifies = |root: &&Root| root.verifier.verify_client_cert(leaf, intermediates, time).is_ok();
        let root = self.roots.iter().find(verifies);
        let root = root.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let is_own = root.is_own;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns.push(name.to_ascii_lowercase()),
                _ => {}
            }
        }
        // One name and no other: a certificate with more was not made by this program.
        let record = match uris.as_slice() {
            [uri] if is_own && dns.is_empty() => record_of(uri, &self.install),
            _ => None,
        };
        let validity = parsed.validity();
        Ok(ClientCertificate {
            record,
            is_own,
            root: root.id,
            attributes: attributes(&uris, &dns),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

/// What a verified client certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The token record that it was issued for, if the install's own CA did so.
    pub record: Option<TokenId>,
    /// Whether the install's own CA issued it.
    pub is_own: bool,
    /// The CA that vouches for it.
    pub root: RootId,
    /// Its names, for rules: `uri` and `dns`, a list where there are several; of a single URI `trust_domain` and `path`,
    /// its segments; `sub`, the name where there is one alone.
    pub attributes: Attributes,
    /// When it begins.
    pub not_before: UnixSeconds,
    /// When it ends.
    pub not_after: UnixSeconds,
}

impl ClientCertificate {
    /// Whether it is valid at this time.
    #[must_use]
    pub fn is_valid(&self, now: UnixSeconds) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// What certificates of the operator's own CAs mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMapping {
    /// What the config calls it; stands in the audit record as the issuer.
    pub name: Arc<str>,
    /// From names to a principal.
    pub mapping: Mapping,
}

fn attributes(uris: &[String], dns: &[String]) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, values) in [("uri", uris), ("dns", dns)] {
        match values {
            [] => {}
            [value] => drop(attributes.insert(name.to_owned(), Value::from(value.as_str()))),
            values => drop(attributes.insert(name.to_owned(), Value::from(values.to_vec()))),
        }
    }
    if let ([name], []) | ([], [name]) = (uris, dns) {
        attributes.insert("sub".to_owned(), Value::from(name.as_str()));
    }
    if let [uri] = uris
        && let Some((_, rest)) = uri.split_once("://")
    {
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        attributes.insert("trust_domain".to_owned(), Value::from(domain));
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        attributes.insert("path".to_owned(), Value::from(segments));
    }
    attributes
}

/// The name in the certificate of an enrolled agent.
#[must_use]
pub fn certificate_name(install: &str, record: &TokenId) -> String {
    format!("{URN}{install}:{record}")
}

fn record_of(uri: &str, install: &str) -> Option<TokenId> {
    let (of, record) = uri.strip_prefix(URN)?.rsplit_once(':')?;
    if of != install || install.is_empty() {
        return None;
    }
    TokenId::parse(record).ok()
}

fn store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, ClientCaError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| ClientCaError::Form(error.to_string()))?;
    }
    Ok(store)
}

fn root_id(root: &TrustAnchor<'_>) -> RootId {
    let mut hash = Sha256::new();
    for part in [root.subject.as_ref(), root.subject_public_key_info.as_ref()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn verifier(roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, ClientCaError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build();
    let inner = inner.map_err(|error| ClientCaError::Form(error.to_string()))?;
    Ok(Arc::new(MadeForClients(inner)))
}

/// Asks for the extended key usage of clients in so many words: without the extension a certificate would be good for
/// everything, and one that was made for a server would prove an agent.
#[derive(Debug)]
struct MadeForClients(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for MadeForClients {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        let (_, leaf) = x509_parser::parse_x509_certificate(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let is_for_clients = leaf.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.client_auth);
        if !is_for_clients || leaf.is_ca() {
            return Err(Error::InvalidCertificate(CertificateError::InvalidPurpose));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
