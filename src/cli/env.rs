//! `nexus env`: the variables of `nexus run`, for a shell, a container or a file.

use super::environment::{self, Files};
use super::secret_input::Given;
use super::shell::{Shell, render};
use super::token::{self, Expiry, NewToken};
use super::{CliError, Context, Format, SecretInput, output, run};
use crate::identity::has_jwt_form;
use crate::secret::{AgentToken, Secret};
use crate::types::{AgentName, format_duration};
use std::time::Duration;

/// Print the variables that send a program's requests through nexus
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eval \"$(nexus env --use github)\"\n  nexus env --shell fish --use github | source\n  nexus env --shell docker --token-stdin < token > agent.env\n\nWithout --token-stdin or --from-env a new token is made at each call: for the agent `env` (--name), with\nthe connections of --use or else all that are enabled, for 12 h. The server is not started: nexus up."
)]
pub struct Env {
    /// The language to print [default: bash, or json with -o json]
    #[arg(long, value_enum)]
    shell: Option<Shell>,
    /// Read the agent token from standard input instead of making one
    #[arg(long, group = "token", conflicts_with_all = ["connections", "name"])]
    token_stdin: bool,
    /// Read the agent token from this environment variable instead of making one
    #[arg(long, value_name = "VAR", group = "token", conflicts_with_all = ["connections", "name"])]
    from_env: Option<String>,
    /// The connections of the new token, by name or id [default: all that are enabled]
    #[arg(long = "use", value_name = "CONN", value_delimiter = ',')]
    connections: Vec<String>,
    /// The agent of the new token
    #[arg(long, value_name = "A", default_value = "env")]
    name: AgentName,
    /// Where the program reaches the server, for containers and other machines [default: this home's server];
    /// https:// before it stands for a TLS listener
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<String>,
}

impl Env {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let shell = self.shell.unwrap_or(match context.format {
            Format::Json => Shell::Json,
            Format::Table => Shell::Bash,
        });
        let install = context.open_or_init().await?;
        let files = Files::write(&context.home, &environment::existing)?;
        let given = SecretInput { stdin: self.token_stdin, stdin_json: false, from_env: self.from_env }.read()?;
        let (token, placeholders) = match given {
            Given::One(token) => {
                // Looked at for its form: a wrong paste is told here and not by a 407.
                if !AgentToken::checksum_is_right(token.expose()) && !has_jwt_form(token.expose()) {
                    return Err(CliError::Usage("that is not an agent token (nxt_..., or a JWT)".to_owned()));
                }
                (token, Vec::new())
            }
            _ => {
                let connections = run::chosen(context, &install, &self.connections).await?;
                let placeholders = run::placeholders(context, &install, &connections).await?;
                let new = NewToken {
                    agent: self.name,
                    run: None,
                    connections: connections.into_iter().map(|(id, _)| id).collect(),
                    methods: Vec::new(),
                    paths: Vec::new(),
                    hosts: Vec::new(),
                    scopes: vec![crate::store::TokenScope::Use],
                    expires: Some(Expiry::After(token::no_longer(run::LONGEST, &install.config.tokens))),
                };
                let (record, token) = token::create(context, &install, new).await?;
                let life = Duration::from_secs(record.lifetime.unwrap_or_default().unsigned_abs());
                output::say(&format!(
                    "nexus: token {} for agent {}, for {}",
                    record.id,
                    record.agent,
                    format_duration(life)
                ));
                (token.value().duplicate(), placeholders)
            }
        };
        let server = environment::server(&context.home, &install.config).await;
        if !server.is_running && self.address.is_none() {
            output::warn(&format!(
                "no server of this home is running; start it: nexus up (expected at {})",
                server.url
            ));
        }
        let server = self.address.unwrap_or(server.url);
        let mut variables = environment::variables(&server, &token, &files, &environment::existing);
        variables.extend(placeholders);
        print(shell, &variables, &files)
    }
}

fn print(shell: Shell, variables: &[(String, Secret)], files: &Files) -> Result<(), CliError> {
    let (text, left_out) = render(shell, variables);
    for name in left_out {
        output::warn(&format!("{name} has a line break, which this format cannot carry; it is left out"));
    }
    if shell == Shell::Docker {
        let mounts: String = files.paths().iter().map(|path| format!(" -v {0}:{0}:ro", path.display())).collect();
        output::say(&format!("nexus: for docker run add:{mounts} and --network host, or --address"));
    }
    // What the command is for.
    output::print(text.expose())
}

fn parse_address(text: &str) -> Result<String, String> {
    let (scheme, address) = text.split_once("://").unwrap_or(("http", text));
    if !matches!(scheme, "http" | "https") {
        return Err("a proxy is reached by http:// or https://".to_owned());
    }
    crate::types::Target::parse_connect(address.as_bytes()).map_err(|error| error.to_string())?;
    Ok(format!("{scheme}://{address}"))
}
