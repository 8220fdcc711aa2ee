//! Public keys, from a JSON web key set (RFC 7517).

use super::token::Jwt;
use super::{JwtError, strict};
use crate::identity::Attributes;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// What tells two public keys apart, whatever they are called.
pub(super) type KeyDigest = [u8; 32];

/// The algorithms that an issuer may sign with. All of them have a public key: with a shared one (HS256) a verifier
/// could sign, and the public key of another algorithm could be passed off as it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "their names say it (RFC 7518 section 3.1, RFC 8037)")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The name in headers and in the config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => Kind::Rsa,
            Self::ES256 => Kind::P256,
            Self::ES384 => Kind::P384,
            Self::EdDSA => Kind::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::RS256 => Self::RS256,
            Algorithm::RS384 => Self::RS384,
            Algorithm::RS512 => Self::RS512,
            Algorithm::PS256 => Self::PS256,
            Algorithm::PS384 => Self::PS384,
            Algorithm::PS512 => Self::PS512,
            Algorithm::ES256 => Self::ES256,
            Algorithm::ES384 => Self::ES384,
            Algorithm::EdDSA => Self::EdDSA,
        }
    }
}

/// What a key can sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The keys of an issuer that can verify signatures; others of its set are left out.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    digest: KeyDigest,
    id: Option<String>,
    kind: Kind,
    /// The one algorithm that it is for, if the set says so.
    algorithm: Option<String>,
    decoding: DecodingKey,
}

/// Why a text is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON.
    #[error("it is not valid JSON: {0}")]
    Json(String),
    /// Another object.
    #[error("it has no array named keys")]
    NoKeys,
    /// More than any issuer has.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
}

/// Keys of a set, at most.
const MAX_KEYS: usize = 200;

impl KeySet {
    /// Reads a key set. Keys that are not for verifying, of a kind that is not supported, or too weak are left out.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let mut set = strict::object(json).map_err(KeySetError::Json)?;
        let Some(Value::Array(found)) = set.remove("keys") else { return Err(KeySetError::NoKeys) };
        if found.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let read = |value: &Value| {
            let key = value.as_object().ok_or("it is no object").and_then(Key::read);
            key.inspect_err(|reason| {
                let id = value.get("kid").and_then(Value::as_str).unwrap_or("without kid");
                let id: String = id.chars().take(80).collect();
                tracing::debug!(kid = id, "key {id:?} of a JWKS is left out: {reason}");
            })
        };
        Ok(Self { keys: found.iter().filter_map(|value| read(value).ok()).collect() })
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the key is in the set and may be used with the algorithm.
    pub(super) fn has(&self, digest: &KeyDigest, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.digest == *digest && key.fits(algorithm))
    }

    /// Whether both have the same keys.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&other.keys).all(|(a, b)| a.digest == b.digest && a.id == b.id)
    }

    /// The key that verifies the token.
    ///
    /// # Errors
    /// [`JwtError::UnknownKey`], [`JwtError::Signature`].
    pub(super) fn verify(&self, token: &Jwt<'_>, algorithm: Algorithm) -> Result<KeyDigest, JwtError> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
        let keys: Vec<&Key> = match &token.key_id {
            Some(id) => fitting.filter(|key| key.id.as_ref() == Some(id)).collect(),
            // Without a name a key is meant only if there is no other.
            None => match (fitting.next(), fitting.next()) {
                (Some(key), None) => vec![key],
                _ => Vec::new(),
            },
        };
        if keys.is_empty() {
            return Err(JwtError::UnknownKey);
        }
        let verifies = |key: &&&Key| key.verifies(token.signed.as_bytes(), token.signature, algorithm);
        keys.iter().find(verifies).map(|key| key.digest).ok_or(JwtError::Signature)
    }
}

impl Key {
    fn read(jwk: &Attributes) -> Result<Self, &'static str> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if jwk.get("use").is_some_and(|usage| usage != "sig") {
            return Err("it is not for signatures (use)");
        }
        let operations = jwk.get("key_ops").map(|operations| operations.as_array().map(Vec::as_slice));
        if operations.is_some_and(|operations| !operations.unwrap_or_default().iter().any(|op| op == "verify")) {
            return Err("it is not for verifying (key_ops)");
        }
        let part = |name: &str| text(name).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).ok_or("it is malformed");
        let (kind, parts) = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => {
                let (n, e) = (part("n")?, part("e")?);
                let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
                if n.first() == Some(&0) || !(2048..=8192).contains(&bits) {
                    return Err("its modulus has not 2048 to 8192 bits");
                }
                if e.last().is_none_or(|last| last % 2 == 0) || e.as_slice() == [1] {
                    return Err("its exponent is no exponent");
                }
                (Kind::Rsa, [n, e])
            }
            (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => {
                let (kind, length) = if curve == "P-256" { (Kind::P256, 32) } else { (Kind::P384, 48) };
                let (x, y) = (part("x")?, part("y")?);
                if x.len() != length || y.len() != length {
                    return Err("its coordinates have another length than the curve's");
                }
                (kind, [x, y])
            }
            (Some("OKP"), Some("Ed25519")) => {
                let x = part("x")?;
                if x.len() != 32 {
                    return Err("it has not 32 bytes");
                }
                (Kind::Ed25519, [x, Vec::new()])
            }
            _ => return Err("it is of a kind that no algorithm here uses"),
        };
        let [first, second] = &parts;
        let decoding = match kind {
            Kind::Rsa => DecodingKey::from_rsa_raw_components(first, second),
            // An uncompressed point (SEC 1, section 2.3.3).
            Kind::P256 | Kind::P384 => DecodingKey::from_ec_der(&[&[4][..], first, second].concat()),
            Kind::Ed25519 => DecodingKey::from_ed_der(first),
        };
        let mut digest = Sha256::new();
        digest.update([kind as u8]);
        digest.update(first.len().to_be_bytes());
        digest.update(first);
        digest.update(second);
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(Value::String(algorithm)) => Some(algorithm.clone()),
            Some(_) => return Err("its alg is no text"),
        };
        let id = match jwk.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err("its kid is no text"),
        };
        Ok(Self { digest: digest.finalize().into(), id, kind, algorithm, decoding })
    }

    /// Whether the signature, in base64url, is this key's over the text.
    fn verifies(&self, signed: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        matches!(jsonwebtoken::crypto::verify(signature, signed, &self.decoding, algorithm.into()), Ok(true))
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind == algorithm.kind() && self.algorithm.as_deref().is_none_or(|own| own == algorithm.name())
    }
}

#[cfg(test)]
mod tests;
