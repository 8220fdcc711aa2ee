//! Loading and reloading: config file, provider files and store become one [`Snapshot`].

use super::check::check_store;
use super::read::{Files, read_files, restart_keys};
use super::server_tls::{ListenerTls, ListenersTls, TlsError};
use super::{Config, check_text, check_text_and_files, read};
use crate::connection::{Connection, RouteTable};
use crate::identity::{Directory, Issuer, Issuers, KeyLocation, KeySource, Principals, TokenTable, own_issuer};
use crate::net::{Egress, EgressSettings};
use crate::provider::{Catalog, FileProblem};
use crate::store::{Changes, Failed, Seen, Store};
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
    /// What of the store is in it.
    pub seen: Seen,
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
    /// The connections that were added, or of which something changed: credential, state, or whether they are enabled.
    pub changed: Vec<ConnectionId>,
    /// What fails the integrity check since this reload.
    pub failed: Vec<Failed>,
    /// The generation that was in force before, if the store went back to an earlier one.
    pub went_back_from: Option<i64>,
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
    /// What failed the integrity check when all was loaded first.
    failed_at_start: parking_lot::Mutex<Vec<Failed>>,
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
        let mut changes = sources.store.changes_since(&Seen::default()).await?;
        let failed = std::mem::take(&mut changes.failed);
        let tls = load_tls(&sources, &files.config, Arc::default()).await?;
        let empty = Snapshot {
            config: Arc::new(files.config.clone()),
            catalog: Arc::clone(&files.catalog),
            egress,
            directory: told_by_files(
                &files.config,
                &tls,
                Directory { issuers: issuers(&sources, &files, &Issuers::default()), ..Directory::default() },
            ),
            routes: RouteTable::default(),
            generation: 0,
            seen: Seen::default(),
            config_version: 1,
            tls,
        };
        let snapshot = with_changes(&empty, changes);
        Ok(Self {
            sources,
            snapshot: ArcSwap::from_pointee(snapshot),
            files: Mutex::new(files),
            publishing: Mutex::new(()),
            failed_at_start: parking_lot::Mutex::new(failed),
        })
    }

    /// What failed the integrity check when all was loaded first; given once.
    #[must_use]
    pub fn failed_at_start(&self) -> Vec<Failed> {
        std::mem::take(&mut self.failed_at_start.lock())
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
        let mut changes = self.sources.store.changes_since(&current.seen).await?;
        let mut reloaded = Reloaded {
            generation: changes.generation,
            deleted: std::mem::take(&mut changes.deleted_connections),
            changed: changes.connections.iter().map(|record| record.id.clone()).collect(),
            failed: std::mem::take(&mut changes.failed),
            went_back_from: None,
        };
        let is_same = changes.seen == current.seen
            && changes.locked == current.directory.locked
            && changes.doubtful_agents == current.directory.doubtful;
        let tells_nothing = changes.connections.is_empty()
            && changes.tokens.is_empty()
            && changes.deleted_tokens.is_empty()
            && reloaded.deleted.is_empty()
            && reloaded.failed.is_empty();
        if is_same && tells_nothing {
            return Ok(reloaded);
        }
        let next = if changes.went_back {
            // The store was restored from a backup: nothing that is in memory counts any more.
            reloaded.went_back_from = Some(current.generation);
            warn!(
                from = current.generation,
                to = changes.generation,
                "the store went back to an earlier state (from change {} to {}): a backup was restored, or somebody put an \
                 old file in its place; reading all of it again",
                current.generation,
                changes.generation
            );
            let all = self.sources.store.changes_since(&Seen::default()).await?;
            let directory = Directory { tokens: TokenTable::default(), ..current.directory.clone() };
            let empty = Snapshot { routes: RouteTable::default(), directory, ..(*current).clone() };
            with_changes(&empty, all)
        } else {
            with_changes(&current, Changes { deleted_connections: reloaded.deleted.clone(), ..changes })
        };
        reloaded.generation = next.generation;
        self.snapshot.store(Arc::new(next));
        Ok(reloaded)
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

        let key_sets = |files: &Files| files.key_sets.iter().map(|file| file.digest).collect::<Vec<_>>();
        let keys_differ = key_sets(&files) != key_sets(&applied);
        let inputs_differ = files.ca_digests != applied.ca_digests || egress_differs(&current.config, &config);
        let tls = load_tls(&self.sources, &config, Arc::clone(&current.tls)).await?;
        let is_same = !inputs_differ
            && !keys_differ
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
            let directory = Directory {
                issuers: issuers(&self.sources, &files, &latest.directory.issuers),
                principals: Principals::default(),
                ..told_by_files(&config, &tls, latest.directory.clone())
            };
            let next = Snapshot { config, catalog, egress, config_version, tls, directory, ..(*latest).clone() };
            self.snapshot.store(Arc::new(next));
        }
        *applied = files;
        Ok(true)
    }
}

/// The issuers that the files name. One whose keys are where they were keeps the keys that it has.
fn issuers(sources: &Sources, files: &Files, previous: &Issuers) -> Issuers {
    let mut all: Vec<Issuer> = Vec::new();
    let keys = |location: &KeyLocation, all: &[Issuer]| match location {
        KeyLocation::File(path) => {
            let file = files.key_sets.iter().find(|file| file.path == *path);
            Arc::clone(&file.expect("every key set that the config names was read with it").source)
        }
        KeyLocation::Url(_) => {
            let known = previous.iter().chain(all).find(|issuer| issuer.keys.location() == location);
            known.map_or_else(|| Arc::new(KeySource::new(location.clone())), |issuer| Arc::clone(&issuer.keys))
        }
    };
    for settings in &files.config.issuers {
        all.push(Issuer { keys: keys(&settings.keys, &all), settings: settings.clone() });
    }
    let own = Arc::from(own_issuer(sources.store.install_id()));
    Issuers::new(Some(own), all)
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
    config.root_key_form = current.root_key_form;
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
            doubtful: changes.doubtful_agents,
            names: Some(Arc::new(routes.clone())),
            principals: Principals::default(),
            ..snapshot.directory.clone()
        },
        routes,
        generation: changes.generation,
        seen: changes.seen,
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
