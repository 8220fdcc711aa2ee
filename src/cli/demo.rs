//! `nexus demo`: the product against a sample API in this process, and a check that it does what it says.
//!
//! The install, its connections, token and server come from the functions behind `init`, `register custom`, `token
//! create` and `up`. The two ends of the conversation, in `sample` and `agent`, use hyper, rustls and rcgen directly:
//! they stand for other people's programs. Nothing leaves loopback, and nothing is left behind.

mod agent;
mod sample;
mod stage;
mod story;
mod telling;

use super::{CliError, Context};
use crate::secret::Secret;
use sample::{API, AUTH, Known};
use stage::{Play, Stage};
use telling::Telling;
use tokio::signal::unix::{SignalKind, signal};

/// Show what nexus does, with a sample API in this process; no internet needed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nexus demo\n  nexus demo -o json\n\nUses a data directory of its own, which is removed at the end; yours is not touched. Every claim is\nchecked against what the sample API got: exit code 1 when one does not hold."
)]
pub struct Demo {}

impl Demo {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(CliError::io("signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::io("signals"))?;
        let interrupted = async {
            tokio::select! {
                _ = terminate.recv() => CliError::Child(128 + 15),
                _ = interrupt.recv() => CliError::Child(128 + 2),
            }
        };
        let stage = Stage::new(context.format)?;
        let mut telling = Telling::new(context.format);
        let told = tell(&stage, &mut telling, interrupted).await;
        let home = stage.home().path.clone();
        let closed = stage.close();
        // An error of the story is worth more than one of tidying up.
        told?;
        closed?;
        telling.end(&home)
    }
}

/// However the story ends, the server has stopped before the directory is removed under it.
async fn tell(
    stage: &Stage,
    telling: &mut Telling,
    interrupted: impl Future<Output = CliError>,
) -> Result<(), CliError> {
    let play = stage.start().await?;
    let Known { api_key, expired, refresh_token, fresh } = &play.sample.shared.known;
    let secrets = [api_key, expired, refresh_token, fresh, play.agent.token()].map(Secret::duplicate);
    let told = tokio::select! {
        told = perform(&play, telling) => told,
        error = interrupted => Err(error),
    };
    play.stop().await;
    told?;
    story::record(stage.home(), &secrets, telling).await
}

async fn perform(play: &Play, telling: &mut Telling) -> Result<(), CliError> {
    introduce(play, telling)?;
    story::play(play, telling).await
}

fn introduce(play: &Play, telling: &Telling) -> Result<(), CliError> {
    let sample = &play.sample;
    telling.say("All of this runs in this process, on loopback:")?;
    telling.say(&format!("   nexus           http://{}", play.proxy))?;
    telling.say(&format!("   sample API      https://{API}:{}/files (API key), /mail (OAuth)", sample.api_port))?;
    telling.say(&format!("   token endpoint  https://{AUTH}:{}/token", sample.auth_port))?;
    telling.say("   agent           a token that may use the connections files and mail")
}
