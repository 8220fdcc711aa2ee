//! Names to addresses: the system's name servers and hosts file (hickory), no search domains, 5 s at most, with a cache.

use crate::types::UnixSeconds;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// The longest a name may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the system's files are looked at for changes.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// What the answers depend on. A laptop that changes networks gets other name servers.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Where names are looked up. One for the life of the process: it holds the cache.
pub(super) struct Resolver(Mutex<System>);

struct System {
    stamp: Option<Stamp>,
    checked: Instant,
    resolver: Result<TokioResolver, String>,
}

type Stamp = [Option<(UnixSeconds, u32, u64)>; SYSTEM_FILES.len()];

impl Resolver {
    /// A resolver by the system's configuration, which it follows when it changes.
    pub(super) fn system() -> Self {
        let stamp = stamp();
        Self(Mutex::new(System { stamp: Some(stamp), checked: Instant::now(), resolver: from_system() }))
    }

    /// A resolver that asks these servers only and reads no file.
    #[cfg(test)]
    pub(super) fn with_config(config: ResolverConfig, mut options: ResolverOpts) -> Self {
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        Self(Mutex::new(System { stamp: None, checked: Instant::now(), resolver: build(config, options) }))
    }

    /// Every address of a name, IPv4 first. The name is canonical; it is never completed with a search domain.
    pub(super) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        }
        let absolute =
            Name::from_ascii(format!("{name}.")).map_err(|_| "not a name that can be looked up".to_owned())?;
        let resolver = self.current()?;
        let answer = tokio::time::timeout(TIMEOUT, resolver.lookup_ip(absolute))
            .await
            .map_err(|_| "the name servers did not answer in time".to_owned())?
            .map_err(|error| reason(&error))?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
    }

    fn current(&self) -> Result<TokioResolver, String> {
        let mut system = self.0.lock();
        if let Some(old) = system.stamp
            && system.checked.elapsed() >= CHECK_EVERY
        {
            system.checked = Instant::now();
            let new = stamp();
            if new != old || system.resolver.is_err() {
                system.stamp = Some(new);
                system.resolver = from_system();
            }
        }
        system.resolver.clone()
    }
}

fn stamp() -> Stamp {
    SYSTEM_FILES.map(|file| {
        let metadata = std::fs::metadata(file).ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some((UnixSeconds::try_from(modified.as_secs()).ok()?, modified.subsec_nanos(), metadata.len()))
    })
}

fn from_system() -> Result<TokioResolver, String> {
    let (config, options) = read_system_conf().map_err(|error| format!("no usable /etc/resolv.conf ({error})"))?;
    build(config, options)
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, String> {
    let (_, _, name_servers) = config.into_parts();
    let config = ResolverConfig::from_parts(None, Vec::new(), name_servers);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Two tries with an answer to the second within the limit.
    options.timeout = options.timeout.min(TIMEOUT / 2);
    options.attempts = options.attempts.clamp(1, 2);
    options.try_tcp_on_error = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

fn reason(error: &NetError) -> String {
    if error.is_nx_domain() {
        "no such host".to_owned()
    } else if error.is_no_records_found() {
        "the name has no address".to_owned()
    } else if matches!(error, NetError::Timeout) {
        "the name servers did not answer in time".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests;
