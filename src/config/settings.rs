//! The checked configuration: domain types, every default safe.

use crate::audit::AuditSettings;
use crate::identity::{BoundAgent, CertificateMapping, IssuerSettings, KeyLocation};
use crate::types::Host;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the root key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKeySource {
    /// A file, relative to the home.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A command's standard output.
    Command(Vec<String>),
}

/// What the root key's source gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootKeyForm {
    /// The key itself.
    #[default]
    Key,
    /// A passphrase that the key is derived from.
    Passphrase,
}

/// What happens with a host that no connection covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Refused.
    #[default]
    Deny,
    /// Tunnelled or forwarded without a credential, if `allow_hosts` has it.
    Tunnel,
}

/// `[egress]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// For hosts that no connection covers.
    pub unmatched: Unmatched,
    /// Hosts that may be tunnelled to.
    pub allow_hosts: Vec<crate::types::HostPattern>,
    /// Ports that may be tunnelled to.
    pub connect_ports: Vec<u16>,
    /// Address ranges that the guard opens.
    pub allow_cidrs: Vec<ipnet::IpNet>,
}

/// `[limits]`. `None` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head, bytes.
    pub header_bytes: usize,
    /// Time for a request head, and for a TLS handshake.
    pub header_time: Duration,
    /// Time to resolve, connect and shake hands upstream.
    pub connect: Duration,
    /// Time from the request's end to the answer's head.
    pub first_byte: Option<Duration>,
    /// Longest silence inside a stream.
    pub stream_idle: Option<Duration>,
    /// Open tunnels per agent.
    pub tunnels_per_agent: usize,
    /// Largest request body that is kept for a replay, bytes.
    pub replay_body: usize,
    /// All kept bodies together, bytes.
    pub replay_budget: usize,
    /// Largest body of the call API, bytes.
    pub call_body: usize,
    /// Wrong tokens from one address before they are answered with 429.
    pub wrong_tokens_per_minute: u32,
    /// Open connections that have not shown a valid token.
    pub unauthenticated_connections: usize,
}

/// `[tokens]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenLimits {
    /// How long a token works when nothing is said.
    pub default_expires: Duration,
    /// How long any may work. `None` means no limit.
    pub max_expires: Option<Duration>,
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `IP:PORT`.
    Tcp(SocketAddr),
    /// A Unix socket, relative to the home.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether other machines can reach it.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }

    /// The address, if it is one of the network.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The files of a TLS listener, PEM, relative to the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what stands between it and its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs whose client certificates prove an agent.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca)
    }

    /// The same with relative paths taken relative to `home`.
    #[must_use]
    pub fn resolved(mut self, home: &Path) -> Self {
        let Self { cert, key, client_ca } = &mut self;
        for path in [cert, key].into_iter().chain(client_ca) {
            *path = home.join(&*path);
        }
        self
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it is.
    pub address: ListenAddress,
    /// Its TLS; none for clear text.
    pub tls: Option<TlsFiles>,
    /// Whoever calls without a proof of their own acts as this agent.
    pub agent: Option<BoundAgent>,
}

impl ListenerConfig {
    /// A listener in clear text for everybody with a token.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address: ListenAddress::Tcp(address), tls: None, agent: None }
    }
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where agents connect to: proxy, base-URL and call API.
    pub listeners: Vec<ListenerConfig>,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// How long open requests may take at shutdown.
    pub shutdown_grace: Duration,
    /// The SQLite file (`[store].url` without `sqlite://`), relative to the home.
    pub store: PathBuf,
    /// The root key.
    pub root_key: RootKeySource,
    /// What the root key's source gives.
    pub root_key_form: RootKeyForm,
    /// The root key that `nexus key rotate` goes to, when it is not a file beside the present one.
    pub next_root_key: Option<RootKeySource>,
    /// What that source gives.
    pub next_root_key_form: RootKeyForm,
    /// Static DNS answers.
    pub dns_hosts: HashMap<Host, IpAddr>,
    /// Egress rules.
    pub egress: Egress,
    /// Extra trust roots.
    pub ca_files: Vec<PathBuf>,
    /// Limits.
    pub limits: Limits,
    /// Whose JWTs are taken.
    pub issuers: Vec<IssuerSettings>,
    /// Audit settings.
    pub audit: AuditSettings,
    /// How long tokens may work.
    pub tokens: TokenLimits,
    /// What certificates of the operator's own CAs mean.
    pub certificates: Vec<CertificateMapping>,
    /// Warnings about dangerous but allowed settings, for the log.
    pub warnings: Vec<String>,
}

impl Default for Config {
    /// Every key at its default, as in `config/reference.toml`; paths still relative to the home.
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            listeners: vec![ListenerConfig::plain(loopback(8470))],
            admin: loopback(8471),
            shutdown_grace: Duration::from_secs(5),
            store: PathBuf::from("nexus.db"),
            root_key: RootKeySource::File(PathBuf::from("root.key")),
            root_key_form: RootKeyForm::Key,
            next_root_key: None,
            next_root_key_form: RootKeyForm::Key,
            dns_hosts: HashMap::new(),
            egress: Egress::default(),
            ca_files: Vec::new(),
            limits: Limits::default(),
            issuers: Vec::new(),
            audit: AuditSettings::default(),
            tokens: TokenLimits::default(),
            certificates: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// The file that has the root key itself, if it is in one.
    #[must_use]
    pub fn key_file(&self) -> Option<&Path> {
        match (&self.root_key, self.root_key_form) {
            (RootKeySource::File(path), RootKeyForm::Key) => Some(path),
            _ => None,
        }
    }

    /// The same with every relative path taken relative to `home`.
    #[must_use]
    pub fn resolved(mut self, home: &Path) -> Self {
        let resolve = |path: &mut PathBuf| *path = home.join(&*path);
        resolve(&mut self.store);
        if let RootKeySource::File(path) = &mut self.root_key {
            resolve(path);
        }
        if let Some(RootKeySource::File(path)) = &mut self.next_root_key {
            resolve(path);
        }
        self.ca_files.iter_mut().for_each(resolve);
        for issuer in &mut self.issuers {
            if let KeyLocation::File(path) = &mut issuer.keys {
                resolve(path);
            }
        }
        for listener in &mut self.listeners {
            if let ListenAddress::Unix(path) = &mut listener.address {
                resolve(path);
            }
            listener.tls = listener.tls.take().map(|files| files.resolved(home));
        }
        self
    }

    /// The key sets of issuers that are files.
    pub fn key_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeyLocation::File(path) => Some(path),
            KeyLocation::Url(_) => None,
        })
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self { unmatched: Unmatched::Deny, allow_hosts: Vec::new(), connect_ports: vec![443], allow_cidrs: Vec::new() }
    }
}

impl Default for TokenLimits {
    fn default() -> Self {
        Self { default_expires: Duration::from_secs(90 * 86_400), max_expires: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            header_time: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            first_byte: Some(Duration::from_secs(15 * 60)),
            stream_idle: None,
            tunnels_per_agent: 2000,
            replay_body: 8 << 20,
            replay_budget: 256 << 20,
            call_body: 16 << 20,
            wrong_tokens_per_minute: 60,
            unauthenticated_connections: 1024,
        }
    }
}
