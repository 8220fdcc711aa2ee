#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::identity::{AgentAuthority, CertificateRequest, Directory, DisabledAgents, Proof, Rejected, Template};
use crate::secret::TokenDigest;
use crate::store::{TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, Glob, Scope};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    NameConstraints, SanType,
};
use rustls::pki_types::pem::PemObject;

const NOW: UnixSeconds = 1_700_000_000;
const SPIFFE: &str = "spiffe://example.org/agent/a";

/// An operator's CA.
struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl TestCa {
    fn new(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(SPIFFE)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }

    fn cas(&self) -> ClientCas {
        ClientCas::new(vec![self.certificate.clone()], &[], &[], "install").unwrap()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn at(seconds: UnixSeconds) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

#[test]
fn only_what_was_made_for_clients_is_taken() {
    let ca = TestCa::new(|_| {});
    let (other, twin) = (TestCa::new(|_| {}), TestCa::new(|_| {}));
    let cas = ca.cas();
    type Change = fn(&mut CertificateParams);
    let rows: [(&str, Change, bool); 8] = [
        ("as it should be", |_| {}, true),
        ("server too", |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth), true),
        ("no usage", |p| p.extended_key_usages.clear(), false),
        ("server only", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], false),
        ("any usage", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any], false),
        ("a CA", |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), false),
        ("expired", |p| p.not_after = at(NOW - 1), false),
        ("not yet", |p| p.not_before = at(NOW + 1), false),
    ];
    for (name, change, taken) in rows {
        assert_eq!(cas.identify(&[ca.sign(change)], NOW).is_ok(), taken, "{name}");
    }
    for (name, one) in [("another CA", &other), ("a CA of the same name", &twin)] {
        assert!(cas.identify(&[one.sign(|_| {})], NOW).is_err(), "{name}");
        // Its own certificate beside it makes it no better.
        assert!(cas.identify(&[one.sign(|_| {}), one.certificate.clone()], NOW).is_err(), "{name}");
    }
    assert!(cas.identify(&[], NOW).is_err());
}

