//! Parsed values that the whole program shares: names and ids, hosts, targets, paths, methods, time.
//!
//! Parse and display only: no I/O, no policy. Nothing else in the program parses a host, a port or a path.

mod clock;
mod duration;
mod glob;
mod host;
mod ids;
mod path;
mod target;

pub use clock::{Clock, UnixSeconds};
pub use duration::{DurationError, format_duration, parse_duration};
pub use glob::Glob;
pub use host::{Host, HostError, HostPattern};
pub use ids::{
    AgentName, ConnectionId, ConnectionName, NameError, NamespaceName, ProviderId, RequestId, RunId, Scope, TenantName,
    TokenId,
};
pub use path::{BasePath, CanonicalPath, PathError, PathPattern};
pub use target::{AuthorityError, Scheme, Target, Url, UrlError};

/// `FromStr`, `Serialize` and `Deserialize` as text, through the type's own parser and `Display`.
macro_rules! as_text {
    ($name:ty, $error:ty, $parse:expr) => {
        impl std::str::FromStr for $name {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                $parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use as_text;
