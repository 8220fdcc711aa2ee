//! `nexus explain`: what would happen to a request, found out with the same parts that decide in the server.

use super::{CliError, Context, output, token};
use crate::config::{Loader, Snapshot, Unmatched};
use crate::connection::{Choice, RouteError};
use crate::identity::{Principal, Rejected};
use crate::net::NetError;
use crate::policy::{self, Question};
use crate::store::{Store, TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, Url};
use serde_json::{Value, json};
use std::sync::Arc;

/// Tell what would happen to a request, without sending it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus explain GET https://api.github.com/user --agent ci\n  nexus explain POST https://api.example.com/v1/x --agent ci --connection work -o json\n\nOf several tokens of the agent the first that may do it is shown. Exit code 5: denied; 7: allowed, but the\nhost's name does not resolve."
)]
pub struct Explain {
    /// The method
    #[arg(value_name = "METHOD", value_parser = parse_method)]
    method: http::Method,
    /// The whole URL
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: Url,
    /// The agent
    #[arg(long, value_name = "A")]
    agent: AgentName,
    /// The connection that the agent would choose, by name or id
    #[arg(long, value_name = "N")]
    connection: Option<String>,
}

/// The verdict on a request by one token.
struct Verdict {
    decision: Decision,
    token: Option<String>,
    connection: Option<Choice>,
    hosts: Vec<String>,
    scopes: Vec<TokenScope>,
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Sent with the connection's credential.
    Allowed,
    /// Sent without a credential.
    Forwarded,
    Denied,
}

impl Explain {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open().await?;
        let all = install.store.list_tokens(&context.scope).await?;
        let tokens: Vec<&TokenRecord> = all.iter().filter(|token| token.agent == self.agent).collect();
        if tokens.is_empty() {
            return Err(CliError::NotFound(format!(
                "agent {} has no token; nexus token list shows all",
                output::printable(self.agent.as_str())
            )));
        }
        let store: Arc<dyn Store> = install.store.clone();
        let loader = Loader::start(context.home.path.clone(), context.config_file.clone(), store, Vec::new()).await?;
        let snapshot = loader.snapshot();
        let now = context.clock.now();

