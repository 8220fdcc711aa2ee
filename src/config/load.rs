//! Loading and reloading: config file, provider files and store become one [`Snapshot`].

use super::check::check_store;
use super::read::{Files, read_files, restart_keys};
use super::server_tls::{ListenerTls, ListenersTls, TlsError};
use super::{Config, check_text, check_text_and_files, read};
use crate::connection::{Connection, RouteTable};
use crate::identity::Directory;
use crate::net::{Egress, EgressSettings};
use crate::provider::{Catalog, FileProblem};
use crate::store::{Changes, Store};
use crate::types::ConnectionId;
use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;
use tracing::warn;

/// One consistent view of config and store; each request uses one from start to end.
#[derive(Clone)]
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// The providers.
    pub catalog: Arc<Catalog>,
    /// The way out.
    pub egress: Arc<Egress>,
    /// Who may call.
    pub directory: Directory,
    /// The connections.
    pub routes: RouteTable,
    /// The store's generation.
    pub generation: i64,
    /// +1 on every applied change of files.
    pub config_version: u64,
    tls: Arc<ListenersTls>,
}

impl Snapshot {
    /// The TLS of the config's listener with this number, if it has any.
    #[must_use]
    pub fn listener_tls(&self, index: usize) -> Option<&Arc<ListenerTls>> {
        self.tls.of(index)
    }
}

/// Why nothing was loaded; the old snapshot stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The files have problems.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<FileProblem>),
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The way out could not be built.
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A listener's TLS cannot be used.
    #[error("TLS of a listener: {0}")]
    Tls(#[from] TlsError),
}

/// What [`Loader::start_with`] loads from.
pub struct Sources {
    /// The data directory.
    pub home: PathBuf,
    /// The config file, if it was named; it must exist then.
    pub file: Option<PathBuf>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The addresses this process listens on, for the address guard.
    pub own_listeners: Vec<SocketAddr>,
    /// Certificates that no upstream may be trusted for: the interception CA.
    pub distrusted: Vec<CertificateDer<'static>>,
    /// Whether the config's listeners are served, so that the files of their TLS have to be there.
    pub serves_listeners: bool,
}

/// What [`Loader::reload_store`] did.
#[derive(Debug)]
pub struct Reloaded {
    /// The store's generation that is now in force.
    pub generation: i64,
    /// The connections that this took away.
    pub deleted: Vec<ConnectionId>,
}

/// What [`Loader::read_store`] found.
#[derive(Debug)]
pub enum StoreConfig {
    /// The file is valid.
    Valid(Config),
    /// The file has problems. Every key is at its default but those of `[store]`, if that section has no problems itself.
    StoreOnly {
        /// Good for finding the store and for nothing else.
        config: Config,
        /// What is wrong with the file.
        problems: Vec<FileProblem>,
    },
}

/// Loads snapshots and publishes them. Share by `Arc`. Reloads are serialised.
pub struct Loader {
    sources: Sources,
    snapshot: ArcSwap<Snapshot>,
    /// What the files were when they were last applied. Held through a reload of files, which may wait for an editor.
    files: Mutex<Files>,
    /// Held from reading the current snapshot to publishing its successor. Never while waiting for files: a revocation
    /// must not wait for them.
    publishing: Mutex<()>,
}

