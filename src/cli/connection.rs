//! `nexus connection`: list, show, disable, enable, delete; `set`, `test` and `upgrade` have their own files.

use super::{CliError, Context, connection_set, connection_test, connection_upgrade, output};
use crate::app::Install;
use crate::connection::{Connection, Frozen};
use crate::provider::Catalog;
use crate::secret::Keyring;
use crate::store::{ConnectionRecord, ConnectionState, Store};
use crate::types::parse_duration;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Look at, change and test connections
#[derive(Debug, clap::Subcommand)]
pub enum ConnectionCommand {
    /// List connections; values are never shown
    List(List),
    /// Show one connection
    Show {
        /// Name or id
        connection: String,
    },
    /// Replace the secret: the next request uses it
    Set(connection_set::Set),
    /// Make the provider's harmless request with the credential
    Test(connection_test::Test),
    /// Show what a newer file of its provider changes, and seal it again for that
    Upgrade(connection_upgrade::Upgrade),
    /// Turn a connection off: agents do not see it any more
    Disable {
        /// Name or id
        connection: String,
    },
    /// Turn a connection on again
    Enable {
        /// Name or id
        connection: String,
    },
    /// Delete a connection and its secret
    Delete {
        /// Name or id
        connection: String,
    },
    /// Remove the tenant's orphaned connections for good: those of deleted tenants and namespaces
    Purge {
        /// Those that were orphaned so long ago
        #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_duration)]
        older_than: Duration,
        /// All of them
        #[arg(long, conflicts_with = "older_than")]
        all: bool,
    },
}

/// List connections; values are never shown
#[derive(Debug, clap::Args)]
pub struct List {}

const COLUMNS: [(&str, &str); 8] = [
    ("NAME", "name"),
    ("PROVIDER", "provider"),
    ("DESTINATIONS", "destinations"),
    ("STATE", "state"),
    ("VERSION", "version"),
    ("AGE", "age"),
    ("LAST USE", "last_used_at"),
    ("EXPIRES", "expires_at"),
];

impl ConnectionCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.execute(context).await,
            Self::Set(set) => set.execute(context).await,
            Self::Test(test) => test.execute(context).await,
            Self::Upgrade(upgrade) => upgrade.execute(context).await,
            Self::Show { connection } => {
                let install = context.open_records().await?;
                let record = install.store.find_connection(&context.scope, &connection).await?;
                let facts = Facts::load(context, &install).await?;
                output::print_object(context.format, &facts.show(&record))
            }
            Self::Disable { connection } => set_disabled(context, &connection, true).await,
            Self::Enable { connection } => set_disabled(context, &connection, false).await,
            Self::Delete { connection } => {
                let install = context.open_records().await?;
                let name = install.store.delete_connection(&context.scope, &connection).await?;
                context.notify().await;
                output::say(&format!("deleted {name}"));
                Ok(())
            }
            Self::Purge { older_than, all } => {
                let install = context.open_records().await?;
                let until = match all {
                    true => i64::MAX,
                    false => context.clock.now().saturating_sub_unsigned(older_than.as_secs()),
                };
                // Of all its namespaces: one that was deleted has no other name to ask for it by.
                let purged = install.store.purge_orphans(Some(&context.scope.tenant), until).await?;
                context.notify().await;
                output::print_object(context.format, &json!({"purged": purged}))
            }
        }
    }
}

impl List {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records().await?;
        let records = install.store.list_connections(&context.scope).await?;
        let facts = Facts::load(context, &install).await?;
        let rows: Vec<Value> = records.iter().map(|record| facts.row(record)).collect();
        output::print_list(context.format, &COLUMNS, &rows)?;
        if rows.is_empty() && context.format == super::Format::Table {
            output::say("no connections yet; make one: nexus register github");
        }
        Ok(())
    }
}

async fn set_disabled(context: &Context, connection: &str, disabled: bool) -> Result<(), CliError> {
    let install = context.open_records().await?;
    install.store.set_connection_disabled(&context.scope, connection, disabled).await?;
    context.notify().await;
    output::say(&format!("{} {connection}", if disabled { "disabled" } else { "enabled" }));
    Ok(())
}

/// What is known of connections beside their records.
struct Facts {
    keyring: Arc<Keyring>,
    last_used: HashMap<String, i64>,
    catalog: Catalog,
    now: i64,
}

