#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write;

fn scrubber(values: &[&str]) -> Scrubber {
    Scrubber::new(values.iter().map(|value| Secret::new((*value).to_owned())).collect())
}

fn through(scrubber: &mut Scrubber, pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&scrubber.finish());
    out
}

#[test]
fn matches_are_overwritten_across_pieces() {
    #[rustfmt::skip]
    let cases: &[(&str, &[&[u8]], &str)] = &[
        ("whole", &[b"a s3cr3t-value b"], "a ************ b"),
        ("twice", &[b"s3cr3t-values3cr3t-value"], "************************"),
        ("split", &[b"a s3cr", b"3t-value b"], "a ************ b"),
        ("byte by byte", &[b"s", b"3", b"c", b"r", b"3", b"t", b"-", b"v", b"a", b"l", b"u", b"e"], "************"),
        ("only a beginning", &[b"a s3cr", b" b"], "a s3cr b"),
        ("beginning at the end", &[b"a s3cr"], "a s3cr"),
        ("repeated beginning", &[b"s3s3cr3t-", b"value"], "s3************"),
        ("nothing", &[b"abc"], "abc"),
    ];
    for (name, pieces, expected) in cases {
        let mut scrubber = scrubber(&["s3cr3t-value"]);
        assert_eq!(String::from_utf8(through(&mut scrubber, pieces)).unwrap(), *expected, "{name}");
    }
}

#[test]
fn a_stream_without_a_match_is_not_delayed() {
    let mut scrubber = scrubber(&["s3cr3t-value"]);
    assert_eq!(scrubber.push(Bytes::from_static(b"data: one\n\n")).len(), 11);
    assert!(!scrubber.is_holding());
}

#[test]
fn a_pause_lets_go_of_a_little_and_no_more() {
    let mut scrubber = scrubber(&["s3cr3t-value"]);
    let mut got = scrubber.push(Bytes::from_static(b"message s")).to_vec();
    assert!(scrubber.may_let_go());
    got.extend_from_slice(&scrubber.let_go());
    assert_eq!(got, b"message s");
    assert!(!scrubber.is_holding());
    for byte in b"3cr3t-value." {
        got.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&[*byte])));
        if scrubber.may_let_go() {
            got.extend_from_slice(&scrubber.let_go());
        }
    }
    got.extend_from_slice(&scrubber.finish());
    assert_eq!(String::from_utf8(got).unwrap(), "message s3cr********.");
    assert_eq!(scrubber.found(), 1);
}

#[test]
fn headers_are_scrubbed() {
    let mut headers = HeaderMap::new();
    headers.insert("x-echo", HeaderValue::from_static("Bearer s3cr3t-value"));
    let mut scrubber = scrubber(&["s3cr3t-value"]);
    scrubber.scrub_headers(&mut headers);
    assert_eq!(headers["x-echo"], "Bearer ************");
    assert_eq!(scrubber.found(), 1);
}

fn gunzip(coded: &[u8], piece: usize) -> Result<Vec<u8>, GunzipError> {
    let mut gunzip = Gunzip::default();
    let mut plain = Vec::new();
    for piece in coded.chunks(piece.max(1)) {
        gunzip.push(Bytes::copy_from_slice(piece));
        while let Some(bytes) = gunzip.decode()? {
            assert!(bytes.len() <= DECODED);
            plain.extend_from_slice(&bytes);
        }
    }
    gunzip.finish()?;
    Ok(plain)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_is_decoded_in_bounded_steps() {
    let bomb = gzip(&vec![0; 20 << 20]);
    assert_eq!(gunzip(&bomb, bomb.len()).unwrap().len(), 20 << 20);
    let two = [gzip(b"one"), gzip(b"two")].concat();
    assert_eq!(gunzip(&two, 5).unwrap(), b"onetwo");
    assert_eq!(gunzip(&[two.as_slice(), &[0; 40]].concat(), 7).unwrap(), b"onetwo");
    assert_eq!(gunzip(&two[..two.len() - 3], 64), Err(GunzipError));
    assert_eq!(gunzip(b"not gzip at all", 64), Err(GunzipError));
    assert_eq!(gunzip(b"", 64).unwrap(), b"");
}

proptest! {
    #[test]
    fn no_secret_passes(
        before in "[s3crt-]{0,20}", after in "[alue]{0,20}", times in 1_usize..4, piece in 1_usize..9
    ) {
        let text = format!("{before}{}{after}", "s3cr3t-value".repeat(times));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
        let out = through(&mut scrubber(&["s3cr3t-value"]), &pieces);
        prop_assert_eq!(out.len(), text.len());
        prop_assert!(!String::from_utf8(out).unwrap().contains("s3cr3t-value"));
    }

    #[test]
    fn gzip_round_trips(plain in proptest::collection::vec(any::<u8>(), 0..5000), piece in 1_usize..700) {
        prop_assert_eq!(gunzip(&gzip(&plain), piece).unwrap(), plain);
    }
}
