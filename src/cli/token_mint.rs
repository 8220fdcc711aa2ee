//! `nexus token mint`: a token for one run, signed by this install.

use super::narrowing::Narrowing;
use super::token::{self, Expiry, say_how_to_use};
use super::{CliError, Context, output, run};
use crate::identity::{RunClaims, sign_run_token};
use crate::secret::AgentToken;
use crate::store::{Store, TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, RunId, TokenId, format_duration, parse_duration};
use serde_json::json;
use std::time::Duration;

/// Sign a token for one run: a JWT that ends by itself; its value is shown once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus token mint --run build-4711 --use github\n  nexus token mint --run $CI_JOB_ID --ttl 1h --name ci --use github --methods GET\n  TOKEN=$(nexus token mint --run build-4711 -o json | jq -r .token_value)\n\nThe token is good for this run only: the audit record has the run with every request. It is listed and\nrevoked like every other token."
)]
pub struct Mint {
    /// The run that it is for
    #[arg(long, value_name = "ID")]
    run: RunId,
    /// How long it works, 12h at most
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_ttl)]
    ttl: Duration,
    /// The agent's name in policy and audit
    #[arg(long, value_name = "A", default_value = "run")]
    name: AgentName,
    /// The connections that it may use, by name or id [default: all that are enabled]
    #[arg(long = "use", value_name = "CONN", value_delimiter = ',')]
    connections: Vec<String>,
    #[command(flatten)]
    narrowing: Narrowing,
}

impl Mint {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_records_or_init().await?;
        context.refuse_when_locked(&install).await?;
        let lifetime = token::lifetime(Some(Expiry::After(self.ttl)), &install.config.tokens)?;
        let lifetime = lifetime.expect("a time was asked for");
        let connections = run::chosen(context, &install, &self.connections).await?;
        let now = context.clock.now();
        let claims = RunClaims {
            id: TokenId::generate(),
            agent: self.name,
            run: self.run,
            issued_at: now,
            expires_at: now.saturating_add(lifetime),
        };
        let value = sign_run_token(&install.keyring, install.store.install_id(), &claims);
        let record = TokenRecord {
            id: claims.id,
            scope: context.scope.clone(),
            agent: claims.agent,
            run: Some(claims.run),
            // Hashed, because the store keeps no value.
            digest: AgentToken::digest(value.expose()),
            previous: None,
            connections: connections.iter().map(|(id, _)| id.clone()).collect(),
            methods: self.narrowing.methods(),
            paths: self.narrowing.paths(),
            hosts: self.narrowing.hosts(),
            scopes: vec![TokenScope::Use],
            kind: TokenKind::Run,
            parent: None,
            created_at: claims.issued_at,
            lifetime: None,
            expires_at: Some(claims.expires_at),
            revoked_at: None,
        };
        install.store.insert_token(&record).await?;
        context.notify().await;
        let shown = json!({
            "token_id": record.id.as_str(),
            // The one time that the value is shown, to the person who made it.
            "token_value": value.expose(),
            "agent": record.agent.as_str(),
            "run": record.run.as_ref().map(RunId::as_str),
            "expires_at": output::time(claims.expires_at),
            "connections": connections.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
        });
        output::print_object(context.format, &shown)?;
        say_how_to_use(context, &install).await;
        Ok(())
    }
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(ttl) if ttl.as_secs() == 0 => Err("the token would have ended already".to_owned()),
        Ok(ttl) if ttl > run::LONGEST => Err(format!("at most {}", format_duration(run::LONGEST))),
        Ok(ttl) => Ok(ttl),
        Err(error) => Err(error.to_string()),
    }
}