impl Loader {
    /// Reads the config file only, for commands that need no store. An absent file is the default config, unless it
    /// was named with `--config`. Paths in it come out absolute.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read_config(home: &Path, file: Option<&Path>) -> Result<Config, ConfigError> {
        let home = read::absolute(home)?;
        let (path, text) = config_text(&home, file)?;
        check_text(&path.display().to_string(), &text, &home).map_err(ConfigError::Problems)
    }

    /// [`Loader::read_config`], with a look at the files that the config names.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check_config(home: &Path, file: Option<&Path>) -> Result<Config, ConfigError> {
        let home = read::absolute(home)?;
        let (path, text) = config_text(&home, file)?;
        check_text_and_files(&path.display().to_string(), &text, &home).map_err(ConfigError::Problems)
    }

    /// Reads what says where the store is, for commands that work on records: a file that somebody is in the middle of
    /// editing must not keep a token from being revoked.
    ///
    /// # Errors
    /// When the file cannot be read at all; see [`ConfigError`].
    pub fn read_store(home: &Path, file: Option<&Path>) -> Result<StoreConfig, ConfigError> {
        let home = read::absolute(home)?;
        let (path, text) = config_text(&home, file)?;
        Ok(match check_text(&path.display().to_string(), &text, &home) {
            Ok(config) => StoreConfig::Valid(config),
            Err(problems) => {
                let config = check_store(&text, &home).unwrap_or_else(|| Config::default().resolved(&home));
                StoreConfig::StoreOnly { config, problems }
            }
        })
    }

    /// Loads everything for the first time. `own_listeners` goes to the address guard.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub async fn start(
        home: PathBuf,
        file: Option<PathBuf>,
        store: Arc<dyn Store>,
        own_listeners: Vec<SocketAddr>,
    ) -> Result<Self, ConfigError> {
        Self::start_with(Sources { home, file, store, own_listeners, distrusted: Vec::new(), serves_listeners: false })
            .await
    }

    /// Loads everything for the first time.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub async fn start_with(mut sources: Sources) -> Result<Self, ConfigError> {
        sources.home = read::absolute(&sources.home)?;
        let files = read_files(&sources.home, sources.file.as_deref(), None).await?;
        log_warnings(&files.config, &[]);
        let egress = build_egress(&sources, &files.config, None).await?;
        let changes = sources.store.changes_since(0).await?;
        let tls = load_tls(&sources, &files.config, Arc::default()).await?;
        let empty = Snapshot {
            config: Arc::new(files.config.clone()),
            catalog: Arc::clone(&files.catalog),
            egress,
            directory: told_by_files(&files.config, &tls, Directory::default()),
            routes: RouteTable::default(),
            generation: 0,
            config_version: 1,
            tls,
        };
        let snapshot = with_changes(&empty, changes);
        Ok(Self {
            sources,
            snapshot: ArcSwap::from_pointee(snapshot),
            files: Mutex::new(files),
            publishing: Mutex::new(()),
        })
    }

    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Reads changes of the store and publishes them.
    ///
    /// # Errors
    /// See [`ConfigError`]; the old snapshot stays.
    pub async fn reload_store(&self) -> Result<Reloaded, ConfigError> {
        let _publishing = self.publishing.lock().await;
        let current = self.snapshot();
        let changes = self.sources.store.changes_since(current.generation).await?;
        let mut deleted = Vec::new();
        let next = if changes.generation < current.generation {
            // The store was restored from a backup: nothing that is in memory counts any more.
            warn!(generation = changes.generation, "the store went back to an earlier state; reading all of it again");
            let all = self.sources.store.changes_since(0).await?;
            let directory = told_by_files(&current.config, &current.tls, Directory::default());
            let empty = Snapshot { routes: RouteTable::default(), directory, ..(*current).clone() };
            with_changes(&empty, all)
        } else if changes.generation == current.generation {
            return Ok(Reloaded { generation: current.generation, deleted });
        } else {
            deleted.clone_from(&changes.deleted_connections);
            with_changes(&current, changes)
        };
        let generation = next.generation;
        self.snapshot.store(Arc::new(next));
        Ok(Reloaded { generation, deleted })
    }

    /// Reads config and provider files again and publishes them if they are valid and differ. Listener, admin, store
    /// and root-key changes need a restart: they are kept as they were and named in a warning. Waits for a config file
    /// that was just emptied to be written, 1 s at most.
    ///
    /// # Errors
    /// See [`ConfigError`]; the old snapshot stays.
    pub async fn reload_files(&self) -> Result<bool, ConfigError> {
        let mut applied = self.files.lock().await;
        let files = read_files(&self.sources.home, self.sources.file.as_deref(), Some(&applied)).await?;
        // Only file reloads change the config, and they hold the lock above: this one stays current to the end.
        let current = self.snapshot();
        let mut config = files.config.clone();
        let kept = restart_keys(&current.config, &config);
        keep(&mut config, &current.config);

        let inputs_differ = files.ca_digests != applied.ca_digests || egress_differs(&current.config, &config);
        let tls = load_tls(&self.sources, &config, Arc::clone(&current.tls)).await?;
        let is_same = !inputs_differ
            && Arc::ptr_eq(&tls, &current.tls)
            && config == *current.config
            && files.catalog_key == applied.catalog_key;
        if !kept.is_empty() && files.config != applied.config {
            warn!("changes of {} apply after a restart; they are kept as they were", kept.join(", "));
        }
        if is_same {
            *applied = files;
            return Ok(false);
        }
        let egress = if inputs_differ {
            build_egress(&self.sources, &config, Some(Arc::clone(&current.egress))).await?
        } else {
            Arc::clone(&current.egress)
        };
        log_warnings(&config, &current.config.warnings);
        let config = Arc::new(config);
        let catalog = if files.catalog_key == applied.catalog_key {
            Arc::clone(&current.catalog)
        } else {
            Arc::clone(&files.catalog)
        };
        let config_version = current.config_version + 1;
        {
            let _publishing = self.publishing.lock().await;
            let latest = self.snapshot();
            let directory = told_by_files(&config, &tls, latest.directory.clone());
            let next = Snapshot { config, catalog, egress, config_version, tls, directory, ..(*latest).clone() };
            self.snapshot.store(Arc::new(next));
        }
        *applied = files;
        Ok(true)
    }
}

