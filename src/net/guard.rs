//! The address guard: which IP addresses may be dialled at all.

use std::net::{IpAddr, SocketAddr};

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
pub struct AddressGuard(());

impl AddressGuard {
    /// A guard that opens `allow_cidrs` and refuses `own_listeners` (an unspecified listener address stands for every
    /// local address on that port).
    #[must_use]
    pub fn new(_allow_cidrs: Vec<ipnet::IpNet>, _own_listeners: Vec<SocketAddr>) -> Self {
        todo!()
    }

    /// Judges one address.
    ///
    /// # Errors
    /// See [`AddressRefusal`].
    pub fn check(&self, _address: IpAddr, _port: u16) -> Result<(), AddressRefusal> {
        todo!()
    }
}
