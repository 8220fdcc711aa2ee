//! How this install reaches the outside, as one snapshot of settings: resolver, guard, trust roots, connect limit.

use super::{Alpn, NetError, TrustRootId, UpstreamStream};
use crate::types::{Host, Target};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What [`Egress`] is built from: `[dns]`, `[egress]`, `[upstream]`, `[limits]` of the config.
#[derive(Debug, Clone, Default)]
pub struct EgressSettings {
    /// `[dns].hosts`: static answers, before the resolver.
    pub hosts: HashMap<Host, IpAddr>,
    /// `[egress].allow_cidrs`: ranges that the guard refuses by default; never metadata addresses.
    pub allow_cidrs: Vec<ipnet::IpNet>,
    /// `[upstream].ca_files`: extra trust roots, PEM.
    pub ca_files: Vec<PathBuf>,
    /// `[limits].connect`: for resolve, TCP and TLS together.
    pub connect: Duration,
    /// The addresses this process listens on: never dialled.
    pub own_listeners: Vec<SocketAddr>,
}

/// The way out. Share by `Arc`; a reload makes a new one (and reuses what did not change, so TLS sessions still resume).
pub struct Egress(());

impl Egress {
    /// Builds from settings. `previous` gives its TLS configuration and resolver cache where its settings are equal.
    ///
    /// # Errors
    /// [`NetError::CaFile`].
    pub fn new(_settings: EgressSettings, _previous: Option<&Egress>) -> Result<Self, NetError> {
        todo!()
    }

    /// Which trust roots are in force: part of every pool key.
    #[must_use]
    pub fn trust_root(&self) -> TrustRootId {
        todo!()
    }

    /// Resolves the target's host and vets every address: one that is refused refuses all. At most 16, in the order to
    /// try; 5 s at most; no search domains. A host that is an IP literal is vetted the same.
    ///
    /// # Errors
    /// [`NetError::AddressRefused`], [`NetError::Resolve`].
    pub async fn resolve(&self, _target: &Target) -> Result<Vec<SocketAddr>, NetError> {
        todo!()
    }

    /// Opens a connection to one of the vetted `addresses` (happy eyeballs: the next one starts after 250 ms), with
    /// TLS when the target's scheme is https; the server name is the target's host. Gives the address that was dialled.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect(
        &self,
        _target: &Target,
        _addresses: &[SocketAddr],
        _alpn: Alpn,
    ) -> Result<(UpstreamStream, SocketAddr), NetError> {
        todo!()
    }

    /// Opens a plain TCP connection to one of the vetted addresses, for blind tunnels.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect_tcp(
        &self,
        _target: &Target,
        _addresses: &[SocketAddr],
    ) -> Result<(tokio::net::TcpStream, SocketAddr), NetError> {
        todo!()
    }
}
