//! From rows to records. A value that does not parse means that the row was not written by this program.

use crate::secret::{Sealed, TokenDigest};
use crate::store::{
    AppRecord, ConnectionRecord, ConnectionState, LeaseOwner, NamespaceSummary, TenantSummary, TokenKind, TokenRecord,
};
use crate::types::{AgentName, ConnectionId, NamespaceName, Scope, TenantName};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

type Read<T> = Result<T, sqlx::Error>;

/// A column through the parser of its type.
fn parsed<T, E>(row: &SqliteRow, column: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Read<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    parse(row.try_get(column)?).map_err(|error| damaged(column, error))
}

fn damaged(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

fn version(row: &SqliteRow) -> Read<u64> {
    u64::try_from(row.try_get::<i64, _>("version")?).map_err(|error| damaged("version", error))
}

fn sealed(row: &SqliteRow, column: &str) -> Read<Option<Sealed>> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(Sealed::from_bytes))
}

fn digest(row: &SqliteRow, column: &str) -> Read<Option<TokenDigest>> {
    let Some(bytes) = row.try_get::<Option<&[u8]>, _>(column)? else { return Ok(None) };
    Ok(Some(TokenDigest(bytes.try_into().map_err(|error: std::array::TryFromSliceError| damaged(column, error))?)))
}

pub(super) fn scope(row: &SqliteRow) -> Read<Scope> {
    Ok(Scope {
        tenant: parsed(row, "tenant", TenantName::parse)?,
        namespace: parsed(row, "namespace", NamespaceName::parse)?,
    })
}

pub(super) fn agent(row: &SqliteRow) -> Read<AgentName> {
    parsed(row, "agent", AgentName::parse)
}

pub(super) fn state_text(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Active => "active",
        ConnectionState::Attention => "attention",
    }
}

pub(super) fn kind_text(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Opaque => "opaque",
        TokenKind::Run => "run",
        TokenKind::Certificate => "certificate",
    }
}

pub(super) fn connection(row: &SqliteRow) -> Read<ConnectionRecord> {
    Ok(ConnectionRecord {
        id: parsed(row, "id", ConnectionId::parse)?,
        scope: scope(row)?,
        name: parsed(row, "name", str::parse)?,
        provider: parsed(row, "provider", str::parse)?,
        definition: row.try_get("definition")?,
        version: version(row)?,
        access: Sealed::from_bytes(row.try_get("access_sealed")?),
        grant: sealed(row, "grant_sealed")?,
        access_issued_at: row.try_get("access_issued_at")?,
        access_expires_at: row.try_get("access_expires_at")?,
        state: match row.try_get("state")? {
            "active" => ConnectionState::Active,
            "attention" => ConnectionState::Attention,
            _ => return Err(damaged("state", "it is neither active nor attention")),
        },
        state_reason: row.try_get("state_reason")?,
        disabled: row.try_get("disabled")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        orphaned_at: row.try_get("orphaned_at")?,
    })
}

pub(super) fn token(row: &SqliteRow) -> Read<TokenRecord> {
    let previous_valid_until: Option<i64> = row.try_get("previous_valid_until")?;
    let run: Option<&str> = row.try_get("run")?;
    Ok(TokenRecord {
        id: parsed(row, "id", str::parse)?,
        scope: scope(row)?,
        agent: parsed(row, "agent", str::parse)?,
        run: run.map(str::parse).transpose().map_err(|error| damaged("run", error))?,
        digest: digest(row, "digest")?.ok_or_else(|| damaged("digest", "it is null"))?,
        previous: digest(row, "previous_digest")?.zip(previous_valid_until),
        // The ids and names in lists go through their parsers here too.
        connections: parsed(row, "connections", |json| serde_json::from_str(json))?,
        methods: parsed(row, "methods", |json| serde_json::from_str(json))?,
        paths: parsed(row, "paths", |json| serde_json::from_str(json))?,
        hosts: parsed(row, "hosts", |json| serde_json::from_str(json))?,
        scopes: parsed(row, "scopes", |json| serde_json::from_str(json))?,
        kind: match row.try_get("kind")? {
            "opaque" => TokenKind::Opaque,
            "run" => TokenKind::Run,
            "certificate" => TokenKind::Certificate,
            _ => return Err(damaged("kind", "it is neither opaque, run nor certificate")),
        },
        parent: row
            .try_get::<Option<&str>, _>("parent")?
            .map(str::parse)
            .transpose()
            .map_err(|error| damaged("parent", error))?,
        created_at: row.try_get("created_at")?,
        lifetime: row.try_get("lifetime")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

pub(super) fn app(row: &SqliteRow) -> Read<AppRecord> {
    Ok(AppRecord {
        scope: Scope { tenant: parsed(row, "tenant", TenantName::parse)?, ..Scope::default() },
        provider: parsed(row, "provider", str::parse)?,
        client_id: row.try_get("client_id")?,
        secret: sealed(row, "secret_sealed")?,
        redirect_uri: row.try_get("redirect_uri")?,
        version: version(row)?,
        updated_at: row.try_get("updated_at")?,
    })
}

pub(super) fn lease_owner(row: &SqliteRow) -> Read<LeaseOwner> {
    let number = |column: &str| row.try_get::<i64, _>(column);
    Ok(LeaseOwner {
        boot: row.try_get("owner_boot")?,
        pid: u32::try_from(number("owner_pid")?).map_err(|error| damaged("owner_pid", error))?,
        // Stored bit for bit; ticks since the boot never reach the sign.
        started: number("owner_started")?.cast_unsigned(),
    })
}

pub(super) fn tenant_summary(row: &SqliteRow) -> Read<TenantSummary> {
    Ok(TenantSummary {
        tenant: parsed(row, "tenant", TenantName::parse)?,
        created_at: row.try_get("created_at")?,
        namespaces: count(row, "namespaces")?,
        connections: count(row, "connections")?,
        tokens: count(row, "tokens")?,
        apps: count(row, "apps")?,
    })
}

pub(super) fn namespace_summary(row: &SqliteRow) -> Read<NamespaceSummary> {
    Ok(NamespaceSummary {
        namespace: parsed(row, "namespace", NamespaceName::parse)?,
        connections: count(row, "connections")?,
        tokens: count(row, "tokens")?,
    })
}

fn count(row: &SqliteRow, column: &str) -> Read<u64> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| damaged(column, error))
}

/// A version as SQLite keeps it. Versions count changes one by one and never come near the limit.
pub(super) fn stored_version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
