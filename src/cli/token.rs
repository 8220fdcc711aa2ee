//! `nexus token`: agent tokens. Values are printed once, when made or rotated.

use super::narrowing::Narrowing;
use super::{CliError, Context, Format, environment, output};
use crate::app::Install;
use crate::config::TokenLimits;
use crate::identity::MAX_GENERATIONS;
use crate::secret::AgentToken;
use crate::store::{Store, TokenKind, TokenRecord, TokenScope, Usage};
use crate::types::{AgentName, ConnectionId, RunId, TokenId, UnixSeconds, format_duration, parse_duration};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// Agent tokens
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Make a token; its value is shown once
    Create(Create),
    /// Sign a token for one run: a JWT that ends by itself; its value is shown once
    Mint(super::token_mint::Mint),
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
    after_help = "Examples:\n  nexus token create --name ci --use github\n  nexus token create --name reader --use github,slack --expires 7d --methods GET,HEAD --paths '/repos/**'\n  nexus token create --name boss --use github --hosts api.github.com --scopes use,mint\n  TOKEN=$(nexus token create --name ci --use github -o json | jq -r .token_value)"
)]
pub struct Create {
    /// The agent that it is for; an agent may have several tokens
    #[arg(long, value_name = "A")]
    name: AgentName,
    /// The connections that it may use, by name or id
    #[arg(long = "use", value_name = "CONN", value_delimiter = ',', required = true)]
    connections: Vec<String>,
    /// How long it works, such as 12h or 90d, or `never` [default: tokens.default_expires, 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_expiry)]
    expires: Option<Expiry>,
    #[command(flatten)]
    narrowing: Narrowing,
    /// What it is for: use (requests), mint (making narrower tokens), or both
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', default_value = "use")]
    scopes: Vec<TokenScope>,
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
    /// The hosts; empty means all.
    pub(super) hosts: Vec<String>,
    /// What it is for.
    pub(super) scopes: Vec<TokenScope>,
    /// When it ends; by default as the config says.
    pub(super) expires: Option<Expiry>,
}

/// Makes a token, waits until the running servers know it, and gives its record and value.
pub(super) async fn create(
    context: &Context,
    install: &Install,
    new: NewToken,
) -> Result<(TokenRecord, AgentToken), CliError> {
    context.refuse_when_locked(install).await?;
    let value = AgentToken::generate();
    let now = context.clock.now();
    let lifetime = lifetime(new.expires, &install.config.tokens)?;
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
        hosts: new.hosts,
        scopes: new.scopes,
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

/// How long a token works, in seconds.
///
/// # Errors
/// When that is longer than the config allows.
pub(super) fn lifetime(expires: Option<Expiry>, limits: &TokenLimits) -> Result<Option<i64>, CliError> {
    let expires = expires.unwrap_or(Expiry::After(limits.default_expires));
    match (expires, limits.max_expires) {
        (Expiry::Never, None) => Ok(None),
        (Expiry::After(time), max) if max.is_none_or(|max| time <= max) => Ok(Some(seconds(time))),
        (_, max) => {
            let max = format_duration(max.unwrap_or_default());
            Err(CliError::Usage(format!(
                "tokens may work for {max} at most (tokens.max_expires in the config); use --expires {max} or less"
            )))
        }
    }
}

/// The time, or what the config allows where that is less: for tokens whose time nobody has chosen.
pub(super) fn no_longer(time: Duration, limits: &TokenLimits) -> Duration {
    limits.max_expires.map_or(time, |max| max.min(time))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl TokenCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.execute(context).await,
            Self::Mint(mint) => mint.execute(context).await,
            Self::List => list(context).await,
            Self::Rotate { id, grace } => rotate(context, &id, grace).await,
            Self::Revoke { id } => revoke(context, &id).await,
        }
    }
}

/// Those below it are counted before, and end with it: the record above them is what they are judged by.
async fn revoke(context: &Context, id: &TokenId) -> Result<(), CliError> {
    let install = context.open_records().await?;
    let now = context.clock.now();
    // A damaged record elsewhere must not keep a token from being revoked.
    let below = match install.store.list_tokens(&context.scope).await {
        Ok(tokens) => Family::of(&tokens).below(id, now),
        Err(error) => {
            output::warn(&format!("the tokens that it made could not be counted: {error}"));
            0
        }
    };
    install.store.revoke_token(&context.scope, id, now).await?;
    context.notify().await;
    match below {
        0 => output::say(&format!("revoked {id}")),
        1 => output::say(&format!("revoked {id}, and with it 1 token that it had made")),
        more => output::say(&format!("revoked {id}, and with it {more} tokens that it and they had made")),
    }
    Ok(())
}

impl Create {
    async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records_or_init().await?;
        // Said before anything else is looked at, and again where the token is made.
        lifetime(self.expires, &install.config.tokens)?;
        let connections = context.connection_ids(&install, &self.connections).await?;
        let names: Vec<&str> = connections.iter().map(|(_, name)| name.as_str()).collect();
        let new = NewToken {
            agent: self.name,
            run: None,
            connections: connections.iter().map(|(id, _)| id.clone()).collect(),
            methods: self.narrowing.methods(),
            paths: self.narrowing.paths(),
            hosts: self.narrowing.hosts(),
            scopes: once_each(self.scopes),
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
        "methods": record.methods,
        "paths": record.paths,
        "hosts": record.hosts,
        "scopes": record.scopes,
        "expires_at": record.expires_at.map_or(Value::Null, output::time),
    })
}

