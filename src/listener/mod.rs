//! Sockets and what comes before a request: CONNECT, interception with the leaf cache, the CA, blind tunnels.
//!
//! pingora accepts; each stream goes to the proxy's engine. Not here: anything about a request inside a tunnel (proxy).

mod authority;
mod blind;
mod connect;
mod front;
mod leaf;
mod strangers;
mod wire;

pub use authority::{AuthorityError, CertificateAuthority};
pub use front::{BindError, Front, Listening};
pub use leaf::LeafCache;
