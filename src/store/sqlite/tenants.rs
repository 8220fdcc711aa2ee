//! Tenants and namespaces: what they have, and their end.

use super::change::Change;
use super::{SqliteStore, rows};
use crate::store::{Emptied, NamespaceSummary, RecordKind, StoreError, TenantSummary};
use crate::types::{Scope, TenantName, UnixSeconds};
use sqlx::{query, query_as, query_scalar};

impl SqliteStore {
    pub(super) async fn add_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<(), StoreError> {
        let mut change = self.change().await?;
        change.touch(RecordKind::Tenant, tenant.as_str()).await?;
        let known: bool = query_scalar("SELECT EXISTS (SELECT 1 FROM tenants WHERE tenant = ?)")
            .bind(tenant.as_str())
            .fetch_one(change.connection())
            .await?;
        if known {
            return Err(StoreError::Exists { kind: "tenant", name: tenant.to_string() });
        }
        let generation = change.generation();
        query("INSERT INTO tenants (tenant, created_at, generation) VALUES (?, ?, ?)")
            .bind(tenant.as_str())
            .bind(now)
            .bind(generation)
            .execute(change.connection())
            .await?;
        change.commit().await
    }

    pub(super) async fn read_tenants(&self) -> Result<Vec<TenantSummary>, StoreError> {
        let rows = query(
            "WITH living AS ( \
                 SELECT tenant, namespace, 1 AS connections, 0 AS tokens FROM connections WHERE orphaned_at IS NULL \
                 UNION ALL SELECT tenant, namespace, 0, 1 FROM tokens WHERE revoked_at IS NULL), \
             names AS (SELECT tenant FROM tenants UNION SELECT tenant FROM living UNION SELECT tenant FROM apps) \
             SELECT names.tenant, tenants.created_at, \
                 (SELECT count(DISTINCT namespace) FROM living WHERE living.tenant = names.tenant) AS namespaces, \
                 (SELECT coalesce(sum(connections), 0) FROM living WHERE living.tenant = names.tenant) AS connections, \
                 (SELECT coalesce(sum(tokens), 0) FROM living WHERE living.tenant = names.tenant) AS tokens, \
                 (SELECT count(*) FROM apps WHERE apps.tenant = names.tenant) AS apps \
             FROM names LEFT JOIN tenants ON tenants.tenant = names.tenant ORDER BY names.tenant",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(rows::tenant_summary).collect::<Result<_, _>>()?)
    }

    pub(super) async fn read_namespaces(&self, tenant: &TenantName) -> Result<Vec<NamespaceSummary>, StoreError> {
        let rows = query(
            "SELECT namespace, sum(connections) AS connections, sum(tokens) AS tokens FROM ( \
                 SELECT namespace, 1 AS connections, 0 AS tokens FROM connections \
                 WHERE tenant = ?1 AND orphaned_at IS NULL \
                 UNION ALL SELECT namespace, 0, 1 FROM tokens WHERE tenant = ?1 AND revoked_at IS NULL) \
             GROUP BY namespace ORDER BY namespace",
        )
        .bind(tenant.as_str())
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(rows::namespace_summary).collect::<Result<_, _>>()?)
    }

    pub(super) async fn remove_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<Emptied, StoreError> {
        let mut change = self.change().await?;
        let of = Of { tenant: tenant.as_str(), namespace: None };
        let mut emptied = empty(&mut change, &of, now).await?;
        emptied.apps = delete_apps(&mut change, tenant).await?;
        change.touch(RecordKind::Tenant, tenant.as_str()).await?;
        let made = query("DELETE FROM tenants WHERE tenant = ?").bind(tenant.as_str()).execute(change.connection());
        if made.await?.rows_affected() == 0 && emptied == Emptied::default() {
            return Err(StoreError::NotFound { kind: "tenant", name: tenant.to_string() });
        }
        change.commit().await.map(|()| emptied)
    }

    pub(super) async fn remove_namespace(&self, scope: &Scope, now: UnixSeconds) -> Result<Emptied, StoreError> {
        let mut change = self.change().await?;
        let of = Of { tenant: scope.tenant.as_str(), namespace: Some(scope.namespace.as_str()) };
        let emptied = empty(&mut change, &of, now).await?;
        if emptied == Emptied::default() {
            return Err(StoreError::NotFound { kind: "namespace", name: scope.namespace.to_string() });
        }
        change.commit().await.map(|()| emptied)
    }
}

