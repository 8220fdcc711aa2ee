//! TLS settings for intercepted hosts, minted once a host and kept in a bounded cache.

use super::authority::CertificateAuthority;
use crate::telemetry::Metrics;
use crate::types::Host;
use quick_cache::sync::Cache;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Hosts kept.
const HOSTS: usize = 2048;
/// A leaf is minted anew when it is this old.
const RENEW: Duration = Duration::from_secs(20 * 86_400);

/// The cache. One mint per host at a time.
pub struct LeafCache {
    authority: CertificateAuthority,
    leaves: Cache<Host, Leaf>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    minted: Instant,
}

/// Gives one host's certificate, and only to a client that asks for that host.
#[derive(Debug)]
struct OneHost {
    host: Host,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OneHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let same = match hello.server_name() {
            Some(name) => Host::parse(name.as_bytes()).is_ok_and(|name| name == self.host),
            // Server names are never IP addresses (RFC 6066 section 3).
            None => matches!(self.host, Host::Ip(_)),
        };
        same.then(|| Arc::clone(&self.key))
    }
}

impl LeafCache {
    /// An empty cache.
    #[must_use]
    pub fn new(authority: CertificateAuthority, metrics: Arc<Metrics>) -> Self {
        let tickets = aws_lc_rs::Ticketer::new().ok();
        Self { authority, leaves: Cache::new(HOSTS), tickets, metrics }
    }

    /// The TLS settings for a host.
    ///
    /// # Errors
    /// When the host does not fit a certificate.
    pub fn config(&self, host: &Host) -> Result<Arc<ServerConfig>, rcgen::Error> {
        let mut hit = true;
        let mut mint = || {
            hit = false;
            Ok::<_, rcgen::Error>(Leaf { config: Arc::new(self.build(host)?), minted: Instant::now() })
        };
        let mut leaf = self.leaves.get_or_insert_with(host, &mut mint)?;
        if leaf.minted.elapsed() > RENEW {
            leaf = mint()?;
            self.leaves.insert(host.clone(), leaf.clone());
        }
        self.metrics.leaf_certificate(hit);
        Ok(leaf.config)
    }

    fn build(&self, host: &Host) -> Result<ServerConfig, rcgen::Error> {
        let key = self.authority.mint(host)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(OneHost { host: host.clone(), key }));
        // The order is the server's preference: a client that offers both gets h2.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.send_tls13_tickets = 1;
        if let Some(tickets) = &self.tickets {
            config.ticketer = Arc::clone(tickets);
        }
        Ok(config)
    }
}