#[test]
fn name_constraints_of_a_ca_hold() {
    let ca = TestCa::new(|params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("inside.test".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let named = |name: &str| {
        let name = SanType::DnsName(name.try_into().unwrap());
        ca.cas().identify(&[ca.sign(|params| params.subject_alt_names = vec![name])], NOW)
    };
    assert_eq!(named("A.inside.test").unwrap().attributes["dns"], "a.inside.test");
    assert!(named("a.outside.test").is_err());
}

#[test]
fn names_become_attributes() {
    let ca = TestCa::new(|_| {});
    let of = |names: Vec<SanType>| {
        let leaf = ca.sign(|params| {
            params.subject_alt_names = names;
            params.distinguished_name.push(DnType::CommonName, "root");
        });
        Value::Object(ca.cas().identify(&[leaf], NOW).unwrap().attributes)
    };
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let rows = [
        ("none", vec![], serde_json::json!({})),
        (
            "spiffe",
            vec![uri("spiffe://example.org/ns/prod/sa/x")],
            serde_json::json!({"uri": "spiffe://example.org/ns/prod/sa/x", "sub": "spiffe://example.org/ns/prod/sa/x",
                               "trust_domain": "example.org", "path": ["ns", "prod", "sa", "x"]}),
        ),
        ("urn", vec![uri("urn:a:b")], serde_json::json!({"uri": "urn:a:b", "sub": "urn:a:b"})),
        ("dns", vec![dns("A.test")], serde_json::json!({"dns": "a.test", "sub": "a.test"})),
        ("both", vec![uri("urn:a"), dns("b.test")], serde_json::json!({"uri": "urn:a", "dns": "b.test"})),
        ("two", vec![dns("a.test"), dns("b.test")], serde_json::json!({"dns": ["a.test", "b.test"]})),
    ];
    for (name, names, attributes) in rows {
        assert_eq!(of(names), attributes, "{name}");
    }
}

/// An install's CA of agents, the record `tok_1` of its agent, and a directory that knows both.
struct Place {
    _home: tempfile::TempDir,
    authority: AgentAuthority,
    certificate: CertificateDer<'static>,
    record: TokenRecord,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        AgentAuthority::create(home.path(), NOW).unwrap();
        let authority = AgentAuthority::load(home.path()).unwrap();
        let certificate = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
        let record = TokenRecord {
            id: TokenId::parse("tok_1").unwrap(),
            scope: Scope::default(),
            agent: AgentName::parse("a").unwrap(),
            run: None,
            digest: TokenDigest([1; 32]),
            previous: None,
            connections: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            scopes: vec![TokenScope::Use],
            kind: TokenKind::Certificate,
            parent: None,
            created_at: 1,
            lifetime: None,
            expires_at: Some(NOW + 1000),
            revoked_at: None,
        };
        Self { _home: home, authority, certificate, record }
    }

    fn cas(&self, others: &[&TestCa]) -> ClientCas {
        let mut roots = vec![self.certificate.clone()];
        roots.extend(others.iter().map(|ca| ca.certificate.clone()));
        ClientCas::new(roots, std::slice::from_ref(&self.certificate), &[], "install").unwrap()
    }

    fn issue(&self, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let request = CertificateRequest::parse(&request).unwrap();
        let pem = self.authority.issue(&request, name, &self.record.agent, NOW - 10..NOW + 100).unwrap();
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn directory(&self, cas: &ClientCas, change: impl FnOnce(&mut TokenRecord)) -> Directory {
        let mut record = self.record.clone();
        change(&mut record);
        let directory = Directory::default();
        Directory {
            tokens: directory.tokens.updated(&[record], &[]),
            client_roots: Arc::new(cas.roots().collect()),
            ..directory
        }
    }
}

fn who(directory: &Directory, certificate: &ClientCertificate, now: UnixSeconds) -> Result<String, Rejected> {
    let proof = Proof::Certificate(Arc::new(certificate.clone()));
    directory.recognise(&proof, now).map(|principal| principal.agent.to_string())
}

#[test]
fn an_enrolled_agent_is_judged_by_its_record() {
    let place = Place::new();
    let cas = place.cas(&[]);
    let certificate = cas.identify(&[place.issue(&certificate_name("install", &place.record.id))], NOW).unwrap();
    type Change = fn(&mut TokenRecord);
    let rows: [(&str, Change, UnixSeconds, Result<String, Rejected>); 7] = [
        ("live", |_| {}, NOW, Ok("a".to_owned())),
        ("revoked", |r| r.revoked_at = Some(1), NOW, Err(Rejected::Revoked)),
        ("record ended", |r| r.expires_at = Some(NOW), NOW, Err(Rejected::Expired)),
        ("certificate ended", |_| {}, NOW + 101, Err(Rejected::Expired)),
        ("before it begins", |_| {}, NOW - 11, Err(Rejected::Expired)),
        ("an opaque token's record", |r| r.kind = TokenKind::Opaque, NOW, Err(Rejected::Unknown)),
        ("another record", |r| r.id = TokenId::parse("tok_2").unwrap(), NOW, Err(Rejected::Unknown)),
    ];
    for (name, change, now, expected) in rows {
        assert_eq!(who(&place.directory(&cas, change), &certificate, now), expected, "{name}");
    }
    let live = place.directory(&cas, |_| {});
    let agent = (Scope::default(), AgentName::parse("a").unwrap());
    let disabled = Directory { disabled: DisabledAgents::from_iter([agent]), ..live.clone() };
    assert_eq!(who(&disabled, &certificate, NOW), Err(Rejected::AgentDisabled));
    let locked = Directory { locked: true, ..live.clone() };
    assert_eq!(who(&locked, &certificate, NOW), Err(Rejected::LockedOut));
    let distrusted = Directory { client_roots: Arc::default(), ..live.clone() };
    assert_eq!(who(&distrusted, &certificate, NOW), Err(Rejected::Unknown), "its CA was taken out of the config");
    // Neither is the record a token.
    assert_eq!(live.recognise(&Proof::Token(place.record.digest), NOW).err(), Some(Rejected::Unknown));
}

#[test]
fn only_the_installs_ca_names_its_records() {
    let place = Place::new();
    let operator = TestCa::new(|_| {});
    let cas = place.cas(&[&operator]);
    let directory = place.directory(&cas, |_| {});
    let name = certificate_name("install", &place.record.id);
    let forged = cas.identify(&[operator.sign(|params| params.subject_alt_names = vec![uri(&name)])], NOW).unwrap();
    assert_eq!((forged.is_own, forged.record.clone()), (false, None));
    assert_eq!(who(&directory, &forged, NOW), Err(Rejected::NotMapped));
    for name in [certificate_name("other", &place.record.id), "urn:nexus:install:x y".to_owned(), SPIFFE.to_owned()] {
        let strange = cas.identify(&[place.issue(&name)], NOW).unwrap();
        assert_eq!(who(&directory, &strange, NOW), Err(Rejected::Unknown), "{name}");
    }
}

#[test]
fn an_operators_certificate_is_mapped_by_the_first_rule_that_fits() {
    use crate::identity::{Claim, Condition, Mapping, Rule};
    let place = Place::new();
    let operator = TestCa::new(|_| {});
    let cas = place.cas(&[&operator]);
    let mapping = |name: &str, agent: &str, uri: &str| CertificateMapping {
        name: name.into(),
        mapping: Mapping {
            tenant: Template::parse("default").unwrap(),
            namespace: Template::parse("default").unwrap(),
            agent: Template::parse(agent).unwrap(),
            run: None,
            rules: vec![Rule {
                when: vec![Condition { claim: Claim::parse("uri").unwrap(), any_of: vec![Glob::new(uri)] }],
                connections: Vec::new(),
                methods: Vec::new(),
                paths: Vec::new(),
                hosts: Vec::new(),
            }],
        },
    };
    let certificates = vec![
        mapping("elsewhere", "x", "spiffe://other.org/*"),
        mapping("mesh", "{/path/1}", "spiffe://example.org/agent/*"),
        mapping("rest", "{sub}", "spiffe://example.org/*"),
    ];
    let directory = Directory { certificates: certificates.into(), ..place.directory(&cas, |_| {}) };
    for (name, expected) in [
        (SPIFFE, Ok("a".to_owned())),
        ("spiffe://example.org/other", Ok("spiffe://example.org/other".to_owned())),
        ("spiffe://example.org.evil.test/agent/a", Err(Rejected::NotMapped)),
    ] {
        let certificate = operator.sign(|params| params.subject_alt_names = vec![uri(name)]);
        assert_eq!(who(&directory, &cas.identify(&[certificate], NOW).unwrap(), NOW), expected, "{name}");
    }
    // Rules are for the operator's CAs: what the install's own signed is a record's or nobody's.
    assert_eq!(who(&directory, &cas.identify(&[place.issue(SPIFFE)], NOW).unwrap(), NOW), Err(Rejected::Unknown));
}

#[test]
fn a_set_of_cas_is_checked() {
    let ca = TestCa::new(|_| {});
    let new = |roots: Vec<_>, interception: &[CertificateDer<'static>]| {
        ClientCas::new(roots, &[], interception, "i").map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(new(vec![], &[]).unwrap_err().contains("holds no certificate"));
    let both = new(vec![ca.certificate.clone()], std::slice::from_ref(&ca.certificate));
    assert!(both.unwrap_err().contains("interception CA"));
    assert!(new(vec![CertificateDer::from(vec![0x30, 0])], &[]).unwrap_err().contains("cannot be used"));
}
