//! Stores of many records.

use super::*;
use std::time::Instant;

/// So many connections, and as many tokens. The rows are made by SQLite, and listed by [`SqliteStore::accept`].
async fn filled(count: i64) -> (TempDir, SqliteStore) {
    let (directory, store) = store().await;
    store.insert_connection(&connection("first"), false).await.unwrap();
    store.insert_token(&token("first")).await.unwrap();
    let mut transaction = store.write().await.unwrap();
    let ids = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) ";
    for statement in [
        "INSERT INTO connections SELECT 'con_' || lower(hex(randomblob(5))) || printf('%08x', i), tenant, namespace, 'c' || i, \
         provider, definition, version, access_sealed, grant_sealed, access_issued_at, access_expires_at, state, \
         state_reason, disabled, created_at, updated_at, orphaned_at, generation, NULL, NULL FROM connections, n",
        "INSERT INTO tokens (id, tenant, namespace, agent, digest, connections, methods, paths, created_at, generation) \
         SELECT 'tok_' || lower(hex(randomblob(5))) || printf('%08x', i), tenant, namespace, agent, randomblob(32), connections, methods, \
         paths, created_at, generation FROM tokens, n",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(format!("{ids}{statement}")))
            .bind(count - 1)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    (directory, store)
}

#[tokio::test]
#[ignore = "a measurement: cargo nextest run --release --run-ignored only --no-capture many_records"]
async fn many_records_take() {
    let count = std::env::var("NEXUS_TEST_RECORDS").map_or(100_000, |count| count.parse().unwrap());
    let (_directory, store) = filled(count).await;
    let mut start = Instant::now();
    let mut lap = |what: &str| {
        eprintln!("{what}: {:?}", start.elapsed());
        start = Instant::now();
    };
    let accepted = store.accept(false).await.unwrap();
    assert_eq!((accepted.records, accepted.unreadable.len()), (2 * count.unsigned_abs(), 0));
    lap("listing all anew");
    let mut seen = store.changes_since(&Seen::default()).await.unwrap();
    assert_eq!(seen.tokens.len() as i64, count);
    lap("the first look");
    store.accept(false).await.unwrap();
    lap("listing all anew, unchanged");
    seen = store.changes_since(&seen.seen).await.unwrap();
    lap("a look");
    for name in ["x", "y", "z"] {
        let record = connection(name);
        store.insert_connection(&record, false).await.unwrap();
        lap("adding a connection");
        seen = store.changes_since(&seen.seen).await.unwrap();
        assert_eq!(seen.connections.len(), 1);
        lap("a look");
        store.insert_token(&token(name)).await.unwrap();
        lap("adding a token");
        store.update_credential(&record.id, &update(2), None).await.unwrap();
        lap("a credential");
        store.find_connection(&record.scope, name).await.unwrap();
        lap("finding by name");
        store.set_connection_disabled(&record.scope, name, true).await.unwrap();
        lap("disabling");
        store.delete_connection(&record.scope, name).await.unwrap();
        lap("deleting");
    }
    store.changes_since(&seen.seen).await.unwrap();
    lap("a look");
    let next = store.keyring.add(&RootKey::from_bytes(&[2; 32]));
    store.rekey_manifest(next).await.unwrap();
    lap("another key");
    store.verify(|_| Ok(())).await.unwrap();
    lap("verifying");
    store.changes_since(&seen.seen).await.unwrap();
    lap("a look after the change of keys");
}
