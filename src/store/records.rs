//! The records as the store keeps them.

use crate::secret::{Sealed, TokenDigest};
use crate::types::{AgentName, ConnectionId, ConnectionName, ProviderId, RunId, Scope, TokenId, UnixSeconds};

/// Whether a connection's credential works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// Works as far as is known.
    Active,
    /// Needs a person: the grant was rejected.
    Attention,
}

/// A connection. `definition` is the frozen [`crate`]-level definition as JSON; its digest is in the envelopes'
/// associated data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Its id.
    pub id: ConnectionId,
    /// Tenant and namespace.
    pub scope: Scope,
    /// Its name, unique in the scope.
    pub name: ConnectionName,
    /// The provider it was made from, or `custom`.
    pub provider: ProviderId,
    /// The frozen definition, as JSON.
    pub definition: String,
    /// The credential's version: 1 at first, +1 on every change.
    pub version: u64,
    /// The fields that injection needs, sealed.
    pub access: Sealed,
    /// The fields that a refresh needs, sealed.
    pub grant: Option<Sealed>,
    /// When the access token was obtained.
    pub access_issued_at: Option<UnixSeconds>,
    /// When the access token ends, if known.
    pub access_expires_at: Option<UnixSeconds>,
    /// Whether it works.
    pub state: ConnectionState,
    /// Why it is not active.
    pub state_reason: Option<String>,
    /// Turned off by a person.
    pub disabled: bool,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// When its credential last changed.
    pub updated_at: UnixSeconds,
    /// When its tenant or namespace was deleted. An orphan is of no use and is purged some time after.
    pub orphaned_at: Option<UnixSeconds>,
}

/// A new credential for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUpdate {
    /// The new version; the record must have the one before.
    pub version: u64,
    /// The sealed access fields, bound to the new version.
    pub access: Sealed,
    /// The sealed grant fields, bound to the new version.
    pub grant: Option<Sealed>,
    /// When the access token was obtained.
    pub access_issued_at: Option<UnixSeconds>,
    /// When it ends, if known.
    pub access_expires_at: Option<UnixSeconds>,
    /// The time of the change. State becomes active.
    pub now: UnixSeconds,
}

/// How the holder of a token record proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// By the token's value (`nxt_…`).
    Opaque,
    /// By a JWT that this install signed; the record's id is its `jti`, the digest that of the whole text.
    Run,
    /// By a client certificate that this install signed. The digest is of nothing; until the certificate is issued, the
    /// previous digest is that of the one-time code, and its end the code's.
    Certificate,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenScope {
    /// Requests with the granted connections.
    Use,
    /// Making narrower tokens (`POST /v1/tokens`).
    Mint,
}

/// An agent token, whatever it proves itself with: its digest and what it may do. Never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its public id.
    pub id: TokenId,
    /// Tenant and namespace.
    pub scope: Scope,
    /// The agent it belongs to.
    pub agent: AgentName,
    /// The run it was made for.
    pub run: Option<RunId>,
    /// SHA-256 of its value.
    pub digest: TokenDigest,
    /// The value before the last rotation and until when it works.
    pub previous: Option<(TokenDigest, UnixSeconds)>,
    /// The connections it may use.
    pub connections: Vec<ConnectionId>,
    /// The methods it may use; empty means all. Upper case.
    pub methods: Vec<String>,
    /// The path patterns it may use; empty means all.
    pub paths: Vec<String>,
    /// The host patterns it may use; empty means all.
    pub hosts: Vec<String>,
    /// What it is for.
    pub scopes: Vec<TokenScope>,
    /// How its holder proves itself.
    pub kind: TokenKind,
    /// The token that made it, with which it ends.
    pub parent: Option<TokenId>,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// How long it was made for, in seconds, which rotation repeats.
    pub lifetime: Option<i64>,
    /// When it ends.
    pub expires_at: Option<UnixSeconds>,
    /// When it was revoked.
    pub revoked_at: Option<UnixSeconds>,
}

/// A tenant's OAuth client at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRecord {
    /// The tenant (apps are shared by its namespaces; `default` namespace here).
    pub scope: Scope,
    /// The provider.
    pub provider: ProviderId,
    /// The OAuth client id.
    pub client_id: String,
    /// The sealed client secret.
    pub secret: Option<Sealed>,
    /// Where the provider sends people back to.
    pub redirect_uri: Option<String>,
    /// +1 on every change; bound into the envelope.
    pub version: u64,
    /// When it last changed.
    pub updated_at: UnixSeconds,
}

/// What changed after a generation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The store's generation now.
    pub generation: i64,
    /// Added or changed connections.
    pub connections: Vec<ConnectionRecord>,
    /// Added or changed tokens.
    pub tokens: Vec<TokenRecord>,
    /// Deleted connections.
    pub deleted_connections: Vec<ConnectionId>,
    /// Deleted tokens.
    pub deleted_tokens: Vec<TokenId>,
    /// Whether all agents are locked out.
    pub locked: bool,
    /// Every agent that is disabled now, changed or not.
    pub disabled_agents: Vec<(Scope, AgentName)>,
}

/// Who holds a refresh lease: enough to tell on the same host that the holder is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseOwner {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Process id.
    pub pid: u32,
    /// Process start time in clock ticks (`/proc/PID/stat` field 22).
    pub started: u64,
}

/// What came of asking for a refresh lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// Taken; `fence` goes with the write. `interrupted` is true when an earlier holder recorded an attempt on this
    /// version and died before its answer was stored.
    Acquired {
        /// The fencing number.
        fence: i64,
        /// Whether an attempt on this version was left without an answer.
        interrupted: bool,
    },
    /// Another live process holds it until then.
    Held {
        /// When the lease ends.
        until: UnixSeconds,
    },
    /// The record has another version already: adopt it.
    Moved(Box<ConnectionRecord>),
}

/// When a connection or token was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The connection's or token's id.
    pub id: String,
    /// When.
    pub last_used_at: UnixSeconds,
    /// From where (tokens only).
    pub address: Option<std::net::IpAddr>,
}
