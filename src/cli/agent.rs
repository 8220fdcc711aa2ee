//! `nexus agent`: agents as such, whatever they prove themselves with.

use super::agent_enroll::{Enroll, Renew};
use super::narrowing::Narrowing;
use super::token::{self, Expiry, Family, parse_expiry};
use super::{CliError, Context, Format, environment, output};
use crate::app::Install;
use crate::config::ListenAddress;
use crate::secret::{EnrolmentCode, TokenDigest, random_bytes};
use crate::store::{Store, TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, TokenId, UnixSeconds, parse_duration};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Agents: invite and enroll them with certificates, list, disable and enable them
#[derive(Debug, clap::Subcommand)]
pub enum AgentCommand {
    /// Invite an agent to get a client certificate; prints a one-time code
    Invite(Invite),
    /// Get a certificate, on the agent's host; the private key never leaves it
    Enroll(Enroll),
    /// Get a new certificate before the old one ends, on the agent's host
    Renew(Renew),
    /// List agents with what they hold
    List,
    /// Disable an agent: nothing that it proves itself with works any more
    Disable {
        /// The agent
        name: AgentName,
    },
    /// Enable it again
    Enable {
        /// The agent
        name: AgentName,
    },
}

/// Invite an agent to get a client certificate; prints a one-time code
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus agent invite --name ci --use github\n  nexus agent invite --name reader --use github --expires 30d --methods GET,HEAD --code-ttl 1h\n\nThe agent is then enrolled on its own host: nexus agent enroll --server https://HOST:PORT --code-stdin --out DIR"
)]
pub struct Invite {
    /// The agent that it is for
    #[arg(long, value_name = "A")]
    name: AgentName,
    /// The connections that it may use, by name or id
    #[arg(long = "use", value_name = "CONN", value_delimiter = ',', required = true)]
    connections: Vec<String>,
    /// How long its certificates can be renewed, such as 12h or 90d, or `never` [default: tokens.default_expires, 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_expiry)]
    expires: Option<Expiry>,
    #[command(flatten)]
    narrowing: Narrowing,
    /// How long the code can be used
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_duration)]
    code_ttl: Duration,
}

impl AgentCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Invite(invite) => invite.execute(context).await,
            Self::Enroll(enroll) => enroll.execute(context).await,
            Self::Renew(renew) => renew.execute(context).await,
            Self::List => list(context).await,
            Self::Disable { name } => set_disabled(context, &name, true).await,
            Self::Enable { name } => set_disabled(context, &name, false).await,
        }
    }
}

impl Invite {
    async fn execute(self, context: &Context) -> Result<(), CliError> {
        if self.code_ttl.as_secs() == 0 {
            return Err(CliError::Usage("the code would have ended already; give --code-ttl more time".to_owned()));
        }
        let install = context.open_records_or_init().await?;
        context.refuse_when_locked(&install).await?;
        let connections = context.connection_ids(&install, &self.connections).await?;
        let names: Vec<&str> = connections.iter().map(|(_, name)| name.as_str()).collect();
        let code = EnrolmentCode::generate();
        let now = context.clock.now();
        let lifetime = token::lifetime(self.expires, &install.config.tokens)?;
        let code_ends = now.saturating_add_unsigned(self.code_ttl.as_secs());
        let record = TokenRecord {
            id: TokenId::generate(),
            scope: context.scope.clone(),
            agent: self.name,
            run: None,
            // Of nothing that anybody has: this record is never proved by a value.
            digest: TokenDigest(random_bytes()),
            // Hashed, because the store keeps no value.
            previous: Some((EnrolmentCode::digest(code.value().expose()), code_ends)),
            connections: connections.iter().map(|(id, _)| id.clone()).collect(),
            methods: self.narrowing.methods(),
            paths: self.narrowing.paths(),
            hosts: self.narrowing.hosts(),
            scopes: vec![TokenScope::Use],
            kind: TokenKind::Certificate,
            parent: None,
            created_at: now,
            lifetime,
            expires_at: lifetime.map(|seconds| now.saturating_add(seconds)),
            revoked_at: None,
        };
        install.store.insert_token(&record).await?;
        context.notify().await;
        let shown = json!({
            "token_id": record.id.as_str(),
            "agent": record.agent.as_str(),
            // The one time that the code is shown, to the person who made it.
            "code": code.value().expose(),
            "code_expires_at": output::time(code_ends),
            "expires_at": record.expires_at.map_or(Value::Null, output::time),
            "connections": names,
        });
        output::print_object(context.format, &shown)?;
        say_how(context, &install).await;
        Ok(())
    }
}

