#![expect(clippy::unwrap_used, reason = "tests")]
use super::super::testing::{SigningKey, base64url};
use super::super::{Algorithm, Issuers, Verifier};
use super::*;
use crate::identity::{Directory, Presented, Proof, Rejected, TokenTable};
use crate::net::{Egress, EgressSettings};
use crate::secret::{AgentToken, RootKey};
use crate::store::{TokenKind, TokenRecord, TokenScope};
use crate::telemetry::Metrics;
use crate::types::{Clock, Scope};
use std::sync::Arc;

const NOW: UnixSeconds = 1_700_000_000;
const INSTALL: &str = "0123456789abcdef";

fn claims(id: &TokenId) -> RunClaims {
    RunClaims {
        id: id.clone(),
        agent: AgentName::parse("bot").unwrap(),
        run: RunId::parse("run-7").unwrap(),
        issued_at: NOW,
        expires_at: NOW + 900,
    }
}

fn record(claims: &RunClaims, text: &str) -> TokenRecord {
    TokenRecord {
        id: claims.id.clone(),
        scope: Scope::default(),
        agent: claims.agent.clone(),
        run: Some(claims.run.clone()),
        digest: AgentToken::digest(text),
        previous: None,
        connections: Vec::new(),
        methods: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
        scopes: vec![TokenScope::Use],
        kind: TokenKind::Run,
        parent: None,
        created_at: claims.issued_at,
        lifetime: None,
        expires_at: Some(claims.expires_at),
        revoked_at: None,
    }
}

struct Setting {
    keyring: Arc<Keyring>,
    clock: Clock,
    verifier: Verifier,
    egress: Arc<Egress>,
}

impl Setting {
    fn new() -> Self {
        let keyring = Arc::new(Keyring::new(&RootKey::from_bytes(&[1; 32]), INSTALL));
        let clock = Clock::fixed(NOW);
        let verifier = Verifier::new(Arc::clone(&keyring), Arc::new(Metrics::new()), clock.clone());
        Self { keyring, clock, verifier, egress: Arc::new(Egress::new(EgressSettings::default(), None).unwrap()) }
    }

    fn directory(records: &[TokenRecord]) -> Directory {
        Directory {
            tokens: TokenTable::default().updated(records, &[]),
            issuers: Issuers::new(Some(Arc::from(own_issuer(INSTALL))), Vec::new()),
            ..Directory::default()
        }
    }

