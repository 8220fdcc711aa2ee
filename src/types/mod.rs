//! Parsed values that the whole program shares: names and ids, hosts, targets, paths, methods, time.
//!
//! Parse and display only: no I/O, no policy. Nothing else in the program parses a host, a port or a path.

mod clock;
mod duration;
mod host;
mod ids;
mod path;
mod target;

pub use clock::{Clock, UnixSeconds};
pub use duration::{DurationError, format_duration, parse_duration};
pub use host::{Host, HostError, HostPattern};
pub use ids::{
    AgentName, ConnectionId, ConnectionName, NameError, NamespaceName, ProviderId, RequestId, RunId, Scope, TenantName,
    TokenId,
};
pub use path::{BasePath, CanonicalPath, PathError, PathPattern};
pub use target::{AuthorityError, Scheme, Target, Url, UrlError};
