//! The install's own certificate authority, by which intercepted tunnels are served.

use crate::secret::{Secret, write_private_file};
use crate::types::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How long the CA lives.
const CA_YEARS: i32 = 10;
/// How long a leaf certificate lives.
const LEAF_DAYS: i64 = 60;

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
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
    #[error("CA file {path} is not usable: {reason}; restore it, or remove both CA files and run `nexus init`")]
    Form {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// The CA, able to mint leaf certificates.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    leaf_key: KeyPair,
}

impl CertificateAuthority {
    /// Makes `ca.pem` and `ca.key` (0600) in `directory` unless they are there. Gives whether it made them.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn create(directory: &Path) -> Result<bool, AuthorityError> {
        let (certificate_path, key_path) = paths(directory);
        if certificate_path.exists() && key_path.exists() {
            return Ok(false);
        }
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |source| AuthorityError::Io { path, source }
        };
        let key = match std::fs::read_to_string(&key_path) {
            Ok(text) => {
                let text = Secret::new(text);
                // Exposed to be parsed.
                KeyPair::from_pem(text.expose()).map_err(|error| form(&key_path, &error))?
            }
            Err(_) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| form(&key_path, &error))?;
                let text = Secret::new(key.serialize_pem());
                // Exposed to be written to its private file.
                write_private_file(&key_path, text.expose().as_bytes()).map_err(at(&key_path))?;
                key
            }
        };
        let certificate = ca_params().self_signed(&key).map_err(|error| form(&certificate_path, &error))?;
        write_private_file(&certificate_path, certificate.pem().as_bytes()).map_err(at(&certificate_path))?;
        Ok(true)
    }

    /// Reads the CA's files.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let (certificate_path, key_path) = paths(directory);
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| AuthorityError::Io { path: path.display().to_string(), source })
        };
        let text = Secret::new(read(&key_path)?);
        // Exposed to be parsed.
        let key = KeyPair::from_pem(text.expose()).map_err(|error| form(&key_path, &error))?;
        let pem = read(&certificate_path)?;
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| form(&certificate_path, &error))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| form(&certificate_path, &error))?;
        let leaf_key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| form(&certificate_path, &error))?;
        Ok(Self { issuer, certificate: certificate.into_owned(), leaf_key })
    }

    /// A certificate for a listener of this install and its new key, both PEM. Whoever trusts the CA trusts it.
    ///
    /// # Errors
    /// When a host does not fit a certificate.
    pub fn issue(&self, hosts: &[Host], days: i64) -> Result<(String, Secret), rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = hosts.iter().map(alternative_name).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (day(-1), day(days));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), Secret::new(key.serialize_pem())))
    }

    /// Mints a leaf certificate for a host, with the CA's certificate behind it. Leaves share one key, which lives as
    /// long as the process.
    ///
    /// # Errors
    /// When the host does not fit a certificate.
    pub fn mint(&self, host: &Host) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut params = CertificateParams::default();
        let name = host.to_string();
        params.distinguished_name = DistinguishedName::new();
        if name.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.subject_alt_names = vec![alternative_name(host)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (day(-1), day(LEAF_DAYS));
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let key = any_ecdsa_type(&key).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(Arc::new(CertifiedKey::new(vec![leaf.der().clone(), self.certificate.clone()], key)))
    }
}

fn alternative_name(host: &Host) -> Result<SanType, rcgen::Error> {
    Ok(match host {
        Host::Name(name) => SanType::DnsName(name.as_ref().try_into()?),
        Host::Ip(address) => SanType::IpAddress(*address),
    })
}

fn paths(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("ca.pem"), directory.join("ca.key"))
}

fn form(path: &Path, error: &dyn std::fmt::Display) -> AuthorityError {
    AuthorityError::Form { path: path.display().to_string(), reason: error.to_string() }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let mark: String = crate::secret::random_bytes::<4>().iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("nexus local CA {mark}"));
    params.distinguished_name.push(DnType::OrganizationName, "nexus");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = day(-1);
    params.not_after = day(i64::from(CA_YEARS) * 365);
    params
}

/// Midnight so many days from today.
fn day(days: i64) -> time::OffsetDateTime {
    let date = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let date = date.checked_add(jiff::SignedDuration::from_hours(24 * days)).unwrap_or(date);
    let [month, day] = [date.month(), date.day()].map(i8::unsigned_abs);
    rcgen::date_time_ymd(i32::from(date.year()), month, day)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        assert!(CertificateAuthority::create(home.path()).unwrap());
        let before = std::fs::read(home.path().join("ca.pem")).unwrap();
        assert!(!CertificateAuthority::create(home.path()).unwrap());
        assert_eq!(std::fs::read(home.path().join("ca.pem")).unwrap(), before);
        let mode = std::fs::metadata(home.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn leaves_are_for_one_host() {
        let home = tempfile::tempdir().unwrap();
        CertificateAuthority::create(home.path()).unwrap();
        let authority = CertificateAuthority::load(home.path()).unwrap();
        for host in ["api.example.test", "127.0.0.1", "[::1]"] {
            let leaf = authority.mint(&Host::parse(host.as_bytes()).unwrap()).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(leaf.cert[1].clone()).unwrap();
            let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            )
            .build()
            .unwrap();
            let bare = host.trim_matches(['[', ']']);
            let verify = |name: &str| {
                use rustls::client::danger::ServerCertVerifier;
                let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
                verifier.verify_server_cert(&leaf.cert[0], &[], &name, &[], rustls_pki_types::UnixTime::now()).is_ok()
            };
            assert!(verify(bare), "{host}");
            assert!(!verify("other.example.test"), "{host}");
        }
    }

    #[test]
    fn damaged_files_are_named() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("ca.pem"), "x").unwrap();
        std::fs::write(home.path().join("ca.key"), "x").unwrap();
        let error = CertificateAuthority::load(home.path()).err().unwrap().to_string();
        assert!(error.contains("ca.key is not usable"), "{error}");
    }
}
