//! The composition root: builds all of it, owns reload and graceful shutdown.

mod changes;
mod integrity;
mod keys;
mod lockdown;

use crate::admin::{AdminState, ControlServer, serve_admin};
use crate::audit::{AuditError, Spool};
use crate::config::{
    Config, ConfigError, ListenAddress, ListenerConfig, Loader, RootKeyError, RootKeyForm, RootKeySource, Snapshot,
    Sources, read_next_root_key, read_root_key, watch_files,
};
use crate::credential::Credentials;
use crate::identity::{AgentAuthority, AgentCaError, Verifier};
use crate::listener::{AuthorityError, CertificateAuthority, Front, LeafCache, Listening};
use crate::net::Pool;
use crate::proxy::hygiene::Pseudonym;
use crate::proxy::plane::Applies;
use crate::proxy::{Enrolment, Plane};
use crate::secret::{KeyError, Keyring, RootKey};
use crate::store::{SqliteStore, Store, StoreError, StoreFile};
use crate::telemetry::Metrics;
use crate::types::Clock;
use changes::StoreChanges;
use integrity::Counter;
use keys::Keys;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often idle upstream connections are looked at, and last-used times are written.
const SWEEP: Duration = Duration::from_secs(5);

/// How often what is of no use any more is looked for.
const PURGE: Duration = Duration::from_secs(3_600);

/// How long orphaned connections and dead tokens are kept.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// How long dead tokens are kept that were made for a run or by another token.
const KEPT_BRIEFLY: Duration = Duration::from_secs(86_400);

/// How often what is under way is asked whether its time is over.
const JUDGE: Duration = Duration::from_millis(500);

/// How long a shutdown waits for refreshes that are under way.
const SETTLE: Duration = Duration::from_secs(5);

/// Where an install lives.
#[derive(Debug, Clone)]
pub struct Home {
    /// The data directory.
    pub path: PathBuf,
}

impl Home {
    /// The directory of the interception CA.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The interception CA's certificate.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.ca().join("ca.pem")
    }

    /// The config file, if none is named.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join("nexus.toml")
    }

    /// The audit record.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit")
    }

    /// The user's own provider files.
    #[must_use]
    pub fn providers(&self) -> PathBuf {
        self.path.join("providers")
    }
}

/// What a command needs to read and write records.
pub struct Install {
    /// Where it lives.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
    /// Its store.
    pub store: Arc<SqliteStore>,
    /// Its keys.
    pub keyring: Arc<Keyring>,
}

