//! The key hierarchy: root key -> HKDF-SHA256 per tenant -> random data key per envelope.
//!
//! | key | HKDF-SHA256 of the root key | salt | info |
//! |---|---|---|---|
//! | key-encryption key of a tenant | 32 bytes | install id | `kek/v1` and the tenant's name |
//! | fingerprint key | 32 bytes | install id | `fingerprint/v1` |
//! | key id | first 4 bytes | none | `key-id` |

use super::sealed::{Cipher, Context, FORMAT, Random};
use super::{Fingerprint, RootKey, SealContext, SealError, Sealed, Secret};
use aes_gcm::KeyInit;
use arc_swap::ArcSwap;
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, Mac};
use parking_lot::RwLock;
use sha2::Sha256;
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The id of a root key.
pub type KeyId = [u8; 4];

/// Seals and opens envelopes for one install. Share by `Arc`.
///
/// Holds the root key that seals, and others that only open what was sealed before or will be sealed after a rotation.
pub struct Keyring {
    install_id: String,
    /// The one that seals first.
    roots: ArcSwap<Vec<Arc<Root>>>,
    /// The ids of all root keys that it ever had.
    had: RwLock<Vec<KeyId>>,
}

/// What is derived from one root key.
struct Root {
    key_id: KeyId,
    derivation: Hkdf<Sha256>,
    fingerprints: Hmac<Sha256>,
    /// Ciphers with their round keys expanded, one per tenant that has sealed records: as many as the store has.
    tenants: RwLock<HashMap<String, Arc<Cipher>>>,
}

impl Root {
    fn new(root: &RootKey, install_id: &str) -> Self {
        let mut key_id = [0; 4];
        // No salt: the id tells which root key is needed, in whatever install.
        Hkdf::<Sha256>::new(None, root.bytes())
            .expand(b"key-id", &mut key_id)
            .expect("4 bytes are within what HKDF gives");
        let derivation = Hkdf::<Sha256>::new(Some(install_id.as_bytes()), root.bytes());
        let fingerprint_key = derive(&derivation, &[b"fingerprint/v1"]);
        let fingerprints = <Hmac<Sha256> as hkdf::hmac::KeyInit>::new_from_slice(&fingerprint_key[..])
            .expect("HMAC takes keys of every length");
        Self { key_id, derivation, fingerprints, tenants: RwLock::default() }
    }

    fn tenant(&self, tenant: &str) -> Arc<Cipher> {
        if let Some(cipher) = self.tenants.read().get(tenant) {
            return Arc::clone(cipher);
        }
        let key = derive(&self.derivation, &[b"kek/v1", tenant.as_bytes()]);
        let cipher = Arc::new(Cipher::new((&*key).into()));
        Arc::clone(self.tenants.write().entry(tenant.to_owned()).or_insert(cipher))
    }
}

impl Keyring {
    /// A keyring for the root key and the install's id (the HKDF salt).
    #[must_use]
    pub fn new(root: &RootKey, install_id: &str) -> Self {
        let root = Arc::new(Root::new(root, install_id));
        let had = RwLock::new(vec![root.key_id]);
        Self { install_id: install_id.to_owned(), roots: ArcSwap::from_pointee(vec![root]), had }
    }

    /// The install that the keys are for.
    #[must_use]
    pub fn install_id(&self) -> &str {
        &self.install_id
    }

    /// Adds a root key that opens and does not seal; gives its id. One that is there already changes nothing.
    pub fn add(&self, root: &RootKey) -> KeyId {
        let root = Arc::new(Root::new(root, &self.install_id));
        if !self.had(root.key_id) {
            self.had.write().push(root.key_id);
        }
        self.roots.rcu(|roots| {
            let known = roots.iter().any(|known| known.key_id == root.key_id);
            let added = (!known).then(|| Arc::clone(&root));
            roots.iter().cloned().chain(added).collect::<Vec<_>>()
        });
        root.key_id
    }

    /// Seals with this root key from now on; gives whether the keyring has it.
    pub fn seal_with_root(&self, key_id: KeyId) -> bool {
        self.roots.rcu(|roots| {
            let mut roots = Vec::clone(roots);
            if let Some(at) = roots.iter().position(|root| root.key_id == key_id) {
                roots[..=at].rotate_right(1);
            }
            roots
        });
        self.key_id() == key_id
    }

