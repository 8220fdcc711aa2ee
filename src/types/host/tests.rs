#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

fn host(text: &str) -> Host {
    Host::parse(text.as_bytes()).unwrap()
}

#[test]
fn names_have_one_form() {
    for (text, expected) in [
        ("good.test", "good.test"),
        ("GOOD.Test", "good.test"),
        ("good.test.", "good.test"),
        ("good。test", "good.test"),
        ("good.test。", "good.test"),
        ("ｇｏｏｄ．test", "good.test"),
        ("go\u{ad}od.test", "good.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("_dmarc.good.test", "_dmarc.good.test"),
        ("r3---sn-4g5e.good.test", "r3---sn-4g5e.good.test"),
        ("localhost", "localhost"),
        ("1.good", "1.good"),
        ("0xg", "0xg"),
    ] {
        let host = host(text);
        assert_eq!(host.to_string(), expected, "{text}");
        assert!(host.name().is_some(), "{text}");
        assert_eq!(Host::parse(expected.as_bytes()).unwrap(), host, "{text}");
    }
}

#[test]
fn every_form_of_an_address_is_that_address() {
    for (text, expected) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0x", "0.0.0.0"),
        ("1.0x", "1.0.0.0"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("１２７。１", "127.0.0.1"),
        ("4294967295", "255.255.255.255"),
        ("1.2.65535", "1.2.255.255"),
        ("[::1]", "[::1]"),
        ("[0:0::0001]", "[::1]"),
        ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"),
        ("[::ffff:7f00:1]", "[::ffff:127.0.0.1]"),
        ("[2001:DB8::A]", "[2001:db8::a]"),
    ] {
        let host = host(text);
        assert!(matches!(host, Host::Ip(_)), "{text}");
        assert_eq!(host.to_string(), expected, "{text}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    use HostError::*;
    let long_label = format!("{}.test", "a".repeat(64));
    let long_name = format!("{}test", "a23456789.".repeat(25));
    let huge = "a.".repeat(10_000);
    for (text, error) in [
        ("", Empty),
        (".", Name),
        ("..", Name),
        ("good.test..", Name),
        (".good.test", Name),
        ("a..b", Name),
        (long_label.as_str(), Name),
        (long_name.as_str(), Name),
        (huge.as_str(), Name),
        ("-good.test", Name),
        ("good-.test", Name),
        ("xn--a.test", Name),
        ("xn--.test", Name),
        ("xn--good-.test", Name),
        ("a\u{202e}b.test", Name),
        ("a／b.test", Name),
        ("a％41.test", Name),
        ("a＠b.test", Name),
        ("good.test%00", Character),
        ("good.test%2e", Character),
        ("user@good.test", Character),
        ("good.test/", Character),
        ("good.test\\", Character),
        ("good test", Character),
        ("good.test\t", Character),
        ("good.test\r\n", Character),
        ("good.test:443", Character),
        ("good.test#", Character),
        ("good.test?", Character),
        ("*.good.test", Character),
        ("a,b", Character),
        ("::1", Character),
        ("::1]", Character),
        ("256.1.1.1", Ipv4),
        ("1.2.3.4.5", Ipv4),
        ("good.1", Ipv4),
        ("good.0x1", Ipv4),
        ("08", Ipv4),
        ("1.2.3.09", Ipv4),
        ("4294967296", Ipv4),
        ("99999999999999999999999999999999999999", Ipv4),
        ("1.2.3.256", Ipv4),
        ("1..1", Ipv4),
        ("[::1", Ipv6),
        ("[]", Ipv6),
        ("[::1]x", Ipv6),
        ("[fe80::1%25lo]", Ipv6),
        ("[fe80::1%lo]", Ipv6),
        ("[127.0.0.1]", Ipv6),
        ("[::1/64]", Ipv6),
        ("[ ::1]", Ipv6),
        ("[1::2::3]", Ipv6),
    ] {
        assert_eq!(Host::parse(text.as_bytes()), Err(error), "{text:?}");
    }
    assert_eq!(Host::parse(b"good\xff.test"), Err(Name));
}

#[test]
fn a_wildcard_is_one_label() {
    for (pattern, text, matches) in [
        ("good.test", "good.test", true),
        ("good.test", "GOOD.test.", true),
        ("good.test", "a.good.test", false),
        ("*.good.test", "a.good.test", true),
        ("*.GOOD.test.", "a.good.test", true),
        ("*.good.test", "good.test", false),
        ("*.good.test", "a.b.good.test", false),
        ("*.good.test", "evilgood.test", false),
        ("*.good.test", "good.test.evil.test", false),
        ("*.good.test", "a.good.test.evil", false),
        ("*.good.test", "127.0.0.1", false),
        ("127.0.0.1", "127.1", true),
        ("127.0.0.1", "[::ffff:127.0.0.1]", false),
        ("[::1]", "[0::1]", true),
    ] {
        assert_eq!(HostPattern::parse(pattern).unwrap().matches(&host(text)), matches, "{pattern} {text}");
    }
}

#[test]
fn wildcards_stand_only_in_front() {
    for text in ["*", "*.", "s3.*.good.test", "*.*.test", "a*.test", "**.test", "*.127.0.0.1", "*.1", "*.[::1]", ""] {
        assert!(HostPattern::parse(text).is_err(), "{text}");
    }
    assert_eq!(HostPattern::parse("*.good.test").unwrap().exact(), None);
    assert_eq!(HostPattern::parse("good.test").unwrap().exact(), Some(&host("good.test")));
}

#[test]
fn text_round_trips_through_serde() {
    for text in ["good.test", "10.0.0.1", "[::1]"] {
        let json = serde_json::to_string(&host(text)).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<Host>(&json).unwrap(), host(text));
    }
    let pattern = HostPattern::parse("*.good.test").unwrap();
    assert_eq!(serde_json::from_str::<HostPattern>("\"*.GOOD.test\"").unwrap(), pattern);
    assert_eq!(serde_json::to_string(&pattern).unwrap(), "\"*.good.test\"");
    assert!(serde_json::from_str::<Host>("\"a b\"").is_err());
}

#[test]
fn patterns_cover_patterns() {
    for (own, other, covers) in [
        ("a.test", "a.test", true),
        ("A.test", "a.test.", true),
        ("a.test", "b.test", false),
        ("*.test", "a.test", true),
        ("*.test", "*.test", true),
        ("*.test", "*.a.test", false),
        ("*.test", "b.a.test", false),
        ("*.test", "test", false),
        ("a.test", "*.test", false),
        ("127.0.0.1", "127.1", true),
        ("*.test", "127.0.0.1", false),
    ] {
        let parse = |text| HostPattern::parse(text).unwrap();
        assert_eq!(parse(own).covers(&parse(other)), covers, "{own} {other}");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail_and_display_parses_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(host) = Host::parse(&bytes) {
            prop_assert_eq!(Host::parse(host.to_string().as_bytes()), Ok(host));
        }
    }

    #[test]
    fn any_text_parses_or_fails_and_display_parses_back(text in "[a-zA-Z0-9._\\-\\[\\]:。ß①ａＡ\u{ad}xn]{0,30}") {
        if let Ok(host) = Host::parse(text.as_bytes()) {
            prop_assert_eq!(Host::parse(host.to_string().as_bytes()), Ok(host));
        }
    }

    #[test]
    fn spellings_of_a_name_are_equal(name in "[a-z][a-z0-9]{0,10}(\\.[a-z][a-z0-9]{0,10}){0,3}") {
        let plain = Host::parse(name.as_bytes()).unwrap();
        let wide: String = name.chars().map(|c| match c {
            '.' => '。',
            c => char::from_u32(u32::from(c) + 0xfee0).unwrap(),
        }).collect();
        for spelling in [name.to_uppercase(), format!("{name}."), wide] {
            prop_assert_eq!(&Host::parse(spelling.as_bytes()).unwrap(), &plain);
        }
    }

    #[test]
    fn spellings_of_an_address_are_equal(bits in any::<u32>()) {
        let [a, b, c, d] = bits.to_be_bytes();
        let plain = Host::Ip(IpAddr::V4(Ipv4Addr::from_bits(bits)));
        for spelling in [
            format!("{a}.{b}.{c}.{d}"),
            format!("{bits}"),
            format!("{bits:#x}"),
            format!("0{bits:o}"),
            format!("{a:#x}.0{b:o}.{}", u16::from_be_bytes([c, d])),
            format!("{a}.{}", bits & 0xff_ffff),
        ] {
            prop_assert_eq!(&Host::parse(spelling.as_bytes()).unwrap(), &plain);
        }
    }
}
