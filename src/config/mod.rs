//! The config file and everything that is read at once: checked with all problems named, turned into a [`Snapshot`],
//! watched and reloaded.

mod check;
mod file;
mod load;
mod read;
mod root_key;
mod server_tls;
mod settings;
mod watch;

pub use check::{check_text, check_text_and_files};
pub use load::{ConfigError, Loader, Reloaded, Snapshot, Sources, StoreConfig};
pub use root_key::{RootKeyError, read_root_key};
pub use server_tls::{ListenerTls, TlsError};
pub use settings::{Config, Egress, Limits, ListenAddress, ListenerConfig, RootKeySource, TlsFiles, Unmatched};
pub use watch::watch_files;
