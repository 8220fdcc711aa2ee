//! The records as the store keeps them.

use super::{DoubtfulAgents, RecordKind, Seen};
use crate::secret::{Sealed, TokenDigest};
use crate::types::{
    AgentName, ConnectionId, ConnectionName, NamespaceName, ProviderId, RunId, Scope, TenantName, TokenId, UnixSeconds,
};
use std::collections::BTreeMap;

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

impl TokenScope {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Mint => "mint",
        }
    }
}

impl std::str::FromStr for TokenScope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "use" => Ok(Self::Use),
            "mint" => Ok(Self::Mint),
            // Cut, because an agent may have written it.
            other => Err(format!("{:?} is not a scope; write use or mint", other.chars().take(40).collect::<String>())),
        }
    }
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

/// What changed since a reader last looked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The store's generation now.
    pub generation: i64,
    /// Added or changed connections.
    pub connections: Vec<ConnectionRecord>,
    /// Added or changed tokens.
    pub tokens: Vec<TokenRecord>,
    /// Deleted connections, and those that are refused now.
    pub deleted_connections: Vec<ConnectionId>,
    /// Deleted tokens, and those that are refused now.
    pub deleted_tokens: Vec<TokenId>,
    /// Whether all agents are locked out. Set without a key, so always told and no part of the generation.
    pub locked: bool,
    /// Every agent that is disabled now, changed or not.
    pub disabled_agents: Vec<(Scope, AgentName)>,
    /// Those of whom nobody can tell.
    pub doubtful_agents: DoubtfulAgents,
    /// What fails the integrity check and did not before.
    pub failed: Vec<Failed>,
    /// Whether the file is an earlier state of the store than the one that was seen.
    pub went_back: bool,
    /// What has been seen now.
    pub seen: Seen,
}

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The row does not fit its tag.
    #[error("it was edited by something other than nexus")]
    Edited,
    /// Its bucket does not fit its MAC.
    #[error("it, or a record that is listed with it, was removed, added or rolled back by something other than nexus")]
    Bucket,
    /// The manifest lists it, and its row is gone.
    #[error("it was removed by something other than nexus")]
    Removed,
    /// The root does not fit.
    #[error("the manifest's root does not fit: the counter or the manifest was edited or rolled back")]
    Root,
    /// The row is the one that was written, and makes no sense.
    #[error("it cannot be read ({0})")]
    Unreadable(String),
    /// Its envelope does not open.
    #[error("what is sealed in it does not open ({0})")]
    Closed(String),
}

impl Reason {
    /// A word for the audit record.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Edited => "record_edited",
            Self::Bucket => "bucket_mismatch",
            Self::Removed => "record_removed",
            Self::Root => "root_mismatch",
            Self::Unreadable(_) => "record_unreadable",
            Self::Closed(_) => "envelope_closed",
        }
    }
}

/// A record that is refused. Its texts are as they are in the file, whoever wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// `connection`, `token`, `app`, `tenant`, `agent`; `bucket` for one whose records are all gone; `manifest`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Its name, or its agent's.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Why.
    pub reason: Reason,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.id)?;
        if !self.name.is_empty() && self.name != self.id {
            write!(f, " ({})", self.name)?;
        }
        if !self.tenant.is_empty() {
            write!(f, " of tenant {}", self.tenant)?;
        }
        write!(f, " fails the integrity check: {}", self.reason)
    }
}

/// A record of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A connection.
    Connection(Box<ConnectionRecord>),
    /// A token.
    Token(Box<TokenRecord>),
    /// An app registration.
    App(Box<AppRecord>),
    /// Another one, that has nothing sealed in it.
    Other,
}

/// What a check of the whole store found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The store's generation.
    pub generation: i64,
    /// How many records of each kind there are, refused ones too.
    pub counts: BTreeMap<RecordKind, u64>,
    /// What is refused.
    pub failed: Vec<Failed>,
}

/// What came of listing all records anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// How many records are listed.
    pub records: u64,
    /// Those of them that cannot be read and stay refused.
    pub unreadable: Vec<Failed>,
    /// Those that could not be read and were deleted.
    pub removed: Vec<Failed>,
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

/// A tenant and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSummary {
    /// Its name.
    pub tenant: TenantName,
    /// When it was made by name; none for one that exists by its records.
    pub created_at: Option<UnixSeconds>,
    /// In how many namespaces it has connections or tokens.
    pub namespaces: u64,
    /// How many connections it has.
    pub connections: u64,
    /// How many tokens that were not revoked.
    pub tokens: u64,
    /// How many app registrations.
    pub apps: u64,
}

/// A namespace and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSummary {
    /// Its name.
    pub namespace: NamespaceName,
    /// How many connections it has.
    pub connections: u64,
    /// How many tokens that were not revoked.
    pub tokens: u64,
}

/// What the deletion of a tenant or namespace reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emptied {
    /// Connections that are orphans now.
    pub connections: u64,
    /// Tokens that are revoked now.
    pub tokens: u64,
    /// App registrations that are gone.
    pub apps: u64,
}
