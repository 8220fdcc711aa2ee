//! What every command does first, while there is one thread: no other process may look into this one.

use super::{Arguments, Context, output};
use crate::config::{Loader, StoreConfig, hide_root_keys};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, getrlimit, prlimit, set_dumpable_behavior, setrlimit};
use std::sync::OnceLock;

/// The limit of core files that this process was started with.
static CORE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// No core file, and no other process of the same user may trace this one or read its memory and environment. Errors
/// are told: a container may forbid it, and then protects less.
pub(super) fn protect() {
    let limit = getrlimit(Resource::Core);
    let _ = CORE_LIMIT.set(limit);
    no_core_files();
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        output::warn(&format!("this process could not be closed to others of the same user: {error}"));
    }
}

fn no_core_files() {
    let limit = getrlimit(Resource::Core);
    // The hard limit stays, for the programs that `nexus run` starts.
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum }) {
        output::warn(&format!("core files could not be turned off: {error}"));
    }
}

/// Gives a child the limit of core files that this process was started with. What it starts before that has none.
pub(super) fn restore_core_limit(child: Pid) {
    if let Some(limit) = CORE_LIMIT.get() {
        // A child that has just ended is no error.
        let _ = prlimit(Some(child), Resource::Core, *limit);
    }
}

/// Takes the root key out of the environment, which starts the program anew; see [`hide_root_keys`].
pub(super) fn hide(arguments: &Arguments) {
    // What is wrong with flags or config is told by the command itself.
    let Ok(context) = Context::new(arguments.global.clone()) else { return };
    let config = match Loader::read_store(&context.home.path, context.config_file.as_deref()) {
        Ok(StoreConfig::Valid(config) | StoreConfig::StoreOnly { config, .. }) => config,
        Err(_) => return,
    };
    // The program that is started anew is to find the limit as this one did.
    let _ = CORE_LIMIT.get().map(|limit| setrlimit(Resource::Core, *limit));
    let hidden = hide_root_keys(&config);
    no_core_files();
    if let Err(error) = hidden {
        output::warn(&format!("the root key could not be taken out of the environment: {error}"));
    }
}
