//! The whole command line as one type, and the way from it to an exit code.

use super::{
    CliError, Context, Global, agent, app, audit, ca, config, connection, connection_test, demo, describe, doctor, env,
    explain, init, key, lockdown, output, process, provider, register, run, store, tenant, token, up,
};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Examples:
  nexus register github                      # asks for the token, without echo
  nexus run -- claude                        # an agent that holds no credential
  nexus token create --name ci --use github  # for an agent elsewhere
  nexus up                                   # serve

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 not authorised, 5 denied by policy,
6 conflict, 7 unreachable, 8 a check failed; `run` returns the child's.";

/// An egress proxy that puts credentials on outbound requests, so that agents never hold them
#[derive(Debug, Parser)]
#[command(name = "nexus", version, after_help = AFTER_HELP, max_term_width = 100, subcommand_required = true)]
pub struct Arguments {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the data directory, root key, interception CA and store; never overwrites
    Init(init::Init),
    /// Serve until SIGTERM
    Up(up::Up),
    /// Show what nexus does, with a sample API in this process; no internet needed
    Demo(demo::Demo),
    /// Make a connection: a provider of the catalogue, or `custom`
    Register(register::Register),
    /// Look at, change and test connections
    #[command(subcommand)]
    Connection(connection::ConnectionCommand),
    /// List connections (`connection list`)
    List(connection::List),
    /// Test a connection (`connection test`)
    Test(connection_test::Test),
    /// OAuth app registrations
    #[command(subcommand)]
    App(app::AppCommand),
    /// Agent tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Stop serving every agent at once and revoke all tokens; needs no key
    Lockdown(lockdown::Lockdown),
    /// Agents: invite and enroll them with certificates, list, disable and enable them
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Run a command as an agent, with a token for this run only
    Run(run::Run),
    /// Print the variables that send a program's requests through nexus
    Env(env::Env),
    /// The interception CA
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// The catalogue of providers
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Tell what would happen to a request, without sending it
    Explain(explain::Explain),
    /// Check the install and say how to mend it
    Doctor(doctor::Doctor),
    /// The store's file
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// The audit record
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The config file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Tenants: the boundary that nothing crosses
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Namespaces of a tenant
    #[command(subcommand)]
    Namespace(tenant::NamespaceCommand),
    /// The root key
    #[command(subcommand)]
    Key(key::KeyCommand),
}

/// Reads the command line, does what it says and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    process::protect();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are data (code 0), everything else is usage (code 2); clap chooses the stream.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    process::hide(&arguments);
    crate::telemetry::init_logging(match arguments.command {
        Command::Up(_) => "info",
        // The child owns the terminal.
        Command::Run(_) => "error",
        // The file watcher warns when its directory goes before it does, which is meant here.
        Command::Demo(_) => "error",
        _ => "warn",
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::say(&format!("nexus: the runtime could not be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(execute(arguments));
    // A blocking read of the terminal or a file must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                output::say(&format!("nexus: {}{hint}", describe(&error)));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

async fn execute(arguments: Arguments) -> Result<(), CliError> {
    let context = Context::new(arguments.global)?;
    let context = &context;
    match arguments.command {
        Command::Init(command) => command.execute(context).await,
        Command::Up(command) => command.execute(context).await,
        Command::Demo(command) => command.execute(context).await,
        Command::Register(command) => command.execute(context).await,
        Command::Connection(command) => command.execute(context).await,
        Command::List(command) => command.execute(context).await,
        Command::Test(command) => command.execute(context).await,
        Command::App(command) => command.execute(context).await,
        Command::Token(command) => command.execute(context).await,
        Command::Lockdown(command) => command.execute(context).await,
        Command::Agent(command) => command.execute(context).await,
        Command::Run(command) => command.execute(context).await,
        Command::Env(command) => command.execute(context).await,
        Command::Ca(command) => command.execute(context).await,
        Command::Provider(command) => command.execute(context),
        Command::Explain(command) => command.execute(context).await,
        Command::Doctor(command) => command.execute(context).await,
        Command::Store(command) => command.execute(context).await,
        Command::Audit(command) => command.execute(context).await,
        Command::Config(command) => command.execute(context),
        Command::Tenant(command) => command.execute(context).await,
        Command::Namespace(command) => command.execute(context).await,
        Command::Key(command) => command.execute(context).await,
    }
}

#[cfg(test)]
mod tests;
