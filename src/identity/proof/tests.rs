#![expect(clippy::unwrap_used, reason = "tests")]

use super::{BasicPair, Presented, ProofError, ProxyCredentials, bearer};
use crate::identity::Directory;
use crate::secret::AgentToken;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

/// Two texts of token form.
fn tokens() -> (String, String) {
    let token = || AgentToken::generate().value().expose().to_owned();
    (token(), token())
}

fn proxy_authorization<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<ProxyCredentials, ProofError> {
    let directory = Directory::default();
    super::proxy_authorization(values, |text| directory.presented(text))
}

fn read(values: &[String]) -> Result<ProxyCredentials, ProofError> {
    proxy_authorization(values.iter().map(String::as_bytes))
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn proof_by_rule() {
    let (a, b) = tokens();
    let unpadded = |pair: &str| basic(pair).trim_end_matches('=').to_owned();
    let found = |connection: Option<&str>| {
        Ok(ProxyCredentials {
            token: Presented::Token(AgentToken::digest(&a)),
            connection: connection.map(str::to_owned),
        })
    };
    let cases: Vec<(&str, Vec<String>, Result<ProxyCredentials, ProofError>)> = vec![
        ("no header", vec![], Err(ProofError::Missing)),
        ("empty header", vec![String::new()], Err(ProofError::Missing)),
        ("blank header", vec![" \t ".to_owned()], Err(ProofError::Missing)),
        ("bearer", vec![format!("Bearer {a}")], found(None)),
        ("bearer in another case", vec![format!("bEARER {a}")], found(None)),
        ("bearer with extra space", vec![format!("  Bearer \t  {a}  ")], found(None)),
        ("bearer without a token", vec!["Bearer".to_owned()], Err(ProofError::Missing)),
        ("bearer of another form", vec!["Bearer abc".to_owned()], Err(ProofError::Missing)),
        ("bearer with two words", vec![format!("Bearer {a} {a}")], Err(ProofError::Missing)),
        ("token as the password", vec![basic(&format!("x:{a}"))], found(None)),
        ("token as the password of nexus", vec![basic(&format!("nexus:{a}"))], found(None)),
        ("token as the password of nobody", vec![basic(&format!(":{a}"))], found(None)),
        ("token as the password of a connection", vec![basic(&format!("work:{a}"))], found(Some("work"))),
        ("upper case X is a connection", vec![basic(&format!("X:{a}"))], found(Some("X"))),
        ("percent signs stay", vec![basic(&format!("a%62:{a}"))], found(Some("a%62"))),
        ("token as the user", vec![basic(&format!("{a}:"))], found(None)),
        ("token as the user, password ignored", vec![basic(&format!("{a}:github"))], found(None)),
        ("token as the user without a colon", vec![basic(&a)], found(None)),
        ("token as both", vec![basic(&format!("{a}:{a}"))], found(None)),
        ("two tokens", vec![basic(&format!("{a}:{b}"))], Err(ProofError::Conflicting)),
        ("basic in another case", vec![basic(&format!("x:{a}")).replace("Basic", "BASIC")], found(None)),
        ("basic with extra space", vec![basic(&format!("x:{a}")).replace("Basic ", " Basic   ")], found(None)),
        ("one padding sign missing", vec![unpadded(&format!("xy:{a}"))], found(Some("xy"))),
        ("two padding signs missing", vec![unpadded(&format!("x:{a}"))], found(None)),
        ("no token in basic", vec![basic("user:password")], Err(ProofError::Missing)),
        ("colon in the password", vec![basic(&format!("x:{a}:"))], Err(ProofError::Missing)),
        ("not base64", vec!["Basic %%%".to_owned()], Err(ProofError::Malformed)),
        (
            "base64 with a space in it",
            vec![basic(&format!("x:{a}")).replace("Basic e", "Basic e ")],
            Err(ProofError::Malformed),
        ),
        (
            "base64 of other bytes",
            vec![format!("Basic {}", STANDARD.encode([0xff, b':', 0xfe]))],
            Err(ProofError::Malformed),
        ),
        ("another scheme", vec![format!("Digest {a}")], Err(ProofError::Malformed)),
        ("no scheme", vec![a.clone()], Err(ProofError::Malformed)),
        ("twice the same", vec![format!("Bearer {a}"), format!("Bearer {a}")], Err(ProofError::Conflicting)),
        ("a token and nothing", vec![format!("Bearer {a}"), String::new()], Err(ProofError::Conflicting)),
    ];
    for (name, values, expected) in cases {
        assert_eq!(read(&values), expected, "{name}");
    }
}

#[test]
fn bearer_gives_any_text() {
    assert_eq!(bearer(b"Bearer sk-1"), Some("sk-1"));
    assert_eq!(bearer(b"bearer  "), Some(""));
    assert_eq!(bearer(b"Basic sk-1"), None);
    assert_eq!(bearer(b"Bearer \xff"), None);
}

#[test]
fn basic_pair_shows_nothing() {
    let pair = BasicPair::from_header(basic("alice:s3cret:x").as_bytes()).unwrap();
    assert_eq!((pair.user.expose(), pair.password.expose()), ("alice", "s3cret:x"));
    let shown = format!("{pair:?}");
    assert!(!shown.contains("alice") && !shown.contains("s3cret"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..3)) {
        let _ = proxy_authorization(values.iter().map(Vec::as_slice));
        let _ = proxy_authorization(values.iter().map(|v| [b"Basic ", v.as_slice()].concat()).collect::<Vec<_>>().iter().map(Vec::as_slice));
    }

    #[test]
    fn a_choice_is_what_stands_before_the_colon(user in "[ -9;-~]{0,20}") {
        let (a, _) = tokens();
        let proof = read(&[basic(&format!("{user}:{a}"))]).unwrap();
        prop_assert_eq!(proof.token, Presented::Token(AgentToken::digest(&a)));
        prop_assert_eq!(proof.connection, (!["", "x", "nexus"].contains(&user.as_str())).then_some(user));
    }
}
