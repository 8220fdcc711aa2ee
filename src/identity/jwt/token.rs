//! The text of a token: its parts, read strictly, and the claims that every token must have.

use super::super::Attributes;
use super::keys::{Algorithm, KeyDigest};
use super::{JwtError, strict};
use crate::secret::TokenDigest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// The longest token that is looked at.
pub const MAX_JWT_BYTES: usize = 8 * 1024;

/// Whether a text has the parts of a JWT and names, in an `iss` that nobody has verified, an issuer that is ours.
/// Lenient, so that no broken token passes for something else.
pub(super) fn names_issuer(text: &str, is_ours: impl Fn(&str) -> bool) -> bool {
    let Some([header, claims, _]) = parts(text) else { return false };
    let is_object = |json: &[u8]| json.trim_ascii_start().starts_with(b"{");
    let decode = |part| URL_SAFE_NO_PAD.decode(part).ok().filter(|json| is_object(json));
    let (Some(header), Some(claims)) = (decode(header), decode(claims)) else { return false };
    let mut deserializer = serde_json::Deserializer::from_slice(&claims);
    serde_json::from_slice::<IgnoredAny>(&header).is_ok()
        && deserializer.deserialize_map(IssuerVisitor(is_ours)).is_ok_and(|found| found)
        && deserializer.end().is_ok()
}

/// Whether a text looks like a signed JWT, of whomever.
#[must_use]
pub fn has_jwt_form(text: &str) -> bool {
    parts(text).is_some_and(|[header, _, signature]| header.starts_with("ey") && !signature.is_empty())
}

/// Header, claims and signature, if the text is three parts of base64url characters.
fn parts(text: &str) -> Option<[&str; 3]> {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let mut parts = text.split('.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    let is_jwt = parts.next().is_none()
        && !three[0].is_empty()
        && !three[1].is_empty()
        && three.iter().all(|part| part.bytes().all(is_base64url));
    is_jwt.then_some(three)
}

/// Whether any `iss` of an object is ours.
struct IssuerVisitor<F>(F);

impl<'de, F: Fn(&str) -> bool> Visitor<'de> for IssuerVisitor<F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "iss" {
                found |= map.next_value::<Value>()?.as_str().is_some_and(&self.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A token that was read and not yet verified.
#[derive(Debug)]
pub(super) struct Jwt<'t> {
    /// What the signature is over.
    pub(super) signed: &'t str,
    /// The signature, in base64url.
    pub(super) signature: &'t str,
    /// What the token says of its algorithm.
    pub(super) algorithm: String,
    /// Which key it means.
    pub(super) key_id: Option<String>,
    /// All claims.
    pub(super) claims: Attributes,
    /// Those that every token must have.
    pub(super) registered: Registered,
}

/// The claims of RFC 7519 section 4.1 that say for whom and when.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Registered {
    pub(super) issuer: String,
    pub(super) audience: Vec<String>,
    pub(super) expires: f64,
    pub(super) not_before: Option<f64>,
    pub(super) issued: Option<f64>,
}

impl<'t> Jwt<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub(super) fn parse(text: &'t str) -> Result<Self, JwtError> {
        if text.len() > MAX_JWT_BYTES {
            return Err(JwtError::TooLong);
        }
        let malformed = |part| move |reason: String| JwtError::Malformed(part, reason);
        let [header, claims, signature] =
            parts(text).ok_or_else(|| malformed("form")("not three parts of base64url".to_owned()))?;
        let object = |part: &'static str, text: &str| {
            let json = URL_SAFE_NO_PAD.decode(text).map_err(|error| malformed(part)(error.to_string()))?;
            strict::object(&json).map_err(malformed(part))
        };
        let mut header_object = object("header", header)?;
        let claims_object = object("payload", claims)?;
        if header_object.contains_key("crit") {
            return Err(JwtError::Header("it has a critical header parameter (crit), and none is understood"));
        }
        if signature.is_empty() {
            return Err(JwtError::Header("it has no signature"));
        }
        let Some(Value::String(algorithm)) = header_object.remove("alg") else {
            return Err(JwtError::Header("its alg is missing or no text"));
        };
        let key_id = match header_object.remove("kid") {
            None => None,
            Some(Value::String(key_id)) => Some(key_id),
            Some(_) => return Err(JwtError::Header("its kid is no text")),
        };
        let registered = Registered::read(&claims_object)?;
        Ok(Self {
            signed: &text[..header.len() + 1 + claims.len()],
            signature,
            algorithm,
            key_id,
            claims: claims_object,
            registered,
        })
    }
}

impl Registered {
    fn read(claims: &Attributes) -> Result<Self, JwtError> {
        let Some(Value::String(issuer)) = claims.get("iss") else {
            return Err(JwtError::Claim("iss", "text"));
        };
        let texts = |values: &[Value]| values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
        let audience: Option<Vec<String>> = match claims.get("aud") {
            Some(Value::Array(values)) => texts(values),
            Some(value) => texts(std::slice::from_ref(value)),
            None => None,
        };
        let audience = audience.ok_or(JwtError::Claim("aud", "text or a list of texts"))?;
        Ok(Self {
            issuer: issuer.clone(),
            audience,
            expires: date(claims, "exp")?.ok_or(JwtError::Claim("exp", DATE))?,
            not_before: date(claims, "nbf")?,
            issued: date(claims, "iat")?,
        })
    }

    /// Whether the token is valid now, for an issuer with this leeway and longest lifetime, all in seconds.
    pub(super) fn check_times(&self, now: f64, leeway: f64, max_lifetime: f64) -> Result<(), JwtError> {
        if now >= self.expires + leeway {
            return Err(JwtError::Expired);
        }
        let is_later = |date: Option<f64>| date.is_some_and(|date| date > now + leeway);
        if is_later(self.not_before) || is_later(self.issued) {
            return Err(JwtError::NotYet);
        }
        let lifetime = self.issued.map_or(0.0, |issued| self.expires - issued);
        if lifetime > max_lifetime || self.expires - now > max_lifetime + leeway {
            return Err(JwtError::Lifetime);
        }
        Ok(())
    }
}

const DATE: &str = "a number of seconds since 1970";

/// A NumericDate (RFC 7519 section 2): a JSON number, which may have a fraction.
fn date(claims: &Attributes, name: &'static str) -> Result<Option<f64>, JwtError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => number
            .as_f64()
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
            .map(Some)
            .ok_or(JwtError::Claim(name, DATE)),
        Some(_) => Err(JwtError::Claim(name, DATE)),
    }
}

/// A token whose signature was verified, as a tunnel keeps it. Everything that can change is judged again at each
/// request: times, the issuer's settings, whether the key is still in its set, the rules.
pub struct VerifiedJwt {
    /// SHA-256 of the text.
    pub(in crate::identity) digest: TokenDigest,
    /// The issuer's name in the config.
    pub(in crate::identity) issuer: Arc<str>,
    /// The algorithm that it was verified with.
    pub(super) algorithm: Algorithm,
    /// The key that it was verified with.
    pub(super) key: KeyDigest,
    /// For whom and when.
    pub(super) registered: Registered,
    /// All claims.
    pub(in crate::identity) claims: Attributes,
}

impl PartialEq for VerifiedJwt {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.issuer == other.issuer && self.key == other.key
    }
}

impl Eq for VerifiedJwt {}

impl fmt::Debug for VerifiedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedJwt").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
