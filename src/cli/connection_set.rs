//! `nexus connection set`: a new secret for a connection that stays.

use super::register::Credential;
use super::secret_input::{Given, prompt, warn_about};
use super::{CliError, Context, SecretInput, output, register_custom};
use crate::app::Install;
use crate::connection::Connection;
use crate::secret::{Secret, SecretFields};
use crate::store::{ConnectionRecord, CredentialUpdate, Store, StoreError};

/// Replace the secret: version + 1, the next request uses it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus connection set github\n  printf %s \"$TOKEN\" | nexus connection set github --stdin\n  nexus connection set api --stdin-json <<< '{\"password\":\"new\"}'   # the other fields stay"
)]
pub struct Set {
    /// Name or id
    connection: String,
    #[command(flatten)]
    secret: SecretInput,
}

/// How often a write is tried when a refresh or another command was faster.
const TRIES: usize = 5;

impl Set {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records().await?;
        let record = install.store.find_connection(&context.scope, &self.connection).await?;
        let given = given_fields(context, &record, &self.secret)?;
        warn_about(&given, &plain_names(context, &record));
        let version = write(context, &install, record, &given).await?;
        context.notify().await;
        output::print_object(context.format, &serde_json::json!({ "connection": self.connection, "version": version }))
    }
}

/// The new values by name.
fn given_fields(context: &Context, record: &ConnectionRecord, input: &SecretInput) -> Result<SecretFields, CliError> {
    let connection = Connection::from_record(record, None)?;
    let mut fields = SecretFields::default();
    if connection.frozen.oauth.is_some() {
        return register_custom::oauth_fields(input.read()?);
    }
    let known = field_names(&connection);
    match input.read()? {
        Given::Fields(given) => {
            if let Some((name, _)) = given.iter().find(|(name, _)| !known.iter().any(|k| k == name)) {
                let name = output::printable(name);
                return Err(CliError::Usage(format!(
                    "{} has no field {name}; it has {}",
                    record.name,
                    known.join(", ")
                )));
            }
            Ok(given)
        }
        Given::One(value) => {
            fields.insert(&the_secret(context, record, &known)?, value);
            Ok(fields)
        }
        Given::Nothing => {
            for name in secret_names(context, record, &known) {
                fields.insert(&name, prompt(&name)?);
            }
            Ok(fields)
        }
    }
}

fn field_names(connection: &Connection) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in connection.frozen.destinations.iter().flat_map(|destination| destination.strategy.fields()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The fields that the provider's file does not call secret.
fn plain_names(context: &Context, record: &ConnectionRecord) -> Vec<String> {
    let catalog = context.catalog().unwrap_or_else(|_| crate::provider::Catalog::built_in());
    catalog.find(record.provider.as_str()).map(|definition| definition.plain_names()).unwrap_or_default()
}

/// The fields that the provider's file calls secret; all of them when it does not say.
fn secret_names(context: &Context, record: &ConnectionRecord, known: &[String]) -> Vec<String> {
    let plain = plain_names(context, record);
    known.iter().filter(|name| !plain.contains(name)).cloned().collect()
}

fn the_secret(context: &Context, record: &ConnectionRecord, known: &[String]) -> Result<String, CliError> {
    let mut names = secret_names(context, record, known);
    match (names.pop(), names.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(CliError::Usage(format!(
            "{} has the fields {}; give those that are new by --stdin-json as one JSON object",
            record.name,
            known.join(", ")
        ))),
    }
}

/// Puts the new values over the old ones and writes the next version, again if somebody else was faster.
async fn write(
    context: &Context,
    install: &Install,
    mut record: ConnectionRecord,
    given: &SecretFields,
) -> Result<u64, CliError> {
    for _ in 0..TRIES {
        let now = context.clock.now();
        let connection = Connection::from_record(&record, None)?;
        let credential = merged(install, &connection, given, now)?;
        if !credential.access.is_empty() {
            for destination in &connection.frozen.destinations {
                destination.strategy.inject(&credential.access).map_err(|error| CliError::Usage(error.to_string()))?;
            }
        }
        let version = record.version + 1;
        let update = CredentialUpdate {
            version,
            access: connection.seal_access(&install.keyring, version, &credential.access),
            grant: credential.grant.as_ref().map(|grant| connection.seal_grant(&install.keyring, version, grant)),
            access_issued_at: credential.issued_at,
            access_expires_at: credential.expires_at,
            now,
        };
        match install.store.update_credential(&record.id, &update, None).await {
            Ok(()) => return Ok(version),
            Err(StoreError::Conflict { .. } | StoreError::OldKey) => {
                record = install.store.find_connection(&context.scope, record.id.as_str()).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(CliError::Conflict(format!("{} keeps being changed by others; try again", record.name)))
}

/// The new values over the old ones. The old ones must open even where nothing of them stays: a record that was edited
/// since it was sealed would send the new secret wherever the edit says.
fn merged(install: &Install, connection: &Connection, given: &SecretFields, now: i64) -> Result<Credential, CliError> {
    let current = connection.access();
    let closed = |error: crate::secret::SealError| {
        CliError::Failed(format!(
            "the old credential of {name} does not open ({error}): it was sealed with another root key, or the record \
             was edited; make it again: nexus register {provider} --name {name} --replace",
            name = connection.name,
            provider = connection.provider
        ))
    };
    let mut access = connection.open_access(&install.keyring, &current).map_err(closed)?;
    let grant = connection.open_grant(&install.keyring, &current).map_err(closed)?;
    if let Some(oauth) = &connection.frozen.oauth {
        // A new grant without a new access token: the old access token belongs to the old grant, so it is dropped.
        let mut fields = grant.unwrap_or_default();
        overlay(&mut fields, given);
        return register_custom::oauth_credential(oauth.grant, &fields, now);
    }
    overlay(&mut access, given);
    Ok(Credential { access, ..Credential::default() })
}

fn overlay(fields: &mut SecretFields, given: &SecretFields) {
    for (name, value) in given.iter() {
        fields.insert(name, Secret::duplicate(value));
    }
}
