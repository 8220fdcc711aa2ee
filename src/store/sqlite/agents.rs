//! Agents as such: invitations that are taken, and agents that are disabled.

use super::{SqliteStore, rows};
use crate::secret::TokenDigest;
use crate::store::manifest::agent_id;
use crate::store::{RecordKind, StoreError, TokenKind, TokenRecord};
use crate::types::{AgentName, Scope, UnixSeconds};
use sqlx::{query, query_as};

impl SqliteStore {
    pub(super) async fn take_code(&self, code: TokenDigest, now: UnixSeconds) -> Result<TokenRecord, StoreError> {
        let mut change = self.change().await?;
        let row = query("SELECT * FROM tokens WHERE previous_digest = ?")
            .bind(&code.0[..])
            .fetch_optional(change.connection())
            .await?;
        let mut record = row.as_ref().map(rows::token).transpose()?.ok_or_else(no_invitation)?;
        let is_open = record.kind == TokenKind::Certificate
            && record.revoked_at.is_none()
            && record.expires_at.is_none_or(|end| end > now)
            && record.previous.is_some_and(|(_, end)| end > now);
        if !is_open {
            return Err(no_invitation());
        }
        change.touch(RecordKind::Token, record.id.as_str()).await?;
        record.previous = None;
        let generation = change.generation();
        query("UPDATE tokens SET previous_digest = NULL, previous_valid_until = NULL, generation = ? WHERE id = ?")
            .bind(generation)
            .bind(record.id.as_str())
            .execute(change.connection())
            .await?;
        change.commit().await?;
        Ok(record)
    }

    pub(super) async fn write_agent_disabled(
        &self,
        scope: &Scope,
        agent: &AgentName,
        disabled: bool,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        let (tenant, namespace) = (scope.tenant.as_str(), scope.namespace.as_str());
        change.touch(RecordKind::Agent, &agent_id(scope, agent)).await?;
        let generation = change.generation();
        if disabled {
            query(
                "INSERT INTO disabled_agents (tenant, namespace, agent, disabled_at, generation) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(tenant)
            .bind(namespace)
            .bind(agent.as_str())
            .bind(now)
            .bind(generation)
            .execute(change.connection())
            .await?;
        } else {
            query("DELETE FROM disabled_agents WHERE tenant = ? AND namespace = ? AND agent = ?")
                .bind(tenant)
                .bind(namespace)
                .bind(agent.as_str())
                .execute(change.connection())
                .await?;
        }
        change.commit().await
    }

    pub(super) async fn read_disabled_agents(
        &self,
        scope: &Scope,
    ) -> Result<Vec<(AgentName, UnixSeconds)>, StoreError> {
        let rows: Vec<(String, i64)> = query_as(
            "SELECT agent, disabled_at FROM disabled_agents WHERE tenant = ? AND namespace = ? ORDER BY agent",
        )
        .bind(scope.tenant.as_str())
        .bind(scope.namespace.as_str())
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.into_iter().filter_map(|(agent, at)| Some((AgentName::parse(&agent).ok()?, at))).collect())
    }
}

/// The code is not repeated, nor anything of it.
fn no_invitation() -> StoreError {
    StoreError::NotFound { kind: "invitation", name: "with this code".to_owned() }
}
