//! `nexus register`: a new connection, from the catalogue or to anything.

use super::{CliError, Context, SecretInput, output, register_custom, register_provider, secret_input};
use crate::app::Install;
use crate::connection::{Connection, Frozen};
use crate::secret::{Sealed, SecretFields};
use crate::store::{ConnectionRecord, ConnectionState, Store, StoreError};
use crate::strategy::Placement;
use crate::types::{ConnectionId, ConnectionName, ProviderId, UnixSeconds, Url};
use serde_json::json;

const AFTER_HELP: &str = "\
Examples:
  nexus register github                                        # asks for the token
  printf %s \"$TOKEN\" | nexus register github --name work --stdin
  nexus register jira --set site=acme --stdin-json < fields.json
  nexus register custom --name api --base-url https://api.example.com \\
      --inject 'header Authorization: Bearer {token}' --stdin < token
  nexus register custom --name api --base-url https://api.example.com/v2 \\
      --inject 'basic {user}:{password}' --stdin-json <<< '{\"user\":\"u\",\"password\":\"p\"}'
  nexus register custom --name api --base-url https://api.example.com \\
      --oauth refresh_token --token-url https://login.example.com/token --stdin-json < oauth.json

Placements (--inject, may be repeated): 'header NAME: TEMPLATE', 'query NAME={f}',
'basic {user}:{password}', 'path /prefix{f}/'. {token} is the value of --stdin or --from-env;
other fields come by --stdin-json. OAuth fields: client_id client_secret refresh_token access_token
expires_in.";

/// Make a connection: a provider of the catalogue (`nexus provider list`), or `custom`
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Register {
    /// A provider of the catalogue, or `custom`
    #[arg(value_name = "PROVIDER")]
    pub(super) provider: String,
    /// What to call the connection [default: the provider's id]
    #[arg(long, value_name = "N")]
    pub(super) name: Option<ConnectionName>,
    #[command(flatten)]
    pub(super) secret: SecretInput,
    /// Where the API is; for a catalogue provider: in place of its usual scheme, host and port
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub(super) base_url: Option<Url>,
    /// Allow a base or token URL in clear (http)
    #[arg(long)]
    pub(super) allow_http: bool,
    /// Replace the connection of that name: same id, next version
    #[arg(long)]
    pub(super) replace: bool,
    /// A plain field of the provider, such as its site; never a secret
    #[arg(long, value_name = "FIELD=VALUE", value_parser = parse_setting, help_heading = "Catalogue providers")]
    pub(super) set: Vec<(String, String)>,
    /// Which of the provider's ways to authenticate (`nexus provider show P`) [default: the first that fits]
    #[arg(long, value_name = "ID", help_heading = "Catalogue providers")]
    pub(super) auth: Option<String>,
    /// Take OAuth client id and secret from the app registration of this provider (`nexus app set`)
    #[arg(long, value_name = "PROVIDER", help_heading = "Catalogue providers")]
    pub(super) app: Option<ProviderId>,
    /// Where the credential goes; may be repeated
    #[arg(long, value_name = "SPEC", value_parser = Placement::parse, help_heading = "Custom connections")]
    pub(super) inject: Vec<Placement>,
    /// Get access tokens by this OAuth grant
    #[arg(long, value_enum, value_name = "GRANT", help_heading = "Custom connections", requires = "token_url")]
    pub(super) oauth: Option<OAuthKind>,
    /// The OAuth token endpoint; for a catalogue provider: in place of its usual one
    #[arg(long, value_name = "URL", value_parser = parse_url, help_heading = "Custom connections")]
    pub(super) token_url: Option<Url>,
    /// How the client proves itself at the token endpoint [default: post]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Custom connections", requires = "oauth")]
    pub(super) token_auth: Option<TokenAuth>,
    /// The scopes to ask for, separated by spaces
    #[arg(long, value_name = "S", help_heading = "Custom connections", requires = "oauth")]
    pub(super) scope: Option<String>,
}

/// The OAuth grants that need no browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OAuthKind {
    /// RFC 6749 section 6.
    #[value(name = "refresh_token")]
    RefreshToken,
    /// RFC 6749 section 4.4.
    #[value(name = "client_credentials")]
    ClientCredentials,
}

/// Client authentication at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum TokenAuth {
    /// HTTP Basic.
    Basic,
    /// In the form body.
    Post,
}

/// A connection that is about to be made.
pub(super) struct NewConnection {
    /// Its name.
    pub(super) name: ConnectionName,
    /// Its provider.
    pub(super) provider: ProviderId,
    /// What it freezes.
    pub(super) frozen: Frozen,
    /// What injection needs.
    pub(super) credential: Credential,
    /// The names of fields that are no secrets.
    pub(super) plain: Vec<String>,
}

/// The secret part of a connection, in the clear.
#[derive(Debug, Default)]
pub(super) struct Credential {
    /// What injection needs.
    pub(super) access: SecretFields,
    /// What a refresh needs.
    pub(super) grant: Option<SecretFields>,
    /// When the access token was obtained.
    pub(super) issued_at: Option<UnixSeconds>,
    /// When it ends.
    pub(super) expires_at: Option<UnixSeconds>,
}