/// Whose records: a tenant's, or those of one of its namespaces.
struct Of<'a> {
    tenant: &'a str,
    namespace: Option<&'a str>,
}

async fn empty(change: &mut Change, of: &Of<'_>, now: UnixSeconds) -> Result<Emptied, StoreError> {
    let connections = orphan_connections(change, of, now).await?;
    let tokens = revoke_tokens(change, of, now).await?;
    delete_disabled_agents(change, of).await?;
    Ok(Emptied { connections, tokens, apps: 0 })
}

/// The ids that a statement over tenant and namespace gives.
async fn ids(change: &mut Change, of: &Of<'_>, statement: &'static str) -> Result<Vec<String>, StoreError> {
    Ok(query_scalar(statement).bind(of.tenant).bind(of.namespace).fetch_all(change.connection()).await?)
}

/// Their refreshes end with them: what is under way may not be stored any more.
async fn orphan_connections(change: &mut Change, of: &Of<'_>, now: UnixSeconds) -> Result<u64, StoreError> {
    let found = ids(
        change,
        of,
        "SELECT id FROM connections WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2) AND orphaned_at IS NULL",
    )
    .await?;
    let found = change.touch_fitting(RecordKind::Connection, found).await?;
    let generation = change.generation();
    for id in &found {
        query("DELETE FROM leases WHERE connection_id = ?").bind(id).execute(change.connection()).await?;
        query("UPDATE connections SET orphaned_at = ?, generation = ? WHERE id = ?")
            .bind(now)
            .bind(generation)
            .bind(id)
            .execute(change.connection())
            .await?;
    }
    Ok(found.len() as u64)
}

async fn revoke_tokens(change: &mut Change, of: &Of<'_>, now: UnixSeconds) -> Result<u64, StoreError> {
    let found = ids(
        change,
        of,
        "SELECT id FROM tokens WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2) AND revoked_at IS NULL",
    )
    .await?;
    let found = change.touch_fitting(RecordKind::Token, found).await?;
    let generation = change.generation();
    for id in &found {
        query("UPDATE tokens SET revoked_at = ?, generation = ? WHERE id = ?")
            .bind(now)
            .bind(generation)
            .bind(id)
            .execute(change.connection())
            .await?;
    }
    Ok(found.len() as u64)
}

async fn delete_disabled_agents(change: &mut Change, of: &Of<'_>) -> Result<(), StoreError> {
    let found: Vec<(String, String)> =
        query_as("SELECT namespace, agent FROM disabled_agents WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2)")
            .bind(of.tenant)
            .bind(of.namespace)
            .fetch_all(change.connection())
            .await?;
    for (namespace, agent) in found {
        change.touch(RecordKind::Agent, &format!("{}/{namespace}/{agent}", of.tenant)).await?;
        query("DELETE FROM disabled_agents WHERE tenant = ? AND namespace = ? AND agent = ?")
            .bind(of.tenant)
            .bind(namespace)
            .bind(agent)
            .execute(change.connection())
            .await?;
    }
    Ok(())
}

async fn delete_apps(change: &mut Change, tenant: &TenantName) -> Result<u64, StoreError> {
    let providers: Vec<String> = query_scalar("SELECT provider FROM apps WHERE tenant = ?")
        .bind(tenant.as_str())
        .fetch_all(change.connection())
        .await?;
    for provider in &providers {
        change.touch(RecordKind::App, &format!("{tenant}/{provider}")).await?;
    }
    query("DELETE FROM apps WHERE tenant = ?").bind(tenant.as_str()).execute(change.connection()).await?;
    Ok(providers.len() as u64)
}
