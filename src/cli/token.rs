//! `nexus token`: agent tokens. Values are printed once, when made or rotated.

use super::{CliError, Context, Format, environment, output};
use crate::app::Install;
use crate::secret::AgentToken;
use crate::store::{Store, TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, ConnectionId, PathPattern, RunId, TokenId, UnixSeconds, parse_duration};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// Agent tokens
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token; its value is shown once
    Create(Create),
    /// List tokens, without their values
    List,
    /// Give a token a new value; id and grants stay
    #[command(after_help = "Examples:\n  nexus token rotate tok_0190...\n  nexus token rotate tok_0190... --grace 0s")]
    Rotate {
        /// The token's id
        id: TokenId,
        /// How long the old value still works
        #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
        grace: Duration,
    },
    /// Revoke a token: no new request with it succeeds
    Revoke {
        /// The token's id
        id: TokenId,
    },
}

/// Make a token; its value is shown once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus token create --name ci --use github\n  nexus token create --name reader --use github,slack --expires 7d --methods GET,HEAD --paths '/repos/**'\n  TOKEN=$(nexus token create --name ci --use github -o json | jq -r .token_value)"
)]
pub struct Create {
    /// The agent that it is for; an agent may have several tokens
    #[arg(long, value_name = "A")]
    name: AgentName,
    /// The connections that it may use, by name or id
    #[arg(long = "use", value_name = "CONN", value_delimiter = ',', required = true)]
    connections: Vec<String>,
    /// How long it works, such as 12h or 90d, or `never`
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_expiry)]
    expires: Expiry,
    /// The methods that it may use [default: all]
    #[arg(long, value_name = "METHOD", value_delimiter = ',', value_parser = parse_method)]
    methods: Vec<String>,
    /// The paths that it may use, as sent to the API; * is one segment, ** any number [default: all]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = parse_pattern)]
    paths: Vec<PathPattern>,
}

/// When a token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// After this time.
    After(Duration),
    /// Not by itself.
    Never,
}

/// A token that is about to be made.
pub(super) struct NewToken {
    /// The agent.
    pub(super) agent: AgentName,
    /// The run.
    pub(super) run: Option<RunId>,
    /// The connections.
    pub(super) connections: Vec<ConnectionId>,
    /// The methods; empty means all.
    pub(super) methods: Vec<String>,
    /// The paths; empty means all.
    pub(super) paths: Vec<String>,
    /// When it ends.
    pub(super) expires: Expiry,
}

/// Makes a token, waits until the running servers know it, and gives its record and value.
pub(super) async fn create(
    context: &Context,
    install: &Install,
    new: NewToken,
) -> Result<(TokenRecord, AgentToken), CliError> {
    let value = AgentToken::generate();
    let now = context.clock.now();
    let lifetime = match new.expires {
        Expiry::After(duration) => Some(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)),
        Expiry::Never => None,
    };
    let record = TokenRecord {
        id: TokenId::generate(),
        scope: context.scope.clone(),
        agent: new.agent,
        run: new.run,
        // Hashed, because the store keeps no value.
        digest: AgentToken::digest(value.value().expose()),
        previous: None,
        connections: new.connections,
        methods: new.methods,
        paths: new.paths,
        hosts: Vec::new(),
        scopes: vec![TokenScope::Use],
        kind: TokenKind::Opaque,
        parent: None,
        created_at: now,
        lifetime,
        expires_at: lifetime.map(|seconds| now.saturating_add(seconds)),
        revoked_at: None,
    };
    install.store.insert_token(&record).await?;
    context.notify().await;
    Ok((record, value))
}

impl TokenCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.execute(context).await,
            Self::List => list(context).await,
            Self::Rotate { id, grace } => rotate(context, &id, grace).await,
            Self::Revoke { id } => {
                let install = context.open_records().await?;
                install.store.revoke_token(&context.scope, &id, context.clock.now()).await?;
                context.notify().await;
                output::say(&format!("revoked {id}"));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records_or_init().await?;
        let connections = context.connection_ids(&install, &self.connections).await?;
        let names: Vec<&str> = connections.iter().map(|(_, name)| name.as_str()).collect();
        let new = NewToken {
            agent: self.name,
            run: None,
            connections: connections.iter().map(|(id, _)| id.clone()).collect(),
            methods: self.methods,
            paths: self.paths.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            expires: self.expires,
        };
        let (record, value) = create(context, &install, new).await?;
        let mut shown = shown_once(&record, &value);
        shown["connections"] = json!(names);
        output::print_object(context.format, &shown)?;
        say_how_to_use(context, &install).await;
        Ok(())
    }
}

/// What `create` and `rotate` show, this once.
fn shown_once(record: &TokenRecord, value: &AgentToken) -> Value {
    json!({
        "token_id": record.id.as_str(),
        // The one time that the value is shown, to the person who made it.
        "token_value": value.value().expose(),
        "agent": record.agent.as_str(),
        "expires_at": record.expires_at.map_or(Value::Null, output::time),
    })
}

