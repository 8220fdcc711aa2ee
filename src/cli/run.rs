//! `nexus run`: a command as an agent, with a token that lives as long as the command.

use super::child::{self, Job};
use super::environment::{self, Files};
use super::token::{self, Expiry, NewToken};
use super::{CliError, Context, output};
use crate::app::{self, Install, Running, ServeOptions};
use crate::config::{ROOT_KEY_DESCRIPTOR, RootKeySource};
use crate::provider::Catalog;
use crate::secret::Secret;
use crate::store::{Store, TokenScope};
use crate::types::{AgentName, ConnectionId, RunId};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Run a command as an agent, with a token for this run only
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus run -- claude\n  nexus run --use github,openai -- python agent.py\n  nexus run -- curl https://api.github.com/user\n\nEvery proxy and CA variable is set for the command (nexus env shows them). The token is revoked when\nthe command ends, and lives 12 h at most. The server of this home is used if one is running without TLS,\nelse one is started for the run. Exit code: the command's; 126 when it cannot be run, 127 when there is none."
)]
pub struct Run {
    /// The connections that the command may use, by name or id [default: all that are enabled]
    #[arg(long = "use", value_name = "CONN", value_delimiter = ',')]
    connections: Vec<String>,
    /// The agent's name in policy and audit
    #[arg(long, value_name = "A", default_value = "run")]
    name: AgentName,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// No run's token lives longer.
pub(super) const LONGEST: Duration = Duration::from_secs(12 * 3_600);

impl Run {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let install = context.open_or_init().await?;
        context.refuse_when_locked(&install).await?;
        let connections = chosen(context, &install, &self.connections).await?;
        let files = Files::write(&context.home, &environment::existing)?;
        let (server, own_server) = serve(context).await?;
        let new = NewToken {
            agent: self.name,
            run: Some(new_run()),
            connections: connections.iter().map(|(id, _)| id.clone()).collect(),
            methods: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            scopes: vec![TokenScope::Use],
            expires: Some(Expiry::After(token::no_longer(LONGEST, &install.config.tokens))),
        };
        let (record, token) = token::create(context, &install, new).await?;
        let mut variables = environment::variables(&server, token.value(), &files, &environment::existing);
        variables.extend(placeholders(context, &install, &connections).await?);
        let removed = secret_variables(&install);
        let job = Job { command: &self.command, variables: &variables, removed: &removed };
        let ended = child::run(&job).await;

        let revoked = install.store.revoke_token(&context.scope, &record.id, context.clock.now()).await;
        if let Err(error) = revoked {
            output::warn(&format!(
                "the run's token could not be revoked: {error}; run: nexus token revoke {}",
                record.id
            ));
        }
        context.notify().await;
        if let Some(server) = own_server {
            server.stop().await;
        }
        match ended? {
            0 => Ok(()),
            code => Err(CliError::Child(code)),
        }
    }
}

/// The connections that were named, or all enabled ones, which is said.
pub(super) async fn chosen(
    context: &Context,
    install: &Install,
    names: &[String],
) -> Result<Vec<(ConnectionId, String)>, CliError> {
    if !names.is_empty() {
        return context.connection_ids(install, names).await;
    }
    let records = install.store.list_connections(&context.scope).await?;
    let all: Vec<_> =
        records.into_iter().filter(|r| !r.disabled).map(|record| (record.id, record.name.to_string())).collect();
    let names: Vec<&str> = all.iter().map(|(_, name)| name.as_str()).collect();
    if names.is_empty() {
        output::warn("there are no connections: every request will be refused; make one: nexus register github");
    } else {
        output::say(&format!("nexus: using all connections ({}); choose with --use", names.join(", ")));
    }
    Ok(all)
}

/// The URL of this home's server; one is started when none runs that every program can use. Few speak TLS with a proxy,
/// and those that do look for its CA elsewhere than for the others.
async fn serve(context: &Context) -> Result<(String, Option<Running>), CliError> {
    let running = environment::running_server(&context.home).await;
    if let Some(url) = running.filter(|url| url.starts_with("http://")) {
        return Ok((url, None));
    }
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let running = app::serve(ServeOptions {
        home: context.home.clone(),
        config_file: context.config_file.clone(),
        listen: Some(vec![any_port]),
        admin: Some(any_port),
    })
    .await?;
    let url = running.listen.first().map(|reach| reach.url.clone());
    let url = url.ok_or_else(|| CliError::Failed("the server does not listen anywhere".to_owned()))?;
    Ok((url, Some(running)))
}

fn new_run() -> RunId {
    RunId::parse(&uuid::Uuid::now_v7().to_string()).expect("a UUID is a run id")
}

/// Variables of this process that no agent may see.
fn secret_variables(install: &Install) -> Vec<String> {
    let sources = [Some(&install.config.root_key), install.config.next_root_key.as_ref()];
    let name = |source: &RootKeySource| match source {
        RootKeySource::Env(name) => Some(name.clone()),
        _ => None,
    };
    let names = sources.into_iter().flatten().filter_map(name);
    names.chain([ROOT_KEY_DESCRIPTOR.to_owned()]).collect()
}

/// Stand-ins for the keys that SDKs insist on, in the shape that they check; the proxy takes them off again. A variable
/// that the person has set stays.
pub(super) async fn placeholders(
    context: &Context,
    install: &Install,
    connections: &[(ConnectionId, String)],
) -> Result<Vec<(String, Secret)>, CliError> {
    let catalog = context.catalog().unwrap_or_else(|_| Catalog::built_in());
    let mut variables: Vec<(String, Secret)> = Vec::new();
    for record in install.store.list_connections(&context.scope).await? {
        if !connections.iter().any(|(id, _)| *id == record.id) {
            continue;
        }
        let Some(definition) = catalog.find(record.provider.as_str()) else { continue };
        let Some(placeholder) = &definition.placeholder else { continue };
        for name in &definition.env {
            if environment::existing(name).is_none() && !variables.iter().any(|(n, _)| n == name) {
                variables.push((name.clone(), Secret::new(placeholder.clone())));
            }
        }
    }
    Ok(variables)
}
