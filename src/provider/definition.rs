//! A provider as the program uses it.

use crate::strategy::Placement;
use crate::types::{BasePath, ProviderId};
use regex::Regex;

/// What kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// A static key or token.
    ApiKey,
    /// User and password.
    Basic,
    /// OAuth 2 (a refresh token or client credentials that one already has).
    Oauth2,
}

/// How the client proves itself at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenClientAuth {
    /// HTTP Basic.
    Basic,
    /// In the form body.
    #[default]
    Post,
    /// A public client: only `client_id` in the form body.
    None,
}

/// One secret or plain field that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name in templates.
    pub name: String,
    /// What the prompt says.
    pub label: String,
    /// Whether it is a secret.
    pub secret: bool,
    /// Where to get it.
    pub help: Option<String>,
    /// A regular expression that the whole value has to match.
    pub pattern: Option<String>,
}

impl Field {
    /// Whether a value has the form that the file asks for.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let matches = |pattern: &str| anchored(pattern).is_ok_and(|regex| regex.is_match(value));
        !value.is_empty() && self.pattern.as_deref().is_none_or(matches)
    }
}

/// A pattern that has to match the whole value.
pub(super) fn anchored(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:{pattern})\z"))
}

/// OAuth endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// Where people consent.
    pub authorize_url: Option<String>,
    /// The token endpoint.
    pub token_url: String,
    /// Client authentication there.
    pub client_auth: TokenClientAuth,
    /// Default scopes, space separated.
    pub scopes: String,
    /// What stands between scopes at this provider's endpoints.
    pub scope_separator: String,
}

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Its id in the file, such as `token`.
    pub id: String,
    /// Its kind.
    pub kind: AuthKind,
    /// For people, such as `personal access token`.
    pub label: String,
    /// What is asked for. For [`AuthKind::Oauth2`] `client_id`, `client_secret` (unless the client is public) and
    /// `refresh_token` are among them.
    pub fields: Vec<Field>,
    /// Where it goes.
    pub inject: Vec<Placement>,
    /// OAuth endpoints, for [`AuthKind::Oauth2`].
    pub oauth: Option<OAuth>,
}

/// Where the credential may go: a host (pattern or with one `{var}` label), scheme https, and a base path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Host text: `api.github.com` or `{site}.atlassian.net`.
    pub host: String,
    /// Port, 443 unless said.
    pub port: u16,
    /// Base path; the root restricts nothing.
    pub path: BasePath,
    /// Placements for this route only, instead of the auth's own (GitHub's git host wants Basic).
    pub inject: Option<Vec<Placement>>,
}

/// A harmless request that shows whether a credential works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRequest {
    /// The method.
    pub method: String,
    /// A path under the first route, or a full URL (with `{var}`).
    pub url: String,
    /// Statuses that mean it works.
    pub expect_status: Vec<u16>,
    /// A JSON path (`a.b`) that must be there, and be true if it is a bool.
    pub expect_json: Option<String>,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its id: the file's name.
    pub id: ProviderId,
    /// For people.
    pub name: String,
    /// Such as `developer-tools`.
    pub category: String,
    /// Other ids that find it.
    pub aliases: Vec<String>,
    /// The vendor's API documentation.
    pub docs: Option<String>,
    /// When and how its facts were checked, in words.
    pub verified: String,
    /// `{var}` fields of hosts and paths: asked at registration, plain.
    pub vars: Vec<Field>,
    /// Where credentials may go.
    pub routes: Vec<Route>,
    /// Ways to authenticate; the first is the usual one.
    pub auth: Vec<Auth>,
    /// Headers set when the agent sent none: name, value.
    pub default_headers: Vec<(String, String)>,
    /// The test request.
    pub test: Option<TestRequest>,
    /// Environment variables in which SDKs look for the key.
    pub env: Vec<String>,
    /// The environment variable in which SDKs look for the base URL.
    pub base_url_env: Option<String>,
    /// What SDKs expect behind the base URL's host in that variable, such as `/v1`; empty for nothing.
    pub base_url_path: String,
    /// A placeholder in the shape that SDKs check.
    pub placeholder: Option<String>,
    /// SHA-256 of the file's bytes, hexadecimal: connections keep it to show that they are outdated.
    pub revision: String,
}

impl Definition {
    /// The variables and fields that the file does not call secret.
    #[must_use]
    pub fn plain_names(&self) -> Vec<String> {
        let fields = self.auth.iter().flat_map(|auth| &auth.fields).chain(&self.vars);
        fields.filter(|field| !field.secret).map(|field| field.name.clone()).collect()
    }
}
