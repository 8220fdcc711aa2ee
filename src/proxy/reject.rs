//! Refusals: the only place that turns an error into HTTP.

use super::body::ResponseBody;
use super::framing::Violation;
use super::live::Cut;
use crate::audit::{AuditError, Way};
use crate::connection::RouteError;
use crate::credential::LeaseError;
use crate::net::NetError;
use crate::policy::{Denial, Wider};
use crate::store::StoreError;
use crate::types::{AuthorityError, PathError, RequestId, UrlError};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, PROXY_AUTHENTICATE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use std::borrow::Cow;

/// What was refused, as a stable word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request is malformed.
    BadRequest,
    /// Its authority is.
    BadAuthority,
    /// Its path is.
    BadPath,
    /// An expectation that is not met.
    ExpectationFailed,
    /// No agent token.
    AuthRequired,
    /// No connection of the token covers the request.
    NoConnection,
    /// Policy refuses.
    Denied,
    /// The token of an open tunnel is no longer valid.
    TokenInvalid,
    /// The address guard refuses.
    AddressRefused,
    /// No such connection, or no such page.
    NotFound,
    /// Several connections cover the request equally well.
    AmbiguousConnection,
    /// A body is too large.
    TooLarge,
    /// The request names another host than its tunnel.
    Misdirected,
    /// Too many of something.
    RateLimited,
    /// The head is too large.
    HeadTooLarge,
    /// There is no usable credential.
    CredentialUnavailable,
    /// The upstream's certificate does not verify, or TLS failed.
    UpstreamTls,
    /// The upstream cannot be reached or broke off.
    UpstreamUnreachable,
    /// The answer has a coding in which reflected credentials cannot be looked for.
    UpstreamEncoding,
    /// The audit record cannot be written.
    AuditUnavailable,
    /// A refresh did not end in time.
    RefreshTimeout,
    /// Shutting down or full.
    Overloaded,
    /// The store cannot be written.
    StoreUnavailable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The request came from this proxy.
    Loop,
    /// A fault of ours.
    InternalError,
}