    async fn prove(&self, directory: &Directory, text: &str) -> Result<Principal, String> {
        let presented = directory.presented(text).ok_or("none of ours")?;
        assert!(matches!(presented, Presented::Jwt { .. }));
        let proof = self.verifier.prove(directory, &self.egress, &presented).await.map_err(|e| e.to_string())?;
        assert!(matches!(proof, Proof::Token(_)), "its record is what counts from now on");
        directory.recognise(&proof, self.clock.now()).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn a_run_token_is_good_while_its_record_is() {
    let setting = Setting::new();
    let claims = claims(&TokenId::generate());
    // Test: the text is presented.
    let text = sign_run_token(&setting.keyring, INSTALL, &claims).expose().to_owned();
    let mut record = record(&claims, &text);
    let directory = Setting::directory(&[record.clone()]);
    for _ in 0..2 {
        let principal = setting.prove(&directory, &text).await.unwrap();
        assert_eq!(principal.token_id.as_ref(), Some(&claims.id));
        assert_eq!(principal.run.as_ref(), Some(&claims.run));
        assert_eq!(principal.issuer, None);
    }
    let proof = Proof::Token(AgentToken::digest(&text));
    setting.clock.advance(899);
    assert!(setting.prove(&directory, &text).await.is_ok());
    setting.clock.advance(1);
    assert_eq!(directory.recognise(&proof, setting.clock.now()).err(), Some(Rejected::Expired));
    assert!(setting.prove(&directory, &text).await.is_err());
    setting.clock.advance(-1);
    record.revoked_at = Some(NOW);
    let directory = Setting::directory(&[record]);
    assert_eq!(directory.recognise(&proof, setting.clock.now()).err(), Some(Rejected::Revoked));
    assert!(setting.prove(&directory, &text).await.is_err());
}

#[tokio::test]
async fn tokens_of_both_root_keys_verify_during_a_rotation() {
    let setting = Setting::new();
    let old_key = setting.keyring.key_id();
    let (old, new) = (claims(&TokenId::generate()), claims(&TokenId::generate()));
    let old_text = sign_run_token(&setting.keyring, INSTALL, &old).expose().to_owned();
    let key_id = setting.keyring.add(&RootKey::from_bytes(&[2; 32]));
    setting.keyring.seal_with_root(key_id);
    let new_text = sign_run_token(&setting.keyring, INSTALL, &new).expose().to_owned();
    let directory = Setting::directory(&[record(&old, &old_text), record(&new, &new_text)]);
    for text in [&old_text, &new_text] {
        assert!(setting.prove(&directory, text).await.is_ok());
    }
    setting.keyring.forget(old_key);
    assert!(setting.prove(&directory, &old_text).await.is_err(), "also one that was verified before");
    assert!(setting.prove(&directory, &new_text).await.is_ok());
}

#[tokio::test]
async fn forged_run_tokens_are_refused() {
    let setting = Setting::new();
    let id = TokenId::generate();
    let good = claims(&id);
    let key_id = key_id_text(setting.keyring.key_id());
    let hmac = |keyring: &Keyring, header: &Header, claims: &Value| {
        let key = keyring.derived(keyring.key_id(), KEY_INFO).unwrap();
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(&key[..])).unwrap()
    };
    let header = |kid: &str| Header { kid: Some(kid.to_owned()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
    let payload = |edits: Value| {
        let mut claims = serde_json::json!({
            "iss": own_issuer(INSTALL), "aud": "nexus", "sub": "bot", "run": "run-7", "jti": id,
            "iat": NOW, "exp": NOW + 900,
        });
        for (name, value) in edits.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    };
    let edited = |edits: Value| hmac(&setting.keyring, &header(&key_id), &payload(edits));
    let other = Keyring::new(&RootKey::from_bytes(&[9; 32]), INSTALL);
    let other_install = Keyring::new(&RootKey::from_bytes(&[1; 32]), "another");
    let genuine = edited(serde_json::json!({}));
    let (front, signature) = genuine.rsplit_once('.').unwrap();
    let rsa = SigningKey::new("x", Algorithm::RS256);
    let rows = [
        ("the genuine one", genuine.clone(), true),
        ("another root key", hmac(&other, &header(&key_id), &payload(serde_json::json!({}))), false),
        (
            "another root key's name",
            hmac(&other, &header(&key_id_text(other.key_id())), &payload(serde_json::json!({}))),
            false,
        ),
        ("another install's key", hmac(&other_install, &header(&key_id), &payload(serde_json::json!({}))), false),
        (
            "kid in capitals",
            hmac(&setting.keyring, &header(&format!("+{}", &key_id[1..])), &payload(serde_json::json!({}))),
            false,
        ),
        (
            "no kid",
            hmac(&setting.keyring, &Header::new(jsonwebtoken::Algorithm::HS256), &payload(serde_json::json!({}))),
            false,
        ),
        (
            "HS512",
            hmac(
                &setting.keyring,
                &Header { kid: Some(key_id.clone()), ..Header::new(jsonwebtoken::Algorithm::HS512) },
                &payload(serde_json::json!({})),
            ),
            false,
        ),
        (
            "none",
            format!(
                "{}.{}.",
                base64url(format!(r#"{{"alg":"none","kid":"{key_id}"}}"#)),
                base64url(payload(serde_json::json!({})).to_string())
            ),
            false,
        ),
        (
            "RS256",
            rsa.sign_parts(
                &format!(r#"{{"alg":"RS256","kid":"{key_id}"}}"#),
                &payload(serde_json::json!({})).to_string(),
            ),
            false,
        ),
        ("no signature", format!("{front}."), false),
        ("cut signature", format!("{front}.{}", &signature[1..]), false),
        ("another audience", edited(serde_json::json!({ "aud": "other" })), false),
        ("two audiences", edited(serde_json::json!({ "aud": ["nexus", "other"] })), false),
        ("no exp", edited(serde_json::json!({ "exp": null })), false),
        ("expired", edited(serde_json::json!({ "exp": NOW })), false),
        ("another run", edited(serde_json::json!({ "run": "run-8" })), false),
        ("no run", edited(serde_json::json!({ "run": null })), false),
        ("another agent", edited(serde_json::json!({ "sub": "root" })), false),
        ("another id", edited(serde_json::json!({ "jti": TokenId::generate() })), false),
    ];
    for (name, text, is_good) in rows {
        // Its record agrees with the text as far as a record can.
        let directory = Setting::directory(&[record(&good, &text)]);
        let proved = setting.prove(&directory, &text).await;
        assert_eq!(proved.is_ok(), is_good, "{name}: {proved:?}");
        let empty = Setting::directory(&[]);
        assert!(setting.prove(&empty, &text).await.is_err(), "{name} without a record");
    }
    let foreign = hmac(&setting.keyring, &header(&key_id), &payload(serde_json::json!({ "iss": "nexus:another" })));
    assert!(Setting::directory(&[]).presented(&foreign).is_none(), "a token of another install is none of ours");
}
