//! Agent tokens: digests and grants.

use super::change::Change;
use super::{SqliteStore, readable, rows};
use crate::secret::TokenDigest;
use crate::store::{RecordKind, StoreError, TokenRecord};
use crate::types::{Scope, TokenId, UnixSeconds};
use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};

impl SqliteStore {
    pub(super) async fn add_token(&self, record: &TokenRecord) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        change.touch(RecordKind::Token, record.id.as_str()).await?;
        for digest in [Some(record.digest), record.previous.map(|(digest, _)| digest)].into_iter().flatten() {
            refuse_known(change.connection(), &record.id, digest).await?;
        }
        let generation = change.generation();
        let list = |json: Result<String, serde_json::Error>| json.expect("lists of texts have a JSON form");
        let inserted = query(
            "INSERT INTO tokens (id, tenant, namespace, agent, run, digest, previous_digest, previous_valid_until, \
             connections, methods, paths, hosts, scopes, kind, parent, created_at, lifetime, expires_at, revoked_at, \
             generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(record.id.as_str())
        .bind(record.scope.tenant.as_str())
        .bind(record.scope.namespace.as_str())
        .bind(record.agent.as_str())
        .bind(record.run.as_ref().map(|run| run.as_str()))
        .bind(&record.digest.0[..])
        .bind(record.previous.as_ref().map(|(digest, _)| &digest.0[..]))
        .bind(record.previous.map(|(_, until)| until))
        .bind(list(serde_json::to_string(&record.connections)))
        .bind(list(serde_json::to_string(&record.methods)))
        .bind(list(serde_json::to_string(&record.paths)))
        .bind(list(serde_json::to_string(&record.hosts)))
        .bind(list(serde_json::to_string(&record.scopes)))
        .bind(rows::kind_text(record.kind))
        .bind(record.parent.as_ref().map(TokenId::as_str))
        .bind(record.created_at)
        .bind(record.lifetime)
        .bind(record.expires_at)
        .bind(record.revoked_at)
        .bind(generation)
        .execute(change.connection())
        .await;
        match inserted {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Err(exists(&record.id)),
            inserted => inserted?,
        };
        change.commit().await
    }

    pub(super) async fn read_tokens(&self, scope: &Scope) -> Result<Vec<TokenRecord>, StoreError> {
        let (mut transaction, key) = self.keyed().await?;
        let rows = query("SELECT rowid, * FROM tokens WHERE tenant = ? AND namespace = ? ORDER BY created_at, id")
            .bind(scope.tenant.as_str())
            .bind(scope.namespace.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        readable(RecordKind::Token, &rows, key.as_ref(), rows::token)
    }

    pub(super) async fn write_revocation(
        &self,
        scope: &Scope,
        id: &TokenId,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        if find(&mut change, scope, id).await?.revoked_at.is_some() {
            return Ok(());
        }
        let generation = change.generation();
        query("UPDATE tokens SET revoked_at = ?, generation = ? WHERE id = ?")
            .bind(now)
            .bind(generation)
            .bind(id.as_str())
            .execute(change.connection())
            .await?;
        change.commit().await
    }

    pub(super) async fn write_rotation(
        &self,
        scope: &Scope,
        id: &TokenId,
        digest: TokenDigest,
        old_valid_until: UnixSeconds,
        expires_at: Option<UnixSeconds>,
    ) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        let old = find(&mut change, scope, id).await?;
        if old.revoked_at.is_some() {
            // A new value would never work.
            return Err(not_found(id));
        }
        refuse_known(change.connection(), id, digest).await?;
        let generation = change.generation();
        query(
            "UPDATE tokens SET previous_digest = digest, previous_valid_until = ?, digest = ?, expires_at = ?, \
             generation = ? WHERE id = ?",
        )
        .bind(old_valid_until)
        .bind(&digest.0[..])
        .bind(expires_at)
        .bind(generation)
        .bind(id.as_str())
        .execute(change.connection())
        .await?;
        change.commit().await
    }
}

/// The token that is to be changed, checked.
async fn find(change: &mut Change, scope: &Scope, id: &TokenId) -> Result<TokenRecord, StoreError> {
    let row = query("SELECT * FROM tokens WHERE tenant = ? AND namespace = ? AND id = ?")
        .bind(scope.tenant.as_str())
        .bind(scope.namespace.as_str())
        .bind(id.as_str())
        .fetch_optional(change.connection())
        .await?;
    let row = row.ok_or_else(|| not_found(id))?;
    change.touch(RecordKind::Token, id.as_str()).await?;
    Ok(rows::token(&row)?)
}

/// A digest is of one token, be it the value now or the one before.
async fn refuse_known(transaction: &mut SqliteConnection, id: &TokenId, digest: TokenDigest) -> Result<(), StoreError> {
    let known: bool = query_scalar("SELECT EXISTS (SELECT 1 FROM tokens WHERE digest = ?1 OR previous_digest = ?1)")
        .bind(&digest.0[..])
        .fetch_one(transaction)
        .await?;
    if known { Err(exists(id)) } else { Ok(()) }
}

fn exists(id: &TokenId) -> StoreError {
    StoreError::Exists { kind: "token", name: id.to_string() }
}

fn not_found(id: &TokenId) -> StoreError {
    StoreError::NotFound { kind: "token", name: id.to_string() }
}