fn once_each(mut scopes: Vec<TokenScope>) -> Vec<TokenScope> {
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The value is data and stands on standard output only: what goes to standard error ends up in logs.
pub(super) async fn say_how_to_use(context: &Context, install: &Install) {
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
    context.refuse_when_locked(&install).await?;
    let tokens = install.store.list_tokens(&context.scope).await?;
    let Some(mut record) = tokens.iter().find(|token| token.id == *id).cloned() else {
        return Err(CliError::NotFound(format!("token {id} does not exist; nexus token list shows all")));
    };
    let now = context.clock.now();
    match record.kind {
        TokenKind::Opaque => {}
        TokenKind::Run => {
            return Err(CliError::Conflict(format!(
                "token {id} was made for one run and has no other value; make a new one: nexus token mint"
            )));
        }
        TokenKind::Certificate => {
            return Err(CliError::Conflict(format!(
                "token {id} is proved by a certificate, which has no value to rotate; renew it on the agent's host: nexus agent renew"
            )));
        }
    }
    if record.revoked_at.is_some() {
        return Err(CliError::Conflict(format!("token {id} was revoked; make a new one: nexus token create")));
    }
    if Family::of(&tokens).above(&record).any(|above| above.is_none_or(|above| above.revoked_at.is_some())) {
        return Err(CliError::Conflict(format!(
            "token {id} ended with the one that made it; have another token make a new one"
        )));
    }
    let value = AgentToken::generate();
    // Hashed, because the store keeps no value.
    let digest = AgentToken::digest(value.value().expose());
    let old_valid_until = now.saturating_add_unsigned(grace.as_secs());
    // The window restarts, as long as it was, and no longer than the limit of today and the tokens above it allow.
    let max = install.config.tokens.max_expires.map(seconds);
    let lifetime = [record.lifetime, max].into_iter().flatten().min();
    let above = Family::of(&tokens).above(&record).flatten().filter_map(|above| above.expires_at).min();
    record.expires_at = [lifetime.map(|seconds| now.saturating_add(seconds)), above].into_iter().flatten().min();
    install.store.rotate_token(&context.scope, id, digest, old_valid_until, record.expires_at).await?;
    context.notify().await;
    let mut shown = shown_once(&record, &value);
    shown["old_valid_until"] = output::time(old_valid_until);
    output::print_object(context.format, &shown)?;
    say_how_to_use(context, &install).await;
    Ok(())
}

const COLUMNS: [(&str, &str); 14] = [
    ("ID", "token_id"),
    ("AGENT", "agent"),
    ("KIND", "kind"),
    ("CONNECTIONS", "connections"),
    ("METHODS", "methods"),
    ("PATHS", "paths"),
    ("HOSTS", "hosts"),
    ("SCOPES", "scopes"),
    ("MADE BY", "parent"),
    ("STATE", "state"),
    ("CREATED", "created_at"),
    ("EXPIRES", "expires_at"),
    ("LAST USE", "last_used_at"),
    ("FROM", "last_used_from"),
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
    let used: HashMap<String, Usage> =
        install.store.usage(&context.scope).await?.into_iter().map(|usage| (usage.id.clone(), usage)).collect();
    let now = context.clock.now();
    let family = Family::of(&tokens);
    let rows: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let connections: Vec<&str> =
                token.connections.iter().map(|id| names.get(id).map_or(id.as_str(), String::as_str)).collect();
            let used = used.get(token.id.as_str());
            json!({
                "token_id": token.id.as_str(),
                "agent": token.agent.as_str(),
                "run": token.run.as_ref().map(RunId::as_str),
                "kind": token.kind,
                "connections": connections,
                "methods": token.methods,
                "paths": token.paths,
                "hosts": token.hosts,
                "scopes": token.scopes,
                "parent": token.parent.as_ref().map(TokenId::as_str),
                "state": family.state(token, now),
                "created_at": output::time(token.created_at),
                "expires_at": token.expires_at.map_or(Value::Null, output::time),
                "last_used_at": used.map_or(Value::Null, |used| output::time(used.last_used_at)),
                "last_used_from": used.and_then(|used| used.address).map(|address| address.to_string()),
            })
        })
        .collect();
    output::print_list(context.format, &COLUMNS, &rows)
}

/// The tokens of a scope by who made whom.
pub(super) struct Family<'t>(HashMap<&'t TokenId, &'t TokenRecord>);

impl<'t> Family<'t> {
    pub(super) fn of(tokens: &'t [TokenRecord]) -> Self {
        Self(tokens.iter().map(|token| (&token.id, token)).collect())
    }

    /// Those that made a token, the next one first; `None` for one that is missing, which ends the walk. An edited store
    /// may have made a ring.
    fn above(&self, token: &'t TokenRecord) -> impl Iterator<Item = Option<&'t TokenRecord>> {
        let next = |token: &'t TokenRecord| token.parent.as_ref().map(|parent| self.0.get(parent).copied());
        std::iter::successors(next(token), move |above| above.and_then(next)).take(MAX_GENERATIONS + 1)
    }

    /// `active`, `expired` or `revoked`, by itself or with one that made it.
    pub(super) fn state(&self, token: &'t TokenRecord, now: UnixSeconds) -> &'static str {
        let above = self.above(token).map(|above| above.map_or("revoked", |above| own_state(above, now)));
        std::iter::once(own_state(token, now)).chain(above).find(|state| *state != "active").unwrap_or("active")
    }

    /// How many tokens that work were made by this one, and by those.
    fn below(&self, id: &TokenId, now: UnixSeconds) -> usize {
        let is_below = |token: &&TokenRecord| self.above(token).flatten().any(|above| above.id == *id);
        self.0.values().copied().filter(is_below).filter(|token| self.state(token, now) == "active").count()
    }
}

fn own_state(token: &TokenRecord, now: UnixSeconds) -> &'static str {
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
