//! The admin listener (`/healthz`, `/readyz`, `/metrics`) and the local control socket.

mod control;
mod http;

pub use control::{ControlError, ControlServer, SocketFile, control_sockets, notify_servers, notify_servers_of_keys};
pub use http::{AdminState, serve_admin};
