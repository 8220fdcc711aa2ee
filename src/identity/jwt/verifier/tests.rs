#![expect(clippy::unwrap_used, reason = "tests")]
use super::super::testing::{Endpoint, SigningKey, base64url, key_set};
use super::super::{Algorithm, IssuerSettings, Issuers, KeyLocation, KeySet, KeySource, MAX_JWT_BYTES};
use super::*;
use crate::identity::{Claim, Condition, Mapping, Names, Principal, Principals, Rejected, Rule, Template};
use crate::secret::RootKey;
use crate::types::{ConnectionId, Glob, Scope};
use serde_json::{Value, json};
use std::time::Duration;

const NOW: UnixSeconds = 1_700_000_000;
const ISSUER: &str = "https://issuer.test";

fn settings(algorithm: Algorithm, keys: KeyLocation) -> IssuerSettings {
    let template = |text| Template::parse(text).unwrap();
    let condition = Condition { claim: Claim::parse("team").unwrap(), any_of: vec![Glob::new("red*")] };
    let rule = Rule {
        when: vec![condition],
        connections: vec!["github".to_owned()],
        methods: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
    };
    IssuerSettings {
        name: Arc::from("ci"),
        issuer: ISSUER.to_owned(),
        audience: vec!["nexus".to_owned(), "https://nexus.test".to_owned()],
        algorithm,
        keys,
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(3600),
        mapping: Mapping {
            tenant: template("default"),
            namespace: template("default"),
            agent: template("{sub}"),
            run: None,
            rules: vec![rule],
        },
    }
}

#[derive(Debug)]
struct Github;

impl Names for Github {
    fn connection(&self, _: &Scope, name: &str) -> Option<ConnectionId> {
        (name == "github").then(|| ConnectionId::parse("con_github").unwrap())
    }
}

/// A directory with the issuers. Nothing of another snapshot is remembered in it.
fn directory(issuers: Vec<(IssuerSettings, Arc<KeySource>)>) -> Directory {
    let issuers = issuers.into_iter().map(|(settings, keys)| Issuer { settings, keys }).collect();
    Directory {
        names: Some(Arc::new(Github)),
        issuers: Issuers::new(Some(Arc::from("nexus:own")), issuers),
        principals: Principals::default(),
        ..Directory::default()
    }
}

struct Setting {
    key: SigningKey,
    source: Arc<KeySource>,
    directory: Directory,
    clock: Clock,
    verifier: Verifier,
    egress: Arc<Egress>,
}

impl Setting {
    /// Keys in a file, so that nothing goes out.
    fn new(algorithm: Algorithm) -> Self {
        let key = SigningKey::new("k1", algorithm);
        let set = KeySet::parse(key_set(&[&key]).as_bytes()).unwrap();
        let location = KeyLocation::File("keys.json".into());
        let source = Arc::new(KeySource::fixed(location, set));
        Self::with(key, source, Arc::new(Egress::new(Default::default(), None).unwrap()))
    }

    fn with(key: SigningKey, source: Arc<KeySource>, egress: Arc<Egress>) -> Self {
        let settings = settings(key.algorithm, source.location().clone());
        let directory = directory(vec![(settings, Arc::clone(&source))]);
        let clock = Clock::fixed(NOW);
        let keyring = Arc::new(Keyring::new(&RootKey::from_bytes(&[1; 32]), "own"));
        let verifier = Verifier::new(keyring, Arc::new(Metrics::new()), clock.clone());
        Self { key, source, directory, clock, verifier, egress }
    }

    fn settings(&self) -> IssuerSettings {
        self.directory.issuers.iter().next().unwrap().settings.clone()
    }

    async fn prove_in(&self, directory: &Directory, text: &str) -> Result<(Proof, Principal), String> {
        let presented = directory.presented(text).ok_or("none of ours")?;
        let proof = self.verifier.prove(directory, &self.egress, &presented).await.map_err(|e| e.to_string())?;
        let principal = directory.recognise(&proof, self.clock.now()).map_err(|error| error.to_string())?;
        Ok((proof, principal))
    }