/// Why the install cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Nothing there.
    #[error("there is no install in {home}; run: nexus init")]
    NotInitialised {
        /// The data directory.
        home: PathBuf,
    },
    /// Somebody else listens there.
    #[error("{address} is in use; choose another with --listen")]
    AddressInUse {
        /// The address.
        address: String,
    },
    /// There is a store, and the key that sealed it is gone.
    #[error(
        "root key {key} is missing, and {store} was sealed with it; bring it back, or move the store away to begin anew"
    )]
    KeyMissing {
        /// Where the key should be.
        key: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// No passphrase is made up.
    #[error("{path} does not exist; write a passphrase of 12 characters or more to it, mode 0600")]
    PassphraseMissing {
        /// Where the passphrase should be.
        path: PathBuf,
    },
    /// The store was sealed with another key.
    #[error("the root key is not the one that {store} was sealed with; bring that one back")]
    WrongKey {
        /// The store.
        store: PathBuf,
    },
    /// The store had a manifest once.
    #[error(
        "{store} is of a version before the manifest, and {counter} says that it had one: somebody put an old or edited \
         file in its place; restore a backup, or remove {counter} to take the store as it is"
    )]
    ManifestLost {
        /// The store.
        store: PathBuf,
        /// What remembers it.
        counter: PathBuf,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root key's file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The root key.
    #[error(transparent)]
    RootKey(#[from] RootKeyError),
    /// A file or socket.
    #[error("{path}: {source}")]
    Io {
        /// The file or address.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The record.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The interception CA.
    #[error(transparent)]
    Ca(#[from] AuthorityError),
    /// The CA of agents.
    #[error(transparent)]
    AgentCa(#[from] AgentCaError),
}

impl AppError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }
}

/// Makes what is missing, never overwrites; says what it made.
///
/// # Errors
/// See [`AppError`].
pub async fn init(home: &Home, config: &Config) -> Result<Vec<String>, AppError> {
    let mut made = Vec::new();
    for directory in [home.path.clone(), home.ca(), home.audit(), home.providers()] {
        if make_directory(&directory)? {
            made.push(format!("directory {}", directory.display()));
        }
    }
    let store_path = home.path.join(&config.store);
    if let RootKeySource::File(file) = &config.root_key {
        let path = home.path.join(file);
        let is_new = !path.exists();
        if is_new && store_path.exists() {
            // A new key would open nothing of the store, and what it seals would be lost with the old one's return.
            return Err(AppError::KeyMissing { key: path, store: store_path });
        }
        if config.root_key_form == RootKeyForm::Key {
            RootKey::load_or_create(&path)?;
        } else if is_new {
            return Err(AppError::PassphraseMissing { path });
        }
        if is_new {
            made.push(format!("root key {}", path.display()));
        }
    }
    if CertificateAuthority::create(&home.ca())? {
        made.push(format!("interception CA {}", home.ca_certificate().display()));
    }
    if AgentAuthority::create(&home.ca(), Clock::system().now())? {
        made.push(format!("agents' CA {}", home.ca().join("agents.pem").display()));
    }
    if !store_path.exists() {
        let file = StoreFile::open(&store_path).await?;
        match read_root_key(config, &home.path, file.install_id()) {
            // The manifest of a new store is made with its key.
            Ok(root) => {
                let keyring = Arc::new(Keyring::new(&root, file.install_id()));
                file.unlock(keyring).await?.close().await;
            }
            // Whoever has the key makes it.
            Err(_) => file.close().await,
        }
        made.push(format!("store {}", store_path.display()));
    }
    Ok(made)
}

/// Makes a private directory; gives whether it was made.
fn make_directory(path: &Path) -> Result<bool, AppError> {
    if path.is_dir() {
        return Ok(false);
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(AppError::io(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(AppError::io(path))?;
    Ok(true)
}

/// Opens an existing install.
///
/// # Errors
/// See [`AppError`].
pub async fn open(home: &Home, config: Config) -> Result<Install, AppError> {
    let path = home.path.join(&config.store);
    if !path.exists() {
        return Err(AppError::NotInitialised { home: home.path.clone() });
    }
    let file = StoreFile::open(&path).await?;
    let counter = Counter::of(home, file.install_id());
    if file.is_before_manifest() && counter.highest().is_some() {
        return Err(AppError::ManifestLost { store: path, counter: counter.path().to_owned() });
    }
    let (store, keyring) = unlock(home, &config, file, &path).await?;
    Ok(Install { home: home.clone(), config, store, keyring })
}

/// Opens another store that has this install's root key, such as a backup.
///
/// # Errors
/// See [`AppError`].
pub async fn open_backup(home: &Home, config: &Config, path: &Path) -> Result<Arc<SqliteStore>, AppError> {
    let file = StoreFile::open(path).await?;
    Ok(unlock(home, config, file, path).await?.0)
}

async fn unlock(
    home: &Home,
    config: &Config,
    file: StoreFile,
    path: &Path,
) -> Result<(Arc<SqliteStore>, Arc<Keyring>), AppError> {
    let root = read_root_key(config, &home.path, file.install_id())?;
    let keyring = Arc::new(Keyring::new(&root, file.install_id()));
    match read_next_root_key(config, &home.path, file.install_id()) {
        Ok(next) => {
            next.map(|next| keyring.add(&next));
        }
        // Until a rotation has come to it, it is not needed; then the store says that its key is not here.
        Err(error) => tracing::warn!("the next root key cannot be read: {error}"),
    }
    let store = match file.unlock(Arc::clone(&keyring)).await {
        Err(StoreError::KeyUnknown { .. }) => return Err(AppError::WrongKey { store: path.to_owned() }),
        unlocked => Arc::new(unlocked?),
    };
    Ok((store, keyring))
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where the install lives.
    pub home: Home,
    /// The config file that was named.
    pub config_file: Option<PathBuf>,
    /// Plain listeners instead of the config's.
    pub listen: Option<Vec<SocketAddr>>,
    /// Instead of the config's admin address.
    pub admin: Option<SocketAddr>,
}

/// One listener of a running server.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The listener, with the port that was taken.
    pub listener: ListenerConfig,
    /// `http://IP:PORT`, `https://HOST:PORT` with a host that the certificate has, or `unix:PATH`.
    pub url: String,
}

impl Reach {
    fn new(index: usize, listener: ListenerConfig, snapshot: &Snapshot) -> Self {
        let url = match (&listener.address, snapshot.listener_tls(index).filter(|_| listener.tls.is_some())) {
            (ListenAddress::Tcp(address), Some(tls)) => {
                format!("https://{}:{}", tls.host(address.ip()), address.port())
            }
            (ListenAddress::Tcp(address), None) => format!("http://{address}"),
            (unix, _) => unix.to_string(),
        };
        Self { listener, url }
    }

    /// As the control socket tells it: clear text by its address alone.
    fn told(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }
}

/// A running server in this process.
pub struct Running {
    /// Where it listens.
    pub listen: Vec<Reach>,
    /// Health and metrics.
    pub admin: SocketAddr,
    plane: Arc<Plane>,
    store: Arc<SqliteStore>,
    counter: Arc<Counter>,
    shutdown: watch::Sender<bool>,
    background: JoinSet<()>,
    grace: Duration,
}

/// Starts a server.
///
/// # Errors
/// See [`AppError`].
pub async fn serve(options: ServeOptions) -> Result<Running, AppError> {
    let ServeOptions { home, config_file, listen, admin } = options;
    raise_open_files();
    let config = Loader::read_config(&home.path, config_file.as_deref())?;
    let serves_listeners = listen.is_none();
    let listeners = match listen {
        Some(addresses) => addresses.into_iter().map(ListenerConfig::plain).collect(),
        None => config.listeners.clone(),
    };
    let listening = Listening::bind(&listeners).await.map_err(|error| match error.source.kind() {
        std::io::ErrorKind::AddrInUse => AppError::AddressInUse { address: error.address.to_string() },
        _ => AppError::Io { path: error.address.to_string().into(), source: error.source },
    })?;
    let admin_address = admin.unwrap_or(config.admin);
    let admin = tokio::net::TcpListener::bind(admin_address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => AppError::AddressInUse { address: admin_address.to_string() },
        _ => AppError::Io { path: admin_address.to_string().into(), source },
    })?;
    let admin_address = admin.local_addr().map_err(AppError::io(admin_address.to_string()))?;
    let listeners = listening.listeners();

    let install = open(&home, config.clone()).await?;
    let authority = CertificateAuthority::load(&home.ca())?;
    let ca = std::fs::read(home.ca_certificate()).map_err(AppError::io(home.ca_certificate()))?;
    let addresses = listeners.iter().filter_map(|listener| listener.address.tcp());
    let own_listeners = addresses.chain([admin_address]).collect();
    AgentAuthority::create(&home.ca(), Clock::system().now())?;
    let loader = Loader::start_with(Sources {
        home: home.path.clone(),
        file: config_file.clone(),
        store: Arc::clone(&install.store) as Arc<dyn Store>,
        own_listeners,
        distrusted: CertificateDer::pem_slice_iter(&ca).filter_map(Result::ok).collect(),
        serves_listeners,
    })
    .await?;
    let loader = Arc::new(loader);
    let reach = |(index, listener)| Reach::new(index, listener, &loader.snapshot());
    let listen: Vec<Reach> = listeners.into_iter().enumerate().map(reach).collect();
    let enrolment = Enrolment {
        store: Arc::clone(&install.store) as Arc<dyn Store>,
        authority: AgentAuthority::load(&home.ca())?,
        interception: String::from_utf8_lossy(&ca).into_owned(),
    };
    let metrics = Arc::new(Metrics::new());
    make_directory(&home.audit())?;
    let spool = Arc::new(Spool::open(&home.audit(), config.audit)?);
    let clock = Clock::system();
    let store = Arc::clone(&install.store);
    let credentials = Arc::new(Credentials::new(
        Arc::clone(&install.keyring),
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&metrics),
        clock.clone(),
    ));
    let (applies, asked) = Applies::channel();
    let verifier = Verifier::new(Arc::clone(&install.keyring), Arc::clone(&metrics), clock.clone());
    let plane = Arc::new(Plane {
        applies,
        loader: Arc::clone(&loader),
        store: Arc::clone(&store) as Arc<dyn Store>,
        credentials,
        verifier: Arc::new(verifier),
        spool: Arc::clone(&spool),
        metrics: Arc::clone(&metrics),
        pool: Pool::default(),
        replay_budget: Arc::default(),
        pseudonym: Pseudonym::new(store.install_id()),
        clock,
        enrolment: Arc::new(enrolment),
        usage: Arc::default(),
        live: Arc::default(),
        wrong_tokens: Default::default(),
        tasks: TaskTracker::new(),
        draining: CancellationToken::new(),
        ending: CancellationToken::new(),
    });

    let keys = Arc::new(Keys::new(home.clone(), config_file.clone(), Arc::clone(&install.keyring)));
    let counter = Arc::new(Counter::of(&home, store.install_id()));
    integrity::at_start(&plane, &counter);

    let (shutdown, stopping) = watch::channel(false);
    let mut background = JoinSet::new();
    let front = Front::new(Arc::clone(&plane), LeafCache::new(authority, Arc::clone(&metrics)));
    background.spawn(listening.serve(front, stopping));
    let state = AdminState { metrics: Arc::clone(&metrics), readiness: readiness(&plane) };
    let draining = plane.draining.clone();
    background.spawn(serve_admin(admin, state, async move { draining.cancelled().await }));
    let control = ControlServer::bind(&home.path, spool.node()).await.map_err(AppError::io(&home.path))?;
    let status = serde_json::json!({
        "ok": true,
        "listen": listen.iter().filter(|reach| reach.listener.agent.is_none()).map(Reach::told).collect::<Vec<_>>(),
        "bound": listen.iter().filter(|reach| reach.listener.agent.is_some()).map(Reach::told).collect::<Vec<_>>(),
        "admin": admin_address.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
    });
    lockdown::heed(&plane, true);
    let changes = Arc::new(StoreChanges { plane: Arc::clone(&plane), keys });
    let reload = {
        let changes = Arc::clone(&changes);
        move || {
            let changes = Arc::clone(&changes);
            async move { changes.apply_with_keys().await }
        }
    };
    background.spawn(control.serve(reload, status));
    background.spawn(Arc::clone(&changes).follow());
    background.spawn(changes.serve(asked));
    let config_path = config_file.unwrap_or_else(|| home.config_file());
    background.spawn(follow_files(Arc::clone(&plane), home.path.clone(), config_path));
    background.spawn(keep_keys_fresh(Arc::clone(&plane)));
    background.spawn(sweep(Arc::clone(&plane), Arc::clone(&store), Arc::clone(&counter)));
    background.spawn(purge_often(Arc::clone(&plane), Arc::clone(&store)));
    background.spawn(follow_time(Arc::clone(&plane)));
    let grace = config.shutdown_grace;
    Ok(Running { listen, admin: admin_address, plane, store, counter, shutdown, background, grace })
}

/// A tunnel needs two descriptors, and the usual soft limit is 1,024: take what the hard limit allows.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!("the limit of open files could not be raised: {error}");
    }
}