    /// Forgets a root key, unless it is the one that seals.
    pub fn forget(&self, key_id: KeyId) {
        self.roots.rcu(|roots| {
            let kept = |(at, root): &(usize, &Arc<Root>)| *at == 0 || root.key_id != key_id;
            roots.iter().enumerate().filter(kept).map(|(_, root)| Arc::clone(root)).collect::<Vec<_>>()
        });
    }

    /// The ids of its root keys; the one that seals comes first.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.roots.load().iter().map(|root| root.key_id).collect()
    }

    /// Whether it has this root key, or had it before it was forgotten.
    #[must_use]
    pub fn had(&self, key_id: KeyId) -> bool {
        self.had.read().contains(&key_id)
    }

    /// Whether the keyring has this root key.
    #[must_use]
    pub fn has(&self, key_id: KeyId) -> bool {
        self.roots.load().iter().any(|root| root.key_id == key_id)
    }

    /// A key for another purpose, derived from the root key with this id (HKDF info `info`, salt the install id).
    #[must_use]
    pub fn derived(&self, key_id: KeyId, info: &str) -> Option<Zeroizing<[u8; 32]>> {
        let roots = self.roots.load();
        let root = roots.iter().find(|root| root.key_id == key_id)?;
        Some(derive(&root.derivation, &[info.as_bytes()]))
    }

    /// Whether an envelope was sealed under one of these root keys, as far as its key id tells.
    #[must_use]
    pub fn sealed_it(&self, sealed: &Sealed) -> bool {
        sealed.key_id().is_some_and(|key_id| self.has(key_id))
    }

    /// The id of the root key that seals, in every envelope: the first 4 bytes of an HKDF output with info `key-id`.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.roots.load()[0].key_id
    }

    /// Seals `plaintext` for `context`.
    ///
    /// # Panics
    /// When the operating system has no random source, or for a plaintext of 64 GiB.
    #[must_use]
    pub fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Sealed {
        self.seal_with(context, &Random::new(), plaintext)
    }

    pub(super) fn seal_with(&self, context: &SealContext<'_>, random: &Random, plaintext: &[u8]) -> Sealed {
        let root = Arc::clone(&self.roots.load()[0]);
        Sealed::seal(&root.tenant(context.tenant), &self.context(root.key_id, context), random, plaintext)
    }

    /// Opens an envelope. About a microsecond: tenants' keys are derived once and kept.
    ///
    /// # Errors
    /// See [`SealError`]; never a raw or empty value.
    pub fn open(&self, context: &SealContext<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let roots = self.roots.load();
        let key_id = sealed.key_id().ok_or(SealError::Format)?;
        let root = roots.iter().find(|root| root.key_id == key_id).unwrap_or(&roots[0]);
        sealed.open(|| root.tenant(context.tenant), &self.context(root.key_id, context))
    }

    /// A keyed digest of a secret, safe to show.
    #[must_use]
    pub fn fingerprint(&self, secret: &Secret) -> Fingerprint {
        let mut mac = self.roots.load()[0].fingerprints.clone();
        // The digest is over the value; without the key it says nothing about it.
        mac.update(secret.expose().as_bytes());
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        Fingerprint(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn context<'a>(&'a self, key_id: KeyId, context: &'a SealContext<'a>) -> Context<'a> {
        Context { format: FORMAT, install_id: &self.install_id, key_id, of: context }
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(..)")
    }
}

