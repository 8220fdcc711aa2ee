//! `nexus up`: serve until SIGTERM.

use super::{CliError, Context, Format, output};
use crate::app::{self, ServeOptions};
use serde_json::json;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};

/// Serve until SIGTERM; makes the install first if there is none
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus up\n  nexus up --listen 127.0.0.1:9000 --listen [::1]:9000\n  nexus up --ready-fd 3 3>ready"
)]
pub struct Up {
    /// Listen here instead of where the config says; may be repeated; port 0 takes a free one
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
        for warning in &config.warnings {
            output::warn(warning);
        }
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
        if let Some(fd) = self.ready_fd {
            tell_ready(fd)?;
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

fn announce(context: &Context, running: &app::Running) -> Result<(), CliError> {
    let ca = context.home.ca_certificate();
    let urls: Vec<String> = running.listen.iter().map(|address| format!("http://{address}")).collect();
    let printed = if context.format == Format::Json {
        let admin = format!("http://{}", running.admin);
        output::print_line(&json!({ "proxy": urls, "admin": admin, "ca": ca }).to_string())
    } else {
        let mut text = String::new();
        for url in &urls {
            text.push_str(&format!("proxy  {url}\n"));
        }
        text.push_str(&format!("admin  http://{}\nca     {}\n", running.admin, ca.display()));
        text.push_str("next   nexus run -- CMD, or: nexus token create --name AGENT --use CONNECTION\n");
        output::print(&text)
    };
    match printed {
        // Nobody reads; serving goes on.
        Err(CliError::OutputClosed) => Ok(()),
        other => other,
    }
}

/// Writes a newline to a descriptor that the parent handed over (the convention of s6 and others).
fn tell_ready(fd: u32) -> Result<(), CliError> {
    use std::io::Write;
    let path = format!("/dev/fd/{fd}");
    let opened = std::fs::OpenOptions::new().write(true).open(&path);
    opened.and_then(|mut file| file.write_all(b"ready\n")).map_err(CliError::io(path))
}