fn readiness(plane: &Arc<Plane>) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
    let plane = Arc::clone(plane);
    Arc::new(move || {
        let mut reasons = Vec::new();
        if !plane.spool.is_healthy() {
            reasons.push("the audit record cannot be written".to_owned());
        }
        if plane.draining.is_cancelled() {
            reasons.push("shutting down".to_owned());
        }
        if plane.loader.snapshot().directory.locked {
            reasons.push("locked down".to_owned());
        }
        reasons
    })
}

/// Cuts what ended by time alone.
async fn follow_time(plane: Arc<Plane>) {
    let mut interval = tokio::time::interval(JUDGE);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        plane.judge();
    }
}

/// Applies changes of the config file and provider files.
async fn follow_files(plane: Arc<Plane>, home: PathBuf, config_file: PathBuf) {
    let mut changes = watch_files(home, config_file);
    while changes.recv().await.is_some() {
        match plane.loader.reload_files().await {
            Ok(true) => {
                plane.judge();
                plane.spool.set_settings(plane.loader.snapshot().config.audit);
                plane.metrics.config_reloaded(true);
                tracing::info!("the configuration was reloaded");
            }
            Ok(false) => {}
            Err(error) => {
                plane.metrics.config_reloaded(false);
                tracing::error!("the configuration was not reloaded, the old one stays in force: {error}");
            }
        }
    }
}