/// The config file's path and text; an absent file has none, unless it was named.
fn config_text(home: &Path, file: Option<&Path>) -> Result<(PathBuf, String), ConfigError> {
    let path = read::config_path(home, file);
    match read::read_text(&path)? {
        Some(text) => Ok((path, text)),
        None if file.is_none() => Ok((path, String::new())),
        None => Err(read::missing(&path)),
    }
}

/// Takes over from `current` what only a restart can change.
fn keep(config: &mut Config, current: &Config) {
    config.listeners.clone_from(&current.listeners);
    config.admin = current.admin;
    config.shutdown_grace = current.shutdown_grace;
    config.store.clone_from(&current.store);
    config.root_key.clone_from(&current.root_key);
}

fn egress_differs(old: &Config, new: &Config) -> bool {
    let inputs = |config: &Config| {
        (config.dns_hosts.clone(), config.egress.allow_cidrs.clone(), config.ca_files.clone(), config.limits.connect)
    };
    inputs(old) != inputs(new)
}

/// The directory with what the files say of callers.
fn told_by_files(config: &Config, tls: &ListenersTls, directory: Directory) -> Directory {
    Directory {
        certificates: config.certificates.as_slice().into(),
        client_roots: Arc::new(tls.client_roots()),
        ..directory
    }
}

async fn load_tls(
    sources: &Sources,
    config: &Config,
    previous: Arc<ListenersTls>,
) -> Result<Arc<ListenersTls>, ConfigError> {
    if !sources.serves_listeners {
        return Ok(previous);
    }
    let (listeners, home) = (config.listeners.clone(), sources.home.clone());
    let install = sources.store.install_id().to_owned();
    Ok(read::blocking(move || ListenersTls::load(&listeners, &home, &install, &previous)).await?)
}

async fn build_egress(
    sources: &Sources,
    config: &Config,
    previous: Option<Arc<Egress>>,
) -> Result<Arc<Egress>, ConfigError> {
    let settings = EgressSettings {
        hosts: config.dns_hosts.clone(),
        allow_cidrs: config.egress.allow_cidrs.clone(),
        ca_files: config.ca_files.clone(),
        connect: config.limits.connect,
        own_listeners: sources.own_listeners.clone(),
        distrusted: sources.distrusted.clone(),
        ..EgressSettings::default()
    };
    let egress = read::blocking(move || Egress::new(settings, previous.as_deref())).await?;
    Ok(Arc::new(egress))
}

/// The snapshot with changes of the store. A connection that cannot be read is left out, its former self too.
fn with_changes(snapshot: &Snapshot, changes: Changes) -> Snapshot {
    let mut connections = Vec::with_capacity(changes.connections.len());
    let mut deleted = changes.deleted_connections;
    for record in &changes.connections {
        match Connection::from_record(record, snapshot.routes.get(&record.id).map(Arc::as_ref)) {
            Ok(connection) => connections.push(Arc::new(connection)),
            Err(error) => {
                let (id, name) = (&record.id, &record.name);
                warn!(connection = %id, "connection {name} ({id}) is left out: {error}");
                deleted.push(id.clone());
            }
        }
    }
    let routes = snapshot.routes.updated(connections, &deleted);
    Snapshot {
        directory: Directory {
            tokens: snapshot.directory.tokens.updated(&changes.tokens, &changes.deleted_tokens),
            locked: changes.locked,
            disabled: changes.disabled_agents.into_iter().collect(),
            names: Some(Arc::new(routes.clone())),
            ..snapshot.directory.clone()
        },
        routes,
        generation: changes.generation,
        ..snapshot.clone()
    }
}

fn log_warnings(config: &Config, known: &[String]) {
    for warning in config.warnings.iter().filter(|warning| !known.contains(warning)) {
        warn!("{warning}");
    }
}

#[cfg(test)]
mod tests;
