//! `nexus lockdown`: the emergency stop, and its end.

use super::{CliError, Context, output};
use crate::admin::control_sockets;
use crate::app::{self, AppError};
use crate::audit::{Event, Kind, Spool};
use crate::config::{Config, Loader, RootKeySource, StoreConfig};
use crate::store::{Store, StoreFile};
use crate::types::RequestId;
use serde_json::{Value, json};

/// Stop serving every agent at once and revoke all tokens; needs no key
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus lockdown\n  nexus lockdown --lift\n\nRunning servers refuse every agent, of every tenant, and cut what is under way; no credential is opened or\nrefreshed. It is set without the root key and with a config file that has problems, and stays over restarts.\nLifting it needs the root key; agents need new tokens after it."
)]
pub struct Lockdown {
    /// End it; every token that there was is revoked
    #[arg(long)]
    lift: bool,
}

impl Lockdown {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        if self.lift { lift(context).await } else { set(context).await }
    }
}

async fn set(context: &Context) -> Result<(), CliError> {
    let config = store_config(context);
    let path = context.home.path.join(&config.store);
    if !path.exists() {
        return Err(AppError::NotInitialised { home: context.home.path.clone() }.into());
    }
    let file = StoreFile::open(&path).await?;
    let before = file.lockdown_at().await?;
    let since = file.set_lockdown(context.clock.now()).await?;
    file.close().await;
    context.notify().await;
    let servers = control_sockets(&context.home.path).await.len();
    if servers == 0 && before.is_none() {
        record(context, &config, Kind::Lockdown);
    }
    // A key that has to be asked for may be what fails today: servers that have it revoke, and so does --lift.
    let revoked = match &config.root_key {
        RootKeySource::File(_) => revoke(context, config).await,
        _ => Err("the root key is not in a file".to_owned()),
    };
    let shown = json!({
        "locked_down": true,
        "since": output::time(since),
        "servers": servers,
        "tokens_revoked": revoked.as_ref().map_or(Value::Null, |count| json!(count)),
    });
    output::print_object(context.format, &shown)?;
    if let Err(reason) = revoked {
        output::say(&format!(
            "tokens are refused, and marked as revoked by the next server that has the key, or by --lift ({reason})"
        ));
    }
    output::say("every agent is refused; to end it: nexus lockdown --lift");
    Ok(())
}

async fn lift(context: &Context) -> Result<(), CliError> {
    let config = store_config(context);
    let install = app::open(&context.home, config.clone()).await?;
    let lifted = install.store.lift_lockdown(context.clock.now()).await?;
    install.store.close().await;
    context.notify().await;
    if lifted.is_some() && control_sockets(&context.home.path).await.is_empty() {
        record(context, &config, Kind::LockdownLifted);
    }
    output::print_object(context.format, &json!({ "locked_down": false, "tokens_revoked": lifted }))?;
    output::say(match lifted {
        Some(_) => "lifted; make new tokens: nexus token create",
        None => "there was no lockdown",
    });
    Ok(())
}

/// Where the store is, however broken the config file.
fn store_config(context: &Context) -> Config {
    match Loader::read_store(&context.home.path, context.config_file.as_deref()) {
        Ok(StoreConfig::Valid(config)) => config,
        Ok(StoreConfig::StoreOnly { config, .. }) => {
            output::warn(&format!("the config file has problems; using the store {}", config.store.display()));
            config
        }
        Err(error) => {
            let config = Config::default().resolved(&context.home.path);
            let error = super::describe(&error);
            output::warn(&format!("{}; using the store {}", output::printable(&error), config.store.display()));
            config
        }
    }
}

async fn revoke(context: &Context, config: Config) -> Result<u64, String> {
    let install = app::open(&context.home, config).await.map_err(|error| super::describe(&error))?;
    let revoked = install.store.revoke_all_tokens(context.clock.now()).await;
    install.store.close().await;
    revoked.map_err(|error| super::describe(&error))
}

/// Servers write it down when they apply it; without one the command does.
fn record(context: &Context, config: &Config, kind: Kind) {
    match Spool::open(&context.home.audit(), config.audit) {
        Ok(spool) => spool.finish(Event::new(kind, RequestId::generate())),
        Err(error) => output::warn(&format!("the audit record could not be written: {}", super::describe(&error))),
    }
}
