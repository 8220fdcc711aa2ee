#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use AddressRefusal::*;
use proptest::prelude::*;

fn guard(cidrs: &[&str], own: &[&str]) -> AddressGuard {
    AddressGuard::new(
        cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        own.iter().map(|own| own.parse().unwrap()).collect(),
    )
}

#[test]
fn only_public_addresses_pass() {
    let guard = guard(&[], &[]);
    for (ip, expected) in [
        ("1.1.1.1", Ok(())),
        ("8.8.8.8", Ok(())),
        ("9.255.255.255", Ok(())),
        ("11.0.0.0", Ok(())),
        ("100.63.255.255", Ok(())),
        ("100.128.0.0", Ok(())),
        ("172.15.255.255", Ok(())),
        ("172.32.0.0", Ok(())),
        ("192.0.1.0", Ok(())),
        ("198.17.255.255", Ok(())),
        ("198.20.0.0", Ok(())),
        ("223.255.255.255", Ok(())),
        ("2606:4700::1111", Ok(())),
        ("2001:200::1", Ok(())),
        ("2001:4860:4860::8888", Ok(())),
        ("::ffff:8.8.8.8", Ok(())),
        ("64:ff9b::8.8.8.8", Ok(())),
        ("2002:808:808::1", Ok(())),
        ("0.0.0.0", Err(NotPublic)),
        ("0.1.2.3", Err(NotPublic)),
        ("10.0.0.1", Err(NotPublic)),
        ("100.64.0.1", Err(NotPublic)),
        ("127.0.0.1", Err(NotPublic)),
        ("127.255.255.254", Err(NotPublic)),
        ("169.254.1.1", Err(NotPublic)),
        ("172.16.0.1", Err(NotPublic)),
        ("172.31.255.255", Err(NotPublic)),
        ("192.0.0.1", Err(NotPublic)),
        ("192.0.0.9", Err(NotPublic)),
        ("192.0.2.1", Err(NotPublic)),
        ("192.88.99.1", Err(NotPublic)),
        ("192.168.1.1", Err(NotPublic)),
        ("198.18.0.1", Err(NotPublic)),
        ("198.19.255.255", Err(NotPublic)),
        ("198.51.100.1", Err(NotPublic)),
        ("203.0.113.1", Err(NotPublic)),
        ("224.0.0.1", Err(NotPublic)),
        ("239.255.255.255", Err(NotPublic)),
        ("240.0.0.1", Err(NotPublic)),
        ("255.255.255.255", Err(NotPublic)),
        ("::", Err(NotPublic)),
        ("::1", Err(NotPublic)),
        ("::8.8.8.8", Err(NotPublic)),
        ("::127.0.0.1", Err(NotPublic)),
        ("::ffff:127.0.0.1", Err(NotPublic)),
        ("::ffff:0:0", Err(NotPublic)),
        ("::ffff:0:127.0.0.1", Err(NotPublic)),
        ("::ffff:10.0.0.1", Err(NotPublic)),
        ("64:ff9b::7f00:1", Err(NotPublic)),
        ("64:ff9b::10.0.0.1", Err(NotPublic)),
        ("64:ff9b:1::8.8.8.8", Err(NotPublic)),
        ("100::1", Err(NotPublic)),
        ("2001::1", Err(NotPublic)),
        ("2001:0:808:808::f7f7:f7f7", Err(NotPublic)),
        ("2001:20::1", Err(NotPublic)),
        ("2001:1ff::1", Err(NotPublic)),
        ("2001:db8::1", Err(NotPublic)),
        ("2002:7f00:1::", Err(NotPublic)),
        ("2002:a00:1::1", Err(NotPublic)),
        ("3fff::1", Err(NotPublic)),
        ("4000::1", Err(NotPublic)),
        ("5f00::1", Err(NotPublic)),
        ("fc00::1", Err(NotPublic)),
        ("fdff::1", Err(NotPublic)),
        ("fe80::1", Err(NotPublic)),
        ("fec0::1", Err(NotPublic)),
        ("ff02::1", Err(NotPublic)),
    ] {
        assert_eq!(guard.check(ip.parse().unwrap(), 443), expected, "{ip}");
    }
}

