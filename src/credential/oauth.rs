//! The token endpoint: building the request and reading the answer strictly (RFC 6749 sections 4.4, 5, 6).

use crate::connection::{Grant, OAuthGrant};
use crate::net::{ClientError, ClientResponse, Egress, HttpsClient};
use crate::provider::TokenClientAuth;
use crate::secret::{Secret, SecretFields};
use base64::Engine as _;
use http::header::{ACCEPT, AUTHORIZATION, HeaderName};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The largest answer that is read.
const ANSWER_BYTES: usize = 256 * 1024;

/// A longer lifetime is taken for a mistake.
const TEN_YEARS: f64 = 315_360_000.0;

/// The errors that will not go away by trying again: RFC 6749 section 5.2, and GitHub's own names for two of them.
const FINAL_ERRORS: [&str; 7] = [
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "bad_refresh_token",
    "incorrect_client_credentials",
];

/// A token answer.
#[derive(Debug)]
pub struct TokenAnswer {
    /// The access token.
    pub access_token: Secret,
    /// A new refresh token; absent means the old one stays.
    pub refresh_token: Option<Secret>,
    /// Lifetime in seconds; `None` when absent, not positive, or absurd (over 10 years). A string of digits counts.
    pub expires_in: Option<i64>,
}

/// Why there was no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The endpoint refused the grant for good (`invalid_grant`, `invalid_client`, `unauthorized_client` …).
    #[error("the token endpoint rejected the grant ({code})")]
    Rejected {
        /// RFC 6749 section 5.2 error code, cut to 40 characters of `[a-z_]`.
        code: String,
    },
    /// The endpoint said to come back later (429, 503).
    #[error("the token endpoint answered {status}, to be tried again")]
    Busy {
        /// The status.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// An answer that is neither a token nor an error that is understood (HTML, redirect, 5xx, missing fields).
    #[error("the token endpoint's answer is not usable: {reason}")]
    Unusable {
        /// What is wrong with it, without any of its text.
        reason: String,
    },
    /// Not reached.
    #[error("the token endpoint could not be reached")]
    Unreachable(#[from] ClientError),
}

/// A token request, ready to be sent.
#[derive(Debug)]
pub(super) struct TokenRequest {
    headers: Vec<(HeaderName, Secret)>,
    form: Secret,
}

impl TokenRequest {
    /// Builds the request from the grant's fields (`client_id`, `client_secret`, `refresh_token`); `None` when a field
    /// that it needs is not there.
    pub(super) fn build(oauth: &OAuthGrant, fields: &SecretFields) -> Option<Self> {
        // The request to the connection's own token endpoint is what these values are for.
        let field = |name: &str| fields.get(name).map(Secret::expose).filter(|value| !value.is_empty());
        let mut pairs = match oauth.grant {
            Grant::RefreshToken => vec![("grant_type", "refresh_token"), ("refresh_token", field("refresh_token")?)],
            Grant::ClientCredentials => vec![("grant_type", "client_credentials")],
        };
        if let Some(scope) = oauth.scope.as_deref().filter(|scope| !scope.is_empty()) {
            pairs.push(("scope", scope));
        }
        // Some endpoints (GitHub) answer a form unless JSON is asked for.
        let mut headers = vec![(ACCEPT, Secret::new("application/json".to_owned()))];
        match oauth.client_auth {
            TokenClientAuth::Basic => {
                let value = basic(field("client_id")?, field("client_secret").unwrap_or_default());
                headers.push((AUTHORIZATION, value));
            }
            TokenClientAuth::Post => {
                pairs.push(("client_id", field("client_id")?));
                pairs.extend(field("client_secret").map(|value| ("client_secret", value)));
            }
            TokenClientAuth::None => pairs.extend(field("client_id").map(|value| ("client_id", value))),
        }
        Some(Self { headers, form: form(&pairs) })
    }

    /// Sends it and reads the answer. Redirects are not followed.
    pub(super) async fn send(
        &self,
        oauth: &OAuthGrant,
        egress: &Arc<Egress>,
        timeout: Duration,
    ) -> Result<TokenAnswer, TokenError> {
        let client = HttpsClient::new(egress.clone());
        match client.post_form(&oauth.token_url, &self.headers, &self.form, ANSWER_BYTES, timeout).await {
            Ok(response) => read_answer(&response),
            Err(ClientError::TooLarge(limit)) => Err(unusable(format!("it is larger than {limit} bytes"))),
            Err(error) => Err(error.into()),
        }
    }
}

/// `application/x-www-form-urlencoded`. The buffer is large enough from the start, so that no copy stays behind.
fn form(pairs: &[(&str, &str)]) -> Secret {
    let capacity = pairs.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut out = String::with_capacity(capacity);
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        push_encoded(&mut out, name);
        out.push('=');
        push_encoded(&mut out, value);
    }
    Secret::new(out)
}

