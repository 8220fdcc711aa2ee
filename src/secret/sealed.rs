//! The envelope that secrets are kept in, on disk and in memory.
//!
//! A random data key per envelope, wrapped with the tenant's key, both by AES-256-GCM. The bytes:
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format version, 1 |
//! | 1 | 4 | id of the root key |
//! | 5 | 12 | nonce of the wrapped data key |
//! | 17 | 48 | data key, encrypted with the tenant's key, and its tag |
//! | 65 | 12 | nonce of the payload |
//! | 77 | n + 16 | payload, encrypted with the data key, and its tag |
//!
//! The associated data of both are these parts, each after its length as u32: format version (u8), install id, tenant,
//! record, field, record version (u64), key id, destination digest; then one byte, 1 for the wrapped key and 2 for the
//! payload. Numbers are big endian. `docs/store-format.md` has the same with a test vector.

use super::{KeyId, random_bytes};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aes::Aes256Enc;
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// AES-256-GCM. Its counter mode needs no decryption keys, so that these are not made either.
pub(super) type Cipher = AesGcm<Aes256Enc, U12>;

/// The format version in byte 0 and in the associated data.
pub(super) const FORMAT: u8 = 1;

const KEY_ID: usize = 1;
const WRAP_NONCE: usize = 5;
const WRAPPED: usize = 17;
const NONCE: usize = 65;
const PAYLOAD: usize = 77;
const TAG: usize = 16;

const OF_WRAPPED_KEY: u8 = 1;
const OF_PAYLOAD: u8 = 2;

/// A SHA-256 digest, such as that of a connection's destination.
pub type Digest = [u8; 32];

/// A sealed value. Cheap to clone; shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// The envelope's bytes, as stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes as stored; they are checked when opened.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }

    /// The id of the root key that it names.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        self.0.get(KEY_ID..WRAP_NONCE)?.try_into().ok()
    }

    pub(super) fn seal(tenant: &Cipher, context: &Context<'_>, random: &Random, plaintext: &[u8]) -> Self {
        let mut associated = context.encode();
        let mut bytes = Vec::with_capacity(PAYLOAD + plaintext.len() + TAG);
        bytes.push(context.format);
        bytes.extend_from_slice(&context.key_id);

        bytes.extend_from_slice(&random.wrap_nonce);
        let mut data_key = Zeroizing::new(*random.data_key);
        mark(&mut associated, OF_WRAPPED_KEY);
        let tag = tenant
            .encrypt_inout_detached((&random.wrap_nonce).into(), &associated, InOutBuf::from(&mut data_key[..]))
            .expect("32 bytes are within what AES-GCM takes");
        bytes.extend_from_slice(&data_key[..]);
        bytes.extend_from_slice(&tag);

        bytes.extend_from_slice(&random.nonce);
        mark(&mut associated, OF_PAYLOAD);
        // The buffer has its full size, so the plaintext in it is overwritten by its ciphertext and never left behind.
        bytes.extend_from_slice(plaintext);
        let tag = Cipher::new((&*random.data_key).into())
            .encrypt_inout_detached((&random.nonce).into(), &associated, InOutBuf::from(&mut bytes[PAYLOAD..]))
            .expect("the plaintext is within what AES-GCM takes");
        bytes.extend_from_slice(&tag);
        Self(Arc::from(bytes))
    }

    /// `tenant` is asked for only once the envelope is known to be of this root key.
    pub(super) fn open(
        &self,
        tenant: impl FnOnce() -> Arc<Cipher>,
        context: &Context<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let bytes = &*self.0;
        if bytes.len() < PAYLOAD + TAG || bytes[0] != context.format {
            return Err(SealError::Format);
        }
        if bytes[KEY_ID..WRAP_NONCE] != context.key_id {
            return Err(SealError::Key);
        }
        let mut associated = context.encode();
        mark(&mut associated, OF_WRAPPED_KEY);
        let mut data_key = Zeroizing::new([0; 32]);
        decrypt(&tenant(), &bytes[WRAP_NONCE..WRAPPED], &associated, &bytes[WRAPPED..NONCE], &mut data_key[..])?;
        mark(&mut associated, OF_PAYLOAD);
        let mut plaintext = Zeroizing::new(vec![0; bytes.len() - PAYLOAD - TAG]);
        let cipher = Cipher::new((&*data_key).into());
        decrypt(&cipher, &bytes[NONCE..PAYLOAD], &associated, &bytes[PAYLOAD..], &mut plaintext)?;
        Ok(plaintext)
    }
}

/// Writes the plaintext of `sealed` (ciphertext and tag) to `plaintext`, after its tag was found right.
pub(super) fn decrypt(
    cipher: &Cipher,
    nonce: &[u8],
    associated: &[u8],
    sealed: &[u8],
    plaintext: &mut [u8],
) -> Result<(), SealError> {
    let failed = |_| SealError::Integrity;
    let (ciphertext, tag) = sealed.split_at(sealed.len() - TAG);
    let nonce = nonce.try_into().expect("nonces are cut to 12 bytes");
    let tag = tag.try_into().expect("tags are cut to 16 bytes");
    let buffer = InOutBuf::new(ciphertext, plaintext).expect("plaintext and ciphertext have one length");
    cipher.decrypt_inout_detached(nonce, associated, buffer, tag).map_err(failed)
}

