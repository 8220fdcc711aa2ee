//! The config file and everything that is read at once: checked with all problems named, turned into a [`Snapshot`],
//! watched and reloaded.

mod check;
mod file;
mod load;
mod settings;
mod watch;

pub use check::check_text;
pub use load::{ConfigError, Loader, Snapshot};
pub use settings::{Config, Egress, Limits, Listener, RootKeySource, Tls, Unmatched};
pub use watch::watch_files;
