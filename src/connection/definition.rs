//! What a connection froze at registration: destinations, placements, token endpoint. Stored as JSON; its digest is in
//! the associated data of the sealed credential, so that an edited definition makes it unreadable.

use crate::provider::{TestRequest, TokenClientAuth};
use crate::secret::Digest;
use crate::strategy::Strategy;
use crate::types::{BasePath, CanonicalPath, HostPattern, Scheme, Target, Url};

/// Where the credential may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The scheme.
    pub scheme: Scheme,
    /// The host, or a pattern that the vendor alone runs.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
    /// The base path.
    pub path: BasePath,
    /// How the credential goes onto requests there.
    pub strategy: Strategy,
}

impl Destination {
    /// Whether a request lies within it.
    #[must_use]
    pub fn covers(&self, _target: &Target, _path: &CanonicalPath) -> bool {
        todo!()
    }
}

/// How a new access token is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// RFC 6749 section 6.
    RefreshToken,
    /// RFC 6749 section 4.4.
    ClientCredentials,
}

/// An OAuth connection's frozen token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthGrant {
    /// Which grant.
    pub grant: Grant,
    /// The token endpoint.
    pub token_url: Url,
    /// Client authentication there.
    pub client_auth: TokenClientAuth,
    /// Scopes to ask for, if any.
    pub scope: Option<String>,
}

/// The frozen definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// At least one; the first is the base URL of `/c/<name>/` and of `/v1/call`.
    pub destinations: Vec<Destination>,
    /// The token endpoint, for OAuth connections.
    pub oauth: Option<OAuthGrant>,
    /// Headers set when the agent sent none.
    pub default_headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The harmless request of `connection test`.
    pub test: Option<TestRequest>,
    /// The revision of the provider file it was made from.
    pub revision: Option<String>,
}

/// Why a stored definition cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the connection's definition is damaged: {0}")]
pub struct DefinitionError(pub String);

impl Frozen {
    /// The JSON that the store keeps.
    #[must_use]
    pub fn to_json(&self) -> String {
        todo!()
    }

    /// Reads the store's JSON; unknown fields are an error.
    ///
    /// # Errors
    /// See [`DefinitionError`].
    pub fn from_json(_json: &str) -> Result<Self, DefinitionError> {
        todo!()
    }

    /// SHA-256 over what access fields are bound to: scheme, hosts, ports, base paths, placements (length-prefixed).
    #[must_use]
    pub fn access_digest(&self) -> Digest {
        todo!()
    }

    /// SHA-256 over that and the token URL and client authentication: what grant fields are bound to.
    #[must_use]
    pub fn grant_digest(&self) -> Digest {
        todo!()
    }
}