/// Fetches the keys of JWT issuers ahead of need.
async fn keep_keys_fresh(plane: Arc<Plane>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let snapshot = plane.loader.snapshot();
        plane.verifier.keep_keys_fresh(&snapshot.directory, &snapshot.egress);
    }
}

/// Closes idle upstream connections and writes last-used times.
async fn sweep(plane: Arc<Plane>, store: Arc<SqliteStore>, counter: Arc<Counter>) {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        plane.pool.sweep();
        write_usage(&plane, &store).await;
        counter.remember(plane.loader.snapshot().generation);
    }
}

/// Removes for good what is of no use any more. Other servers of the home do the same, each on its own.
async fn purge_often(plane: Arc<Plane>, store: Arc<SqliteStore>) {
    let mut interval = tokio::time::interval(PURGE);
    loop {
        interval.tick().await;
        match purge(&*store, &plane.clock).await {
            Ok(Purged { connections: 0, tokens: 0 }) => {}
            Ok(Purged { connections, tokens }) => {
                tracing::info!("purged {connections} orphaned connections and {tokens} dead tokens");
            }
            Err(error) => tracing::warn!("orphaned connections and dead tokens could not be purged: {error}"),
        }
    }
}

/// What [`purge`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Orphaned connections.
    pub connections: u64,
    /// Dead tokens.
    pub tokens: u64,
}

