//! `nexus connection upgrade`: what a newer provider file changes for a connection, and the connection sealed for it.

use super::confirm::confirm;
use super::register_provider::{freeze, usage};
use super::{CliError, Context, output, provider};
use crate::app::Install;
use crate::connection::{Choices, Connection, Destination, Frozen, OAuthGrant};
use crate::provider::Definition;
use crate::secret::SealError;
use crate::store::{ConnectionRecord, Store, StoreError};
use crate::types::Url;
use serde_json::json;
use std::collections::BTreeMap;

/// Show what a newer provider file changes, and seal the credential for it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus connection upgrade github --dry-run   # show the difference only\n  nexus connection upgrade github --yes"
)]
pub struct Upgrade {
    /// Name or id
    connection: String,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// A value for a variable of the provider that the connection does not have yet
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = super::register::parse_setting)]
    set: Vec<(String, String)>,
    /// Which of the provider's ways to authenticate it uses, where it does not say
    #[arg(long, value_name = "ID")]
    auth: Option<String>,
}

/// How often a write is tried when a refresh or another command was faster.
const TRIES: usize = 5;

impl Upgrade {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records().await?;
        let record = install.store.find_connection(&context.scope, &self.connection).await?;
        if record.provider.as_str() == "custom" {
            return Err(CliError::Usage(format!(
                "{0} was made without a provider file; to change it: nexus register custom --name {0} --replace …",
                record.name
            )));
        }
        let catalog = context.catalog()?;
        let definition =
            catalog.find(record.provider.as_str()).ok_or_else(|| provider::unknown(record.provider.as_str()))?;
        let old = Frozen::from_json(&record.definition)?;
        let new = self.bind(definition, &old)?;
        let changes = differences(&old, &new);
        let is_new = old != new;
        let mut version = record.version;
        if is_new && !self.dry_run {
            if !changes.is_empty() {
                for change in &changes {
                    output::say(&output::printable(change));
                }
                let question = format!("the credential of {} will go where this says", record.name);
                confirm(self.yes, &question, record.name.as_str())?;
            }
            version = reseal(context, &install, record, &old, &new).await?;
            context.notify().await;
        }
        output::print_object(
            context.format,
            &json!({
                "connection": self.connection,
                "from": old.revision,
                "to": new.revision,
                "changes": changes,
                "upgraded": is_new && !self.dry_run,
                "version": version,
            }),
        )
    }

    /// The provider's file of today with what was chosen at registration.
    fn bind(&self, definition: &Definition, old: &Frozen) -> Result<Frozen, CliError> {
        let mut choices = match (&old.choices, &self.auth, definition.auth.as_slice()) {
            (Some(choices), _, _) => choices.clone(),
            (None, Some(auth), _) => chosen(auth),
            (None, None, [only]) => chosen(&only.id),
            (None, None, several) => {
                let ids: Vec<&str> = several.iter().map(|auth| auth.id.as_str()).collect();
                return Err(CliError::Usage(format!(
                    "this connection does not say how it authenticates; name it with --auth: {}",
                    ids.join(", ")
                )));
            }
        };
        if let Some(auth) = &self.auth {
            choices.auth.clone_from(auth);
        }
        choices.set.extend(self.set.iter().cloned());
        // A variable that the file has no more is nobody's to miss.
        let known = definition.plain_names();
        choices.set.retain(|name, _| known.contains(name));
        let bound = definition.bind(Some(&choices.auth), &choices.set).map_err(usage)?;
        let oauth = match (&old.oauth, &bound.oauth) {
            (Some(oauth), Some(endpoints)) => {
                let token_url = match &choices.token_url {
                    Some(url) => url.clone(),
                    None => Url::parse(endpoints.token_url.as_bytes())
                        .map_err(|error| CliError::Failed(format!("{}: {error}", endpoints.token_url)))?,
                };
                Some(OAuthGrant { token_url, client_auth: endpoints.client_auth, ..oauth.clone() })
            }
            (None, None) => None,
            _ => {
                return Err(CliError::Usage(format!(
                    "auth {} of provider {} is of another kind than this connection; register it again with --replace",
                    choices.auth, definition.id
                )));
            }
        };
        freeze(definition, bound, oauth, choices)
    }
}

fn chosen(auth: &str) -> Choices {
    Choices { auth: auth.to_owned(), set: BTreeMap::new(), base_url: None, token_url: None }
}

/// Opens the credential for where it might go and seals it for where it may go now, as the next version.
async fn reseal(
    context: &Context,
    install: &Install,
    mut record: ConnectionRecord,
    old: &Frozen,
    new: &Frozen,
) -> Result<u64, CliError> {
    for _ in 0..TRIES {
        if Frozen::from_json(&record.definition)? != *old {
            return Err(CliError::Conflict(format!(
                "{} was changed by someone else meanwhile; try again",
                record.name
            )));
        }
        let connection = Connection::from_record(&record, None)?;
        let current = connection.access();
        let closed = |error: SealError| {
            CliError::Failed(format!("the credential of {} does not open: {error}; register it again", record.name))
        };
        let access = connection.open_access(&install.keyring, &current).map_err(closed)?;
        let grant = connection.open_grant(&install.keyring, &current).map_err(closed)?;
        if !access.is_empty() {
            for destination in &new.destinations {
                destination.strategy.inject(&access).map_err(|error| {
                    CliError::Usage(format!("{error}; register it again: nexus register {} --replace", record.provider))
                })?;
            }
        }
        let mut next = ConnectionRecord { definition: new.to_json(), version: record.version + 1, ..record.clone() };
        let target = Connection::from_record(&next, None)?;
        next.access = target.seal_access(&install.keyring, next.version, &access);
        next.grant = grant.map(|grant| target.seal_grant(&install.keyring, next.version, &grant));
        match install.store.insert_connection(&next, true).await {
            Ok(()) => return Ok(next.version),
            Err(StoreError::Conflict { .. } | StoreError::OldKey) => {
                record = install.store.find_connection(&context.scope, record.id.as_str()).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(CliError::Conflict(format!("{} keeps being changed by others; try again", record.name)))
}

/// One line each: `-` for what goes, `+` for what comes.
fn differences(old: &Frozen, new: &Frozen) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, old: Vec<String>, new: Vec<String>| {
        lines.extend(old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {what} {line}")));
        lines.extend(new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {what} {line}")));
    };
    compare("destination", destinations(old), destinations(new));
    compare("token endpoint", endpoint(old), endpoint(new));
    compare("header", headers(old), headers(new));
    compare("test request", test(old), test(new));
    lines
}

fn destinations(frozen: &Frozen) -> Vec<String> {
    let text = |destination: &Destination| {
        let Destination { scheme, host, port, path, strategy } = destination;
        let placements: Vec<String> = strategy.placements().iter().map(ToString::to_string).collect();
        format!("{scheme}://{host}:{port}{path} with {}", placements.join(", "))
    };
    frozen.destinations.iter().map(text).collect()
}

fn endpoint(frozen: &Frozen) -> Vec<String> {
    let text = |oauth: &OAuthGrant| format!("{} ({:?})", oauth.token_url, oauth.client_auth).to_lowercase();
    frozen.oauth.iter().map(text).collect()
}

fn headers(frozen: &Frozen) -> Vec<String> {
    let text = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    frozen.default_headers.iter().map(text).collect()
}

fn test(frozen: &Frozen) -> Vec<String> {
    let of = frozen.test.iter();
    of.map(|test| format!("{} {} expecting {:?} {:?}", test.method, test.url, test.expect_status, test.expect_json))
        .collect()
}
