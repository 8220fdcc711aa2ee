//! One line of the record.

use crate::types::RequestId;
use serde::{Deserialize, Serialize};

/// What a line says of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// About to dial.
    Start,
    /// Finished: the answer, whatever its status, was delivered whole.
    End,
    /// Refused by the proxy; nothing was sent.
    Denied,
    /// Begun and not finished: an error, a cut connection, or the process died.
    Aborted,
    /// Lines were lost here (`on_full = "drop_with_gap_record"`); `count` says how many.
    Gap,
    /// A record of the store failed the integrity check and is not used (`record`, `reason`), or the store went back to an
    /// earlier state (reason `store_went_back`). Of no request.
    #[serde(rename = "integrity_failure")]
    IntegrityFailure,
    /// A server stopped serving every agent (`nexus lockdown`).
    Lockdown,
    /// It serves again, with new tokens.
    #[serde(rename = "lockdown_lifted")]
    LockdownLifted,
}

/// How the request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Inside an intercepted CONNECT tunnel.
    Intercepted,
    /// Absolute form.
    Forward,
    /// `/c/<connection>/…`.
    BaseUrl,
    /// `POST /v1/call`.
    Call,
    /// `POST /v1/tokens`.
    Mint,
    /// A blind tunnel.
    Tunnel,
    /// The CONNECT request itself (refused ones).
    Connect,
    /// `POST /v1/enroll` and `/v1/enroll/renew`: a certificate for an agent.
    Enroll,
}

/// One line. Absent values are left out. Text that an agent chose is cut to 2 KiB and is JSON-escaped by serde, so that
/// one event is one line.
///
/// The time is set by the spool: RFC 3339, UTC, microseconds; it comes first on the line, then `event`, `request_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339 time, set when written.
    #[serde(default)]
    pub time: String,
    /// What this line says.
    pub event: Kind,
    /// The request.
    pub request_id: RequestId,
    /// How it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Tenant of the verified caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Namespace of the verified caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The verified agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The token's public id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The issuer that vouches for a caller without a token of this install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The caller's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `https` or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The target's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The target's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path without its query; tokens in it are masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The names of the query's parameters, not their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_keys: Vec<String>,
    /// The server name of a tunnel's ClientHello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The connection's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// The connection's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// The version of the credential that was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_version: Option<u64>,
    /// The public id of the token that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted_token_id: Option<String>,
    /// The dialled address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The refusal's code, or why it was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The status that the agent got, or would have got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether the credential was refreshed and the request replayed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// How many reflected credentials were scrubbed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted: Option<u64>,
    /// Body bytes (tunnel: all bytes) from the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Body bytes (tunnel: all bytes) to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// From first byte to last, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Kind and id of the store's record that it is about (`integrity_failure`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// How many lines are missing (`gap`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Event {
    /// An event with only its kind and request id.
    #[must_use]
    pub fn new(event: Kind, request_id: RequestId) -> Self {
        Self {
            time: String::new(),
            event,
            request_id,
            way: None,
            tenant: None,
            namespace: None,
            agent: None,
            run: None,
            token_id: None,
            issuer: None,
            client: None,
            method: None,
            scheme: None,
            host: None,
            port: None,
            path: None,
            query_keys: Vec::new(),
            sni: None,
            connection: None,
            connection_id: None,
            credential_version: None,
            minted_token_id: None,
            address: None,
            reason: None,
            status: None,
            replayed: false,
            redacted: None,
            request_bytes: None,
            response_bytes: None,
            duration_ms: None,
            record: None,
            count: None,
        }
    }
}
