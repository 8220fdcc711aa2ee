//! `nexus connection upgrade`: what a newer file of the provider changes, and the credential sealed again for that.

use super::register::check_injection;
use super::{CliError, Context, Format, output, provider, register_provider};
use crate::app::Install;
use crate::connection::{Connection, Frozen, OAuthGrant};
use crate::provider::Catalog;
use crate::store::{ConnectionRecord, Store, StoreError};
use crate::types::Url;
use serde_json::{Value, json};
use std::io::IsTerminal;

/// Show what a newer file of its provider changes, and seal it again for that
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus connection upgrade github          # shows what changes, and asks\n  nexus connection upgrade github --yes\n\nWithout a terminal and without --yes it shows what would change and changes nothing. The secret stays; where it\ngoes is what the file says now."
)]
pub struct Upgrade {
    /// Name or id
    connection: String,
    /// Change it without asking
    #[arg(long)]
    yes: bool,
}

/// How often a write is tried when a refresh or another command was faster.
const TRIES: usize = 5;

const COLUMNS: [(&str, &str); 3] = [("CHANGE", "change"), ("WHAT", "what"), ("VALUE", "value")];

impl Upgrade {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records().await?;
        let catalog = context.catalog()?;
        let record = install.store.find_connection(&context.scope, &self.connection).await?;
        let old = Frozen::from_json(&record.definition)?;
        let new = newer(&catalog, &record, &old)?;
        let changes = changes(&old, &new);
        let is_current = old.revision == new.revision;
        if context.format == Format::Table && !changes.is_empty() {
            output::print_list(context.format, &COLUMNS, &changes)?;
        }
        let upgrades = !is_current && (self.yes || changes.is_empty() || ask(context, &record)?);
        let version = match upgrades {
            true => write(context, &install, record.clone(), &new).await?,
            false => record.version,
        };
        if context.format == Format::Json {
            return output::print_json(&json!({
                "name": record.name.as_str(), "provider": record.provider.as_str(),
                "changes": changes, "upgraded": upgrades, "version": version,
            }));
        }
        let name = &record.name;
        output::say(&match (is_current, upgrades) {
            (true, _) => format!("{name} is what the file of {} says", record.provider),
            (false, true) => format!("upgraded {name}, version {version}"),
            (false, false) => format!("nothing was changed; to change it: nexus connection upgrade {name} --yes"),
        });
        Ok(())
    }
}

/// Without a terminal nobody agrees.
fn ask(context: &Context, record: &ConnectionRecord) -> Result<bool, CliError> {
    if context.format == Format::Json || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    output::say(&format!("seal the credential of {0} for this? type {0} to go on:", record.name));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(CliError::io("terminal"))?;
    Ok(line.trim() == record.name.as_str())
}

/// What the connection would be if it were made now, with what it was made with.
fn newer(catalog: &Catalog, record: &ConnectionRecord, old: &Frozen) -> Result<Frozen, CliError> {
    let name = &record.name;
    let Some(source) = old.source.clone() else {
        return Err(CliError::Conflict(match old.revision {
            None => format!("{name} was not made from the catalogue, so there is no file that it could follow"),
            Some(_) => format!(
                "{name} was made by a version that did not keep what it was made with; make it again: nexus register {} --name {name} --replace",
                record.provider
            ),
        }));
    };
    let definition =
        catalog.find(record.provider.as_str()).ok_or_else(|| provider::unknown(record.provider.as_str()))?;
    // A setting that is new, or gone, or has another form now.
    let misfit = |error: &dyn std::fmt::Display| {
        CliError::Conflict(format!(
            "{name} does not fit the file of {0} as it is now: {error}; make it again: nexus register {0} --name {name} --replace",
            record.provider
        ))
    };
    let bound = definition.bind(Some(&source.auth), &source.settings).map_err(|error| misfit(&error))?;
    let oauth = match (&old.oauth, &bound.oauth) {
        (None, None) => None,
        (Some(old), Some(endpoints)) => {
            let token_url = match &source.token_url {
                Some(url) => url.clone(),
                None => Url::parse(endpoints.token_url.as_bytes()).map_err(|error| misfit(&error))?,
            };
            // The scopes are those that were consented to.
            Some(OAuthGrant { token_url, client_auth: endpoints.client_auth, ..old.clone() })
        }
        _ => return Err(misfit(&"it is OAuth in one and not in the other")),
    };
    register_provider::freeze(definition, bound, oauth, source)
}

/// What is gone, then what is new.
fn changes(old: &Frozen, new: &Frozen) -> Vec<Value> {
    let (before, after) = (lines(old), lines(new));
    let row = |change: &str, (what, value): &(&str, String)| json!({ "change": change, "what": what, "value": value });
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| row("removed", line));
    let fresh = after.iter().filter(|line| !before.contains(line)).map(|line| row("added", line));
    gone.chain(fresh).collect()
}

/// A definition in words, a line for each thing that can change by itself.
fn lines(frozen: &Frozen) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let urls = super::connection::destinations(frozen);
    if let Some(base) = urls.first() {
        lines.push(("base URL", base.clone()));
    }
    for (destination, url) in frozen.destinations.iter().zip(urls) {
        for placement in destination.strategy.placements() {
            lines.push(("destination", format!("{url} {placement}")));
        }
    }
    if let Some(OAuthGrant { token_url, client_auth, .. }) = &frozen.oauth {
        lines.push((
            "token endpoint",
            format!("{token_url} (client authentication: {})", json!(client_auth).as_str().unwrap_or_default()),
        ));
    }
    for (name, value) in &frozen.default_headers {
        lines.push(("header", format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))));
    }
    if let Some(test) = &frozen.test {
        lines.push(("test request", format!("{} {} gives {:?}", test.method, test.url, test.expect_status)));
    }
    lines
}

/// Opens what was sealed for the old definition and seals it for the new one, again if the credential was refreshed
/// meanwhile.
async fn write(
    context: &Context,
    install: &Install,
    mut record: ConnectionRecord,
    new: &Frozen,
) -> Result<u64, CliError> {
    let shown_for = record.definition.clone();
    for _ in 0..TRIES {
        let old = Connection::from_record(&record, None)?;
        let current = old.access();
        let access = old.open_access(&install.keyring, &current)?;
        let grant = old.open_grant(&install.keyring, &current)?;
        check_injection(new, &access).map_err(|error| {
            CliError::Conflict(format!(
                "the credential does not fit the new placements: {error}; make the connection again: nexus register {} --name {} --replace",
                record.provider, record.name
            ))
        })?;
        let mut next = ConnectionRecord {
            definition: new.to_json(),
            version: record.version + 1,
            updated_at: context.clock.now(),
            ..record.clone()
        };
        let connection = Connection::from_record(&next, None)?;
        next.access = connection.seal_access(&install.keyring, next.version, &access);
        next.grant = grant.map(|grant| connection.seal_grant(&install.keyring, next.version, &grant));
        match install.store.insert_connection(&next, true).await {
            Ok(()) => {
                context.notify().await;
                return Ok(next.version);
            }
            Err(StoreError::Conflict { .. } | StoreError::OldKey) => {
                record = install.store.find_connection(&context.scope, record.id.as_str()).await?;
                if record.definition != shown_for {
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(CliError::Conflict(format!("{} was changed by others meanwhile; look at it again", record.name)))
}