impl Code {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest | Self::ExpectationFailed => "bad_request",
            Self::BadAuthority => "bad_authority",
            Self::BadPath => "bad_path",
            Self::AuthRequired => "auth_required",
            Self::NoConnection => "no_connection",
            Self::Denied => "denied",
            Self::TokenInvalid => "token_invalid",
            Self::AddressRefused => "address_refused",
            Self::NotFound => "not_found",
            Self::AmbiguousConnection => "ambiguous_connection",
            Self::TooLarge => "too_large",
            Self::Misdirected => "misdirected",
            Self::RateLimited => "rate_limited",
            Self::HeadTooLarge => "head_too_large",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamEncoding => "upstream_encoding",
            Self::AuditUnavailable => "audit_unavailable",
            Self::RefreshTimeout => "refresh_timeout",
            Self::Overloaded => "overloaded",
            Self::StoreUnavailable => "store_unavailable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Loop => "loop",
            Self::InternalError => "internal_error",
        }
    }

    fn status(self, way: Way) -> StatusCode {
        match self {
            Self::BadRequest | Self::BadAuthority | Self::BadPath => StatusCode::BAD_REQUEST,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::AuthRequired if matches!(way, Way::BaseUrl | Way::Call | Way::Mint | Way::Enroll) => {
                StatusCode::UNAUTHORIZED
            }
            Self::AuthRequired => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::NoConnection | Self::Denied | Self::TokenInvalid | Self::AddressRefused => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AmbiguousConnection => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::CredentialUnavailable | Self::UpstreamTls | Self::UpstreamUnreachable | Self::UpstreamEncoding => {
                StatusCode::BAD_GATEWAY
            }
            Self::AuditUnavailable | Self::RefreshTimeout | Self::Overloaded | Self::StoreUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A refusal: its code, what happened and what to do. No secret, upstream URL or internal address is in its text.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The code.
    pub code: Code,
    /// What happened.
    pub message: Cow<'static, str>,
    /// What to do.
    pub hint: Cow<'static, str>,
    /// Whether the connection ends with it.
    pub close: bool,
    /// Seconds after which it is worth trying again.
    pub retry_after: Option<u64>,
}

impl Rejection {
    /// A refusal that leaves the connection open.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), hint: hint.into(), close: false, retry_after: None }
    }

    /// The same, closing the connection.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// No token was given, or one that is not valid; the two look the same.
    #[must_use]
    pub fn auth_required() -> Self {
        Self::new(
            Code::AuthRequired,
            "a valid agent token is required",
            "set the proxy to http://x:TOKEN@HOST:PORT, or send the token where the API key goes; \
             `nexus token create` makes one",
        )
    }

    /// The token of a tunnel has been revoked or has expired.
    #[must_use]
    pub fn token_invalid() -> Self {
        Self::new(Code::TokenInvalid, "the agent token is no longer valid", "connect again with a valid token")
            .and_close()
    }

    /// The address has shown too many wrong tokens; a valid one is taken all the same.
    #[must_use]
    pub fn wrong_tokens(wait: std::time::Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let mut rejection = Self::new(
            Code::RateLimited,
            "too many wrong agent tokens came from this address",
            "use a valid agent token, which is taken at any time",
        );
        rejection.retry_after = u64::try_from(seconds).ok();
        rejection
    }

    /// `/c/NAME` or a call names a connection that does not exist or is not granted.
    #[must_use]
    pub fn unknown_connection() -> Self {
        Self::new(
            Code::NotFound,
            "no connection of that name is granted to this token",
            "`nexus connection list` shows the names; `nexus token create --use NAME` grants one",
        )
    }

    /// A fault of ours.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(Code::InternalError, "the proxy failed at this request", "report this").and_close()
    }

    /// The credential cannot be placed where it belongs.
    #[must_use]
    pub fn unusable(connection: &crate::connection::Connection) -> Self {
        Self::new(
            Code::CredentialUnavailable,
            format!("the credential of {} does not fit its place on the request", connection.name),
            "`nexus connection set NAME` replaces it",
        )
    }

    /// The status it is told with.
    #[must_use]
    pub fn status(&self, way: Way) -> StatusCode {
        self.code.status(way)
    }

    /// The answer to the agent.
    #[must_use]
    pub fn response(&self, way: Way, request_id: &RequestId) -> Response<ResponseBody> {
        let text = serde_json::json!({"error": {
            "code": self.code.as_str(),
            "message": self.message,
            "hint": self.hint,
            "request_id": request_id.as_str(),
        }});
        let mut response = Response::new(ResponseBody::text(text.to_string() + "\n"));
        *response.status_mut() = self.status(way);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-nexus-error", HeaderValue::from_static(self.code.as_str()));
        if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
            headers.insert("x-nexus-request-id", id);
        }
        match response.status() {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let value = HeaderValue::from_static("Basic realm=\"nexus\"");
                response.headers_mut().insert(PROXY_AUTHENTICATE, value);
            }
            StatusCode::UNAUTHORIZED => {
                let value = HeaderValue::from_static("Bearer realm=\"nexus\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, value);
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Violation> for Rejection {
    fn from(violation: Violation) -> Self {
        let code = match violation {
            Violation::Authority => Code::BadAuthority,
            Violation::Path => Code::BadPath,
            Violation::TooLarge => Code::HeadTooLarge,
            Violation::Expectation => Code::ExpectationFailed,
            Violation::RequestLine
            | Violation::Field
            | Violation::Fold
            | Violation::LineEnd
            | Violation::Host
            | Violation::Length
            | Violation::Chunk => Code::BadRequest,
        };
        Self::new(code, violation.describe(), "send a request that follows RFC 9112").and_close()
    }
}

impl From<Cut> for Rejection {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::TokenRevoked | Cut::TokenExpired | Cut::LockedDown => Self::token_invalid(),
            Cut::ConnectionDisabled | Cut::ConnectionDeleted | Cut::ConnectionReplaced => {
                Self::from(RouteError::None).and_close()
            }
            Cut::Denied => Self::new(
                Code::Denied,
                "what this token may use was narrowed while the request was under way",
                "ask for a token with a wider grant if this is wanted",
            )
            .and_close(),
        }
    }
}

impl From<AuthorityError> for Rejection {
    fn from(error: AuthorityError) -> Self {
        Self::new(Code::BadAuthority, error.to_string(), "use host or host:port and nothing else").and_close()
    }
}

impl From<PathError> for Rejection {
    fn from(error: PathError) -> Self {
        Self::new(Code::BadPath, error.to_string(), "send the path without dot segments and odd escapes")
    }
}

