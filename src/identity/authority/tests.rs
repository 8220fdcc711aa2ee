#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm};
use std::os::unix::fs::PermissionsExt;

const NOW: UnixSeconds = 1_700_000_000;

fn authority() -> (tempfile::TempDir, AgentAuthority) {
    let home = tempfile::tempdir().unwrap();
    assert!(AgentAuthority::create(home.path(), NOW).unwrap());
    let authority = AgentAuthority::load(home.path()).unwrap();
    (home, authority)
}

fn request(params: CertificateParams, of: &'static SignatureAlgorithm) -> (KeyPair, String) {
    let key = KeyPair::generate_for(of).unwrap();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, request)
}

#[test]
fn made_once_private_and_whole() {
    let (home, authority) = authority();
    let before = std::fs::read_to_string(home.path().join("agents.pem")).unwrap();
    assert!(!AgentAuthority::create(home.path(), NOW).unwrap());
    assert_eq!(authority.certificate(), before);
    assert_eq!(authority.not_after(), NOW + CA_LIFETIME);
    let mode = std::fs::metadata(home.path().join("agents.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The certificate alone is made anew for the key that is there.
    std::fs::remove_file(home.path().join("agents.pem")).unwrap();
    assert!(AgentAuthority::create(home.path(), NOW).unwrap());
    AgentAuthority::load(home.path()).unwrap();
}

#[test]
fn damaged_files_are_named() {
    let (home, _) = authority();
    let (other, _) = authority();
    std::fs::copy(other.path().join("agents.key"), home.path().join("agents.key")).unwrap();
    let error = AgentAuthority::load(home.path()).err().unwrap().to_string();
    assert!(error.contains("agents.key is not usable: it is not the key of agents.pem"), "{error}");
    std::fs::write(home.path().join("agents.key"), "x").unwrap();
    assert!(AgentAuthority::load(home.path()).err().unwrap().to_string().contains("agents.key is not usable"));
}

#[test]
fn a_certificate_says_what_the_install_says() {
    let (_home, authority) = authority();
    let mut greedy = CertificateParams::new(vec!["api.example.test".to_owned()]).unwrap();
    greedy.distinguished_name.push(DnType::CommonName, "root");
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (key, pem) = request(greedy, &PKCS_ECDSA_P256_SHA256);
    let request = CertificateRequest::parse(&pem).unwrap();
    let agent = AgentName::parse(&"a".repeat(100)).unwrap();
    let issue = || authority.issue(&request, "urn:nexus:i:tok_1", &agent, NOW..NOW + 60).unwrap();
    let der = CertificateDer::from_pem_slice(issue().as_bytes()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
    use rcgen::PublicKeyData as _;
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    assert_eq!(leaf.subject().to_string(), format!("CN={}", "a".repeat(64)));
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(format!("{names:?}"), r#"[URI("urn:nexus:i:tok_1")]"#);
    assert_eq!(leaf.validity().not_before.timestamp(), NOW);
    assert_eq!(leaf.validity().not_after.timestamp(), NOW + 60);
    let again = CertificateDer::from_pem_slice(issue().as_bytes()).unwrap();
    let (_, again) = x509_parser::parse_x509_certificate(&again).unwrap();
    assert_ne!(leaf.raw_serial(), again.raw_serial());
}

fn encoded(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn requests_are_judged_by_their_key_and_signature() {
    for (name, of) in
        [("P-256", &PKCS_ECDSA_P256_SHA256), ("P-384", &PKCS_ECDSA_P384_SHA384), ("Ed25519", &PKCS_ED25519)]
    {
        let (_, pem) = request(CertificateParams::default(), of);
        assert!(CertificateRequest::parse(&pem).is_ok(), "{name}");
    }
    let (_, pem) = request(CertificateParams::default(), &PKCS_ECDSA_P256_SHA256);
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
    use rcgen::PublicKeyData as _;
    let key_of = |request: CertificateRequest| request.0.der_bytes().to_vec();
    let own = key_of(CertificateRequest::parse(&pem).unwrap());
    let mut taken = 0;
    for at in 0..der.len() {
        let mut forged = der.to_vec();
        forged[at] ^= 1;
        // What is not signed, such as the tag of the algorithm's name, may be read either way: the key is the same.
        if let Ok(request) = CertificateRequest::parse(&encoded(&forged)) {
            assert_eq!(key_of(request), own, "byte {at}");
            taken += 1;
        }
    }
    assert!(taken < 4, "{taken}: what is signed cannot be changed");
    let mut longer = der.to_vec();
    longer.push(0);
    let longer = encoded(&longer);
    assert_eq!(CertificateRequest::parse(&longer).err(), Some(RequestError::Form));
    for text in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        assert_eq!(CertificateRequest::parse(text).err(), Some(RequestError::Form), "{text:?}");
    }
}
