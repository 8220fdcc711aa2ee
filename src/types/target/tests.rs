#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

#[test]
fn authorities_are_parsed() {
    use Scheme::*;
    for (scheme, text, authority, display) in [
        (Https, "good.test", "good.test", "https://good.test"),
        (Https, "GOOD.test.:443", "good.test", "https://good.test"),
        (Https, "good.test:8443", "good.test:8443", "https://good.test:8443"),
        (Http, "good.test:443", "good.test:443", "http://good.test:443"),
        (Http, "good.test:80", "good.test", "http://good.test"),
        (Https, "[::1]:8443", "[::1]:8443", "https://[::1]:8443"),
        (Https, "[::1]", "[::1]", "https://[::1]"),
        (Https, "127.1:65535", "127.0.0.1:65535", "https://127.0.0.1:65535"),
    ] {
        let target = Target::parse_authority(scheme, text.as_bytes()).unwrap();
        assert_eq!(target.authority(), authority, "{text}");
        assert_eq!(target.to_string(), display, "{text}");
        assert_eq!(display.parse::<Target>().unwrap(), target, "{text}");
    }
}

#[test]
fn bad_authorities_are_refused() {
    use AuthorityError::{Host as H, Port, Userinfo};
    for (text, error) in [
        ("", H(HostError::Empty)),
        (":443", H(HostError::Empty)),
        ("good.test:443@evil.test:443", Userinfo),
        ("x@evil.test", Userinfo),
        ("@evil.test", Userinfo),
        ("good.test\\@evil.test", Userinfo),
        ("good.test:", Port),
        ("[::1]:", Port),
        ("good.test:0", Port),
        ("good.test:00443", Port),
        ("good.test:0443", Port),
        ("good.test:443abc", Port),
        ("good.test:+443", Port),
        ("good.test:-1", Port),
        ("good.test: 443", Port),
        ("good.test:443 ", Port),
        ("good.test:65536", Port),
        ("good.test:99999999999999999999", Port),
        ("good.test:443:443", Port),
        ("good.test:٤٤٣", Port),
        ("[::1", H(HostError::Ipv6)),
        ("[::1]443", H(HostError::Ipv6)),
        ("[::1]x:443", H(HostError::Ipv6)),
        ("[fe80::1%25lo]:443", H(HostError::Ipv6)),
        ("::1:443", H(HostError::Empty)),
        ("2001:db8::1", Port),
        ("good.test/path", H(HostError::Character)),
        ("good.test,evil.test", H(HostError::Character)),
        (" good.test", H(HostError::Character)),
    ] {
        assert_eq!(Target::parse_authority(Scheme::Https, text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn connect_needs_a_port() {
    assert_eq!(Target::parse_connect(b"good.test"), Err(AuthorityError::PortMissing));
    assert_eq!(Target::parse_connect(b"[::1]"), Err(AuthorityError::PortMissing));
    assert_eq!(Target::parse_connect(b"https://good.test:443"), Err(AuthorityError::Port));
    let target = Target::parse_connect(b"good.test:80").unwrap();
    assert_eq!((target.scheme, target.port), (Scheme::Https, 80));
}

#[test]
fn urls_are_parsed() {
    for (text, display) in [
        ("https://good.test", "https://good.test/"),
        ("HTTPS://Good.Test:443/a?b", "https://good.test/a?b"),
        ("http://good.test:443/", "http://good.test:443/"),
        ("https://good.test?x=1", "https://good.test/?x=1"),
        ("https://good.test?x=@/y", "https://good.test/?x=@/y"),
        ("https://[::1]:8443/a@b", "https://[::1]:8443/a@b"),
    ] {
        let url = Url::parse(text.as_bytes()).unwrap();
        assert_eq!(url.to_string(), display, "{text}");
        assert_eq!(display.parse::<Url>().unwrap(), url, "{text}");
        assert_eq!(serde_json::to_string(&url).unwrap(), format!("{display:?}"), "{text}");
    }
}

#[test]
fn bad_urls_are_refused() {
    use AuthorityError::{Host as H, Userinfo};
    use UrlError::{Authority, Path, Scheme};
    for (text, error) in [
        ("", Scheme),
        ("good.test/", Scheme),
        ("//good.test/", Scheme),
        ("/a", Scheme),
        ("https:/good.test/", Scheme),
        ("https:good.test", Scheme),
        (" https://good.test/", Scheme),
        ("ftp://good.test/", Scheme),
        ("file:///etc/passwd", Scheme),
        ("ws://good.test/", Scheme),
        ("httpss://good.test/", Scheme),
        ("https://", Authority(H(HostError::Empty))),
        ("https:///good.test", Authority(H(HostError::Empty))),
        ("http://good.test:x@evil.test/", Authority(Userinfo)),
        ("https://good.test\\@evil.test/", Authority(Userinfo)),
        ("https://good.test\\evil.test/", Authority(H(HostError::Character))),
        ("https://good.test#@evil.test/", Path(PathError::Fragment)),
        ("https://good.test/#x", Path(PathError::Fragment)),
        ("https://good.test?#x", Path(PathError::Fragment)),
        ("https://good.test/../x", Path(PathError::DotSegment)),
        ("https://good.test//x", Path(PathError::EmptySegment)),
        ("https://good.test/a b", Path(PathError::Character)),
    ] {
        assert_eq!(Url::parse(text.as_bytes()), Err(error), "{text:?}");
    }
}

proptest! {
    #[test]
    fn display_of_a_target_parses_back(https in any::<bool>(), text in "[a-z0-9.:\\[\\]@\\-]{0,24}") {
        let scheme = if https { Scheme::Https } else { Scheme::Http };
        if let Ok(target) = Target::parse_authority(scheme, text.as_bytes()) {
            prop_assert_ne!(target.port, 0);
            prop_assert_eq!(&Target::parse_authority(scheme, target.authority().as_bytes()).unwrap(), &target);
            prop_assert_eq!(&target.to_string().parse::<Target>().unwrap(), &target);
        }
    }

    #[test]
    fn display_of_a_url_parses_back(bytes in prop::collection::vec(any::<u8>(), 0..40), rest in "[ -~]{0,40}") {
        let _ = Url::parse(&bytes);
        if let Ok(url) = Url::parse(format!("https://{rest}").as_bytes()) {
            prop_assert_eq!(&Url::parse(url.to_string().as_bytes()).unwrap(), &url);
        }
    }
}