/// The value is data and stands on standard output only: what goes to standard error ends up in logs.
async fn say_how_to_use(context: &Context, install: &Install) {
    if context.format == Format::Json {
        return;
    }
    let server = environment::server(&context.home, &install.config).await;
    let url = environment::with_user(&server.url, "x:TOKEN");
    output::say(&format!("\nthe value is not shown again; the agent is set up with it as TOKEN\n  HTTPS_PROXY={url}"));
    match environment::write_bundle(&context.home) {
        Ok(bundle) => output::say(&format!("  SSL_CERT_FILE={}", bundle.display())),
        Err(error) => output::warn(&super::describe(&error)),
    }
    output::say("all variables: nexus env --token-stdin");
}

async fn rotate(context: &Context, id: &TokenId, grace: Duration) -> Result<(), CliError> {
    let install = context.open_records().await?;
    let tokens = install.store.list_tokens(&context.scope).await?;
    let Some(mut record) = tokens.into_iter().find(|token| token.id == *id) else {
        return Err(CliError::NotFound(format!("token {id} does not exist; nexus token list shows all")));
    };
    let now = context.clock.now();
    if record.revoked_at.is_some() {
        return Err(CliError::Conflict(format!("token {id} was revoked; make a new one: nexus token create")));
    }
    if record.kind != TokenKind::Opaque {
        return Err(CliError::Conflict(format!(
            "{id} has no value to rotate; a certificate is renewed on the agent's host: nexus agent renew"
        )));
    }
    let value = AgentToken::generate();
    // Hashed, because the store keeps no value.
    let digest = AgentToken::digest(value.value().expose());
    let old_valid_until = now.saturating_add_unsigned(grace.as_secs());
    record.expires_at = record.lifetime.map(|seconds| now.saturating_add(seconds));
    install.store.rotate_token(&context.scope, id, digest, old_valid_until, record.expires_at).await?;
    context.notify().await;
    let mut shown = shown_once(&record, &value);
    shown["old_valid_until"] = output::time(old_valid_until);
    output::print_object(context.format, &shown)?;
    say_how_to_use(context, &install).await;
    Ok(())
}

const COLUMNS: [(&str, &str); 9] = [
    ("ID", "token_id"),
    ("AGENT", "agent"),
    ("CONNECTIONS", "connections"),
    ("METHODS", "methods"),
    ("PATHS", "paths"),
    ("STATE", "state"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USE", "last_used_at"),
];

async fn list(context: &Context) -> Result<(), CliError> {
    let install = context.open_records().await?;
    let tokens = install.store.list_tokens(&context.scope).await?;
    let names: HashMap<ConnectionId, String> = install
        .store
        .list_connections(&context.scope)
        .await?
        .into_iter()
        .map(|record| (record.id, record.name.to_string()))
        .collect();
    let used: HashMap<String, i64> =
        install.store.usage(&context.scope).await?.into_iter().map(|usage| (usage.id, usage.last_used_at)).collect();
    let now = context.clock.now();
    let rows: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let connections: Vec<&str> =
                token.connections.iter().map(|id| names.get(id).map_or(id.as_str(), String::as_str)).collect();
            json!({
                "token_id": token.id.as_str(),
                "agent": token.agent.as_str(),
                "run": token.run.as_ref().map(RunId::as_str),
                "connections": connections,
                "methods": token.methods,
                "paths": token.paths,
                "state": state(token, now),
                "created_at": output::time(token.created_at),
                "expires_at": token.expires_at.map_or(Value::Null, output::time),
                "last_used_at": used.get(token.id.as_str()).map_or(Value::Null, |at| output::time(*at)),
            })
        })
        .collect();
    output::print_list(context.format, &COLUMNS, &rows)
}

/// `active`, `expired` or `revoked`.
pub(super) fn state(token: &TokenRecord, now: UnixSeconds) -> &'static str {
    if token.revoked_at.is_some() {
        "revoked"
    } else if token.expires_at.is_some_and(|end| end <= now) {
        "expired"
    } else {
        "active"
    }
}

pub(super) fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    match parse_duration(text) {
        Ok(duration) if duration.as_secs() == 0 => Err("the token would have ended already".to_owned()),
        Ok(duration) => Ok(Expiry::After(duration)),
        Err(error) => Err(format!("{error}, or never")),
    }
}

pub(super) fn parse_method(text: &str) -> Result<String, String> {
    let upper = text.trim().to_ascii_uppercase();
    http::Method::from_bytes(upper.as_bytes()).map_err(|_| format!("{text:?} is not a method; write GET,HEAD"))?;
    Ok(upper)
}

pub(super) fn parse_pattern(text: &str) -> Result<PathPattern, String> {
    PathPattern::parse(text).map_err(|error| error.to_string())
}
