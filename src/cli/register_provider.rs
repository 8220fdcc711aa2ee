//! `nexus register PROVIDER`.
use super::register::{NewConnection, Register};
use super::{CliError, Context};
use crate::app::Install;

pub(super) async fn prepare(
    _register: Register,
    _context: &Context,
    _install: &Install,
) -> Result<NewConnection, CliError> {
    todo!()
}
