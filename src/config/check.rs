//! From the file's text to [`Config`]: validated without I/O, all problems at once.

use super::Config;
use crate::provider::FileProblem;
use std::path::Path;

/// Checks the text of a config file. Relative paths are taken relative to `home`.
///
/// # Errors
/// Every problem, each with file, line and column.
pub fn check_text(_file: &str, _text: &str, _home: &Path) -> Result<Config, Vec<FileProblem>> {
    todo!()
}
