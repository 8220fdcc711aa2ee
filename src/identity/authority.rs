//! The install's CA of agents, which signs their client certificates and nothing else. Not the interception CA: a
//! certificate of one is never taken for one of the other.

use crate::secret::{Secret, random_bytes, write_private_file};
use crate::types::{AgentName, UnixSeconds};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::ops::Range;
use std::path::Path;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

/// How long the CA lives.
const CA_LIFETIME: i64 = 10 * 365 * 86_400;

/// Clocks differ; the CA begins this much before it is made.
const CLOCK_SKEW: i64 = 86_400;

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentCaError {
    /// A file could not be read or written.
    #[error("CA file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The files are not a certificate and its key.
    #[error(
        "CA file {path} is not usable: {reason}; restore it, or remove agents.pem and agents.key, run `nexus init`, and \
         enroll the agents anew"
    )]
    Form {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Why a certificate request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is none.
    #[error("the certificate request is not PEM of PKCS #10")]
    Form,
    /// It is not signed by its own key.
    #[error("the certificate request is not signed by the key in it")]
    Signature,
    /// The key is of a kind that is not taken.
    #[error("the key is neither ECDSA on P-256 or P-384, nor Ed25519, nor RSA of 2048 bits or more")]
    Key,
}

/// The CA of agents.
pub struct AgentAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    not_after: UnixSeconds,
}

/// What is taken from a certificate request: its key. Whatever else it asks for is not looked at.
pub struct CertificateRequest(SubjectPublicKeyInfo);

impl AgentAuthority {
    /// Makes `agents.pem` and `agents.key` (0600) in `directory` unless they are there. Gives whether it made them.
    ///
    /// # Errors
    /// See [`AgentCaError`].
    pub fn create(directory: &Path, now: UnixSeconds) -> Result<bool, AgentCaError> {
        let (certificate_path, key_path) = (directory.join("agents.pem"), directory.join("agents.key"));
        if certificate_path.exists() && key_path.exists() {
            return Ok(false);
        }
        let key = match std::fs::read_to_string(&key_path) {
            Ok(text) => parse_key(&key_path, Secret::new(text))?,
            Err(_) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| form(&key_path, &error))?;
                let text = Secret::new(key.serialize_pem());
                // Exposed to be written to its private file.
                write(&key_path, text.expose())?;
                key
            }
        };
        let mut params = CertificateParams::default();
        let mark: String = random_bytes::<4>().iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("nexus agents CA {mark}"));
        params.distinguished_name.push(DnType::OrganizationName, "nexus");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(now - CLOCK_SKEW);
        params.not_after = date(now + CA_LIFETIME);
        let certificate = params.self_signed(&key).map_err(|error| form(&certificate_path, &error))?;
        write(&certificate_path, &certificate.pem())?;
        Ok(true)
    }

    /// Reads the CA's files.
    ///
    /// # Errors
    /// See [`AgentCaError`].
    pub fn load(directory: &Path) -> Result<Self, AgentCaError> {
        let (certificate_path, key_path) = (directory.join("agents.pem"), directory.join("agents.key"));
        let key = parse_key(&key_path, Secret::new(read(&key_path)?))?;
        let pem = read(&certificate_path)?;
        let unusable = |error: &dyn std::fmt::Display| form(&certificate_path, error);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(&error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| unusable(&error))?;
        use rcgen::PublicKeyData as _;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(form(&key_path, &"it is not the key of agents.pem"));
        }
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| unusable(&error))?;
        Ok(Self { issuer, pem, not_after })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// When it ends.
    #[must_use]
    pub fn not_after(&self) -> UnixSeconds {
        self.not_after
    }

    /// A client certificate for the key of a request, PEM. `name` is its one alternative name; the agent stands in the
    /// subject, for people.
    ///
    /// # Errors
    /// When the name does not fit a certificate.
    pub fn issue(
        &self,
        request: &CertificateRequest,
        name: &str,
        agent: &AgentName,
        validity: Range<UnixSeconds>,
    ) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, agent.as_str().chars().take(64).collect::<String>());
        params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let mut serial = random_bytes::<16>();
        // A positive number (RFC 5280 section 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        (params.not_before, params.not_after) = (date(validity.start), date(validity.end));
        Ok(params.signed_by(&request.0, &self.issuer)?.pem())
    }
}

impl CertificateRequest {
    /// Reads a request in PEM and checks that its own key signed it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse(pem: &str) -> Result<Self, RequestError> {
        let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| RequestError::Form)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
        if !rest.is_empty() {
            return Err(RequestError::Form);
        }
        let info = &request.certification_request_info.subject_pki;
        match info.parsed().map_err(|_| RequestError::Key)? {
            PublicKey::RSA(key) if key.key_size() < 2048 => return Err(RequestError::Key),
            PublicKey::RSA(_) | PublicKey::EC(_) => {}
            _ if info.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519 => {}
            _ => return Err(RequestError::Key),
        }
        let key = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| RequestError::Key)?;
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        Ok(Self(key))
    }
}

fn parse_key(path: &Path, text: Secret) -> Result<KeyPair, AgentCaError> {
    // Exposed to be parsed.
    KeyPair::from_pem(text.expose()).map_err(|error| form(path, &error))
}

fn read(path: &Path) -> Result<String, AgentCaError> {
    std::fs::read_to_string(path).map_err(io(path))
}

fn write(path: &Path, text: &str) -> Result<(), AgentCaError> {
    write_private_file(path, text.as_bytes()).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> AgentCaError {
    let path = path.display().to_string();
    |source| AgentCaError::Io { path, source }
}

fn form(path: &Path, error: &dyn std::fmt::Display) -> AgentCaError {
    AgentCaError::Form { path: path.display().to_string(), reason: error.to_string() }
}

/// What a certificate can say lies between 1950 and 9999.
fn date(seconds: UnixSeconds) -> time::OffsetDateTime {
    let seconds = seconds.clamp(0, 253_402_300_799);
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