/// Removes connections that were orphaned, and tokens that were dead, for [`KEPT`]; tokens of runs and those made by
/// others after a day.
///
/// # Errors
/// When the store fails; what was removed until then stays so.
pub async fn purge(store: &dyn Store, clock: &Clock) -> Result<Purged, StoreError> {
    let before = |kept: Duration| clock.now().saturating_sub_unsigned(kept.as_secs());
    Ok(Purged {
        connections: store.purge_orphans(None, before(KEPT)).await?,
        tokens: store.purge_tokens(before(KEPT), before(KEPT_BRIEFLY)).await?,
    })
}

async fn write_usage(plane: &Plane, store: &SqliteStore) {
    let usage = plane.usage.take();
    if !usage.is_empty()
        && let Err(error) = store.record_usage(&usage).await
    {
        tracing::warn!("last-used times could not be written: {error}");
    }
}

impl Running {
    /// Whether every agent is refused.
    #[must_use]
    pub fn is_locked_down(&self) -> bool {
        self.plane.loader.snapshot().directory.locked
    }

    /// Stops gracefully: no new connections, open requests may finish within the grace time, the rest is cut. Ends
    /// earlier when idle.
    pub async fn stop(mut self) {
        let _ = self.shutdown.send(true);
        self.plane.draining.cancel();
        self.plane.tasks.close();
        if tokio::time::timeout(self.grace, self.plane.tasks.wait()).await.is_err() {
            self.plane.ending.cancel();
            // What is cut now still writes its terminal line.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.plane.tasks.wait()).await;
        }
        // A refresh token that was used and whose successor is not stored is lost.
        if tokio::time::timeout(SETTLE, self.plane.credentials.settle()).await.is_err() {
            tracing::warn!("a refreshed credential may not be stored: its refresh did not end in time");
        }
        write_usage(&self.plane, &self.store).await;
        self.counter.remember(self.plane.loader.snapshot().generation);
        self.background.shutdown().await;
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::types::UnixSeconds;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { path: directory.path().join("home") };
        (directory, home)
    }