    async fn prove(&self, text: &str) -> Result<(Proof, Principal), String> {
        self.prove_in(&self.directory, text).await
    }
}

/// Good claims with some set, or removed by null.
fn claims(edits: &Value) -> Value {
    let mut claims =
        json!({ "iss": ISSUER, "aud": "nexus", "sub": "bob", "team": "red", "iat": NOW, "exp": NOW + 600 });
    for (name, value) in edits.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[tokio::test]
async fn a_good_token_of_each_algorithm_proves_its_principal() {
    for algorithm in Algorithm::ALL {
        let setting = Setting::new(algorithm);
        let text = setting.key.sign(&claims(&json!({})));
        for _ in 0..2 {
            let (proof, principal) = setting.prove(&text).await.unwrap();
            assert!(matches!(proof, Proof::Jwt(_)));
            assert_eq!(principal.agent.as_str(), "bob", "{algorithm}");
            assert_eq!(principal.issuer.as_deref(), Some("ci"));
            assert_eq!(principal.token_id, None);
            assert_eq!(principal.grant.connections, [ConnectionId::parse("con_github").unwrap()]);
        }
    }
}

/// B4: what the token says of itself changes nothing.
#[tokio::test]
async fn forged_tokens_are_refused() {
    let setting = Setting::new(Algorithm::RS256);
    let key = &setting.key;
    let (thief, curve) = (SigningKey::new("k1", Algorithm::RS256), SigningKey::new("k1", Algorithm::ES256));
    let good = claims(&json!({})).to_string();
    let genuine = key.sign(&claims(&json!({})));
    let (front, signature) = genuine.rsplit_once('.').unwrap();
    let other = key.sign(&claims(&json!({ "sub": "eve" })));
    let other_signature = other.rsplit_once('.').unwrap().1;
    let unsigned = |header: &str| format!("{}.{}.", base64url(header), base64url(&good));
    let hmac = |header: &str, secret: &[u8]| {
        let signed = format!("{}.{}", base64url(header), base64url(&good));
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let mac = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
        format!("{signed}.{mac}")
    };
    let jwk = key.jwk();
    let modulus = jwk["n"].as_str().unwrap();
    let header = |edits: Value| {
        let mut header = json!({ "alg": "RS256", "kid": "k1" });
        for (name, value) in edits.as_object().unwrap() {
            header[name] = value.clone();
        }
        header.to_string()
    };
    let by = |key: &SigningKey, edits: Value| key.sign_parts(&header(edits), &good);
    let payload = |text: String| key.sign_parts(&header(json!({})), &text);
    let twice = |name: &str, value: &str| payload(format!("{},\"{name}\":{value}}}", good.strip_suffix('}').unwrap()));
    let nested = key.sign_parts(&header(json!({ "cty": "JWT" })), &genuine);
    let ok = true;
    let rows: Vec<(&str, String, bool)> = vec![
        ("the genuine one", genuine.clone(), ok),
        ("any typ", by(key, json!({ "typ": "at+jwt" })), ok),
        ("no typ", by(key, json!({})), ok),
        ("alg none", unsigned(r#"{"alg":"none"}"#), !ok),
        ("alg None", unsigned(r#"{"alg":"None","kid":"k1"}"#), !ok),
        ("alg NONE", unsigned(r#"{"alg":"NONE","kid":"k1"}"#), !ok),
        ("alg none with a signature", key.sign_parts(r#"{"alg":"none","kid":"k1"}"#, &good), !ok),
        ("no alg", key.sign_parts(r#"{"kid":"k1"}"#, &good), !ok),
        ("alg is a list", by(key, json!({ "alg": ["RS256"] })), !ok),
        ("alg in lower case", by(key, json!({ "alg": "rs256" })), !ok),
        ("another alg of the same key", by(key, json!({ "alg": "RS512" })), !ok),
        ("PSS with the same key", by(key, json!({ "alg": "PS256" })), !ok),
        ("HS256 with the modulus", hmac(&header(json!({ "alg": "HS256" })), modulus.as_bytes()), !ok),
        ("HS256 with the key as JSON", hmac(&header(json!({ "alg": "HS256" })), jwk.to_string().as_bytes()), !ok),
        ("HS256 with the empty key", hmac(&header(json!({ "alg": "HS256" })), b""), !ok),
        ("HMAC called RS256", hmac(&header(json!({})), modulus.as_bytes()), !ok),
        ("another key of the same name", by(&thief, json!({})), !ok),
        ("another kind of key of the same name", by(&curve, json!({ "alg": "ES256" })), !ok),
        ("another kind of key, called RS256", by(&curve, json!({})), !ok),
        ("unknown kid", by(key, json!({ "kid": "k2" })), !ok),
        ("empty kid", by(key, json!({ "kid": "" })), !ok),
        ("kid is a path", by(&thief, json!({ "kid": "../../../../dev/null" })), !ok),
        ("kid is SQL", by(&thief, json!({ "kid": "k1' UNION SELECT 'x" })), !ok),
        ("kid is a URL", by(&thief, json!({ "kid": "https://evil.test/jwks" })), !ok),
        ("kid is a number", by(key, json!({ "kid": 1 })), !ok),
        ("no kid, and one key", key.sign_parts(r#"{"alg":"RS256"}"#, &good), ok),
        ("jku with the thief's key", by(&thief, json!({ "jku": "https://evil.test/jwks" })), !ok),
        ("jku is not read", by(key, json!({ "jku": "https://evil.test/jwks" })), ok),
        ("x5u with the thief's key", by(&thief, json!({ "x5u": "https://evil.test/cert" })), !ok),
        ("jwk with the thief's key", by(&thief, json!({ "jwk": thief.jwk() })), !ok),
        ("x5c with the thief's key", by(&thief, json!({ "x5c": ["MIIB"] })), !ok),
        ("jwk, x5u and x5c are not read", by(key, json!({ "jwk": thief.jwk(), "x5u": "x", "x5c": [] })), ok),
        ("crit", by(key, json!({ "crit": ["exp"] })), !ok),
        ("empty crit", by(key, json!({ "crit": [] })), !ok),
        ("b64 and crit", by(key, json!({ "crit": ["b64"], "b64": false })), !ok),
        ("no signature", format!("{front}."), !ok),
        ("no signature and no dot", front.to_owned(), !ok),
        ("cut signature", format!("{front}.{}", &signature[..signature.len() - 4]), !ok),
        ("longer signature", format!("{front}.{signature}AAAA"), !ok),
        ("padded signature", format!("{front}.{signature}=="), !ok),
        ("signature of another token", format!("{front}.{other_signature}"), !ok),
        ("claims of another token", format!("{}.{signature}", other.rsplit_once('.').unwrap().0), !ok),
        ("iss twice", twice("iss", r#""https://issuer.test""#), !ok),
        ("another iss, then ours", payload(good.replacen('{', r#"{"iss":"https://evil.test","#, 1)), !ok),
        ("aud twice", twice("aud", r#""other""#), !ok),
        ("exp twice", twice("exp", "9999999999"), !ok),
        ("sub twice", twice("sub", r#""root""#), !ok),
        ("sub twice, one escaped", twice("s\\u0075b", r#""root""#), !ok),
        ("alg twice", key.sign_parts(r#"{"alg":"none","alg":"RS256","kid":"k1"}"#, &good), !ok),
        ("huge exp", payload(claims(&json!({ "exp": 99_999_999_999_i64 })).to_string()), !ok),
        ("a JWT in a JWT", nested, !ok),
        ("encrypted form", format!("{front}.{signature}.{signature}.{signature}"), !ok),
        ("payload is a list", payload(format!("[{good}]")), !ok),
        ("payload with more behind it", payload(format!("{good}{good}")), !ok),
        ("header is a list", key.sign_parts("[]", &good), !ok),
        ("standard base64", genuine.replace('-', "+").replace('_', "/"), genuine.contains(['-', '_']) != ok),
        ("space behind", format!("{genuine} "), !ok),
        ("quotes around", format!("\"{genuine}\""), !ok),
        ("too long", payload(claims(&json!({ "x": "x".repeat(MAX_JWT_BYTES) })).to_string()), !ok),
    ];
    for (name, text, is_good) in rows {
        let proved = setting.prove(&text).await;
        assert_eq!(proved.is_ok(), is_good, "{name}: {proved:?}");
    }
}

/// B5: for whom and when.
#[tokio::test]
async fn claims_are_judged() {
    let setting = Setting::new(Algorithm::ES256);
    let ok = true;
    #[rustfmt::skip]
    let rows: Vec<(&str, Value, bool)> = vec![
        ("as it is", json!({}), ok),
        ("no iat", json!({ "iat": null }), ok),
        ("exp now", json!({ "exp": NOW }), ok),
        ("exp at the end of the leeway", json!({ "exp": NOW - 29 }), ok),
        ("exp behind the leeway", json!({ "exp": NOW - 30 }), !ok),
        ("exp long ago", json!({ "exp": 1 }), !ok),
        ("exp zero", json!({ "exp": 0 }), !ok),
        ("exp negative", json!({ "exp": -1 }), !ok),
        ("no exp", json!({ "exp": null }), !ok),
        ("exp is text", json!({ "exp": (NOW + 600).to_string() }), !ok),
        ("exp is a date", json!({ "exp": "2030-01-01T00:00:00Z" }), !ok),
        ("exp is true", json!({ "exp": true }), !ok),
        ("exp is a list", json!({ "exp": [NOW + 600] }), !ok),
        ("exp has a fraction", json!({ "exp": NOW as f64 + 600.5 }), ok),
        ("exp with an exponent", json!({ "exp": 1.700_000_6e9 }), ok),
        ("exp is 1e20", json!({ "exp": 1e20 }), !ok),
        ("exp is the largest number", json!({ "exp": f64::MAX }), !ok),
        ("exp is the largest integer", json!({ "exp": u64::MAX }), !ok),
        ("valid for as long as may be", json!({ "exp": NOW + 3600 }), ok),
        ("valid for longer", json!({ "exp": NOW + 3601 }), !ok),
        ("valid for longer, begun earlier", json!({ "iat": NOW - 3600, "exp": NOW + 10 }), !ok),
        ("valid for longer, without iat", json!({ "iat": null, "exp": NOW + 3631 }), !ok),
        ("iat behind exp", json!({ "iat": NOW + 20, "exp": NOW + 10 }), ok),
        ("nbf past", json!({ "nbf": NOW - 1 }), ok),
        ("nbf within the leeway", json!({ "nbf": NOW + 30 }), ok),
        ("nbf in the future", json!({ "nbf": NOW + 31 }), !ok),
        ("nbf is text", json!({ "nbf": "0" }), !ok),
        ("nbf negative", json!({ "nbf": -1 }), !ok),
        ("nbf has a fraction", json!({ "nbf": NOW as f64 - 0.5 }), ok),
        ("nbf is 1e20", json!({ "nbf": 1e20 }), !ok),
        ("iat within the leeway", json!({ "iat": NOW + 30 }), ok),
        ("iat in the future", json!({ "iat": NOW + 31 }), !ok),
        ("iat is text", json!({ "iat": "0" }), !ok),
        ("iat negative", json!({ "iat": -1 }), !ok),
        ("the other audience", json!({ "aud": "https://nexus.test" }), ok),
        ("one of several audiences", json!({ "aud": ["other", "nexus"] }), ok),
        ("another audience", json!({ "aud": "other" }), !ok),
        ("other audiences", json!({ "aud": ["other", "another"] }), !ok),
        ("audience in capitals", json!({ "aud": "NEXUS" }), !ok),
        ("a longer audience", json!({ "aud": "nexus.evil.test" }), !ok),
        ("no audience", json!({ "aud": null }), !ok),
        ("empty audience", json!({ "aud": "" }), !ok),
        ("empty list of audiences", json!({ "aud": [] }), !ok),
        ("audience is an object", json!({ "aud": { "nexus": true } }), !ok),
        ("audience with a number", json!({ "aud": ["nexus", 1] }), !ok),
        ("another issuer", json!({ "iss": "https://evil.test" }), !ok),
        ("issuer with a slash", json!({ "iss": "https://issuer.test/" }), !ok),
        ("issuer in capitals", json!({ "iss": "HTTPS://ISSUER.TEST" }), !ok),
        ("issuer is a list", json!({ "iss": [ISSUER] }), !ok),
        ("no issuer", json!({ "iss": null }), !ok),
        ("this install as issuer", json!({ "iss": "nexus:own" }), !ok),
        ("no sub", json!({ "sub": null }), !ok),
        ("sub is a number", json!({ "sub": 1 }), !ok),
        ("another team", json!({ "team": "blue" }), !ok),
        ("no team", json!({ "team": null }), !ok),
    ];
    for (name, edits, is_good) in rows {
        let text = setting.key.sign(&claims(&edits));
        let proved = setting.prove(&text).await;
        assert_eq!(proved.is_ok(), is_good, "{name}: {proved:?}");
    }
}

#[tokio::test]
async fn an_open_tunnels_proof_is_judged_by_what_holds_now() {
    let setting = Setting::new(Algorithm::ES256);
    let text = setting.key.sign(&claims(&json!({})));
    let (proof, _) = setting.prove(&text).await.unwrap();
    let with = |edit: &dyn Fn(&mut IssuerSettings)| {
        let mut settings = setting.settings();
        edit(&mut settings);
        directory(vec![(settings, Arc::clone(&setting.source))])
    };
    let recognise = |directory: &Directory, now| directory.recognise(&proof, now).map(drop);
    assert_eq!(recognise(&setting.directory, NOW + 629), Ok(()));
    assert_eq!(recognise(&setting.directory, NOW + 630), Err(Rejected::Expired));
    assert_eq!(recognise(&with(&|_| {}), NOW), Ok(()));
    type Edit = Box<dyn Fn(&mut IssuerSettings)>;
    let rows: [(&str, Edit, Rejected); 6] = [
        ("another iss", Box::new(|s| s.issuer = "https://other.test".to_owned()), Rejected::Unknown),
        ("another audience", Box::new(|s| s.audience = vec!["other".to_owned()]), Rejected::Unknown),
        ("another algorithm", Box::new(|s| s.algorithm = Algorithm::RS256), Rejected::Unknown),
        ("a shorter lifetime", Box::new(|s| s.max_lifetime = Duration::from_secs(599)), Rejected::Unknown),
        ("no rule", Box::new(|s| s.mapping.rules.clear()), Rejected::NotMapped),
        ("another agent", Box::new(|s| s.mapping.agent = Template::parse("{missing}").unwrap()), Rejected::NotMapped),
    ];
    for (name, edit, expected) in rows {
        let directory = with(&edit);
        assert_eq!(recognise(&directory, NOW), Err(expected), "{name}");
        assert!(setting.prove_in(&directory, &text).await.is_err(), "{name}: a new request");
    }
    assert_eq!(recognise(&directory(Vec::new()), NOW), Err(Rejected::Unknown));
    let keys = |keys: &[&SigningKey]| {
        let set = KeySet::parse(key_set(keys).as_bytes()).unwrap();
        let source = Arc::new(KeySource::fixed(setting.source.location().clone(), set));
        directory(vec![(setting.settings(), source)])
    };
    let other = SigningKey::new("k1", Algorithm::ES256);
    assert_eq!(recognise(&keys(&[&other]), NOW), Err(Rejected::Unknown), "the key is gone");
    assert_eq!(recognise(&keys(&[&other, &setting.key]), NOW), Ok(()));
    let locked = Directory { locked: true, ..setting.directory.clone() };
    assert_eq!(recognise(&locked, NOW), Err(Rejected::LockedOut));
    // Rules apply as they are now, not as they were when the tunnel was opened.
    let narrowed = with(&|settings| settings.mapping.rules[0].methods = vec!["GET".to_owned()]);
    assert_eq!(narrowed.recognise(&proof, NOW).unwrap().grant.methods, ["GET"]);
}

#[tokio::test]
async fn keys_are_fetched_rotated_and_removed() {
    let endpoint = Endpoint::start().await;
    let (first, second) = (SigningKey::new("k1", Algorithm::ES256), SigningKey::new("k2", Algorithm::ES256));
    endpoint.publish(&[&first]);
    let source = Arc::new(KeySource::new(KeyLocation::Url(endpoint.url("/jwks"))));
    let setting = Setting::with(first, source, endpoint.egress());
    let old = setting.key.sign(&claims(&json!({})));
    let new = second.sign(&claims(&json!({ "exp": NOW + 3600 })));
    let (proof, _) = setting.prove(&old).await.unwrap();
    assert!(setting.prove(&new).await.is_err(), "a key that the issuer has not published");
    // The issuer publishes it: the first token after the pause finds it, the old key goes on.
    endpoint.publish(&[&setting.key, &second]);
    setting.clock.advance(30);
    assert!(setting.prove(&new).await.is_ok());
    assert!(setting.prove(&old).await.is_ok());
    assert_eq!(endpoint.hits(), 2);
    // A storm of names that nobody has costs one question.
    setting.clock.advance(30);
    let stranger = |kid: &str| {
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        second.sign_parts(&header, &claims(&json!({ "jti": kid })).to_string())
    };
    for number in 0..200 {
        assert!(setting.prove(&stranger(&number.to_string())).await.is_err());
    }
    assert_eq!(endpoint.hits(), 3);
    // The old key is removed: known tokens and open tunnels end with the next fetch.
    endpoint.publish(&[&second]);
    setting.clock.advance(30);
    assert!(setting.prove(&stranger("x")).await.is_err());
    assert_eq!(setting.directory.recognise(&proof, setting.clock.now()).err(), Some(Rejected::Unknown));
    assert!(setting.prove(&old).await.is_err());
    assert!(setting.prove(&new).await.is_ok());
    // Down: the last good set holds for a day.
    endpoint.answer("500 Oops", "", "");
    setting.clock.advance(1800);
    setting.verifier.keep_keys_fresh(&setting.directory, &setting.egress);
    assert!(setting.prove(&new).await.is_ok());
}

#[tokio::test]
async fn an_issuer_without_keys_lets_nobody_in() {
    let endpoint = Endpoint::start().await;
    endpoint.answer("404 Not Found", "", "");
    let source = Arc::new(KeySource::new(KeyLocation::Url(endpoint.url("/jwks"))));
    let setting = Setting::with(SigningKey::new("k1", Algorithm::ES256), source, endpoint.egress());
    let text = setting.key.sign(&claims(&json!({})));
    for _ in 0..20 {
        assert!(setting.prove(&text).await.is_err());
    }
    assert_eq!(endpoint.hits(), 1);
    endpoint.publish(&[&setting.key]);
    setting.clock.advance(5);
    assert!(setting.prove(&text).await.is_ok());
}

#[tokio::test]
async fn tokens_of_one_issuer_for_two_audiences_are_two_issuers() {
    let setting = Setting::new(Algorithm::ES256);
    let mut second = setting.settings();
    second.name = Arc::from("second");
    second.audience = vec!["second".to_owned()];
    let issuers = vec![(setting.settings(), Arc::clone(&setting.source)), (second, Arc::clone(&setting.source))];
    let directory = directory(issuers);
    for (audience, expected) in
        [(json!("nexus"), "ci"), (json!("second"), "second"), (json!(["second", "nexus"]), "ci")]
    {
        let text = setting.key.sign(&claims(&json!({ "aud": audience })));
        let (_, principal) = setting.prove_in(&directory, &text).await.unwrap();
        assert_eq!(principal.issuer.as_deref(), Some(expected), "{audience}");
    }
    // Verified for the second, and then again by a config that has the first before it.
    let text = setting.key.sign(&claims(&json!({ "aud": ["second", "nexus"] })));
    let reversed = self::directory(
        directory.issuers.iter().rev().map(|issuer| (issuer.settings.clone(), Arc::clone(&issuer.keys))).collect(),
    );
    let other = Setting::with(
        SigningKey::new("k1", Algorithm::ES256),
        Arc::clone(&setting.source),
        Arc::clone(&setting.egress),
    );
    let (proof, principal) = other.prove_in(&reversed, &text).await.unwrap();
    assert_eq!(principal.issuer.as_deref(), Some("second"));
    let (first, _) = setting.prove_in(&directory, &text).await.unwrap();
    for (proof, expected) in [(&proof, "second"), (&first, "ci"), (&proof, "second")] {
        assert_eq!(directory.recognise(proof, NOW).unwrap().issuer.as_deref(), Some(expected));
    }
}

#[test]
fn only_jwts_that_name_an_issuer_here_are_looked_at() {
    let setting = Setting::new(Algorithm::ES256);
    let is_ours = |text: &str| setting.directory.presented(text).is_some();
    let payload = |text: &str| format!("{}.{}.c2ln", base64url(r#"{"alg":"ES256"}"#), base64url(text));
    let rows = [
        ("ours", payload(r#"{"iss":"https://issuer.test"}"#), true),
        ("this install's", payload(r#"{"iss":"nexus:own"}"#), true),
        ("unsigned", payload(r#"{"iss":"https://issuer.test"}"#).trim_end_matches("c2ln").to_owned(), true),
        ("ours second", payload(r#"{"iss":"https://evil.test","iss":"https://issuer.test"}"#), true),
        ("ours first", payload(r#"{"iss":"https://issuer.test","iss":"https://evil.test"}"#), true),
        ("another's", payload(r#"{"iss":"https://evil.test"}"#), false),
        ("another install's", payload(r#"{"iss":"nexus:other"}"#), false),
        ("no iss", payload("{}"), false),
        ("iss is a list", payload(r#"{"iss":["https://issuer.test"]}"#), false),
        ("inside another claim", payload(r#"{"act":{"iss":"https://issuer.test"}}"#), false),
        ("not JSON", payload("iss"), false),
        (
            "header is no JSON",
            format!("{}.{}.c2ln", base64url("x"), base64url(r#"{"iss":"https://issuer.test"}"#)),
            false,
        ),
        ("two parts", base64url("{}") + "." + &base64url(r#"{"iss":"https://issuer.test"}"#), false),
        ("four parts", payload(r#"{"iss":"https://issuer.test"}"#) + ".x", false),
        ("empty", String::new(), false),
        ("dots", "..".to_owned(), false),
        ("an API key", "sk-proj-abc.def.ghi".to_owned(), false),
    ];
    for (name, text, expected) in rows {
        assert_eq!(is_ours(&text), expected, "{name}");
    }
}

#[test]
fn proofs_and_what_is_presented_show_no_token() {
    let setting = Setting::new(Algorithm::ES256);
    let text = setting.key.sign(&claims(&json!({ "sub": "secret-subject" })));
    let presented = setting.directory.presented(&text).unwrap();
    let shown = format!("{presented:?}");
    assert!(!shown.contains("ey") && !shown.contains(&text[..20]), "{shown}");
}

#[tokio::test]
async fn a_token_with_one_other_character_is_refused() {
    let setting = Setting::new(Algorithm::EdDSA);
    let genuine = setting.key.sign(&claims(&json!({})));
    for at in 0..genuine.len() {
        for other in ["A", "B", "_", ".", "=", ""] {
            let mut text = genuine.clone();
            text.replace_range(at..=at, other);
            if text != genuine {
                assert!(setting.prove(&text).await.is_err(), "{other:?} at {at} of {genuine}");
            }
        }
    }
    assert!(setting.prove(&genuine).await.is_ok());
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged_without_panic(
        text in "\\PC{0,60}", header in "[\\[{\"algkid:,HS256none }\\]]{0,40}", payload in "[\\[{\"issaudexp:,0-9e.\\-u\\\\ }\\]]{0,60}"
    ) {
        let issuers = Issuers::new(None, Vec::new());
        for text in [text.clone(), format!("{}.{}.{}", base64url(&header), base64url(&payload), base64url(&text))] {
            let _ = issuers.is_named_in(&text);
            let _ = Jwt::parse(&text);
            let _ = KeySet::parse(text.as_bytes());
        }
    }
}
