//! How this install reaches the outside, as one snapshot of settings: resolver, guard, trust roots, connect limit.

use super::dial::dial;
use super::resolver::Resolver;
use super::tls::{ClientIdentity, UpstreamTls, load_ca_files, load_roots};
use super::{AddressGuard, AddressRefusal, Alpn, NetError, TrustRootId, UpstreamStream};
use crate::types::{Host, Scheme, Target};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// What [`Egress`] is built from: `[dns]`, `[egress]`, `[upstream]`, `[limits]` of the config.
#[derive(Debug, Clone, Default)]
pub struct EgressSettings {
    /// `[dns].hosts`: static answers, before the resolver.
    pub hosts: HashMap<Host, IpAddr>,
    /// `[egress].allow_cidrs`: ranges that the guard refuses by default; never metadata addresses.
    pub allow_cidrs: Vec<ipnet::IpNet>,
    /// `[upstream].ca_files`: extra trust roots, PEM.
    pub ca_files: Vec<PathBuf>,
    /// `[limits].connect`: for resolve, TCP and TLS together. Zero stands for 10 s.
    pub connect: Duration,
    /// The addresses this process listens on: never dialled.
    pub own_listeners: Vec<SocketAddr>,
    /// Certificates that are not trust roots even where the system's store has them: the interception CA, which the
    /// user may have installed for the agents.
    pub distrusted: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// Whether `ca_files` are the only trust roots.
    pub only_ca_files: bool,
    /// What this program shows to servers that ask for a client certificate.
    pub identity: Option<ClientIdentity>,
}

/// The way out. Share by `Arc`; a reload makes a new one (and reuses what did not change, so TLS sessions still resume).
pub struct Egress {
    hosts: HashMap<Host, IpAddr>,
    guard: AddressGuard,
    connect: Duration,
    resolver: Arc<Resolver>,
    tls: Arc<UpstreamTls>,
}

/// Addresses of one host that are tried at most.
const MAX_ADDRESSES: usize = 16;

/// Names that clouds give their metadata service. Refused before any look-up.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];

impl Egress {
    /// Builds from settings. `previous` gives its TLS configuration and resolver cache where its settings are equal.
    ///
    /// # Errors
    /// [`NetError::CaFile`].
    pub fn new(settings: EgressSettings, previous: Option<&Egress>) -> Result<Self, NetError> {
        // Read again each time: a file's contents change under the same name.
        let roots = if settings.only_ca_files {
            load_ca_files(&settings.ca_files)?
        } else {
            load_roots(&settings.ca_files, &settings.distrusted)?
        };
        let tls = UpstreamTls::new(roots, settings.identity.as_ref());
        let tls = match previous {
            Some(previous) if previous.tls.id() == tls.id() => Arc::clone(&previous.tls),
            _ => Arc::new(tls),
        };
        Ok(Self {
            hosts: settings.hosts,
            guard: AddressGuard::new(settings.allow_cidrs, settings.own_listeners),
            connect: if settings.connect.is_zero() { Duration::from_secs(10) } else { settings.connect },
            resolver: previous.map_or_else(|| Arc::new(Resolver::system()), |previous| Arc::clone(&previous.resolver)),
            tls,
        })
    }

    /// Which trust roots are in force: part of every pool key.
    #[must_use]
    pub fn trust_root(&self) -> TrustRootId {
        self.tls.id()
    }

    /// Resolves the target's host and vets every address: one that is refused refuses all. At most 16, in the order to
    /// try; 5 s at most; no search domains. A host that is an IP literal is vetted the same. Of `localhost` and names
    /// below it, the loopback addresses that are allowed.
    ///
    /// # Errors
    /// [`NetError::AddressRefused`], [`NetError::Resolve`], [`NetError::Timeout`] when the connect limit is shorter.
    pub async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, NetError> {
        let name = match &target.host {
            Host::Ip(ip) => return self.vet(target, &[*ip]),
            Host::Name(name) => name,
        };
        if METADATA_NAMES.contains(&&**name) {
            return Err(NetError::AddressRefused {
                host: target.host.clone(),
                address: IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
                refusal: AddressRefusal::Metadata,
            });
        }
        if let Some(ip) = self.hosts.get(&target.host) {
            return self.vet(target, &[*ip]);
        }
        let answer = timeout(self.connect, self.resolver.lookup(name)).await.map_err(|_| self.timeout(target))?;
        let addresses = answer.map_err(|reason| NetError::Resolve { host: target.host.clone(), reason })?;
        if is_localhost(name) {
            // Both addresses are our own answer, so that allowing one of the two is enough.
            let mut allowed = addresses.iter().filter_map(|ip| self.vet(target, &[*ip]).ok()).flatten().peekable();
            if allowed.peek().is_some() {
                return Ok(allowed.collect());
            }
        }
        self.vet(target, &addresses)
    }

    /// Opens a connection to one of the vetted `addresses` (happy eyeballs: the next one starts after 250 ms), with
    /// TLS when the target's scheme is https; the server name is the target's host. Gives the address that was dialled.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
        alpn: Alpn,
    ) -> Result<(UpstreamStream, SocketAddr), NetError> {
        let deadline = Instant::now() + self.connect;
        let (stream, address) = self.dial_by(deadline, target, addresses).await?;
        if target.scheme == Scheme::Http {
            return Ok((UpstreamStream::Plain(stream), address));
        }
        let stream = timeout_at(deadline, self.tls.handshake(&target.host, stream, alpn))
            .await
            .map_err(|_| self.timeout(target))?
            .map_err(|source| NetError::Tls { target: target.host_and_port(), source })?;
        Ok((stream, address))
    }

    /// Opens a plain TCP connection to one of the vetted addresses, for blind tunnels.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn connect_tcp(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), NetError> {
        self.dial_by(Instant::now() + self.connect, target, addresses).await
    }

    async fn dial_by(
        &self,
        deadline: Instant,
        target: &Target,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), NetError> {
        // Once more, since addresses may have been vetted by an older snapshot of the settings.
        for address in addresses {
            self.check(target, address.ip(), address.port())?;
        }
        timeout_at(deadline, dial(addresses))
            .await
            .map_err(|_| self.timeout(target))?
            .map_err(|source| NetError::Connect { target: target.host_and_port(), source })
    }

    fn vet(&self, target: &Target, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, NetError> {
        for address in addresses {
            self.check(target, *address, target.port)?;
        }
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|ip| ip.to_canonical().is_ipv4());
        let ordered = interleave(v4, v6);
        Ok(ordered.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, target.port)).collect())
    }

    fn check(&self, target: &Target, address: IpAddr, port: u16) -> Result<(), NetError> {
        self.guard.check(address, port).map_err(|refusal| NetError::AddressRefused {
            host: target.host.clone(),
            address,
            refusal,
        })
    }

    fn timeout(&self, target: &Target) -> NetError {
        NetError::Timeout { target: target.host_and_port(), limit: self.connect }
    }

    #[cfg(test)]
    pub(super) fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Alternates the families (RFC 8305 section 4), so that a family that does not work costs one delay at most.
fn interleave(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            return ordered;
        }
        ordered.extend(pair.0);
        ordered.extend(pair.1);
    }
}

#[cfg(test)]
mod tests;
