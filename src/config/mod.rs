//! The config file and everything that is read at once: checked with all problems named, turned into a [`Snapshot`],
//! watched and reloaded.

mod check;
mod file;
mod handover;
mod load;
mod read;
mod root_key;
mod server_tls;
mod settings;
mod watch;

pub use check::{check_text, check_text_and_files};
pub use handover::{ROOT_KEY_DESCRIPTOR, hide_root_keys};
pub use load::{ConfigError, Loader, Reloaded, Snapshot, Sources, StoreConfig};
pub use root_key::{RootKeyError, next_key_file, read_next_root_key, read_root_key};
pub use server_tls::{ListenerTls, TlsError};
pub use settings::{
    Config, Egress, Limits, ListenAddress, ListenerConfig, RootKeyForm, RootKeySource, TlsFiles, TokenLimits, Unmatched,
};
pub use watch::watch_files;
