//! The address guard: which IP addresses may be dialled at all.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// A cloud metadata address; nothing opens it.
    #[error("cloud metadata address")]
    Metadata,
    /// This process's own listener.
    #[error("own listener")]
    OwnListener,
    /// Not global unicast: private, loopback, link-local, multicast, reserved … (IANA special-purpose registries).
    #[error("not a public address; allow it with egress.allow_cidrs")]
    NotPublic,
}

/// Judges addresses. Mapped, translated and 6to4 forms are judged by the IPv4 address inside too.
#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    allow_cidrs: Vec<IpNet>,
    own_listeners: Vec<SocketAddr>,
}

impl AddressGuard {
    /// A guard that opens `allow_cidrs` and refuses `own_listeners` (an unspecified listener address stands for every
    /// local address on that port).
    #[must_use]
    pub fn new(allow_cidrs: Vec<IpNet>, own_listeners: Vec<SocketAddr>) -> Self {
        Self { allow_cidrs, own_listeners }
    }

    /// Judges one address.
    ///
    /// # Errors
    /// See [`AddressRefusal`].
    pub fn check(&self, address: IpAddr, port: u16) -> Result<(), AddressRefusal> {
        let outer = address.to_canonical();
        let inner = embedded_v4(outer).map(IpAddr::V4);
        let both = || std::iter::once(outer).chain(inner);
        if both().any(is_metadata) {
            return Err(AddressRefusal::Metadata);
        }
        if both().any(|ip| self.is_own_listener(ip, port)) {
            return Err(AddressRefusal::OwnListener);
        }
        if both().all(|ip| is_public(ip) || self.allow_cidrs.iter().any(|cidr| cidr.contains(&ip))) {
            Ok(())
        } else {
            Err(AddressRefusal::NotPublic)
        }
    }

    fn is_own_listener(&self, ip: IpAddr, port: u16) -> bool {
        self.own_listeners.iter().filter(|own| own.port() == port).any(|own| {
            let own = own.ip().to_canonical();
            // A dial to the unspecified address reaches loopback.
            own == ip || ip.is_unspecified() || own.is_unspecified() && is_local(ip)
        })
    }
}

/// Whether the address is one of this host's own, now. The operating system binds a socket to such an address only;
/// nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Addresses at which cloud hosts give out credentials, without the IPv6 forms, which are in [`METADATA_V6`].
const METADATA_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(169, 254, 42, 42),
    Ipv4Addr::new(169, 254, 0, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

const METADATA_V6: [Ipv6Net; 4] = [
    v6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0), 32),
    v6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254), 128),
    v6(Ipv6Addr::new(0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128),
    v6(Ipv6Addr::new(0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042), 128),
];

fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => METADATA_V6.iter().any(|net| net.contains(&ip)),
    }
}

/// IANA IPv4 Special-Purpose Address Registry (RFC 6890), without the entries that are reachable from everywhere, and
/// multicast.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4(Ipv4Addr::new(0, 0, 0, 0), 8),
    v4(Ipv4Addr::new(10, 0, 0, 0), 8),
    v4(Ipv4Addr::new(100, 64, 0, 0), 10),
    v4(Ipv4Addr::new(127, 0, 0, 0), 8),
    v4(Ipv4Addr::new(169, 254, 0, 0), 16),
    v4(Ipv4Addr::new(172, 16, 0, 0), 12),
    v4(Ipv4Addr::new(192, 0, 0, 0), 24),
    v4(Ipv4Addr::new(192, 0, 2, 0), 24),
    v4(Ipv4Addr::new(192, 88, 99, 0), 24),
    v4(Ipv4Addr::new(192, 168, 0, 0), 16),
    v4(Ipv4Addr::new(198, 18, 0, 0), 15),
    v4(Ipv4Addr::new(198, 51, 100, 0), 24),
    v4(Ipv4Addr::new(203, 0, 113, 0), 24),
    v4(Ipv4Addr::new(224, 0, 0, 0), 4),
    v4(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// What is allocated to global unicast in IPv6, and the well-known translation prefix, whose inside is judged as well.
const GLOBAL_V6: [Ipv6Net; 2] =
    [v6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3), v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96)];

/// The special ranges within [`GLOBAL_V6`] (IANA IPv6 Special-Purpose Address Registry). 2001::/23 has Teredo in it;
/// 2002::/16 is not here because the IPv4 address inside decides.
const SPECIAL_V6: [Ipv6Net; 3] = [
    v6(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    v6(Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0), 32),
    v6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => {
            GLOBAL_V6.iter().any(|net| net.contains(&ip)) && !SPECIAL_V6.iter().any(|net| net.contains(&ip))
        }
    }
}

/// The IPv4 address that packets to this IPv6 address end up at, where its prefix says so.
fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let s = ip.segments();
    let from = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match s {
        // Unspecified and loopback, not IPv4-compatible.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible; IPv4-translated (RFC 2765); NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => from(a, b),
        // Local NAT64 (RFC 8215): /96 puts the address last, /48 around the octet that RFC 6052 keeps zero.
        [0x64, 0xff9b, 1, 0, 0, 0, a, b] => from(a, b),
        [0x64, 0xff9b, 1, a, b, c, ..] => from(a, b << 8 | c >> 8),
        // 6to4.
        [0x2002, a, b, ..] => from(a, b),
        // Teredo: the client's address, inverted.
        [0x2001, 0, _, _, _, _, a, b] => from(!a, !b),
        _ => None,
    }
}

const fn v4(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(address, prefix)
}

const fn v6(address: Ipv6Addr, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(address, prefix)
}

#[cfg(test)]
mod tests;
