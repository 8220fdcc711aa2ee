//! Reading the proof of identity out of `Proxy-Authorization`.

use crate::secret::{Secret, TokenDigest};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// What a caller presents, before anything of it is verified. Equal when the texts are.
#[derive(Debug)]
pub enum Presented {
    /// A text of an opaque token's form.
    Token(TokenDigest),
    /// A JWT that says it is of an issuer known here.
    Jwt {
        /// Of the whole text.
        digest: TokenDigest,
        /// The whole text.
        text: Secret,
    },
}

impl Presented {
    /// The digest of the text.
    #[must_use]
    pub fn digest(&self) -> &TokenDigest {
        match self {
            Self::Token(digest) | Self::Jwt { digest, .. } => digest,
        }
    }
}

impl PartialEq for Presented {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Presented {}

/// What `Proxy-Authorization` held.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxyCredentials {
    /// The token.
    pub token: Presented,
    /// A choice of connection: the user name, when the token is the password and the user name is not empty, `x` or
    /// `nexus`.
    pub connection: Option<String>,
}

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No header, or one without anything of token form in it: answer 407 without counting it.
    #[error("no agent token was given")]
    Missing,
    /// More than one header, or user and password both of token form and different: 400.
    #[error("more than one agent token was given")]
    Conflicting,
    /// A scheme other than Basic and Bearer, or Basic that is not base64 of `user:password`: 407.
    #[error("the proxy credentials are malformed")]
    Malformed,
}

/// Reads `Proxy-Authorization` values (all of them) by the rules for proxy credentials: scheme case-insensitive, Basic
/// or Bearer; in Basic whichever of user and password has token form is the token; if both, they must be equal.
/// `presented` tells what has token form (see [`super::Directory::presented`]).
///
/// # Errors
/// See [`ProofError`].
pub fn proxy_authorization<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
    presented: impl Fn(&str) -> Option<Presented>,
) -> Result<ProxyCredentials, ProofError> {
    let value = values.next().ok_or(ProofError::Missing)?;
    if values.next().is_some() {
        return Err(ProofError::Conflicting);
    }
    if value.trim_ascii().is_empty() {
        return Err(ProofError::Missing);
    }
    if let Some(text) = bearer(value) {
        let token = presented(text).ok_or(ProofError::Missing)?;
        return Ok(ProxyCredentials { token, connection: None });
    }
    let pair = BasicPair::from_header(value).ok_or(ProofError::Malformed)?;
    // Exposed to look for the agent's own token, which leaves this function as a digest or a secret.
    let (user, password) = (pair.user.expose(), pair.password.expose());
    match (presented(user), presented(password)) {
        (Some(first), Some(second)) if first != second => Err(ProofError::Conflicting),
        (Some(token), _) => Ok(ProxyCredentials { token, connection: None }),
        (None, Some(token)) => Ok(ProxyCredentials { token, connection: connection_choice(user) }),
        (None, None) => Err(ProofError::Missing),
    }
}

/// What follows `Bearer` in an `Authorization` or `Proxy-Authorization` value, whatever its form.
#[must_use]
pub fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, credentials) = split_scheme(value);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    std::str::from_utf8(credentials).ok()
}

/// User and password out of `Basic`, percent signs left alone. Agents put their token into either.
#[derive(Debug)]
pub struct BasicPair {
    /// The user.
    pub user: Secret,
    /// The password.
    pub password: Secret,
}

impl BasicPair {
    /// Reads a whole `Authorization` or `Proxy-Authorization` value. Padding may be missing; without a colon all of it
    /// is the user. `None` for another scheme, or when the rest is not base64 of UTF-8.
    #[must_use]
    pub fn from_header(value: &[u8]) -> Option<Self> {
        let (scheme, credentials) = split_scheme(value);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(credentials.len())]);
        let length = BASIC.decode_slice(credentials, &mut decoded).ok()?;
        let text = std::str::from_utf8(&decoded[..length]).ok()?;
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Some(Self { user: Secret::new(user.to_owned()), password: Secret::new(password.to_owned()) })
    }
}

/// The authentication scheme, and what follows it without the space around it.
fn split_scheme(value: &[u8]) -> (&[u8], &[u8]) {
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    (&value[..end], value[end..].trim_ascii())
}

/// The connection that a user name beside the token chooses. `x` and `nexus` are what people and tools write where a
/// user name has to stand.
#[must_use]
pub fn connection_choice(user: &str) -> Option<String> {
    (!matches!(user, "" | "x" | "nexus")).then(|| user.to_owned())
}

const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests;