        let family = token::Family::of(&all);
        let mut verdicts: Vec<Verdict> = Vec::new();
        for record in tokens {
            let denied = |reason: String| Verdict {
                decision: Decision::Denied,
                token: Some(record.id.to_string()),
                connection: None,
                hosts: record.hosts.clone(),
                scopes: record.scopes.clone(),
                reason: Some(reason),
            };
            // Nobody has a certificate of it before its code is taken.
            let is_invitation = record.kind == TokenKind::Certificate && record.previous.is_some();
            verdicts.push(match snapshot.directory.of_record(&record.id, now) {
                Ok(_) if is_invitation => denied("the invitation was not taken, so there is no certificate".to_owned()),
                Ok(principal) => self.judge(&snapshot, &principal),
                Err(error @ (Rejected::LockedOut | Rejected::AgentDisabled)) => denied(error.to_string()),
                Err(_) => denied(match family.state(record, now) {
                    "active" => "the token is not usable; see the log".to_owned(),
                    state => format!("the token is {state}"),
                }),
            });
        }
        let best = verdicts.iter().position(|v| v.decision != Decision::Denied);
        // Of several refusals the one of the newest token that still works tells most.
        let best = best.or_else(|| verdicts.iter().rposition(|v| v.connection.is_some()));
        let verdict = verdicts.swap_remove(best.unwrap_or(verdicts.len() - 1));
        self.print(context, &snapshot, verdict).await
    }

    fn judge(&self, snapshot: &Snapshot, principal: &Principal) -> Verdict {
        let Url { target, path } = &self.url;
        let verdict = |decision, connection, reason| Verdict {
            decision,
            token: principal.token_id.as_ref().map(ToString::to_string),
            connection,
            hosts: principal.grant.hosts.iter().map(ToString::to_string).collect(),
            scopes: scopes_of(principal),
            reason,
        };
        if let Err(denial) = policy::may_reach(principal, &target.host) {
            return verdict(Decision::Denied, None, Some(denial.to_string()));
        }
        let choice = match snapshot.routes.route(principal, self.connection.as_deref(), target, path) {
            Ok(choice) => choice,
            Err(error @ RouteError::Ambiguous(_)) => {
                let reason = format!("{error}; choose with X-Nexus-Connection");
                return verdict(Decision::Denied, None, Some(reason));
            }
            Err(error) => {
                let egress = &snapshot.config.egress;
                let is_listed = egress.allow_hosts.iter().any(|pattern| pattern.matches(&target.host));
                if self.connection.is_none() && egress.unmatched == Unmatched::Tunnel && is_listed {
                    let reason = "no connection covers it; egress.allow_hosts has the host".to_owned();
                    return verdict(Decision::Forwarded, None, Some(reason));
                }
                return verdict(Decision::Denied, None, Some(error.to_string()));
            }
        };
        let question = Question { connection: &choice.connection.id, target, method: &self.method, path };
        match policy::decide(principal, &question) {
            Ok(_) => verdict(Decision::Allowed, Some(choice), None),
            Err(denial) => verdict(Decision::Denied, Some(choice), Some(denial.to_string())),
        }
    }

    async fn print(&self, context: &Context, snapshot: &Snapshot, verdict: Verdict) -> Result<(), CliError> {
        // A request that is refused costs no DNS query either.
        let destination = match verdict.decision {
            Decision::Denied => None,
            _ => Some(snapshot.egress.resolve(&self.url.target).await),
        };
        let (addresses, refused) = match &destination {
            None => (Value::Null, None),
            Some(Ok(addresses)) => {
                (json!(addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()), None)
            }
            Some(Err(error)) => (Value::Null, Some(super::describe(error))),
        };
        // A name without an answer denies nothing: the reason tells it, and the exit code.
        let is_refused = matches!(destination, Some(Err(NetError::AddressRefused { .. })));
        let decision = match verdict.decision {
            _ if is_refused => "denied",
            Decision::Denied => "denied",
            Decision::Forwarded => "forwarded without a credential",
            Decision::Allowed => "allowed",
        };
        let injects: Option<Vec<String>> = verdict
            .connection
            .as_ref()
            .map(|choice| choice.destination().strategy.placements().iter().map(ToString::to_string).collect());
        let reason = refused.or_else(|| verdict.reason.clone());
        output::print_object(
            context.format,
            &json!({
                "decision": decision,
                "reason": reason,
                "method": self.method.as_str(),
                "url": self.url.to_string(),
                "agent": self.agent.as_str(),
                "token_id": verdict.token,
                "scopes": verdict.scopes,
                "hosts": verdict.hosts,
                "connection": verdict.connection.as_ref().map(|choice| choice.connection.name.as_str()),
                "connection_id": verdict.connection.as_ref().map(|choice| choice.connection.id.as_str()),
                "injects": injects,
                "addresses": addresses,
            }),
        )?;
        let text = reason.unwrap_or_else(|| "denied".to_owned());
        match (verdict.decision, destination) {
            (Decision::Denied, _) => Err(CliError::Denied(text)),
            _ if is_refused => Err(CliError::Denied(text)),
            (_, Some(Err(_))) => Err(CliError::Unreachable(text)),
            _ => Ok(()),
        }
    }
}

fn scopes_of(principal: &Principal) -> Vec<TokenScope> {
    let has = [(TokenScope::Use, principal.grant.allows_use()), (TokenScope::Mint, principal.grant.allows_mint())];
    has.into_iter().filter_map(|(scope, has)| has.then_some(scope)).collect()
}

fn parse_method(text: &str) -> Result<http::Method, String> {
    http::Method::from_bytes(text.to_ascii_uppercase().as_bytes()).map_err(|_| format!("{text:?} is not a method"))
}

/// A URL; without a scheme it is https.
fn parse_url(text: &str) -> Result<Url, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(with_scheme.as_bytes()).map_err(|error| error.to_string())?;
    Ok(url)
}