/// Where the agent enrolls, as far as this machine can tell.
async fn say_how(context: &Context, install: &Install) {
    if context.format == Format::Json {
        return;
    }
    let running = environment::tls_server(&context.home).await;
    let tls = install.config.listeners.iter().filter(|listener| listener.tls.is_some());
    let port = tls.clone().find_map(|listener| match listener.address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    });
    if tls.clone().all(|listener| listener.tls.as_ref().is_none_or(|files| files.client_ca.is_none())) {
        let ca = context.home.ca().join("agents.pem");
        output::warn(&format!(
            "no listener takes client certificates; give one tls = {{ cert, key, client_ca = \"{}\" }}",
            ca.display()
        ));
    }
    let server = running.unwrap_or_else(|| format!("https://HOST:{}", port.unwrap_or(8472)));
    output::say(&format!(
        "\nthe code is not shown again; on the agent's host, with the code on standard input\n  \
         nexus agent enroll --server {server} --code-stdin --out DIR\nand --ca FILE, the CA of the listener's \
         certificate, unless the system trusts it"
    ));
}

/// What is told of an agent.
#[derive(Default)]
struct Held {
    tokens: u64,
    certificates: u64,
    invitations: u64,
    last_used_at: Option<UnixSeconds>,
}

const COLUMNS: [(&str, &str); 6] = [
    ("AGENT", "agent"),
    ("STATE", "state"),
    ("TOKENS", "tokens"),
    ("CERTIFICATES", "certificates"),
    ("INVITATIONS", "invitations"),
    ("LAST USE", "last_used_at"),
];

async fn list(context: &Context) -> Result<(), CliError> {
    let install = context.open_records().await?;
    let now = context.clock.now();
    let used: BTreeMap<String, UnixSeconds> =
        install.store.usage(&context.scope).await?.into_iter().map(|usage| (usage.id, usage.last_used_at)).collect();
    let disabled = install.store.disabled_agents(&context.scope).await?;
    let mut agents: BTreeMap<AgentName, Held> = BTreeMap::new();
    for (agent, _) in &disabled {
        agents.entry(agent.clone()).or_default();
    }
    let tokens = install.store.list_tokens(&context.scope).await?;
    let family = Family::of(&tokens);
    for token in &tokens {
        let held = agents.entry(token.agent.clone()).or_default();
        held.last_used_at = held.last_used_at.max(used.get(token.id.as_str()).copied());
        if family.state(token, now) != "active" {
            continue;
        }
        match (token.kind, &token.previous) {
            (TokenKind::Certificate, None) => held.certificates += 1,
            (TokenKind::Certificate, Some((_, end))) => held.invitations += u64::from(*end > now),
            _ => held.tokens += 1,
        }
    }
    let rows: Vec<Value> = agents
        .iter()
        .map(|(agent, held)| {
            let disabled_at = disabled.iter().find(|(other, _)| other == agent).map(|(_, at)| *at);
            json!({
                "agent": agent.as_str(),
                "state": if disabled_at.is_some() { "disabled" } else { "active" },
                "disabled_at": disabled_at.map_or(Value::Null, output::time),
                "tokens": held.tokens,
                "certificates": held.certificates,
                "invitations": held.invitations,
                "last_used_at": held.last_used_at.map_or(Value::Null, output::time),
            })
        })
        .collect();
    output::print_list(context.format, &COLUMNS, &rows)
}

async fn set_disabled(context: &Context, agent: &AgentName, disabled: bool) -> Result<(), CliError> {
    let install = context.open_records().await?;
    install.store.set_agent_disabled(&context.scope, agent, disabled, context.clock.now()).await?;
    context.notify().await;
    let is_known = install.store.list_tokens(&context.scope).await?.iter().any(|token| token.agent == *agent);
    if !is_known {
        output::warn(&format!("no token or certificate of this install is the agent {agent}'s; check the name"));
    }
    output::say(&format!("{} {agent}", if disabled { "disabled" } else { "enabled" }));
    Ok(())
}
