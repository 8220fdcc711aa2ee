//! The upstream copy of a request: cleaned, then injected. The only place that applies an [`Injection`].

use crate::net::Upstream;
use crate::secret::AgentToken;
use crate::strategy::{Edit, Injection, Strategy};
use crate::types::{CanonicalPath, PathError, Target};
use http::header::{HOST, HeaderMap, HeaderValue, TE};
use http::{Method, Request, Uri, Version};

use super::body::RequestBody;

/// A request as it will be sent, without its credential.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The method.
    pub method: Method,
    /// Where to.
    pub target: Target,
    /// Path and query.
    pub path: CanonicalPath,
    /// Cleaned headers, without Host.
    pub headers: HeaderMap,
    /// Whether trailers were asked for.
    pub trailers: bool,
    /// `Upgrade`'s value, for WebSockets.
    pub upgrade: Option<HeaderValue>,
}

/// The request could not be put together: the credential does not fit its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credential does not fit the request")]
pub struct Misfit;

impl Outbound {
    /// The request for one attempt over `upstream`. Nothing changes a header after the injection.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn request(
        self,
        upstream: &Upstream<RequestBody>,
        injection: Injection,
        base: &str,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Misfit> {
        let Self { method, target, path, mut headers, trailers, upgrade } = self;
        let authority = target.authority();
        let mut text = path.as_str().to_owned();
        if upstream.is_h2() {
            if trailers {
                headers.insert(TE, HeaderValue::from_static("trailers"));
            }
        } else {
            headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| Misfit)?);
            if let Some(protocol) = upgrade {
                headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(http::header::UPGRADE, protocol);
            }
        }
        for edit in injection.edits {
            match edit {
                Edit::Header { name, value } => {
                    headers.insert(name, value);
                }
                // Exposed to go on the request line, which is sent and dropped.
                Edit::Query { pair } => {
                    let mark = if text.contains('?') { '&' } else { '?' };
                    text = format!("{text}{mark}{}", pair.expose());
                }
                Edit::PathPrefix { prefix } => {
                    let rest = text.strip_prefix(base).ok_or(Misfit)?;
                    text = format!("{base}{}{rest}", prefix.expose());
                }
            }
        }
        let uri = if upstream.is_h2() { format!("{}://{authority}{text}", scheme(&target)) } else { text };
        let uri = Uri::try_from(uri).map_err(|_| Misfit)?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = if upstream.is_h2() { Version::HTTP_2 } else { Version::HTTP_11 };
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn scheme(target: &Target) -> &'static str {
    match target.scheme {
        crate::types::Scheme::Http => "http",
        crate::types::Scheme::Https => "https",
    }
}

/// A path without the agent's own copies of what `strategy` puts into it: query parameters, and the path prefix under the
/// base path unless it was taken out already.
///
/// # Errors
/// When what is left is not a path.
pub fn without_agent_copies(
    path: CanonicalPath,
    strategy: &Strategy,
    base: &str,
    prefix_taken: bool,
) -> Result<CanonicalPath, PathError> {
    let mut text = path.as_str().to_owned();
    for name in strategy.query_names() {
        text = without_parameter(&text, name);
    }
    let path_end = text.find('?').unwrap_or(text.len());
    if !prefix_taken
        && let Some(under) = text[..path_end].strip_prefix(base)
        && let Some(rest) = without_path_prefix(under, strategy)
    {
        text = format!("{base}{rest}{}", &text[path_end..]);
    }
    if text == path.as_str() { Ok(path) } else { CanonicalPath::parse(text.as_bytes()) }
}

/// A path and query without the parameters of that name, in every encoding of it.
fn without_parameter(text: &str, name: &str) -> String {
    let Some((path, query)) = text.split_once('?') else { return text.to_owned() };
    // Some servers take `;` for `&`.
    let is_it = |pair: &&str| {
        let found = pair.split('=').next().unwrap_or_default().replace('+', " ");
        percent_encoding::percent_decode_str(&found).decode_utf8_lossy() == name
    };
    let kept: Vec<String> = query
        .split('&')
        .map(|pairs| pairs.split(';').filter(|pair| !is_it(pair)).collect::<Vec<_>>().join(";"))
        .zip(query.split('&'))
        .filter(|(kept, pairs)| !kept.is_empty() || pairs.is_empty())
        .map(|(kept, _)| kept)
        .collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

/// A path (what follows the base path) without the prefix that `strategy` puts there, as SDKs write it with a placeholder
/// (`/botPLACEHOLDER/getMe`). A prefix without fixed text fits any path, so there only an agent token is taken for one.
#[must_use]
pub fn without_path_prefix<'p>(path: &'p str, strategy: &Strategy) -> Option<&'p str> {
    let (values, rest) = strategy.split_path(path)?;
    let prefix = &path[..path.len() - rest.len()];
    let slashes = prefix.bytes().filter(|byte| *byte == b'/').count();
    let has_fixed_text = prefix.len() > slashes + values.iter().map(|value| value.len()).sum::<usize>();
    (has_fixed_text || values.iter().all(|value| AgentToken::has_form(value))).then_some(rest)
}

#[cfg(test)]
mod tests;