/// The random parts of one envelope.
pub(super) struct Random {
    data_key: Zeroizing<[u8; 32]>,
    wrap_nonce: [u8; 12],
    nonce: [u8; 12],
}

impl Random {
    pub(super) fn new() -> Self {
        Self { data_key: Zeroizing::new(random_bytes()), wrap_nonce: random_bytes(), nonce: random_bytes() }
    }
}

/// The whole of what an envelope is bound to.
pub(super) struct Context<'a> {
    pub(super) format: u8,
    pub(super) install_id: &'a str,
    pub(super) key_id: [u8; 4],
    pub(super) of: &'a SealContext<'a>,
}

impl Context<'_> {
    /// The associated data, with a last byte for [`mark`].
    fn encode(&self) -> Vec<u8> {
        let SealContext { tenant, record, field, version, destination } = self.of;
        let version = version.to_be_bytes();
        let parts: [&[u8]; 8] = [
            &[self.format],
            self.install_id.as_bytes(),
            tenant.as_bytes(),
            record.as_bytes(),
            field.as_bytes(),
            &version,
            &self.key_id,
            &destination[..],
        ];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum::<usize>() + 1);
        for part in parts {
            let length = u32::try_from(part.len()).expect("names and ids are short");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.push(0);
        bytes
    }
}

/// Says in the last byte of the associated data what it goes with, so that neither part can stand for the other.
fn mark(associated: &mut [u8], what: u8) {
    if let Some(last) = associated.last_mut() {
        *last = what;
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// What an envelope is bound to: the associated data, with format version, install id and key id added by the keyring.
/// Opening with any other context fails.
#[derive(Debug, Clone, Copy)]
pub struct SealContext<'a> {
    /// The tenant, which also chooses the key.
    pub tenant: &'a str,
    /// The id of the record, such as a connection id.
    pub record: &'a str,
    /// Which field of the record, such as `access` or `grant`.
    pub field: &'a str,
    /// The record's version.
    pub version: u64,
    /// The digest of the destination that the secret may go to.
    pub destination: &'a Digest,
}

/// Why an envelope did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short, or of an unknown format version.
    #[error("the sealed value has an unknown format")]
    Format,
    /// Sealed under another root key.
    #[error("the sealed value needs another root key")]
    Key,
    /// Authentication failed: edited, moved, rolled back, or bound to another destination.
    #[error("the sealed value was changed or moved and does not open")]
    Integrity,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::secret::{Keyring, RootKey};

    /// The lines `name = hex` of the test vector in the document.
    fn vector(name: &str) -> Vec<u8> {
        let document = include_str!("../../docs/store-format.md");
        let line = document.lines().find_map(|l| l.strip_prefix(&format!("{name} = "))).unwrap();
        line.split('#')
            .next()
            .unwrap()
            .trim()
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_documented_envelope_is_what_is_made() {
        let root = RootKey::from_bytes(&vector("root key").try_into().unwrap());
        let keyring = Keyring::new(&root, "0123456789abcdef0123456789abcdef");
        let destination: Digest = vector("destination digest").try_into().unwrap();
        let context = SealContext {
            tenant: "default",
            record: "con_00000000000000000000000000000001",
            field: "access",
            version: 1,
            destination: &destination,
        };
        let random = Random {
            data_key: Zeroizing::new(vector("data key").try_into().unwrap()),
            wrap_nonce: vector("wrap nonce").try_into().unwrap(),
            nonce: vector("payload nonce").try_into().unwrap(),
        };
        assert_eq!(keyring.key_id()[..], vector("key id"));
        assert_eq!(keyring.seal_with(&context, &random, &vector("plaintext")).as_bytes(), vector("envelope"));
        let opened = keyring.open(&context, &Sealed::from_bytes(&vector("envelope"))).unwrap();
        assert_eq!(opened[..], vector("plaintext"));
    }

    #[test]
    fn key_and_payload_cannot_stand_for_each_other() {
        let destination = [0; 32];
        let of = SealContext { tenant: "t", record: "r", field: "f", version: 1, destination: &destination };
        let context = Context { format: FORMAT, install_id: "i", key_id: [0; 4], of: &of };
        // One key for both: only the marker tells the two parts apart.
        let cipher = Cipher::new((&[9; 32]).into());
        let random = Random { data_key: Zeroizing::new([9; 32]), wrap_nonce: [1; 12], nonce: [2; 12] };
        let bytes = Sealed::seal(&cipher, &context, &random, &[5; 32]).as_bytes().to_vec();
        let swapped = [&bytes[..WRAP_NONCE], &bytes[NONCE..], &bytes[WRAP_NONCE..NONCE]].concat();
        assert_eq!(swapped.len(), bytes.len());
        let open = |bytes: &[u8]| Sealed::from_bytes(bytes).open(|| Arc::new(cipher.clone()), &context);
        assert!(open(&bytes).is_ok());
        assert_eq!(open(&swapped), Err(SealError::Integrity));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Sealed::from_bytes(b"abc")), "Sealed(3 bytes)");
    }
}
