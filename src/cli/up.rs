//! `nexus up`: serve until SIGTERM.

use super::{CliError, Context, Format, output};
use crate::app::{self, ServeOptions};
use crate::config::{Config, ListenerConfig};
use serde_json::json;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};

/// Serve until SIGTERM; makes the install first if there is none
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus up\n  nexus up --listen 127.0.0.1:9000 --listen [::1]:9000\n  nexus up --ready-fd 3 3>ready"
)]
pub struct Up {
    /// Listen here, in clear text, instead of where the config says; may be repeated; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Health and metrics here instead of where the config says
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// Write a line to this file descriptor once listening (NOTIFY_SOCKET is told too)
    #[arg(long, value_name = "N")]
    ready_fd: Option<u32>,
}

impl Up {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        self.check_addresses(&config)?;
        // Opened before anything is made or announced: a wrong number is a mistake on the command line.
        let ready = self.ready_fd.map(open_ready).transpose()?;
        context.init(&config).await?;
        // Before anybody can learn that the server is there, so that no early signal kills it half-way.
        let mut terminate = signal(SignalKind::terminate()).map_err(CliError::io("signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::io("signals"))?;
        let running = app::serve(ServeOptions {
            home: context.home.clone(),
            config_file: context.config_file.clone(),
            listen: (!self.listen.is_empty()).then_some(self.listen),
            admin: self.admin,
        })
        .await?;
        announce(context, &running)?;
        if let Some(mut ready) = ready {
            use std::io::Write;
            ready.write_all(b"ready\n").map_err(CliError::io("--ready-fd"))?;
        }
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            output::warn(&format!("the service manager could not be told: {error}"));
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        output::say("stopping; a second signal stops at once");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tokio::select! {
            () = running.stop() => Ok(()),
            _ = terminate.recv() => Err(CliError::Child(128 + 15)),
            _ = interrupt.recv() => Err(CliError::Child(128 + 2)),
        }
    }
}

impl Up {
    /// A flag opens no door that the config would have to open in so many words.
    fn check_addresses(&self, config: &Config) -> Result<(), CliError> {
        let is_exposed = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        let is_open = |address: &SocketAddr| config.listeners.contains(&ListenerConfig::plain(*address));
        if let Some(address) = self.listen.iter().find(|address| is_exposed(address) && !is_open(address)) {
            return Err(CliError::Usage(format!(
                "other machines reach {address}, and --listen makes listeners in clear text only; write it in nexus.toml \
                 as a [[server.listener]] with tls, or with allow_clear = true if that is meant"
            )));
        }
        if let Some(admin) = self.admin.filter(is_exposed) {
            output::warn(&format!("--admin {admin} shows health and metrics to other machines"));
        }
        Ok(())
    }
}

fn announce(context: &Context, running: &app::Running) -> Result<(), CliError> {
    let ca = context.home.ca_certificate();
    let printed = if context.format == Format::Json {
        let admin = format!("http://{}", running.admin);
        let urls: Vec<&str> = running.listen.iter().map(|reach| reach.url.as_str()).collect();
        output::print_line(
            &json!({ "proxy": urls, "admin": admin, "ca": ca, "locked_down": running.is_locked_down() }).to_string(),
        )
    } else {
        let mut text = String::new();
        for reach in &running.listen {
            let url = output::printable(&reach.url);
            match &reach.listener.agent {
                Some(bound) => text.push_str(&format!("proxy  {url} (as the agent {})\n", bound.agent)),
                None => text.push_str(&format!("proxy  {url}\n")),
            }
        }
        text.push_str(&format!("admin  http://{}\nca     {}\n", running.admin, ca.display()));
        if running.is_locked_down() {
            text.push_str("state  locked down, every agent is refused\nnext   nexus lockdown --lift\n");
        } else {
            text.push_str("next   nexus run -- CMD, or: nexus token create --name AGENT --use CONNECTION\n");
        }
        output::print(&text)
    };
    match printed {
        // Nobody reads; serving goes on.
        Err(CliError::OutputClosed) => Ok(()),
        other => other,
    }
}

/// Opens a descriptor that the parent handed over (the convention of s6 and others).
fn open_ready(fd: u32) -> Result<std::fs::File, CliError> {
    let opened = std::fs::OpenOptions::new().write(true).open(format!("/dev/fd/{fd}"));
    opened.map_err(|error| CliError::Usage(format!("--ready-fd {fd} cannot be written to: {error}")))
}
