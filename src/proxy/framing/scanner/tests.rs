#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100, target: 8 * 1024 };

fn verdict(text: &[u8]) -> Verdict {
    Scanner::new(LIMITS).advance(text).verdict
}

#[test]
fn heads_are_judged() {
    use Violation as V;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    #[rustfmt::skip]
    let cases: Vec<(&str, String, Option<Violation>)> = vec![
        ("plain", get(""), None),
        ("one empty line before", format!("\r\n{}", get("")), None),
        ("length", get("Content-Length: 3\r\n") + "abc", None),
        ("length without space", get("Content-Length:3\r\n") + "abc", None),
        ("chunked in another case", get("Transfer-Encoding: Chunked\r\n") + "0\r\n\r\n", None),
        ("http 1.0 without host", "GET / HTTP/1.0\r\n\r\n".into(), None),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), Some(V::Host)),
        ("two hosts", get("Host: a\r\n"), Some(V::Host)),
        ("two hosts in one", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), Some(V::Host)),
        ("host with userinfo", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(), Some(V::Host)),
        ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), Some(V::Host)),
        ("space before colon", get("X : y\r\n"), Some(V::Field)),
        ("tab before name", get("\tX: y\r\n"), Some(V::Fold)),
        ("vertical tab in name", get("X\x0b: y\r\n"), Some(V::Field)),
        ("fold", get("X: y\r\n z\r\n"), Some(V::Fold)),
        ("bare lf", "GET / HTTP/1.1\nHost: a\n\n".into(), Some(V::LineEnd)),
        ("bare lf at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n".into(), Some(V::LineEnd)),
        ("bare cr", get("X: y\rz\r\n"), Some(V::LineEnd)),
        ("nul", get("X: y\0z\r\n"), Some(V::Field)),
        ("control", get("X: y\x01z\r\n"), Some(V::Field)),
        ("name outside ascii", get("Xé: y\r\n"), Some(V::Field)),
        ("no colon", get("X\r\n"), Some(V::Field)),
        ("empty name", get(": y\r\n"), Some(V::Field)),
        ("both lengths", get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), Some(V::Length)),
        ("both lengths turned", get("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), Some(V::Length)),
        ("same length twice", get("Content-Length: 3\r\nContent-Length: 3\r\n"), Some(V::Length)),
        ("two lengths", get("Content-Length: 3\r\nContent-Length: 4\r\n"), Some(V::Length)),
        ("list of lengths", get("Content-Length: 3, 3\r\n"), Some(V::Length)),
        ("plus", get("Content-Length: +5\r\n"), Some(V::Length)),
        ("minus", get("Content-Length: -1\r\n"), Some(V::Length)),
        ("hex", get("Content-Length: 0x5\r\n"), Some(V::Length)),
        ("leading zero", get("Content-Length: 05\r\n"), Some(V::Length)),
        ("spaces", get("Content-Length:  5 \r\n"), Some(V::Length)),
        ("tab", get("Content-Length:\t5\r\n"), Some(V::Length)),
        ("empty length", get("Content-Length:\r\n"), Some(V::Length)),
        ("2 to the 64", get("Content-Length: 18446744073709551616\r\n"), Some(V::Length)),
        ("underscore twin", get("Content_Length: 5\r\n"), Some(V::Length)),
        ("underscore twin of coding", get("Transfer_Encoding: chunked\r\n"), Some(V::Length)),
        ("xchunked", get("Transfer-Encoding: xchunked\r\n"), Some(V::Length)),
        ("chunked identity", get("Transfer-Encoding: chunked, identity\r\n"), Some(V::Length)),
        ("chunked twice", get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Some(V::Length)),
        ("chunked comma", get("Transfer-Encoding: chunked,\r\n"), Some(V::Length)),
        ("comma chunked", get("Transfer-Encoding: ,chunked\r\n"), Some(V::Length)),
        ("two spaces chunked", get("Transfer-Encoding:  chunked\r\n"), Some(V::Length)),
        ("vertical tab chunked", get("Transfer-Encoding: \x0bchunked\r\n"), Some(V::Field)),
        ("chunked on 1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Some(V::Length)),
        ("http 0.9", "GET /\r\n\r\n".into(), Some(V::RequestLine)),
        ("http 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), Some(V::RequestLine)),
        ("preface of h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Some(V::RequestLine)),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Some(V::RequestLine)),
        ("method with brackets", "G{}T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), Some(V::RequestLine)),
        ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(), Some(V::Path)),
        ("target outside ascii", "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".into(), Some(V::Path)),
        ("userinfo in connect", "CONNECT a:1@b:1 HTTP/1.1\r\nHost: a:1@b:1\r\n\r\n".into(), Some(V::Authority)),
        ("userinfo in absolute form", "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n".into(), Some(V::Authority)),
        ("at sign in a path", "GET http://b/@a HTTP/1.1\r\nHost: b\r\n\r\n".into(), None),
        ("broken authority", "CONNECT a:b:c HTTP/1.1\r\nHost: a\r\n\r\n".into(), Some(V::Authority)),
        ("other expectation", get("Expect: 200-ok\r\n"), Some(V::Expectation)),
        ("connect with a body", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n".into(), Some(V::Length)),
        ("too many fields", get(&"X: y\r\n".repeat(100)), Some(V::TooLarge)),
        ("too long a target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)), Some(V::TooLarge)),
        ("too large", get(&format!("X: {}\r\n", "y".repeat(70_000))), Some(V::TooLarge)),
    ];
    for (name, text, expected) in cases {
        let found = match verdict(text.as_bytes()) {
            Verdict::Refused(violation) => Some(violation),
            Verdict::Incomplete => None,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn chunks_are_judged() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, bool)] = &[
        ("two chunks", "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", true),
        ("extension", "3;a=b\r\nabc\r\n0\r\n\r\n", true),
        ("trailer", "0\r\nX: y\r\n\r\n", true),
        ("0x", "0x2\r\nab\r\n0\r\n\r\n", false),
        ("space behind", "2 \r\nab\r\n0\r\n\r\n", false),
        ("space before", " 2\r\nab\r\n0\r\n\r\n", false),
        ("plus", "+2\r\nab\r\n0\r\n\r\n", false),
        ("minus", "-1\r\nab\r\n0\r\n\r\n", false),
        ("underscore", "2_\r\nab\r\n0\r\n\r\n", false),
        ("overflow", "FFFFFFFFFFFFFFFFF\r\nab\r\n0\r\n\r\n", false),
        ("empty", "\r\nab\r\n0\r\n\r\n", false),
        ("lf in extension", "2;a\nb\r\nab\r\n0\r\n\r\n", false),
        ("cr in extension", "2;a\rb\r\nab\r\n0\r\n\r\n", false),
        ("nul in extension", "2;a\0b\r\nab\r\n0\r\n\r\n", false),
        ("missing crlf", "2\r\nab0\r\n\r\n", false),
        ("spill", "2\r\nabc\r\n0\r\n\r\n", false),
        ("lf only", "2\nab\n0\n\n", false),
        ("lf only behind data", "2\r\nab\n0\r\n\r\n", false),
        ("folded trailer", "0\r\n X: y\r\n\r\n", false),
        ("lf in trailer", "0\r\nX: y\n\r\n", false),
    ];
    for (name, body, good) in cases {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let mut scanner = Scanner::new(LIMITS);
        let step = scanner.advance(text.as_bytes());
        assert_eq!(step.verdict == Verdict::Incomplete && scanner.is_between_requests(), *good, "{name}: {step:?}");
        if !good {
            assert_eq!(step.verdict, Verdict::BadBody(Violation::Chunk), "{name}");
        }
    }
    let long = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;{}\r\nab\r\n0\r\n\r\n",
        "a".repeat(65_536)
    );
    assert_eq!(verdict(long.as_bytes()), Verdict::BadBody(Violation::Chunk));
}

#[test]
fn bytes_behind_a_connect_wait_for_the_answer() {
    let head = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    let text = [head.as_slice(), b"\x16\x03\x01"].concat();
    for switched in [true, false] {
        let mut scanner = Scanner::new(LIMITS);
        assert_eq!(scanner.advance(&text), Step { passed: head.len(), verdict: Verdict::Undecided });
        assert_eq!(scanner.advance(b"x").passed, 0);
        scanner.decide(switched);
        let next = scanner.advance(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(matches!(next.verdict, Verdict::Refused(Violation::Host)), !switched);
    }
}

/// Feeds `text` in pieces, giving back what did not pass, and returns all that passed and the last verdict.
fn in_pieces(text: &[u8], cuts: &[usize]) -> (usize, Option<Verdict>) {
    let mut scanner = Scanner::new(LIMITS);
    let (mut passed, mut held, mut from) = (0, Vec::new(), 0);
    for to in cuts.iter().map(|cut| cut % (text.len() + 1)).chain([text.len()]) {
        if to < from {
            continue;
        }
        held.extend_from_slice(&text[from..to]);
        from = to;
        let step = scanner.advance(&held);
        passed += step.passed;
        held.drain(..step.passed);
        match step.verdict {
            Verdict::Incomplete => {}
            other => return (passed, Some(other)),
        }
    }
    (passed, None)
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        Just("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        "[a-z]{0,20}"
            .prop_map(|body| format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())),
        "[a-z]{1,20}".prop_map(|body| format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )),
        Just("GET / HTTP/1.1\nHost: a\n\n".to_owned()),
        Just("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\n".to_owned()),
        Just("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nabc".to_owned()),
    ];
    proptest::collection::vec(one, 1..5).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(text in requests(), mut cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
        cuts.iter_mut().for_each(|cut| *cut %= text.len() + 1);
        cuts.sort_unstable();
        prop_assert_eq!(in_pieces(&text, &cuts), in_pieces(&text, &[]));
    }

    #[test]
    fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = in_pieces(&text, &[7, 50]);
    }

    /// What passes as one request is one request to an independent parser, with the same method and target.
    #[test]
    fn passed_heads_parse(path in "/[a-z0-9/._~-]{0,30}", value in "[ -~]{0,30}") {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
        let step = Scanner::new(LIMITS).advance(text.as_bytes());
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Request::new(&mut fields);
        let status = parsed.parse(text.as_bytes()).unwrap();
        prop_assert_eq!(step.passed, text.len());
        prop_assert_eq!(status, httparse::Status::Complete(text.len()));
        prop_assert_eq!(parsed.path, Some(path.as_str()));
    }
}
