//! What a connection froze at registration: destinations, placements, token endpoint. Stored as JSON; its digest is in
//! the associated data of the sealed credential, so that an edited definition makes it unreadable.

use super::json;
use crate::provider::{TestRequest, TokenClientAuth};
use crate::secret::Digest;
use crate::strategy::Strategy;
use crate::types::{BasePath, CanonicalPath, HostPattern, PathError, Scheme, Target, Url};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

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
    /// Whether a request lies within it. Only the root covers an ambiguous path.
    #[must_use]
    pub fn covers(&self, target: &Target, path: &CanonicalPath) -> bool {
        self.covers_target(target) && self.path.covers(path)
    }

    /// Whether requests to this target may lie within it, whatever their path.
    #[must_use]
    pub fn covers_target(&self, target: &Target) -> bool {
        self.scheme == target.scheme && self.port == target.port && self.host.matches(&target.host)
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

/// What a connection of the catalogue was made with beside its secrets, so that a newer file can be put in its place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The provider's way to authenticate.
    pub auth: String,
    /// The provider's variables and plain fields that were given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Where the API is, in place of where the provider's file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<Url>,
    /// The token endpoint, in place of the one of the provider's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<Url>,
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
    /// What it was made with, for connections of the catalogue.
    pub source: Option<Source>,
}

/// Why a stored definition cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the connection's definition is damaged: {0}")]
pub struct DefinitionError(pub String);

impl Frozen {
    /// A connection to anything: one destination, the URL's path its base path (the query is not part of it).
    ///
    /// # Errors
    /// When the URL's path cannot be a base path.
    pub fn custom(base_url: &Url, strategy: Strategy, oauth: Option<OAuthGrant>) -> Result<Self, PathError> {
        let Url { target, path } = base_url;
        let host = HostPattern::parse(&target.host.to_string()).expect("a host's own text parses");
        let path = BasePath::parse(path.path())?;
        let destination = Destination { scheme: target.scheme, host, port: target.port, path, strategy };
        let destinations = vec![destination];
        Ok(Self { destinations, oauth, default_headers: Vec::new(), test: None, revision: None, source: None })
    }

    /// The base URL of `/c/<name>/` and of `/v1/call`: the first destination's, unless its host is a pattern.
    #[must_use]
    pub fn base_url(&self) -> Option<(Target, BasePath)> {
        let Destination { scheme, host, port, path, .. } = self.destinations.first()?;
        let host = host.exact()?.clone();
        Some((Target { scheme: *scheme, host, port: *port }, path.clone()))
    }

    /// The JSON that the store keeps.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// Reads the store's JSON; unknown fields are an error.
    ///
    /// # Errors
    /// See [`DefinitionError`].
    pub fn from_json(json: &str) -> Result<Self, DefinitionError> {
        json::read(json)
    }

    /// SHA-256 over what access fields are bound to: scheme, hosts, ports, base paths, placements (length-prefixed).
    #[must_use]
    pub fn access_digest(&self) -> Digest {
        let mut hash = FieldHash::new("nexus connection access 1");
        hash.count(self.destinations.len());
        for destination in &self.destinations {
            let Destination { scheme, host, port, path, strategy } = destination;
            hash.field(match scheme {
                Scheme::Http => b"http",
                Scheme::Https => b"https",
            });
            hash.field(host.to_string().as_bytes());
            hash.field(&port.to_be_bytes());
            hash.field(path.as_str().as_bytes());
            hash.count(strategy.placements().len());
            for placement in strategy.placements() {
                hash.field(placement.to_string().as_bytes());
            }
        }
        hash.finish()
    }

    /// SHA-256 over that and the token URL and client authentication: what grant fields are bound to.
    #[must_use]
    pub fn grant_digest(&self) -> Digest {
        let mut hash = FieldHash::new("nexus connection grant 1");
        hash.field(&self.access_digest());
        if let Some(OAuthGrant { token_url, client_auth, .. }) = &self.oauth {
            hash.field(token_url.to_string().as_bytes());
            hash.field(match client_auth {
                TokenClientAuth::Basic => b"basic",
                TokenClientAuth::Post => b"post",
                TokenClientAuth::None => b"none",
            });
        }
        hash.finish()
    }
}

/// SHA-256 over fields, each with its length in front, so that no two lists of fields hash alike.
struct FieldHash(Sha256);

impl FieldHash {
    /// `domain` keeps digests of different kinds apart.
    fn new(domain: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.field(domain.as_bytes());
        hash
    }

    fn field(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests;
