//! The result of a strategy: edits on the upstream copy of a request.

use crate::secret::Secret;
use http::{HeaderName, HeaderValue};

/// One edit.
#[derive(Debug)]
pub enum Edit {
    /// Set a header; every agent's copy was removed before. The value is marked sensitive.
    Header {
        /// The header.
        name: HeaderName,
        /// Its value.
        value: HeaderValue,
    },
    /// Set a query parameter, name and value percent-encoded already.
    Query {
        /// `name=value`, encoded.
        pair: Secret,
    },
    /// Put this in front of the path under the connection's base path; starts with `/`, has no trailing `/`.
    PathPrefix {
        /// The prefix, encoded.
        prefix: Secret,
    },
}

/// The edits of one strategy for one request.
#[derive(Debug, Default)]
pub struct Injection {
    /// In order.
    pub edits: Vec<Edit>,
}
