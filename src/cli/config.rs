//! `nexus config check`.

use super::{CliError, Context, Format, output};
use crate::config::{ConfigError, Loader};
use crate::provider::FileProblem;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The config file
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check a config file; every problem at once, each with file:line:column
    #[command(after_help = "Examples:\n  nexus config check\n  nexus config check new.toml && mv new.toml nexus.toml")]
    Check {
        /// The file [default: the one that `nexus up` would read]
        file: Option<PathBuf>,
    },
}

impl ConfigCommand {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let Self::Check { file } = self;
        let file = file.as_deref().or(context.config_file.as_deref());
        let shown = file.map_or_else(|| context.home.config_file(), std::path::Path::to_path_buf);
        match Loader::check_config(&context.home.path, file) {
            Ok(config) => {
                for warning in &config.warnings {
                    output::warn(warning);
                }
                print_findings(context.format, &[])?;
                if context.format == Format::Table {
                    output::say(&format!("{} is fine", shown.display()));
                }
                Ok(())
            }
            Err(ConfigError::Problems(problems)) => {
                print_findings(context.format, &problems)?;
                Err(CliError::Check(format!("{} problems in {}", problems.len(), shown.display())))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Prints what a check of files found.
pub(super) fn print_findings(format: Format, problems: &[FileProblem]) -> Result<(), CliError> {
    if format == Format::Json {
        let list: Vec<Value> = problems
            .iter()
            .map(|p| json!({ "file": p.file, "line": p.line, "column": p.column, "key": p.key, "message": p.message }))
            .collect();
        return output::print_json(&json!({ "ok": problems.is_empty(), "problems": list }));
    }
    for problem in problems {
        output::print_line(&output::printable(&problem.to_string()))?;
    }
    Ok(())
}
