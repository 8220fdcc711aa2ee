//! The form of opaque agent tokens: `nxt_`, 43 characters of base64url (256 random bits), 6 of checksum; and of the
//! one-time codes of invitations.

use super::{Secret, random_bytes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

const PREFIX: &str = "nxt_";
/// Prefix and random part: what the checksum is over.
const BODY: usize = PREFIX.len() + 43;
/// 32 bits of CRC in base64url.
const CHECKSUM: usize = 6;

/// SHA-256 of a token's text: what the store keeps and look-ups use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub [u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// An agent token in memory.
#[derive(Debug)]
pub struct AgentToken(Secret);

impl AgentToken {
    /// A new random token.
    #[must_use]
    pub fn generate() -> Self {
        Self(generate(PREFIX))
    }

    /// Whether the text has the form of an agent token: prefix, alphabet, length. The checksum is not looked at, so
    /// that a mistyped token is still treated (and stripped) as one.
    #[must_use]
    pub fn has_form(text: &str) -> bool {
        has_form(text, PREFIX)
    }

    /// Whether the checksum of a text of token form is right; a wrong one cannot be a token of any install.
    #[must_use]
    pub fn checksum_is_right(text: &str) -> bool {
        Self::has_form(text) && checksum(&text[..BODY]) == text[BODY..]
    }

    /// The digest of a token's text.
    #[must_use]
    pub fn digest(text: &str) -> TokenDigest {
        TokenDigest(Sha256::digest(text).into())
    }

    /// The value, to be shown once.
    #[must_use]
    pub fn value(&self) -> &Secret {
        &self.0
    }
}

/// A one-time code by which an agent enrolls: `nxe_`, and the rest as in a token. It is none: no request takes it for one.
#[derive(Debug)]
pub struct EnrolmentCode(Secret);

const CODE_PREFIX: &str = "nxe_";

impl EnrolmentCode {
    /// A new random code.
    #[must_use]
    pub fn generate() -> Self {
        Self(generate(CODE_PREFIX))
    }

    /// Whether the text has the form of a code: prefix, alphabet, length.
    #[must_use]
    pub fn has_form(text: &str) -> bool {
        has_form(text, CODE_PREFIX)
    }

    /// Whether the checksum of a text of a code's form is right; a wrong one is mistyped.
    #[must_use]
    pub fn checksum_is_right(text: &str) -> bool {
        Self::has_form(text) && checksum(&text[..BODY]) == text[BODY..]
    }

    /// The digest of a code's text.
    #[must_use]
    pub fn digest(text: &str) -> TokenDigest {
        AgentToken::digest(text)
    }

    /// The value, to be shown once.
    #[must_use]
    pub fn value(&self) -> &Secret {
        &self.0
    }
}

fn generate(prefix: &str) -> Secret {
    let random = Zeroizing::new(random_bytes::<32>());
    // Full size at once: a string that grows leaves a copy behind.
    let mut text = String::with_capacity(BODY + CHECKSUM);
    text.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(&random[..], &mut text);
    text.push_str(&checksum(&text));
    Secret::new(text)
}

fn has_form(text: &str, prefix: &str) -> bool {
    text.len() == BODY + CHECKSUM
        && text.starts_with(prefix)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// CRC-32 of the text before it, big endian, in base64url: tells secret scanners a token from a text that looks alike.
fn checksum(body: &str) -> String {
    URL_SAFE_NO_PAD.encode(crc32fast::hash(body.as_bytes()).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn new_tokens_have_the_form_and_a_right_checksum() {
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let token = AgentToken::generate();
            // Test: the form of the text is what is looked at.
            let text = token.value().expose();
            assert!(AgentToken::has_form(text));
            assert!(AgentToken::checksum_is_right(text));
            assert_eq!(text.len(), 53);
            assert!(seen.insert(text.to_owned()), "tokens are random");
        }
    }

    #[test]
    fn a_known_token_keeps_its_form() {
        let text = format!("nxt_{}{}", "A".repeat(43), checksum(&format!("nxt_{}", "A".repeat(43))));
        assert_eq!(text, format!("nxt_{}{}", "A".repeat(43), "2cNllg"));
    }

    #[test]
    fn other_texts_do_not_have_the_form() {
        let body = "a".repeat(49);
        let rows = [
            ("empty", String::new()),
            ("prefix alone", "nxt_".to_owned()),
            ("one short", format!("nxt_{}", &body[1..])),
            ("one long", format!("nxt_{body}a")),
            ("upper-case prefix", format!("NXT_{body}")),
            ("other prefix", format!("ghp_{body}")),
            ("plus", format!("nxt_{}+", &body[1..])),
            ("slash", format!("nxt_{}/", &body[1..])),
            ("padding", format!("nxt_{}=", &body[1..])),
            ("space before", format!(" nxt_{}", &body[1..])),
            ("newline after", format!("nxt_{}\n", &body[1..])),
            ("dot", format!("nxt_{}.", &body[1..])),
            ("percent", format!("nxt_{}%", &body[1..])),
            ("two-byte character", format!("nxt_{}é", &body[2..])),
        ];
        for (name, text) in rows {
            assert!(!AgentToken::has_form(&text), "{name}");
            assert!(!AgentToken::checksum_is_right(&text), "{name}");
        }
    }

    #[test]
    fn every_changed_character_breaks_the_checksum() {
        let token = AgentToken::generate();
        // Test: the text is edited.
        let text = token.value().expose().to_owned();
        for at in 4..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let edited = String::from_utf8_lossy(&bytes).into_owned();
            assert!(AgentToken::has_form(&edited), "a mistyped token still has the form");
            assert!(!AgentToken::checksum_is_right(&edited), "position {at}");
        }
    }

    #[test]
    fn the_digest_is_sha256_of_the_text_and_not_shown() {
        let digest = AgentToken::digest("abc");
        assert_eq!(digest.0[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(format!("{digest:?}"), "TokenDigest(..)");
        assert_eq!(format!("{:?}", AgentToken::generate()), "AgentToken(Secret(..))");
    }
}
