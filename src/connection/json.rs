//! A definition as JSON: flat, with a format number, fields always in the same order, unknown ones refused.

use super::{DefinitionError, Destination, Frozen, Grant, OAuthGrant, Source};
use crate::provider::{TestRequest, TokenClientAuth};
use crate::strategy::{Placement, Strategy};
use crate::types::{BasePath, HostPattern, Scheme, Url};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    destinations: Vec<DestinationText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oauth: Option<OAuthText>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    default_headers: Vec<HeaderText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test: Option<TestText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DestinationText {
    scheme: Scheme,
    host: HostPattern,
    port: u16,
    path: BasePath,
    inject: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OAuthText {
    grant: Grant,
    token_url: Url,
    client_auth: TokenClientAuth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderText {
    name: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestText {
    method: String,
    url: String,
    expect_status: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect_json: Option<String>,
}

pub(super) fn write(frozen: &Frozen) -> String {
    let Frozen { destinations, oauth, default_headers, test, revision, source } = frozen;
    let document = Document {
        format: FORMAT,
        destinations: destinations.iter().map(DestinationText::from).collect(),
        oauth: oauth.as_ref().map(OAuthText::from),
        default_headers: default_headers.iter().map(HeaderText::from).collect(),
        test: test.as_ref().map(TestText::from),
        revision: revision.clone(),
        source: source.clone(),
    };
    serde_json::to_string(&document).expect("strings, numbers and lists can be written as JSON")
}

pub(super) fn read(json: &str) -> Result<Frozen, DefinitionError> {
    let document: Document = serde_json::from_str(json).map_err(|error| damaged("JSON", error))?;
    let Document { format, destinations, oauth, default_headers, test, revision, source } = document;
    if format != FORMAT {
        return Err(DefinitionError(format!("format {format} is not known to this version, which knows {FORMAT}")));
    }
    if destinations.is_empty() {
        return Err(DefinitionError("it has no destination".to_owned()));
    }
    Ok(Frozen {
        destinations: destinations.into_iter().map(Destination::try_from).collect::<Result<_, _>>()?,
        oauth: oauth.map(OAuthGrant::from),
        default_headers: default_headers.into_iter().map(HeaderText::parse).collect::<Result<_, _>>()?,
        test: test.map(TestRequest::from),
        revision,
        source,
    })
}

fn damaged(what: &str, error: impl Display) -> DefinitionError {
    DefinitionError(format!("{what}: {error}"))
}

impl From<&Destination> for DestinationText {
    fn from(destination: &Destination) -> Self {
        let Destination { scheme, host, port, path, strategy } = destination;
        let inject = strategy.placements().iter().map(ToString::to_string).collect();
        Self { scheme: *scheme, host: host.clone(), port: *port, path: path.clone(), inject }
    }
}

impl TryFrom<DestinationText> for Destination {
    type Error = DefinitionError;

    fn try_from(text: DestinationText) -> Result<Self, DefinitionError> {
        let DestinationText { scheme, host, port, path, inject } = text;
        if port == 0 {
            return Err(DefinitionError("port 0".to_owned()));
        }
        let placements = inject.iter().map(|text| Placement::parse(text)).collect::<Result<_, _>>();
        let strategy = placements.and_then(Strategy::new).map_err(|error| damaged("placement", error))?;
        Ok(Self { scheme, host, port, path, strategy })
    }
}

impl From<&OAuthGrant> for OAuthText {
    fn from(oauth: &OAuthGrant) -> Self {
        let OAuthGrant { grant, token_url, client_auth, scope } = oauth;
        Self { grant: *grant, token_url: token_url.clone(), client_auth: *client_auth, scope: scope.clone() }
    }
}

impl From<OAuthText> for OAuthGrant {
    fn from(text: OAuthText) -> Self {
        let OAuthText { grant, token_url, client_auth, scope } = text;
        Self { grant, token_url, client_auth, scope }
    }
}

impl From<&(HeaderName, HeaderValue)> for HeaderText {
    /// Header values are bytes: each stands as the character of its number, so that all of them survive.
    fn from((name, value): &(HeaderName, HeaderValue)) -> Self {
        Self { name: name.as_str().to_owned(), value: value.as_bytes().iter().copied().map(char::from).collect() }
    }
}

impl HeaderText {
    fn parse(self) -> Result<(HeaderName, HeaderValue), DefinitionError> {
        let name: HeaderName = self.name.parse().map_err(|error| damaged("header name", error))?;
        let bytes: Vec<u8> =
            self.value.chars().map(u8::try_from).collect::<Result<_, _>>().map_err(|error| damaged("header", error))?;
        let value = HeaderValue::from_bytes(&bytes).map_err(|error| damaged("header", error))?;
        Ok((name, value))
    }
}

impl From<&TestRequest> for TestText {
    fn from(test: &TestRequest) -> Self {
        let TestRequest { method, url, expect_status, expect_json } = test.clone();
        Self { method, url, expect_status, expect_json }
    }
}

impl From<TestText> for TestRequest {
    fn from(text: TestText) -> Self {
        let TestText { method, url, expect_status, expect_json } = text;
        Self { method, url, expect_status, expect_json }
    }
}
