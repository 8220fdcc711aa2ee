//! `nexus init`.

use super::{CliError, Context, Format, output};
use serde_json::json;

/// Make the data directory, root key, interception CA and store
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  nexus init\n  nexus init --home /var/lib/nexus")]
pub struct Init {}

impl Init {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let config = context.config()?;
        let made = context.init(&config).await?;
        let home = context.home.path.display().to_string();
        let ca = context.home.ca_certificate().display().to_string();
        if context.format == Format::Json {
            return output::print_json(&json!({ "home": home, "ca": ca, "made": made }));
        }
        if made.is_empty() {
            output::say("everything is there already");
        }
        output::print_line(&format!("home {home}\nca   {ca}"))?;
        output::say("next: nexus register github, then nexus run -- CMD");
        Ok(())
    }
}
