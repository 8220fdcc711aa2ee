//! The composition root: builds all of it, owns reload and graceful shutdown.

mod changes;
mod home;
mod integrity;
mod keys;
mod lockdown;
mod tasks;

pub use home::{AppError, Home};
pub use tasks::{KEPT, Purged, purge};

use crate::admin::{AdminState, ControlServer, serve_admin};
use crate::audit::Spool;
use crate::config::{
    Config, ListenAddress, ListenerConfig, Loader, RootKeyForm, RootKeySource, Snapshot, Sources, read_next_root_key,
    read_root_key,
};
use crate::credential::Credentials;
use crate::identity::{AgentAuthority, Verifier};
use crate::listener::{CertificateAuthority, Front, LeafCache, Listening};
use crate::net::Pool;
use crate::proxy::hygiene::Pseudonym;
use crate::proxy::plane::Applies;
use crate::proxy::{Enrolment, Plane};
use crate::secret::{Keyring, RootKey};
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
use tasks::{follow_files, follow_time, keep_keys_fresh, purge_often, sweep, write_usage};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a shutdown waits for refreshes that are under way.
const SETTLE: Duration = Duration::from_secs(5);

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
mod tests;
