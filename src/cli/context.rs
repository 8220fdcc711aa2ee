//! What every command starts from: the home, the scope, the output format.

use super::{CliError, Format, output};
use crate::admin::notify_servers;
use crate::app::{AppError, Home, Install};
use crate::config::{Config, Loader, StoreConfig};
use crate::provider::Catalog;
use crate::types::{Clock, ConnectionId, NamespaceName, Scope, TenantName};
use crate::{app, store::Store};
use std::path::PathBuf;

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// The data directory [default: $XDG_DATA_HOME/nexus or ~/.local/share/nexus]
    #[arg(long, global = true, env = "NEXUS_HOME", value_name = "DIR", help_heading = "Global options")]
    pub home: Option<PathBuf>,
    /// The config file [default: nexus.toml in the data directory, optional]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// The tenant [default: default]
    #[arg(long, global = true, env = "NEXUS_TENANT", value_name = "T", help_heading = "Global options")]
    pub tenant: Option<TenantName>,
    /// The namespace within the tenant [default: default]
    #[arg(long, global = true, env = "NEXUS_NAMESPACE", value_name = "N", help_heading = "Global options")]
    pub namespace: Option<NamespaceName>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    pub output: Format,
}

/// What every command starts from.
#[derive(Debug)]
pub struct Context {
    /// Where the install lives.
    pub(super) home: Home,
    /// The config file that was named.
    pub(super) config_file: Option<PathBuf>,
    /// Tenant and namespace of the records.
    pub(super) scope: Scope,
    /// How data is printed.
    pub(super) format: Format,
    /// The time.
    pub(super) clock: Clock,
}

impl Context {
    /// Resolves the flags.
    pub(super) fn new(global: Global) -> Result<Self, CliError> {
        let home = match global.home.filter(|home| !home.as_os_str().is_empty()) {
            Some(home) => home,
            None => default_home()?,
        };
        // Absolute, because a child of `run` may live in another directory.
        let home = std::path::absolute(&home).map_err(CliError::io(&home))?;
        let mut scope = Scope::default();
        if let Some(tenant) = global.tenant {
            scope.tenant = tenant;
        }
        if let Some(namespace) = global.namespace {
            scope.namespace = namespace;
        }
        let config_file = match global.config {
            Some(file) => Some(std::path::absolute(&file).map_err(CliError::io(&file))?),
            None => None,
        };
        Ok(Self { home: Home { path: home }, config_file, scope, format: global.output, clock: Clock::system() })
    }

    /// The checked configuration; its warnings go to the person.
    pub(super) fn config(&self) -> Result<Config, CliError> {
        Ok(Loader::read_config(&self.home.path, self.config_file.as_deref())?)
    }

    /// The checked configuration, the files that it names looked at too.
    pub(super) fn check_config(&self) -> Result<Config, CliError> {
        Ok(Loader::check_config(&self.home.path, self.config_file.as_deref())?)
    }

    /// The providers that this install knows.
    pub(super) fn catalog(&self) -> Result<Catalog, CliError> {
        Catalog::load(&self.home.providers()).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            CliError::Check(format!("provider files have problems:\n{}", lines.join("\n")))
        })
    }

    /// Opens the install, which must be there.
    pub(super) async fn open(&self) -> Result<Install, CliError> {
        let install = app::open(&self.home, self.config()?).await?;
        warn_when_locked(&install).await?;
        Ok(install)
    }

    /// For what would hand out or use a credential.
    pub(super) async fn refuse_when_locked(&self, install: &Install) -> Result<(), CliError> {
        match install.store.lockdown_at().await? {
            None => Ok(()),
            Some(_) => Err(CliError::NotAuthorised(
                "nexus is locked down, and nothing is handed out or used; to end it: nexus lockdown --lift".to_owned(),
            )),
        }
    }

    /// Opens the install and makes it first if there is none, saying so.
    pub(super) async fn open_or_init(&self) -> Result<Install, CliError> {
        match app::open(&self.home, self.config()?).await {
            Err(AppError::NotInitialised { .. }) => {
                self.init(&self.config()?).await?;
                self.open().await
            }
            other => Ok(other?),
        }
    }

    /// [`Context::open`] for commands that need the store and nothing else of the config: one that has problems is a
    /// warning, so that it keeps nobody from revoking a token.
    pub(super) async fn open_records(&self) -> Result<Install, CliError> {
        let install = app::open(&self.home, self.store_config()?).await?;
        warn_when_locked(&install).await?;
        Ok(install)
    }

    /// The config as far as the store needs it.
    pub(super) fn store_config(&self) -> Result<Config, CliError> {
        Ok(match Loader::read_store(&self.home.path, self.config_file.as_deref())? {
            StoreConfig::Valid(config) => config,
            StoreConfig::StoreOnly { config, problems } => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                output::warn(&format!(
                    "the config file has problems ({}); using the store {}; run: nexus config check",
                    output::printable(&first),
                    config.store.display()
                ));
                config
            }
        })
    }

    /// [`Context::open_or_init`] for such commands. An install is made by a valid config only.
    pub(super) async fn open_records_or_init(&self) -> Result<Install, CliError> {
        match self.open_records().await {
            Err(CliError::App(AppError::NotInitialised { .. })) => self.open_or_init().await,
            other => other,
        }
    }

    /// Makes what is missing, saying so.
    pub(super) async fn init(&self, config: &Config) -> Result<Vec<String>, CliError> {
        let made = app::init(&self.home, config).await?;
        for line in &made {
            output::say(&format!("made {line}"));
        }
        Ok(made)
    }

    /// After a write: waits until the running servers of this home have applied it. A server that does not answer is a
    /// warning, since the write is done.
    pub(super) async fn notify(&self) {
        for error in notify_servers(&self.home.path).await {
            output::warn(&format!("saved, but a running server has not confirmed the change: {error}"));
        }
    }

    /// The ids of connections that were named by name or id, in order, each once.
    pub(super) async fn connection_ids(
        &self,
        install: &Install,
        names: &[String],
    ) -> Result<Vec<(ConnectionId, String)>, CliError> {
        let mut found: Vec<(ConnectionId, String)> = Vec::new();
        for name in names {
            let record = install.store.find_connection(&self.scope, name).await?;
            if record.disabled {
                output::warn(&format!("{} is disabled; run: nexus connection enable {}", record.name, record.name));
            }
            if !found.iter().any(|(id, _)| *id == record.id) {
                found.push((record.id, record.name.to_string()));
            }
        }
        Ok(found)
    }
}

async fn warn_when_locked(install: &Install) -> Result<(), CliError> {
    if let Some(since) = install.store.lockdown_at().await? {
        let since = output::time(since);
        let since = since.as_str().unwrap_or_default();
        output::warn(&format!("locked down since {since}: every agent is refused; to end it: nexus lockdown --lift"));
    }
    Ok(())
}

fn default_home() -> Result<PathBuf, CliError> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The XDG specification: a relative path there is to be ignored.
    if let Some(data) = variable("XDG_DATA_HOME") {
        return Ok(data.join("nexus"));
    }
    match variable("HOME") {
        Some(home) => Ok(home.join(".local/share/nexus")),
        None => {
            Err(CliError::Usage("neither HOME nor NEXUS_HOME is set; say where the data is with --home".to_owned()))
        }
    }
}
