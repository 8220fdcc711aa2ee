//! The admin listener (`/healthz`, `/readyz`, `/metrics`) and the local control socket.

mod control;
mod http;

pub use control::{ControlError, ControlServer, SocketFile, control_sockets, notify_servers};
pub use http::{AdminState, serve_admin};
