//! What the demo plays on: a throw-away install, set up through the functions behind the commands.

use super::agent::Agent;
use super::sample::{API, AUTH, OTHER, Sample};
use crate::app::{self, Home, Install, Running, ServeOptions};
use crate::cli::arguments::{Arguments, Command};
use crate::cli::secret_input::Given;
use crate::cli::token::{self, Expiry, NewToken};
use crate::cli::{CliError, Context, Format, register, register_custom};
use crate::config::Loader;
use crate::secret::SecretFields;
use crate::types::{AgentName, Clock, ConnectionId, Scope};
use clap::Parser;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

/// The agent's name in the audit record.
pub(super) const AGENT: &str = "demo-agent";

/// The data directory; removed with all that is in it when dropped.
pub(super) struct Stage {
    directory: TempDir,
    context: Context,
}

/// The install at work.
pub(super) struct Play {
    /// The sample servers.
    pub(super) sample: Sample,
    /// The agent.
    pub(super) agent: Agent,
    /// Where the proxy listens.
    pub(super) proxy: SocketAddr,
    server: Running,
    install: Install,
}

impl Stage {
    /// Makes the directory, private and empty.
    pub(super) fn new(format: Format) -> Result<Self, CliError> {
        let directory = tempfile::Builder::new()
            .prefix("nexus-demo-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(CliError::io(std::env::temp_dir()))?;
        let home = Home { path: directory.path().to_owned() };
        let scope = Scope::default();
        let context = Context { home, config_file: None, scope, format, clock: Clock::system() };
        Ok(Self { directory, context })
    }

    /// The data directory.
    pub(super) fn home(&self) -> &Home {
        &self.context.home
    }

    /// `init`, two times `register custom`, `token create`, `up`.
    pub(super) async fn start(&self) -> Result<Play, CliError> {
        let sample = Sample::start().await?;
        let home = self.home();
        write(home, "demo-ca.pem", &sample.ca)?;
        write(home, "nexus.toml", &config(&sample))?;
        app::init(home, &Loader::read_config(&home.path, None)?).await?;
        let install = app::open(home, Loader::read_config(&home.path, None)?).await?;

        let known = &sample.shared.known;
        let api = format!("https://{API}:{}", sample.api_port);
        let base_url = format!("{api}/files");
        let flags = ["files", "--base-url", &base_url, "--inject", "header Authorization: Bearer {token}"];
        let files = self.register(&install, &flags, Given::One(known.api_key.duplicate())).await?;
        let mut fields = SecretFields::default();
        fields.insert("client_id", crate::secret::Secret::new("demo-client".to_owned()));
        fields.insert("refresh_token", known.refresh_token.duplicate());
        // Without expires_in: that it has expired is for the API to say.
        fields.insert("access_token", known.expired.duplicate());
        let token_url = format!("https://{AUTH}:{}/token", sample.auth_port);
        let base_url = format!("{api}/mail");
        let flags = ["mail", "--base-url", &base_url, "--oauth", "refresh_token", "--token-url", &token_url];
        let mail = self.register(&install, &flags, Given::Fields(fields)).await?;
        let new = NewToken {
            agent: AgentName::parse(AGENT).expect("the name is an agent's"),
            run: None,
            connections: vec![files, mail],
            methods: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            scopes: vec![crate::store::TokenScope::Use],
            expires: Some(Expiry::After(Duration::from_secs(3_600))),
        };
        let (_, token) = token::create(&self.context, &install, new).await?;

        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options =
            ServeOptions { home: home.clone(), config_file: None, listen: Some(vec![any_port]), admin: Some(any_port) };
        let server = app::serve(options).await?;
        let proxy = server.listen.first().and_then(|reach| reach.listener.address.tcp());
        let proxy = proxy.ok_or_else(|| CliError::Failed("the server does not listen anywhere".to_owned()))?;
        let agent = Agent::new(proxy, token.value().duplicate(), &home.ca_certificate())?;
        Ok(Play { sample, agent, proxy, server, install })
    }

    /// `nexus register custom --name …` with these flags; the secrets come directly and not from standard input.
    async fn register(&self, install: &Install, flags: &[&str], given: Given) -> Result<ConnectionId, CliError> {
        let line = ["nexus", "register", "custom", "--name"].iter().chain(flags);
        let arguments = Arguments::try_parse_from(line).map_err(|error| CliError::Usage(error.to_string()))?;
        let Command::Register(register) = arguments.command else {
            return Err(CliError::Failed("register is not the command register".to_owned()));
        };
        let custom = register_custom::check(&register)?;
        let new = register_custom::prepare(custom, given, self.context.clock.now())?;
        Ok(register::save(&self.context, install, &new, false).await?.id)
    }

    /// Removes the directory.
    pub(super) fn close(self) -> Result<(), CliError> {
        let path = self.directory.path().to_owned();
        self.directory.close().map_err(CliError::io(path))
    }
}

impl Play {
    /// Stops the proxy, so that all of its audit record is written.
    pub(super) async fn stop(self) {
        self.server.stop().await;
        self.install.store.close().await;
    }
}

fn config(sample: &Sample) -> String {
    let Sample { other_port, .. } = sample;
    format!(
        "[dns]\nhosts = {{ \"{API}\" = \"127.0.0.1\", \"{AUTH}\" = \"127.0.0.1\", \"{OTHER}\" = \"127.0.0.1\" }}\n\
         [egress]\nallow_cidrs = [\"127.0.0.0/8\"]\nconnect_ports = [443, {other_port}]\n\
         [upstream]\nca_files = [\"demo-ca.pem\"]\n"
    )
}

fn write(home: &Home, name: &str, text: &str) -> Result<(), CliError> {
    let path = home.path.join(name);
    std::fs::write(&path, text).map_err(CliError::io(path))
}