impl Facts {
    async fn load(context: &Context, install: &Install) -> Result<Self, CliError> {
        let usage = install.store.usage(&context.scope).await?;
        Ok(Self {
            keyring: install.keyring.clone(),
            last_used: usage.into_iter().map(|usage| (usage.id, usage.last_used_at)).collect(),
            // A broken provider file must not hide the connections; `provider list` and `doctor` name its problems.
            catalog: context.catalog().unwrap_or_else(|_| Catalog::built_in()),
            now: context.clock.now(),
        })
    }

    fn row(&self, record: &ConnectionRecord) -> Value {
        let frozen = Frozen::from_json(&record.definition);
        let destinations = frozen.as_ref().map(destinations).unwrap_or_default();
        let is_outdated = frozen.as_ref().is_ok_and(|frozen| outdated(&self.catalog, record, frozen));
        json!({
            "name": record.name.as_str(),
            "id": record.id.as_str(),
            "provider": record.provider.as_str(),
            "destinations": destinations,
            "state": if self.opens(record) { state(record) } else { "damaged" },
            "version": record.version,
            "age": output::age(self.now - record.updated_at),
            "created_at": output::time(record.created_at),
            "updated_at": output::time(record.updated_at),
            "last_used_at": self.last_used.get(record.id.as_str()).map_or(Value::Null, |at| output::time(*at)),
            "expires_at": record.access_expires_at.map_or(Value::Null, output::time),
            "outdated": is_outdated,
        })
    }

    /// Whether the credential opens for what the record says now.
    fn opens(&self, record: &ConnectionRecord) -> bool {
        let Ok(connection) = Connection::from_record(record, None) else { return false };
        let access = connection.access();
        // Opened only to see that it opens; wiped at once.
        connection.open_access(&self.keyring, &access).is_ok() && connection.open_grant(&self.keyring, &access).is_ok()
    }

    fn show(&self, record: &ConnectionRecord) -> Value {
        let mut shown = self.row(record);
        if let Some(reason) = &record.state_reason {
            shown["reason"] = json!(reason);
        }
        let Ok(connection) = Connection::from_record(record, None) else { return shown };
        let placements: Vec<String> = connection
            .frozen
            .destinations
            .iter()
            .flat_map(|destination| destination.strategy.placements().iter().map(ToString::to_string))
            .fold(Vec::new(), |mut seen, placement| {
                if !seen.contains(&placement) {
                    seen.push(placement);
                }
                seen
            });
        shown["injects"] = json!(placements);
        if let Some(oauth) = &connection.frozen.oauth {
            shown["token_url"] = json!(oauth.token_url.to_string());
            shown["grant"] = json!(oauth.grant);
            shown["scope"] = json!(oauth.scope);
        }
        shown
    }
}

/// Whether the file of its provider is another one than that from which a connection was made.
pub(super) fn outdated(catalog: &Catalog, record: &ConnectionRecord, frozen: &Frozen) -> bool {
    let definition = catalog.find(record.provider.as_str());
    frozen.revision.as_ref().is_some_and(|made_from| definition.is_some_and(|it| it.revision != *made_from))
}

/// `active`, `attention` or `disabled`.
fn state(record: &ConnectionRecord) -> &'static str {
    match (record.disabled, record.state) {
        (true, _) => "disabled",
        (false, ConnectionState::Active) => "active",
        (false, ConnectionState::Attention) => "attention",
    }
}

/// The command that gives a connection a new secret.
pub(super) fn set_command(connection: &Connection) -> String {
    let flag = if connection.frozen.oauth.is_some() { " --stdin-json" } else { "" };
    format!("nexus connection set {}{flag}", connection.name)
}

/// Where a connection's credential may go, as URLs.
pub(super) fn destinations(frozen: &Frozen) -> Vec<String> {
    frozen
        .destinations
        .iter()
        .map(|destination| {
            let scheme = match destination.scheme {
                crate::types::Scheme::Http => "http",
                crate::types::Scheme::Https => "https",
            };
            let port = match destination.port {
                port if port == destination.scheme.default_port() => String::new(),
                port => format!(":{port}"),
            };
            format!("{scheme}://{}{port}{}", destination.host, destination.path.as_str())
        })
        .collect()
}
