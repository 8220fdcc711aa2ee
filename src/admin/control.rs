//! `$NEXUS_HOME/nexus.sock` (0600): how a writing command tells the running servers of this home.
//!
//! One JSON object a line each way. `{"op":"reload"}` -> `{"ok":true,"generation":7}`; `{"op":"status"}` ->
//! `{"ok":true,"listen":["127.0.0.1:8470"],"admin":"127.0.0.1:8471","version":"0.1.0","pid":123}`. A second server on
//! the same home listens on `nexus-N.sock` (N its audit node).

use std::path::{Path, PathBuf};

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not reachable, or broke off.
    #[error("control socket {path}: {source}")]
    Io {
        /// The socket.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No answer within 2 s.
    #[error("control socket {0}: no answer within 2 s")]
    Timeout(String),
}

/// The server's end.
pub struct ControlServer(());

impl ControlServer {
    /// Binds `nexus.sock`, or `nexus-N.sock` when another live server has that one; a dead socket file is replaced.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(_home: &Path, _node: u32) -> std::io::Result<Self> {
        todo!()
    }

    /// Serves until cancelled. `reload` applies the store's changes and returns the generation; `status` gives the
    /// status object. Removes the socket file when dropped.
    pub async fn serve<R, F>(self, _reload: R, _status: serde_json::Value)
    where
        R: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<i64, String>> + Send,
    {
        todo!()
    }
}

/// The control sockets of a home whose server answers, with their status objects.
pub async fn control_sockets(_home: &Path) -> Vec<(PathBuf, serde_json::Value)> {
    todo!()
}

/// Tells every server of the home to apply changes; 2 s at most each. No server is fine. Gives the warnings to print.
pub async fn notify_servers(_home: &Path) -> Vec<ControlError> {
    todo!()
}