fn derive(derivation: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    derivation.expand_multi_info(info, &mut key[..]).expect("32 bytes are within what HKDF gives");
    key
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const CONTEXT: SealContext<'static> =
        SealContext { tenant: "acme", record: "con_1", field: "access", version: 7, destination: &[0xdd; 32] };

    fn keyring(root: u8, install_id: &str) -> Keyring {
        Keyring::new(&RootKey::from_bytes(&[root; 32]), install_id)
    }

    #[test]
    fn what_was_sealed_opens_and_no_two_envelopes_are_alike() {
        let keyring = keyring(1, "install");
        for plaintext in [&b""[..], b"x", &[7; 16], &[0; 5000]] {
            let sealed = keyring.seal(&CONTEXT, plaintext);
            assert_eq!(keyring.open(&CONTEXT, &sealed).unwrap()[..], *plaintext);
            assert_eq!(sealed.as_bytes().len(), 93 + plaintext.len());
            let again = keyring.seal(&CONTEXT, plaintext);
            for part in [5..17, 17..65, 65..77, 77..93] {
                assert_ne!(sealed.as_bytes()[part.clone()], again.as_bytes()[part]);
            }
        }
    }

    #[test]
    fn another_keyring_of_the_same_install_opens_it() {
        let sealed = keyring(1, "install").seal(&CONTEXT, b"secret");
        assert_eq!(&keyring(1, "install").open(&CONTEXT, &sealed).unwrap()[..], b"secret");
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let keyring = keyring(1, "install");
        let sealed = keyring.seal(&CONTEXT, b"secret");
        for bit in 0..sealed.as_bytes().len() * 8 {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => SealError::Format,
                1..5 => SealError::Key,
                _ => SealError::Integrity,
            };
            assert_eq!(keyring.open(&CONTEXT, &Sealed::from_bytes(&bytes)), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_or_longer_envelope_is_detected() {
        let keyring = keyring(1, "install");
        let sealed = keyring.seal(&CONTEXT, b"secret");
        for length in 0..sealed.as_bytes().len() {
            let cut = Sealed::from_bytes(&sealed.as_bytes()[..length]);
            let expected = if length < 93 { SealError::Format } else { SealError::Integrity };
            assert_eq!(keyring.open(&CONTEXT, &cut), Err(expected), "{length} bytes");
        }
        let longer = Sealed::from_bytes(&[sealed.as_bytes(), &[0]].concat());
        assert_eq!(keyring.open(&CONTEXT, &longer), Err(SealError::Integrity));
    }

    #[test]
    fn every_part_of_the_context_binds() {
        let keyring = keyring(1, "install");
        let sealed = keyring.seal(&CONTEXT, b"secret");
        let rows = [
            ("tenant", SealContext { tenant: "acme2", ..CONTEXT }),
            ("record", SealContext { record: "con_2", ..CONTEXT }),
            ("field", SealContext { field: "grant", ..CONTEXT }),
            ("older version", SealContext { version: 6, ..CONTEXT }),
            ("newer version", SealContext { version: 8, ..CONTEXT }),
            ("destination", SealContext { destination: &[0xde; 32], ..CONTEXT }),
            ("text moved from field to record", SealContext { record: "con_1a", field: "ccess", ..CONTEXT }),
            ("nothing", SealContext { record: "", field: "", ..CONTEXT }),
        ];
        for (name, context) in rows {
            assert_eq!(keyring.open(&context, &sealed), Err(SealError::Integrity), "{name}");
        }
        assert!(keyring.open(&CONTEXT, &sealed).is_ok());
    }

    #[test]
    fn the_tenant_is_bound_by_key_too() {
        let keyring = keyring(1, "install");
        let root = Arc::clone(&keyring.roots.load()[0]);
        let acme = root.tenant("acme");
        assert!(Arc::ptr_eq(&acme, &root.tenant("acme")), "derived once");
        let sealed = keyring.seal(&CONTEXT, b"secret");
        let context = keyring.context(keyring.key_id(), &CONTEXT);
        assert!(sealed.open(|| acme, &context).is_ok());
        assert_eq!(sealed.open(|| root.tenant("other"), &context), Err(SealError::Integrity));
    }

    #[test]
    fn another_root_key_is_said_so() {
        let sealed = keyring(1, "install").seal(&CONTEXT, b"secret");
        assert_eq!(keyring(2, "install").open(&CONTEXT, &sealed), Err(SealError::Key));
        // The id alone decides nothing: with it edited, the data still does not open.
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[1..5].copy_from_slice(&keyring(2, "install").key_id());
        assert_eq!(keyring(2, "install").open(&CONTEXT, &Sealed::from_bytes(&bytes)), Err(SealError::Integrity));
    }

    #[test]
    fn another_install_does_not_open_it() {
        let sealed = keyring(1, "install").seal(&CONTEXT, b"secret");
        assert_eq!(keyring(1, "other").open(&CONTEXT, &sealed), Err(SealError::Integrity));
        assert_eq!(keyring(1, "install").key_id(), keyring(1, "other").key_id());
        assert_ne!(keyring(1, "install").key_id(), keyring(2, "install").key_id());
    }

    #[test]
    fn fingerprints_tell_values_apart_and_differ_by_install() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let keyring_1 = keyring(1, "install");
        let shown = keyring_1.fingerprint(&secret("a")).to_string();
        assert_eq!(shown.len(), 16);
        assert!(shown.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(shown, keyring_1.fingerprint(&secret("a")).to_string());
        assert_ne!(shown, keyring_1.fingerprint(&secret("b")).to_string());
        assert_ne!(shown, keyring(1, "other").fingerprint(&secret("a")).to_string());
        assert_ne!(shown, keyring(2, "install").fingerprint(&secret("a")).to_string());
    }
}
