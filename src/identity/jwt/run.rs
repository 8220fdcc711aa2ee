//! Run tokens: JWTs that this install signs for one run each (`nexus token mint`).
//!
//! HS256 with a key derived from the root key. A token is good only as long as its record is: it is revoked, listed and
//! audited like every other token.

use super::token::Jwt;
use super::{JwtError, Registered};
use crate::identity::Principal;
use crate::secret::{KeyId, Keyring, Secret};
use crate::types::{AgentName, RunId, TokenId, UnixSeconds};
use jsonwebtoken::{DecodingKey, EncodingKey, Header};
use serde_json::Value;

/// The `aud` of run tokens.
pub const RUN_AUDIENCE: &str = "nexus";

/// The HKDF info of the key that signs them.
const KEY_INFO: &str = "run-tokens/v1";

/// The `iss` of an install's own tokens.
#[must_use]
pub fn own_issuer(install_id: &str) -> String {
    format!("nexus:{install_id}")
}

/// What a run token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunClaims {
    /// The record's id.
    pub id: TokenId,
    /// The agent.
    pub agent: AgentName,
    /// The run.
    pub run: RunId,
    /// When it was made.
    pub issued_at: UnixSeconds,
    /// When it ends.
    pub expires_at: UnixSeconds,
}

/// Signs a run token with the root key that seals.
///
/// # Panics
/// Never: HMAC takes every key, and the claims have a JSON form.
#[must_use]
pub fn sign_run_token(keyring: &Keyring, install_id: &str, claims: &RunClaims) -> Secret {
    let key_id = keyring.key_id();
    let key = keyring.derived(key_id, KEY_INFO).expect("the keyring has the key that it seals with");
    let header = Header { kid: Some(key_id_text(key_id)), ..Header::new(jsonwebtoken::Algorithm::HS256) };
    let claims = serde_json::json!({
        "iss": own_issuer(install_id),
        "aud": RUN_AUDIENCE,
        "sub": claims.agent,
        "run": claims.run,
        "jti": claims.id,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
    });
    let signed = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&key[..]));
    Secret::new(signed.expect("HMAC takes every key, and the claims have a JSON form"))
}

/// Verifies a run token's signature and times; gives the id of the root key whose key signed it.
///
/// # Errors
/// See [`JwtError`].
#[expect(clippy::cast_precision_loss, reason = "the time of day is far below 2^52")]
pub(super) fn verify(keyring: &Keyring, token: &Jwt<'_>, now: UnixSeconds) -> Result<KeyId, JwtError> {
    if token.algorithm != "HS256" {
        return Err(JwtError::Header("its alg is not that of run tokens"));
    }
    let key_id = token.key_id.as_deref().and_then(parse_key_id).ok_or(JwtError::UnknownKey)?;
    let key = keyring.derived(key_id, KEY_INFO).ok_or(JwtError::UnknownKey)?;
    let key = DecodingKey::from_secret(&key[..]);
    let (signed, algorithm) = (token.signed.as_bytes(), jsonwebtoken::Algorithm::HS256);
    if !matches!(jsonwebtoken::crypto::verify(token.signature, signed, &key, algorithm), Ok(true)) {
        return Err(JwtError::Signature);
    }
    let Registered { audience, .. } = &token.registered;
    if audience.as_slice() != [RUN_AUDIENCE] {
        return Err(JwtError::Audience);
    }
    // Made and judged by one clock, as the record is.
    token.registered.check_times(now as f64, 0.0, f64::INFINITY)?;
    Ok(key_id)
}

/// Whether a token says what its record says.
pub(super) fn agrees(token: &Jwt<'_>, principal: &Principal) -> bool {
    let is = |claim: &str, expected: Option<&str>| {
        expected.is_some() && token.claims.get(claim).and_then(Value::as_str) == expected
    };
    is("jti", principal.token_id.as_ref().map(TokenId::as_str))
        && is("sub", Some(principal.agent.as_str()))
        && is("run", principal.run.as_ref().map(RunId::as_str))
}

fn key_id_text(key_id: KeyId) -> String {
    format!("{:08x}", u32::from_be_bytes(key_id))
}

fn parse_key_id(text: &str) -> Option<KeyId> {
    let key_id = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
    (key_id_text(key_id) == text).then_some(key_id)
}

#[cfg(test)]
mod tests;