impl Register {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let replace = self.replace;
        // Flags first: a mistake in them makes no install and asks for no secret.
        let custom = if self.provider == "custom" { Some(register_custom::check(&self)?) } else { None };
        if custom.is_none() {
            register_provider::check(&self, &context.catalog()?)?;
        }
        let install = context.open_records_or_init().await?;
        let new = match custom {
            Some(custom) => {
                check_name(context, &install, &custom.name, replace).await?;
                register_custom::prepare(custom, self.secret.read()?, context.clock.now())?
            }
            None => register_provider::prepare(self, context, &install).await?,
        };
        let record = save(context, &install, &new, replace).await?;
        report(context, &record)
    }
}

/// Checks that the credential fits its places, writes the connection, and waits until the running servers know it.
pub(super) async fn save(
    context: &Context,
    install: &Install,
    new: &NewConnection,
    replace: bool,
) -> Result<ConnectionRecord, CliError> {
    check_injection(&new.frozen, &new.credential.access)?;
    secret_input::warn_about(&new.credential.access, &new.plain);
    if let Some(grant) = &new.credential.grant {
        secret_input::warn_about(grant, &new.plain);
    }
    let record = insert(context, install, new, replace).await?;
    context.notify().await;
    Ok(record)
}

/// Refuses a name that is taken, before a person is asked for secrets.
pub(super) async fn check_name(
    context: &Context,
    install: &Install,
    name: &ConnectionName,
    replace: bool,
) -> Result<(), CliError> {
    if !replace && find(context, install, name).await?.is_some() {
        return Err(CliError::Conflict(format!(
            "connection {name} exists already; give another --name, or --replace it, or change its secret: nexus connection set {name}"
        )));
    }
    Ok(())
}

/// How often a replacement is tried when a refresh of the old one was faster.
const TRIES: usize = 5;

async fn insert(
    context: &Context,
    install: &Install,
    new: &NewConnection,
    replace: bool,
) -> Result<ConnectionRecord, CliError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let existing = if replace { find(context, install, &new.name).await? } else { None };
        let record = seal(context, install, new, existing.as_ref())?;
        match install.store.insert_connection(&record, replace).await {
            Ok(()) => return Ok(record),
            Err(StoreError::Conflict { .. } | StoreError::OldKey) if tries < TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn find(
    context: &Context,
    install: &Install,
    name: &ConnectionName,
) -> Result<Option<ConnectionRecord>, CliError> {
    match install.store.find_connection(&context.scope, name.as_str()).await {
        // The look-up takes ids too; only the name can be in the way.
        Ok(record) => Ok((record.name == *name).then_some(record)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Puts the credential on a request once, so that what no place can carry is refused now and not at each request.
pub(super) fn check_injection(frozen: &Frozen, access: &SecretFields) -> Result<(), CliError> {
    if access.is_empty() {
        // An OAuth connection whose first access token is still to come.
        return Ok(());
    }
    for destination in &frozen.destinations {
        destination.strategy.inject(access).map_err(|error| CliError::Usage(error.to_string()))?;
    }
    Ok(())
}

/// Builds the record, its secrets sealed and bound to its destination.
fn seal(
    context: &Context,
    install: &Install,
    new: &NewConnection,
    existing: Option<&ConnectionRecord>,
) -> Result<ConnectionRecord, CliError> {
    let now = context.clock.now();
    let mut record = ConnectionRecord {
        id: existing.map_or_else(ConnectionId::generate, |record| record.id.clone()),
        scope: context.scope.clone(),
        name: new.name.clone(),
        provider: new.provider.clone(),
        definition: new.frozen.to_json(),
        version: existing.map_or(1, |record| record.version + 1),
        access: Sealed::from_bytes(&[]),
        grant: None,
        access_issued_at: new.credential.issued_at,
        access_expires_at: new.credential.expires_at,
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: now,
        updated_at: now,
        orphaned_at: None,
    };
    let connection = Connection::from_record(&record, None)?;
    record.access = connection.seal_access(&install.keyring, record.version, &new.credential.access);
    record.grant =
        new.credential.grant.as_ref().map(|grant| connection.seal_grant(&install.keyring, record.version, grant));
    Ok(record)
}

fn report(context: &Context, record: &ConnectionRecord) -> Result<(), CliError> {
    let connection = Connection::from_record(record, None)?;
    output::print_object(
        context.format,
        &json!({
            "name": record.name.as_str(),
            "id": record.id.as_str(),
            "provider": record.provider.as_str(),
            "destinations": super::connection::destinations(&connection.frozen),
            "version": record.version,
        }),
    )?;
    if context.format == super::Format::Table {
        output::say(&format!("next: nexus connection test {0}, then nexus run --use {0} -- CMD", record.name));
    }
    Ok(())
}

/// Refuses a URL in clear, unless that was allowed.
pub(super) fn check_scheme(url: &Url, allow_http: bool, flag: &str) -> Result<(), CliError> {
    if url.target.scheme == crate::types::Scheme::Http && !allow_http {
        return Err(CliError::Usage(format!(
            "{flag} {} is in clear: everybody on the way could read the credential; use https, or add --allow-http",
            url.target
        )));
    }
    Ok(())
}

pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    if url.path.query().is_some() { Err("the URL has a query; leave it out".to_owned()) } else { Ok(url) }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    // The text is not shown: it could be a secret that was put here by mistake.
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err("write FIELD=VALUE".to_owned()),
    }
}