impl From<UrlError> for Rejection {
    fn from(error: UrlError) -> Self {
        match error {
            UrlError::Scheme => Self::new(Code::BadRequest, error.to_string(), "use an http or https URL"),
            UrlError::Authority(error) => error.into(),
            UrlError::Path(error) => error.into(),
        }
    }
}

impl From<RouteError> for Rejection {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::None => Self::new(
                Code::NoConnection,
                "no connection of this token covers the request",
                "grant one with `nexus token create --use NAME`; `nexus explain METHOD URL --agent NAME` shows why",
            ),
            RouteError::AmbiguousPath => PathError::Ambiguous.into(),
            RouteError::Ambiguous(names) => Self::new(
                Code::AmbiguousConnection,
                format!("several connections cover the request: {}", names.join(", ")),
                "name one in the X-Nexus-Connection header or as the user name of the proxy URL",
            ),
        }
    }
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NotGranted => RouteError::None.into(),
            Denial::Scope => Self::new(
                Code::Denied,
                denial.to_string(),
                "`POST /v1/tokens` makes a token with it, or `nexus token create --scopes use,mint`",
            ),
            Denial::Host { .. } | Denial::Method { .. } | Denial::Path { .. } | Denial::AmbiguousPath => {
                Self::new(Code::Denied, denial.to_string(), "ask for a token with a wider grant if this is wanted")
            }
        }
    }
}

impl From<Wider> for Rejection {
    fn from(wider: Wider) -> Self {
        Self::new(Code::Denied, wider.to_string(), "ask for what this token has itself, or for less")
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::new(
                Code::RateLimited,
                error.to_string(),
                "let tokens end that are not used; make them for less time",
            ),
            error => {
                // The cause is the operator's to know: it may name files of this machine.
                tracing::error!("the store could not be written: {error}");
                Self::new(
                    Code::StoreUnavailable,
                    "the store cannot be written, so nothing was made",
                    "try again later; `nexus doctor` tells more",
                )
            }
        }
    }
}

impl From<LeaseError> for Rejection {
    fn from(error: LeaseError) -> Self {
        let hint = "`nexus connection show NAME` tells its state; `nexus register … --replace` connects anew";
        match &error {
            LeaseError::Timeout { .. } => {
                Self::new(Code::RefreshTimeout, error.to_string(), "try again in a few seconds")
            }
            LeaseError::Refresh { connection, .. } => Self::new(
                Code::CredentialUnavailable,
                format!("the credential of {connection} has expired and could not be refreshed"),
                hint,
            ),
            LeaseError::Sealed { connection, .. } => Self::new(
                Code::CredentialUnavailable,
                format!("the credential of {connection} cannot be opened"),
                "`nexus doctor` tells more",
            ),
            LeaseError::LockedDown => Self::token_invalid(),
            LeaseError::Attention { .. } => Self::new(Code::CredentialUnavailable, error.to_string(), hint),
        }
    }
}

impl From<AuditError> for Rejection {
    fn from(_: AuditError) -> Self {
        Self::new(
            Code::AuditUnavailable,
            "the audit record cannot be written, so nothing was sent",
            "free space for the audit directory; the proxy goes on by itself after that",
        )
    }
}

impl From<&NetError> for Rejection {
    fn from(error: &NetError) -> Self {
        match error {
            NetError::AddressRefused { host, refusal, .. } => Self::new(
                Code::AddressRefused,
                format!("the address of {host} is not allowed ({refusal})"),
                "allow the range with egress.allow_cidrs if this destination is meant",
            ),
            NetError::Resolve { host, .. } => Self::new(
                Code::UpstreamUnreachable,
                format!("{host} could not be resolved"),
                "check the name; dns.hosts can hold a static answer",
            ),
            NetError::Connect { target, .. } => {
                Self::new(Code::UpstreamUnreachable, format!("{target} could not be reached"), "try again later")
            }
            NetError::Tls { target, .. } => Self::new(
                Code::UpstreamTls,
                format!("TLS with {target} failed; the credential was not sent"),
                "a private API needs its CA in upstream.ca_files",
            ),
            NetError::Http { target, .. } => {
                Self::new(Code::UpstreamUnreachable, format!("{target} broke off"), "try again later")
            }
            NetError::Timeout { target, .. } => {
                Self::new(Code::UpstreamTimeout, format!("{target} did not answer in time"), "try again later")
            }
            NetError::CaFile { .. } => {
                Self::new(Code::UpstreamTls, "the extra trust roots cannot be used", "`nexus doctor` tells more")
            }
        }
    }
}
