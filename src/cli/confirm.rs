//! Asking before what cannot be taken back.

use super::{CliError, output};
use std::io::IsTerminal;

/// Has the person type a name, unless `yes` was said on the command line.
///
/// # Errors
/// When something else is typed, or there is no terminal to ask on.
pub(super) fn confirm(yes: bool, what: &str, name: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("{what}; there is no terminal to ask on, so say --yes if this is meant")));
    }
    output::say(&format!("{what}; type {name} to go on:"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(CliError::io("terminal"))?;
    if line.trim() == name { Ok(()) } else { Err(CliError::Failed("nothing was changed".to_owned())) }
}
