//! `nexus app`: a tenant's OAuth client at a provider.

use super::secret_input::Given;
use super::{CliError, Context, SecretInput, output};
use crate::app::Install;
use crate::provider::{AuthKind, Catalog, Definition, OAuth, TokenClientAuth};
use crate::secret::{Digest, Keyring, SealContext, Sealed, Secret};
use crate::store::{AppRecord, Store};
use crate::types::{NamespaceName, Scope};
use serde_json::{Value, json};
use sha2::Digest as _;

/// OAuth app registrations
#[derive(Debug, clap::Subcommand)]
pub enum AppCommand {
    /// Keep the OAuth client of a provider, for the connections to it
    #[command(
        after_help = "Examples:\n  nexus app set google --client-id ID.apps.googleusercontent.com --stdin < client_secret\n  nexus app set linear --client-id ID     # a public client, or asks nothing"
    )]
    Set {
        /// A provider with OAuth
        provider: String,
        /// The client's id
        #[arg(long, value_name = "ID")]
        client_id: String,
        /// Where the provider sends people back to
        #[arg(long, value_name = "URL", value_parser = super::register::parse_url)]
        redirect_uri: Option<crate::types::Url>,
        #[command(flatten)]
        secret: SecretInput,
    },
    /// List app registrations, without secrets
    List,
    /// Delete an app registration
    Delete {
        /// The provider
        provider: String,
    },
}

const COLUMNS: [(&str, &str); 5] = [
    ("PROVIDER", "provider"),
    ("CLIENT ID", "client_id"),
    ("SECRET", "has_secret"),
    ("REDIRECT URI", "redirect_uri"),
    ("UPDATED", "updated_at"),
];

impl AppCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Set { provider, client_id, redirect_uri, secret } => {
                let catalog = context.catalog()?;
                let definition = catalog.find(&provider).ok_or_else(|| super::provider::unknown(&provider))?;
                let oauth = oauth_of(definition).ok_or_else(|| {
                    CliError::Usage(format!("{} has no OAuth, so it needs no app registration", definition.id))
                })?;
                let secret = client_secret(&secret)?;
                let install = context.open_records_or_init().await?;
                let scope = app_scope(context);
                let apps = install.store.list_apps(&scope).await?;
                let version = apps.iter().find(|app| app.provider == definition.id).map_or(1, |app| app.version + 1);
                let mut record = AppRecord {
                    scope,
                    provider: definition.id.clone(),
                    client_id,
                    secret: None,
                    redirect_uri: redirect_uri.map(|url| url.to_string()),
                    version,
                    updated_at: context.clock.now(),
                };
                record.secret = secret.map(|secret| {
                    let digest = destination(oauth);
                    // Sealed for the store.
                    install.keyring.seal(&seal_context(&record, &digest), secret.expose().as_bytes())
                });
                install.store.put_app(&record).await?;
                context.notify().await;
                output::print_object(context.format, &row(&record))
            }
            Self::List => {
                let install = context.open_records().await?;
                let apps = install.store.list_apps(&app_scope(context)).await?;
                let rows: Vec<Value> = apps.iter().map(row).collect();
                output::print_list(context.format, &COLUMNS, &rows)
            }
            Self::Delete { provider } => {
                let install = context.open_records().await?;
                install.store.delete_app(&app_scope(context), &provider).await?;
                context.notify().await;
                output::say(&format!("deleted the app registration of {provider}"));
                Ok(())
            }
        }
    }
}

/// The client secret; none without a flag, since many clients are public.
fn client_secret(input: &SecretInput) -> Result<Option<Secret>, CliError> {
    match input.read()? {
        Given::Nothing => Ok(None),
        Given::One(value) => Ok(Some(value)),
        Given::Fields(fields) => match fields.get("client_secret") {
            Some(value) => Ok(Some(value.duplicate())),
            None => Err(CliError::Usage("the JSON object needs the field client_secret".to_owned())),
        },
    }
}

/// An app registration with its secret opened.
pub(super) struct OpenApp {
    /// The client's id.
    pub(super) client_id: String,
    /// Its secret.
    pub(super) client_secret: Option<Secret>,
}

/// Opens the app registration of a provider, if there is one.
pub(super) async fn open(
    context: &Context,
    install: &Install,
    definition: &Definition,
) -> Result<Option<OpenApp>, CliError> {
    let apps = install.store.list_apps(&app_scope(context)).await?;
    let Some(record) = apps.into_iter().find(|app| app.provider == definition.id) else { return Ok(None) };
    let Some(oauth) = oauth_of(definition) else { return Ok(None) };
    let client_secret = match &record.secret {
        None => None,
        Some(sealed) => {
            let bytes = install.keyring.open(&seal_context(&record, &destination(oauth)), sealed)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| crate::secret::SealError::Format)?;
            Some(Secret::new(text.to_owned()))
        }
    };
    Ok(Some(OpenApp { client_id: record.client_id, client_secret }))
}

/// The client secret under the root key that seals now; `None` when there is none.
///
/// # Errors
/// Why it does not open.
pub(super) fn reseal(keyring: &Keyring, catalog: &Catalog, record: &AppRecord) -> Result<Option<Sealed>, String> {
    let Some(sealed) = &record.secret else { return Ok(None) };
    let definition = catalog.find(record.provider.as_str());
    let oauth = definition.and_then(|definition| oauth_of(definition)).ok_or_else(|| {
        format!("no provider file says where the app of {} belongs, which its secret is bound to", record.provider)
    })?;
    let digest = destination(oauth);
    let context = seal_context(record, &digest);
    let secret = keyring.open(&context, sealed).map_err(|error| error.to_string())?;
    Ok(Some(keyring.seal(&context, &secret)))
}

/// Apps are shared by the namespaces of a tenant.
fn app_scope(context: &Context) -> Scope {
    Scope {
        tenant: context.scope.tenant.clone(),
        namespace: NamespaceName::parse("default").expect("default is a namespace name"),
    }
}

fn oauth_of(definition: &Definition) -> Option<&OAuth> {
    definition.auth.iter().filter(|auth| auth.kind == AuthKind::Oauth2).find_map(|auth| auth.oauth.as_ref())
}

/// What the client secret is bound to: it opens only for the token endpoint that it was given for.
fn destination(oauth: &OAuth) -> Digest {
    let client_auth = match oauth.client_auth {
        TokenClientAuth::Basic => "basic",
        TokenClientAuth::Post => "post",
        TokenClientAuth::None => "none",
    };
    let mut hash = sha2::Sha256::new();
    for part in ["nexus app", client_auth, oauth.token_url.as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn seal_context<'a>(record: &'a AppRecord, destination: &'a Digest) -> SealContext<'a> {
    SealContext {
        tenant: record.scope.tenant.as_str(),
        record: record.provider.as_str(),
        field: "app_client_secret",
        version: record.version,
        destination,
    }
}

fn row(record: &AppRecord) -> Value {
    json!({
        "provider": record.provider.as_str(),
        "client_id": record.client_id,
        "has_secret": record.secret.is_some(),
        "redirect_uri": record.redirect_uri,
        "updated_at": output::time(record.updated_at),
    })
}
