//! Tenants and namespaces: what they have, and their end.

use super::{SqliteStore, next_generation, rows};
use crate::store::{Emptied, NamespaceSummary, StoreError, TenantSummary};
use crate::types::{Scope, TenantName, UnixSeconds};
use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};

impl SqliteStore {
    pub(super) async fn add_tenant(&self, tenant: &TenantName, now: UnixSeconds) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let known: bool = query_scalar("SELECT EXISTS (SELECT 1 FROM tenants WHERE tenant = ?)")
            .bind(tenant.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        if known {
            return Err(StoreError::Exists { kind: "tenant", name: tenant.to_string() });
        }
        let generation = next_generation(&mut transaction).await?;
        query("INSERT INTO tenants (tenant, created_at, generation) VALUES (?, ?, ?)")
            .bind(tenant.as_str())
            .bind(now)
            .bind(generation)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
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
        let mut transaction = self.write().await?;
        let generation = next_generation(&mut transaction).await?;
        let of = Of { tenant: tenant.as_str(), namespace: None };
        let mut emptied = empty(&mut transaction, &of, now, generation).await?;
        emptied.apps = delete(&mut transaction, "DELETE FROM apps WHERE tenant = ?", tenant).await?;
        let made = delete(&mut transaction, "DELETE FROM tenants WHERE tenant = ?", tenant).await?;
        if emptied == Emptied::default() && made == 0 {
            return Err(StoreError::NotFound { kind: "tenant", name: tenant.to_string() });
        }
        Ok(transaction.commit().await.map(|()| emptied)?)
    }

    pub(super) async fn remove_namespace(&self, scope: &Scope, now: UnixSeconds) -> Result<Emptied, StoreError> {
        let mut transaction = self.write().await?;
        let generation = next_generation(&mut transaction).await?;
        let of = Of { tenant: scope.tenant.as_str(), namespace: Some(scope.namespace.as_str()) };
        let emptied = empty(&mut transaction, &of, now, generation).await?;
        if emptied == Emptied::default() {
            return Err(StoreError::NotFound { kind: "namespace", name: scope.namespace.to_string() });
        }
        Ok(transaction.commit().await.map(|()| emptied)?)
    }
}

/// Whose records: a tenant's, or those of one of its namespaces.
struct Of<'a> {
    tenant: &'a str,
    namespace: Option<&'a str>,
}

async fn empty(
    transaction: &mut SqliteConnection,
    of: &Of<'_>,
    now: UnixSeconds,
    generation: i64,
) -> Result<Emptied, StoreError> {
    Ok(Emptied {
        connections: orphan_connections(transaction, of, now, generation).await?,
        tokens: revoke_tokens(transaction, of, now, generation).await?,
        apps: delete_disabled_agents(transaction, of).await.map(|()| 0)?,
    })
}

/// Their refreshes end with them: what is under way may not be stored any more.
async fn orphan_connections(
    transaction: &mut SqliteConnection,
    of: &Of<'_>,
    now: UnixSeconds,
    generation: i64,
) -> Result<u64, StoreError> {
    query(
        "DELETE FROM leases WHERE connection_id IN (SELECT id FROM connections \
         WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2))",
    )
    .bind(of.tenant)
    .bind(of.namespace)
    .execute(&mut *transaction)
    .await?;
    let orphaned = query(
        "UPDATE connections SET orphaned_at = ?3, generation = ?4 \
         WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2) AND orphaned_at IS NULL",
    )
    .bind(of.tenant)
    .bind(of.namespace)
    .bind(now)
    .bind(generation)
    .execute(transaction)
    .await?;
    Ok(orphaned.rows_affected())
}

async fn revoke_tokens(
    transaction: &mut SqliteConnection,
    of: &Of<'_>,
    now: UnixSeconds,
    generation: i64,
) -> Result<u64, StoreError> {
    let revoked = query(
        "UPDATE tokens SET revoked_at = ?3, generation = ?4 \
         WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2) AND revoked_at IS NULL",
    )
    .bind(of.tenant)
    .bind(of.namespace)
    .bind(now)
    .bind(generation)
    .execute(transaction)
    .await?;
    Ok(revoked.rows_affected())
}

async fn delete_disabled_agents(transaction: &mut SqliteConnection, of: &Of<'_>) -> Result<(), StoreError> {
    query("DELETE FROM disabled_agents WHERE tenant = ?1 AND (?2 IS NULL OR namespace = ?2)")
        .bind(of.tenant)
        .bind(of.namespace)
        .execute(transaction)
        .await?;
    Ok(())
}

async fn delete(
    transaction: &mut SqliteConnection,
    statement: &'static str,
    tenant: &TenantName,
) -> Result<u64, StoreError> {
    Ok(query(statement).bind(tenant.as_str()).execute(transaction).await?.rows_affected())
}