    #[tokio::test]
    async fn a_lost_root_key_is_not_replaced() {
        let (_directory, home) = home();
        let config = Config::default();
        init(&home, &config).await.unwrap();
        assert!(init(&home, &config).await.unwrap().is_empty());
        std::fs::remove_file(home.path.join("root.key")).unwrap();
        assert!(matches!(init(&home, &config).await, Err(AppError::KeyMissing { .. })));
        assert!(!home.path.join("root.key").exists());
    }

    #[tokio::test]
    async fn what_is_of_no_use_is_purged_after_thirty_days() {
        let (_directory, home) = home();
        let config = Config::default();
        init(&home, &config).await.unwrap();
        let install = open(&home, config).await.unwrap();
        let clock = Clock::fixed(1_700_000_000);
        seal_something(&install, clock.now()).await;
        install.store.delete_namespace(&Default::default(), clock.now()).await.unwrap();
        let nothing = Purged { connections: 0, tokens: 0 };
        assert_eq!(purge(&*install.store, &clock).await.unwrap(), nothing);
        clock.advance(30 * 86_400 - 1);
        assert_eq!(purge(&*install.store, &clock).await.unwrap(), nothing);
        clock.advance(1);
        assert_eq!(purge(&*install.store, &clock).await.unwrap(), Purged { connections: 1, tokens: 0 });
        assert_eq!(purge(&*install.store, &clock).await.unwrap(), nothing);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_purges_when_it_starts() {
        let (_directory, home) = home();
        let config = Config::default();
        init(&home, &config).await.unwrap();
        let install = open(&home, config).await.unwrap();
        seal_something(&install, 1_000).await;
        install.store.delete_namespace(&Default::default(), 1_000).await.unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = ServeOptions { home, config_file: None, listen: Some(vec![any_port]), admin: Some(any_port) };
        let generation = install.store.changes_since(&crate::store::Seen::default()).await.unwrap().generation;
        let server = serve(options).await.unwrap();
        let purged = async {
            while install.store.changes_since(&crate::store::Seen::default()).await.unwrap().generation == generation {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), purged).await.unwrap();
        server.stop().await;
        assert_eq!(install.store.purge_orphans(None, i64::MAX).await.unwrap(), 0, "the server has done it");
    }

    #[tokio::test]
    async fn another_root_key_does_not_open_the_store() {
        let (_directory, home) = home();
        let config = Config::default();
        init(&home, &config).await.unwrap();
        let install = open(&home, config.clone()).await.unwrap();
        seal_something(&install, 1_700_000_000).await;
        install.store.close().await;
        open(&home, config.clone()).await.unwrap().store.close().await;
        std::fs::write(home.path.join("root.key"), "ab".repeat(32)).unwrap();
        assert!(matches!(open(&home, config).await, Err(AppError::WrongKey { .. })));
    }

    async fn seal_something(install: &Install, now: UnixSeconds) {
        use crate::secret::{SealContext, Sealed};
        use crate::store::{ConnectionRecord, ConnectionState};
        use crate::types::{ConnectionId, ConnectionName, ProviderId, Scope};
        let context =
            SealContext { tenant: "default", record: "con_1", field: "access", version: 1, destination: &[0; 32] };
        let access: Sealed = install.keyring.seal(&context, b"secret");
        let record = ConnectionRecord {
            id: ConnectionId::generate(),
            scope: Scope::default(),
            name: ConnectionName::parse("acme").unwrap(),
            provider: ProviderId::parse("custom").unwrap(),
            definition: "{}".to_owned(),
            version: 1,
            access,
            grant: None,
            access_issued_at: None,
            access_expires_at: None,
            state: ConnectionState::Active,
            state_reason: None,
            disabled: false,
            created_at: now,
            updated_at: now,
            orphaned_at: None,
        };
        install.store.insert_connection(&record, false).await.unwrap();
    }
}