#[test]
fn nothing_opens_metadata_addresses() {
    for guard in [guard(&[], &[]), guard(&["0.0.0.0/0", "::/0", "169.254.169.254/32", "fd00:ec2::254/128"], &[])] {
        for ip in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1",
            "2001:0:808:808::5601:5601",
        ] {
            assert_eq!(guard.check(ip.parse().unwrap(), 80), Err(Metadata), "{ip}");
        }
    }
}

#[test]
fn allowed_ranges_are_opened_and_no_more() {
    let guard = guard(&["10.1.0.0/16", "fd12::/16", "127.0.0.0/8"], &[]);
    for (ip, expected) in [
        ("10.1.2.3", Ok(())),
        ("10.2.0.1", Err(NotPublic)),
        ("::ffff:10.1.2.3", Ok(())),
        ("64:ff9b::10.1.2.3", Ok(())),
        ("64:ff9b::10.2.2.3", Err(NotPublic)),
        ("::10.1.2.3", Err(NotPublic)),
        ("fd12::1", Ok(())),
        ("fd13::1", Err(NotPublic)),
        ("127.0.0.1", Ok(())),
        ("::1", Err(NotPublic)),
        ("0.0.0.0", Err(NotPublic)),
        ("8.8.8.8", Ok(())),
    ] {
        assert_eq!(guard.check(ip.parse().unwrap(), 443), expected, "{ip}");
    }
}

#[test]
fn own_listeners_are_never_dialled() {
    let guard = guard(
        &["0.0.0.0/0", "::/0"],
        &["127.0.0.1:8470", "0.0.0.0:8471", "[::]:8472", "203.0.113.7:8473", "[::ffff:127.0.0.1]:8474"],
    );
    for (address, expected) in [
        ("127.0.0.1:8470", Err(OwnListener)),
        ("127.0.0.1:8469", Ok(())),
        ("127.0.0.2:8470", Ok(())),
        ("[::ffff:127.0.0.1]:8470", Err(OwnListener)),
        ("0.0.0.0:8470", Err(OwnListener)),
        ("[::]:8470", Err(OwnListener)),
        ("127.0.0.1:8471", Err(OwnListener)),
        ("127.8.8.8:8471", Err(OwnListener)),
        ("[::1]:8471", Err(OwnListener)),
        ("8.8.8.8:8471", Ok(())),
        ("[::1]:8472", Err(OwnListener)),
        ("127.0.0.1:8472", Err(OwnListener)),
        ("203.0.113.7:8473", Err(OwnListener)),
        ("64:ff9b::203.0.113.7:8473", Err(OwnListener)),
        ("127.0.0.1:8473", Ok(())),
        ("127.0.0.1:8474", Err(OwnListener)),
    ] {
        let (ip, port) = address.rsplit_once(':').unwrap();
        let ip = ip.trim_matches(['[', ']']).parse().unwrap();
        assert_eq!(guard.check(ip, port.parse().unwrap()), expected, "{address}");
    }
}

#[test]
fn the_address_of_an_interface_is_local() {
    // Connecting a datagram socket sends nothing and shows which address this host would use, if it has a network.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    if socket.connect("192.0.2.1:9").is_ok() {
        let own = socket.local_addr().unwrap().ip();
        let guard = guard(&["0.0.0.0/0"], &["0.0.0.0:8471"]);
        assert_eq!(guard.check(own, 8471), Err(OwnListener));
        assert_eq!(guard.check(own, 8470), Ok(()));
    }
}

proptest! {
    #[test]
    fn carrying_an_address_in_ipv6_opens_nothing(bits in any::<u32>()) {
        let guard = guard(&["10.0.0.0/8"], &["192.0.2.1:443"]);
        let ip = Ipv4Addr::from_bits(bits);
        let plain = guard.check(IpAddr::V4(ip), 443);
        let [a, b] = [(bits >> 16) as u16, bits as u16];
        for (carried, same) in [
            (ip.to_ipv6_mapped(), true),
            (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b), true),
            (Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1), true),
            (Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b), false),
            (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a, b), false),
            (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !a, !b), false),
        ] {
            let verdict = guard.check(IpAddr::V6(carried), 443);
            if same {
                prop_assert_eq!(verdict, plain, "{}", carried);
            } else {
                prop_assert!(verdict.is_err(), "{}", carried);
            }
        }
    }
}