/// RFC 6749 section 2.3.1: id and secret are form-encoded before they are joined.
fn basic(id: &str, secret: &str) -> Secret {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
    push_encoded(&mut pair, id);
    pair.push(':');
    push_encoded(&mut pair, secret);
    let mut value = String::with_capacity("Basic ".len() + pair.len().div_ceil(3) * 4);
    value.push_str("Basic ");
    base64::engine::general_purpose::STANDARD.encode_string(pair.as_bytes(), &mut value);
    Secret::new(value)
}

fn push_encoded(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

/// Reads an answer. None of its text goes into an error, but for an error code.
pub(super) fn read_answer(response: &ClientResponse) -> Result<TokenAnswer, TokenError> {
    let status = response.status;
    match status {
        429 | 503 => return Err(TokenError::Busy { status, retry_after: response.retry_after }),
        200..=299 | 400..=499 => {}
        300..=399 => return Err(unusable(format!("it is a redirect ({status}), which is not followed"))),
        _ => return Err(unusable(format!("its status is {status}"))),
    }
    // Read by the parser, which puts what it keeps into secrets.
    let members = response.body.as_ref().and_then(|body| Members::parse(body.expose()));
    let Some(members) = members else {
        return Err(unusable(match status {
            200..=299 => "it is not a JSON object".to_owned(),
            _ => format!("its status is {status}"),
        }));
    };
    if let Some(code) = members.error.code() {
        return Err(match status {
            200 | 400..=499 if FINAL_ERRORS.contains(&code.as_str()) => TokenError::Rejected { code },
            _ => unusable(format!("its status is {status}, with the error {code:?}")),
        });
    }
    if status >= 400 {
        return Err(unusable(format!("its status is {status}")));
    }
    let lifetime = members.expires_in.seconds();
    if !members.token_type.is_bearer() {
        return Err(unusable("its token_type is not bearer".to_owned()));
    }
    let access_token = members
        .access_token
        .token()
        .map_err(|()| unusable("its access_token is not a token".to_owned()))?
        .ok_or_else(|| unusable("it has no access_token".to_owned()))?;
    let refresh_token =
        members.refresh_token.token().map_err(|()| unusable("its refresh_token is not a token".to_owned()))?;
    Ok(TokenAnswer { access_token, refresh_token, expires_in: lifetime })
}

fn unusable(reason: String) -> TokenError {
    TokenError::Unusable { reason }
}

/// The members of an answer that mean something here.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Members {
    access_token: Member,
    refresh_token: Member,
    token_type: Member,
    expires_in: Member,
    error: Member,
}

impl Members {
    /// `None` unless the text is one JSON object without any of these members twice.
    fn parse(text: &str) -> Option<Self> {
        // The derived reader takes an array too.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

/// Any JSON value; texts go straight into a [`Secret`], since any of them may be a token.
#[derive(Default)]
enum Member {
    #[default]
    Absent,
    Text(Secret),
    Number(f64),
    Other,
}

impl Member {
    /// An error code: `Some` when there is an error at all. Anything that is no plain code is the empty text.
    fn code(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            // Compared with known codes, and cut so that nothing but a code can come through.
            Self::Text(text) if text.is_empty() => None,
            Self::Text(text) => {
                Some(text.expose().chars().take(40).take_while(|c| matches!(c, 'a'..='z' | '_')).collect())
            }
            Self::Number(_) | Self::Other => Some(String::new()),
        }
    }

    fn is_bearer(&self) -> bool {
        match self {
            Self::Absent => true,
            // Compared with a word.
            Self::Text(text) => text.expose().eq_ignore_ascii_case("bearer"),
            Self::Number(_) | Self::Other => false,
        }
    }

    /// A token (RFC 6749 appendix A: visible characters and space); nothing and the empty text are `None`.
    fn token(self) -> Result<Option<Secret>, ()> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) if text.is_empty() => Ok(None),
            // Looked at, so that no token is stored that no header can carry.
            Self::Text(text) if text.expose().bytes().all(|b| matches!(b, 0x20..=0x7e)) => Ok(Some(text)),
            _ => Err(()),
        }
    }

    /// A lifetime, if it is one that can be believed.
    fn seconds(&self) -> Option<i64> {
        let seconds = match self {
            Self::Number(number) => *number,
            // A number of seconds is no secret.
            Self::Text(text) if text.expose().bytes().all(|b| b.is_ascii_digit()) => text.expose().parse().ok()?,
            _ => return None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "checked to be from 1 to ten years")]
        (1.0..=TEN_YEARS).contains(&seconds).then_some(seconds as i64)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(Secret::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Member, E> {
        Ok(Member::Text(Secret::new(text)))
    }

    #[expect(clippy::cast_precision_loss, reason = "what matters is far below 2^53")]
    fn visit_u64<E>(self, number: u64) -> Result<Member, E> {
        Ok(Member::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "what matters is far below 2^53")]
    fn visit_i64<E>(self, number: i64) -> Result<Member, E> {
        Ok(Member::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Member, E> {
        Ok(Member::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Other)
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Member, A::Error> {
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Other)
    }
}

#[cfg(test)]
mod tests;
