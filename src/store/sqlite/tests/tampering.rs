//! What was not written by this program is noticed.

use super::*;
use crate::store::Failed;
use proptest::prelude::*;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column, Row, TypeInfo, ValueRef};
use std::collections::{BTreeMap, BTreeSet};

/// A value as it is in a column.
#[derive(Debug, Clone, PartialEq)]
enum Raw {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

const TABLES: [(&str, &str); 5] = [
    ("connection", "connections"),
    ("token", "tokens"),
    ("app", "apps"),
    ("tenant", "tenants"),
    ("agent", "disabled_agents"),
];

async fn run(store: &SqliteStore, sql: String) {
    sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&store.writer).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

async fn rows(store: &SqliteStore, table: &str) -> Vec<(i64, BTreeMap<String, Raw>)> {
    let sql = format!("SELECT rowid AS row_number, * FROM {table} ORDER BY rowid");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&store.writer).await.unwrap();
    rows.iter().map(|row| (row.get("row_number"), values(row))).collect()
}

fn values(row: &SqliteRow) -> BTreeMap<String, Raw> {
    let columns = row.columns().iter().filter(|column| column.name() != "row_number");
    let value = |index: usize| {
        let raw = row.try_get_raw(index).unwrap();
        if raw.is_null() {
            return Raw::Null;
        }
        match raw.type_info().name() {
            "INTEGER" => Raw::Integer(row.get(index)),
            "TEXT" => Raw::Text(row.get(index)),
            _ => Raw::Blob(row.get(index)),
        }
    };
    columns.map(|column| (column.name().to_owned(), value(column.ordinal()))).collect()
}

/// Writes a value behind the store's back. A type that the column does not take changes nothing.
async fn put(connection: &mut sqlx::SqliteConnection, table: &str, row: i64, column: &str, value: &Raw) {
    let sql = format!("UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql));
    let query = match value {
        Raw::Null => query.bind(None::<i64>),
        Raw::Integer(number) => query.bind(*number),
        Raw::Text(text) => query.bind(text.clone()),
        Raw::Blob(bytes) => query.bind(bytes.clone()),
    };
    if let Err(error) = query.bind(row).execute(connection).await {
        assert!(error.to_string().contains("cannot store"), "{table}.{column}: {error}");
    }
}

/// Every value that differs from this one in one bit; of a text those that are still text.
fn flips(value: &Raw) -> Vec<Raw> {
    let bits = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        (0..bytes.len() * 8).map(move |bit| {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
    };
    match value {
        Raw::Null => vec![Raw::Integer(0), Raw::Text("x".to_owned()), Raw::Blob(vec![0])],
        Raw::Integer(number) => (0..64).map(|bit| Raw::Integer(number ^ (1 << bit))).chain([Raw::Null]).collect(),
        Raw::Text(text) => {
            bits(text.as_bytes()).filter_map(|bytes| String::from_utf8(bytes).ok()).map(Raw::Text).collect()
        }
        Raw::Blob(bytes) => bits(bytes).map(Raw::Blob).chain([Raw::Null, Raw::Blob(vec![])]).collect(),
    }
}

/// A record of each kind that has every column filled, and one more of each that is to go on working.
async fn one_of_each(store: &SqliteStore) {
    for name in ["a", "b"] {
        let mut connection = connection(name);
        (connection.state, connection.state_reason) = (ConnectionState::Attention, Some("why".to_owned()));
        store.insert_connection(&connection, false).await.unwrap();
        let mut token = token(name);
        token.previous = Some((TokenDigest(crate::secret::random_bytes()), NOW));
        (token.parent, token.revoked_at) = (Some(TokenId::generate()), Some(NOW));
        store.insert_token(&token).await.unwrap();
        let app = AppRecord {
            scope: Scope::default(),
            provider: name.parse().unwrap(),
            client_id: "Iv1".to_owned(),
            secret: Some(Sealed::from_bytes(b"sealed")),
            redirect_uri: Some("http://127.0.0.1:1".to_owned()),
            version: 1,
            updated_at: NOW,
        };
        store.put_app(&app).await.unwrap();
        insert_others(store, name).await;
    }
}

/// A tenant and a disabled agent; their own commands are elsewhere.
async fn insert_others(store: &SqliteStore, name: &str) {
    let mut change = store.change().await.unwrap();
    change.touch(RecordKind::Tenant, name).await.unwrap();
    let generation = change.generation();
    sqlx::query("INSERT INTO tenants (tenant, created_at, generation) VALUES (?, ?, ?)")
        .bind(name)
        .bind(NOW)
        .bind(generation)
        .execute(change.connection())
        .await
        .unwrap();
    change.touch(RecordKind::Agent, &format!("default/default/{name}")).await.unwrap();
    sqlx::query(
        "INSERT INTO disabled_agents (tenant, namespace, agent, disabled_at, generation) \
         VALUES ('default', 'default', ?, ?, ?)",
    )
    .bind(name)
    .bind(NOW)
    .bind(generation)
    .execute(change.connection())
    .await
    .unwrap();
    change.commit().await.unwrap();
}

async fn failures(store: &SqliteStore) -> Vec<Failed> {
    store.verify(|_| Ok(())).await.unwrap().failed
}

/// Fails unless `store` verifies.
async fn assert_sound(store: &SqliteStore, what: &str) {
    assert_eq!(failures(store).await, [], "{what}");
}

#[tokio::test]
async fn every_flipped_bit_of_every_column_is_noticed() {
    let (_directory, store) = store().await;
    one_of_each(&store).await;
    assert_sound(&store, "before").await;
    // So that no rule of the schema keeps a bit from being flipped.
    for pragma in ["PRAGMA ignore_check_constraints = ON", "PRAGMA writable_schema = ON"] {
        run(&store, pragma.to_owned()).await;
    }
    run(&store, "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'".to_owned()).await;
    run(&store, "PRAGMA writable_schema = RESET".to_owned()).await;
    let mut flipped = 0;
    for (kind, table) in TABLES {
        let (row, columns) = rows(&store, table).await.remove(0);
        for (column, value) in &columns {
            for other in flips(value) {
                let mut transaction = store.writer.begin().await.unwrap();
                put(&mut transaction, table, row, column, &other).await;
                let sql = format!("SELECT {column} IS NOT ? FROM {table} WHERE rowid = {row}");
                let query = sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(sql));
                let query = match value {
                    Raw::Null => query.bind(None::<i64>),
                    Raw::Integer(number) => query.bind(*number),
                    Raw::Text(text) => query.bind(text.clone()),
                    Raw::Blob(bytes) => query.bind(bytes.clone()),
                };
                // A type that the column does not take changes nothing.
                if query.fetch_one(&mut *transaction).await.unwrap() {
                    let state = manifest::State::read(&mut transaction).await.unwrap();
                    let key = state.key(&store.keyring).unwrap();
                    let found =
                        verify::examine(&mut transaction, &state, key.as_ref(), &store.install_id).await.unwrap();
                    let refused: Vec<_> = found.rows.iter().filter(|(_, reason)| reason.is_some()).collect();
                    assert!(
                        refused.iter().any(|(row, _)| row.kind.as_str() == kind),
                        "{table}.{column}: {value:?} -> {other:?}: {refused:?}"
                    );
                    // Ten records in 1,024 buckets: with its id a row may move to another's, and no more.
                    assert!(refused.len() <= 2, "{table}.{column}: {other:?}: the others go on: {refused:?}");
                    flipped += 1;
                }
                transaction.rollback().await.unwrap();
            }
        }
    }
    assert_sound(&store, "after").await;
    assert!(flipped > 5000, "{flipped}");
}

/// 100 records, 10 in each of two tenants for each of four kinds and more.
async fn a_hundred(store: &SqliteStore) {
    for n in 0..20 {
        let tenant = if n % 2 == 0 { "acme" } else { "other" };
        let scope = scope(tenant, if n % 3 == 0 { "default" } else { "prod" });
        let access = Sealed::from_bytes(format!("access {n}").as_bytes());
        let connection = ConnectionRecord {
            scope: scope.clone(),
            access,
            grant: (n % 4 != 0).then(|| Sealed::from_bytes(format!("grant {n}").as_bytes())),
            disabled: n % 5 == 0,
            created_at: NOW + n,
            ..connection(&format!("c{n}"))
        };
        store.insert_connection(&connection, false).await.unwrap();
        for m in 0..2 {
            let token = TokenRecord {
                scope: scope.clone(),
                connections: vec![connection.id.clone()],
                expires_at: (n % 3 != 0).then_some(NOW + n + m),
                revoked_at: (n % 7 == 0).then_some(NOW),
                ..token(&format!("agent-{n}-{m}"))
            };
            store.insert_token(&token).await.unwrap();
        }
        let app = AppRecord {
            scope,
            provider: format!("p{n}").parse().unwrap(),
            client_id: format!("client {n}"),
            secret: Some(Sealed::from_bytes(format!("secret {n}").as_bytes())),
            redirect_uri: None,
            version: 1,
            updated_at: NOW + n,
        };
        store.put_app(&app).await.unwrap();
        if n < 10 {
            insert_others(store, &format!("t{n}")).await;
        }
    }
}

#[tokio::test]
async fn every_swap_of_a_column_between_two_of_a_hundred_records_is_noticed() {
    let (_directory, store) = store().await;
    a_hundred(&store).await;
    let report = store.verify(|_| Ok(())).await.unwrap();
    assert_eq!((report.counts.values().sum::<u64>(), report.failed), (100, vec![]));
    let key = store.keyring.key_id();
    let key = crate::store::manifest::ManifestKey::new(&store.keyring, key).unwrap();
    let mut swaps = 0;
    for (kind, table) in TABLES {
        let all = rows(&store, table).await;
        let kind = *RecordKind::ALL.iter().find(|found| found.as_str() == kind).unwrap();
        for (at, (one, first)) in all.iter().enumerate() {
            for (other, second) in &all[at + 1..] {
                for (column, value) in first {
                    if second[column] == *value {
                        continue;
                    }
                    let mut transaction = store.writer.begin().await.unwrap();
                    // Out of the way of the rules of uniqueness first.
                    let parked = match value {
                        Raw::Text(_) => Raw::Text("parked".to_owned()),
                        Raw::Blob(_) => Raw::Blob(vec![0xee; 32]),
                        _ => Raw::Integer(0),
                    };
                    put(&mut transaction, table, *one, column, &parked).await;
                    put(&mut transaction, table, *other, column, value).await;
                    put(&mut transaction, table, *one, column, &second[column]).await;
                    let mut noticed = 0;
                    for row in [*one, *other] {
                        let sql = format!("SELECT rowid, * FROM {table} WHERE rowid = {row}");
                        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *transaction).await.unwrap();
                        let columns = manifest::Columns::of(&row);
                        let listed = manifest::listed(kind, &row, &columns, Some(&key)).unwrap();
                        noticed += usize::from(!listed.fits());
                    }
                    let now = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM {table} WHERE rowid = {one}")))
                        .fetch_one(&mut *transaction)
                        .await
                        .unwrap();
                    // A rule of the schema may have kept one of the two as it was.
                    if values(&now) != *first {
                        assert!(noticed > 0, "{table}.{column} of {one} and {other}");
                        swaps += 1;
                    }
                    transaction.rollback().await.unwrap();
                }
            }
        }
    }
    assert!(swaps > 10_000, "{swaps}");
    assert_sound(&store, "after").await;
}

/// What each tampering does, and who may be refused by it.
#[tokio::test]
async fn what_is_removed_added_reordered_or_rolled_back_is_noticed_and_the_others_go_on() {
    let (directory, store) = store().await;
    a_hundred(&store).await;
    let seen = store.changes_since(&Seen::default()).await.unwrap();
    assert_eq!((seen.connections.len(), seen.tokens.len(), seen.failed.len()), (20, 40, 0));
    let victim = seen.connections[3].id.to_string();
    let scope_of = seen.connections[3].scope.clone();
    let bucket = crate::store::manifest::bucket_of(RecordKind::Connection, &victim);
    let neighbours = {
        let mut connection = store.readers.acquire().await.unwrap();
        manifest::read_entries(&mut connection, bucket).await.unwrap().len()
    };
    let old = directory.path().join("old.db");
    run(&store, format!("VACUUM INTO '{}'", old.display())).await;
    store.set_connection_disabled(&scope_of, &victim, true).await.unwrap();
    assert_sound(&store, "after a write").await;
    store.close().await;
    let path = directory.path().join("nexus.db");
    let file = std::fs::read(&path).unwrap();
    let old_row = format!("INSERT OR REPLACE INTO connections SELECT * FROM old.connections WHERE id = '{victim}'");
    let old_bucket = format!("INSERT OR REPLACE INTO buckets SELECT * FROM old.buckets WHERE bucket = {bucket}");
    let old_meta = "UPDATE meta SET generation = (SELECT generation FROM old.meta), manifest_root = \
                    (SELECT manifest_root FROM old.meta)"
        .to_owned();
    let copied = "INSERT INTO connections SELECT 'con_copy', tenant, 'copy', name, provider, definition, version, \
                  access_sealed, grant_sealed, access_issued_at, access_expires_at, state, state_reason, disabled, \
                  created_at, updated_at, orphaned_at, generation, bucket, tag FROM connections WHERE id = '";
    let deleted = format!("DELETE FROM connections WHERE id = '{victim}'");
    // name, statements, whether all are refused (the root does not fit)
    let rows: Vec<(&str, Vec<String>, bool)> = vec![
        ("deleted", vec![deleted.clone()], false),
        ("deleted with its bucket's MAC", vec![deleted, format!("DELETE FROM buckets WHERE bucket = {bucket}")], true),
        ("duplicated under a new id", vec![format!("{copied}{victim}'")], false),
        ("an old row", vec![old_row.clone()], false),
        ("an old row and the MAC of its bucket", vec![old_row.clone(), old_bucket.clone()], true),
        ("an old row, bucket and root, but not the rest", vec![old_row, old_meta.clone()], true),
        ("an old counter", vec!["UPDATE meta SET generation = generation - 1".to_owned()], true),
        ("a counter ahead", vec!["UPDATE meta SET generation = generation + 1".to_owned()], true),
        ("no root", vec!["UPDATE meta SET manifest_root = NULL".to_owned()], true),
        ("no manifest", vec!["UPDATE meta SET manifest_root = NULL, manifest_key = NULL".to_owned()], true),
        (
            "all of it rolled back to no manifest",
            vec!["UPDATE meta SET manifest_root = NULL, manifest_key = NULL, generation = 0".to_owned()],
            true,
        ),
        (
            "two buckets' MACs swapped",
            vec![format!(
                "UPDATE buckets SET mac = (SELECT mac FROM buckets WHERE bucket <> {bucket} LIMIT 1) WHERE bucket = {bucket}"
            )],
            true,
        ),
        ("its bucket number", vec![format!("UPDATE connections SET bucket = NULL WHERE id = '{victim}'")], false),
        (
            "another's tag",
            vec![format!(
                "UPDATE connections SET tag = (SELECT tag FROM connections WHERE id <> '{victim}' LIMIT 1) WHERE id = '{victim}'"
            )],
            false,
        ),
    ];
    for (name, statements, all) in rows {
        let store = open(&path).await.unwrap();
        run(&store, format!("ATTACH '{}' AS old", old.display())).await;
        for statement in statements {
            run(&store, statement).await;
        }
        store.close().await;
        let store = open(&path).await.unwrap();
        let changes = store.changes_since(&Seen::default()).await.unwrap();
        assert!(!changes.failed.is_empty(), "{name}");
        let (connections, tokens) = (changes.connections.len(), changes.tokens.len());
        if all {
            assert_eq!((connections, tokens), (0, 0), "{name}");
            let refused = store.insert_token(&token("late")).await;
            assert_eq!(refusal(refused), "integrity", "{name}: nothing is written over it");
            assert_eq!(
                refusal(store.rekey_manifest(store.keyring.key_id()).await.and(refuse(&store).await)),
                "integrity"
            );
        } else {
            assert!(connections + tokens >= 60 - neighbours, "{name}: {connections} and {tokens} go on");
            if name != "duplicated under a new id" {
                assert!(changes.connections.iter().all(|c| c.id.as_str() != victim), "{name}");
            }
        }
        // The last one that was seen by a running server is not used either.
        let running = store.changes_since(&seen.seen).await.unwrap();
        assert!(running.connections.iter().all(|c| c.id.as_str() != victim || c.disabled), "{name}");
        // A person may take it as it is.
        let accepted = store.accept(false).await.unwrap();
        assert_eq!((accepted.unreadable.len(), accepted.removed.len()), (0, 0), "{name}");
        assert_sound(&store, name).await;
        store.insert_token(&token("late")).await.unwrap();
        store.close().await;
        std::fs::write(&path, &file).unwrap();
    }
}

/// A write that has to be refused while the root does not fit.
async fn refuse(store: &SqliteStore) -> Result<(), StoreError> {
    store.insert_token(&token("late")).await
}

#[tokio::test]
async fn a_tampered_record_is_refused_to_whoever_names_it() {
    let (_directory, store) = store().await;
    let scope = Scope::default();
    let (a, b) = (connection("a"), connection("b"));
    let (good, bad) = (token("good"), token("bad"));
    for connection in [&a, &b] {
        store.insert_connection(connection, false).await.unwrap();
    }
    for token in [&good, &bad] {
        store.insert_token(token).await.unwrap();
    }
    run(&store, format!("UPDATE connections SET definition = '{{}}' WHERE id = '{}'", b.id)).await;
    run(&store, format!("UPDATE tokens SET paths = '[' WHERE id = '{}'", bad.id)).await;
    let changes = store.changes_since(&Seen::default()).await.unwrap();
    assert_eq!((&changes.connections[..], &changes.tokens[..]), (&[a.clone()][..], &[good.clone()][..]));
    let failed: BTreeSet<_> = changes.failed.iter().map(|failed| (failed.kind, failed.id.clone())).collect();
    assert_eq!(failed, BTreeSet::from([("connection", b.id.to_string()), ("token", bad.id.to_string())]));

    let message = store.find_connection(&scope, "b").await.unwrap_err().to_string();
    assert_eq!(
        message,
        "connection b fails the integrity check: it was edited by something other than nexus; run: nexus store verify"
    );
    assert_eq!(store.list_connections(&scope).await.unwrap(), std::slice::from_ref(&a));
    assert_eq!(store.list_tokens(&scope).await.unwrap(), std::slice::from_ref(&good));
    let me = LeaseOwner::current();
    let refusals = [
        ("delete", store.delete_connection(&scope, "b").await.map(|_| ())),
        ("disable", store.set_connection_disabled(&scope, "b", true).await),
        ("state", store.set_connection_state(&b.id, 1, ConnectionState::Attention, None).await),
        ("credential", store.update_credential(&b.id, &update(2), None).await),
        ("replace", store.insert_connection(&ConnectionRecord { version: 2, ..b.clone() }, true).await),
        ("lease", store.acquire_refresh_lease(&b.id, 1, &me, NOW, 45).await.map(|_| ())),
        ("revoke", store.revoke_token(&scope, &bad.id, NOW).await),
        ("rotate", store.rotate_token(&scope, &bad.id, TokenDigest([9; 32]), NOW, None).await),
    ];
    for (name, refused) in refusals {
        assert_eq!(refusal(refused), "integrity", "{name}");
    }
    assert_eq!(failures(&store).await.len(), 2, "nothing was listed anew");
    store.set_connection_disabled(&scope, "a", true).await.unwrap();
    store.revoke_token(&scope, &good.id, NOW).await.unwrap();
    assert_eq!(failures(&store).await.len(), 2);
    // Told once; the damage is no news at the next look.
    let later = store.changes_since(&changes.seen).await.unwrap();
    assert_eq!((later.failed.len(), later.connections.len(), later.tokens.len()), (0, 1, 1));

    let accepted = store.accept(false).await.unwrap();
    assert_eq!((accepted.records, accepted.unreadable.len()), (4, 1), "{accepted:?}");
    assert_eq!(
        failures(&store).await.iter().map(|failed| failed.reason.code()).collect::<Vec<_>>(),
        ["record_unreadable"]
    );
    let accepted = store.accept(true).await.unwrap();
    assert_eq!(accepted.removed.iter().map(|failed| failed.id.as_str()).collect::<Vec<_>>(), [bad.id.as_str()]);
    assert_sound(&store, "accepted").await;
    let after = store.changes_since(&later.seen).await.unwrap();
    assert_eq!(after.connections.len(), 1, "what was edited is what the store says now");
}

#[tokio::test]
async fn a_reader_that_has_seen_a_record_learns_that_it_fails() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let seen = store.changes_since(&Seen::default()).await.unwrap().seen;
    run(&store, format!("DELETE FROM connections WHERE id = '{}'", record.id)).await;
    // The running one goes on with the record as it was written, until it looks at the bucket again.
    assert!(store.changes_since(&seen).await.unwrap().failed.is_empty());
    run(&store, "UPDATE meta SET generation = generation + 1".to_owned()).await;
    let changes = store.changes_since(&seen).await.unwrap();
    assert_eq!(changes.deleted_connections, [record.id]);
    assert_eq!(changes.failed.iter().map(|failed| failed.reason.code()).collect::<Vec<_>>(), ["root_mismatch"]);
    assert!(store.changes_since(&changes.seen).await.unwrap().failed.is_empty(), "told once");
}

#[tokio::test]
async fn a_store_from_before_the_manifest_gets_one_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nexus.db");
    let old = |migrations: usize| {
        let path = path.clone();
        async move {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
            let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
            sqlx::raw_sql("PRAGMA application_id = 0x6e787573").execute(&mut connection).await.unwrap();
            let mut all = sqlx::migrate!("src/store/migrations");
            all.migrations.to_mut().truncate(migrations);
            all.run_direct(None, &mut connection, false).await.unwrap();
            sqlx::raw_sql(
                "INSERT INTO meta (id, install_id, generation) VALUES (1, 'x', 7);
                 INSERT INTO tokens (id, tenant, namespace, agent, digest, connections, methods, paths, created_at, \
                 generation) VALUES ('tok_0190a7f0c0de7000800000000000beef', 'default', 'default', 'a', \
                 zeroblob(32), '[]', '[]', '[]', 1, 7)",
            )
            .execute(&mut connection)
            .await
            .unwrap();
            sqlx::Connection::close(connection).await.unwrap();
        }
    };
    for migrations in [1, 2] {
        old(migrations).await;
        let file = StoreFile::open(&path).await.unwrap();
        assert!(file.is_before_manifest());
        file.close().await;
        let store = open(&path).await.unwrap();
        assert_sound(&store, "upgraded").await;
        let changes = store.changes_since(&Seen::default()).await.unwrap();
        assert_eq!((changes.tokens.len(), changes.generation), (1, 8));
        run(&store, "UPDATE tokens SET agent = 'b'".to_owned()).await;
        store.close().await;
        let file = StoreFile::open(&path).await.unwrap();
        assert!(!file.is_before_manifest());
        file.close().await;
        let store = open(&path).await.unwrap();
        assert_eq!(failures(&store).await.len(), 1, "made once, not at each start");
        store.close().await;
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn another_root_key_unlocks_nothing_and_changes_nothing() {
    let (directory, store) = store().await;
    let path = directory.path().join("nexus.db");
    store.insert_token(&token("a")).await.unwrap();
    store.close().await;
    let before = std::fs::read(&path).unwrap();
    let other = SqliteStore::open(&path, &RootKey::from_bytes(&[2; 32])).await;
    assert_eq!(refusal(other), "key unknown");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    open(&path).await.unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u8),
    Replace(u8),
    Credential(u8),
    State(u8),
    Disable(u8, bool),
    Delete(u8),
    Token(u8),
    Revoke(u8),
    Rotate(u8),
    App(u8),
    DeleteApp(u8),
    Reopen,
    Rekey,
    Accept,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0u8..6;
    prop_oneof![
        4 => n().prop_map(Step::Insert),
        1 => n().prop_map(Step::Replace),
        3 => n().prop_map(Step::Credential),
        1 => n().prop_map(Step::State),
        2 => (n(), any::<bool>()).prop_map(|(n, on)| Step::Disable(n, on)),
        2 => n().prop_map(Step::Delete),
        3 => n().prop_map(Step::Token),
        1 => n().prop_map(Step::Revoke),
        1 => n().prop_map(Step::Rotate),
        2 => n().prop_map(Step::App),
        1 => n().prop_map(Step::DeleteApp),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rekey),
        1 => Just(Step::Accept),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is written in whatever order, the store verifies, and a reader of changes has what is in the file.
    #[test]
    fn any_writes_leave_a_store_that_verifies(steps in proptest::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(follow(steps));
    }
}

async fn follow(steps: Vec<Step>) {
    let (directory, mut store) = store().await;
    let path = directory.path().join("nexus.db");
    let scope = Scope::default();
    let mut seen = Seen::default();
    let (mut connections, mut tokens) = (BTreeMap::new(), BTreeMap::new());
    for step in steps {
        let list = store.list_connections(&scope).await.unwrap();
        let named = |n: u8| list.iter().find(|record| record.name.as_str() == format!("c{n}"));
        let ids: Vec<TokenId> = store.list_tokens(&scope).await.unwrap().into_iter().map(|token| token.id).collect();
        let chosen = |n: u8| ids.get(usize::from(n));
        // What is refused for its own reasons (exists, not found, conflict) leaves the store as it was.
        match &step {
            Step::Insert(n) => drop(store.insert_connection(&connection(&format!("c{n}")), false).await),
            Step::Replace(n) => {
                let old = named(*n).cloned();
                let record = old.map(|old| ConnectionRecord { version: old.version + 1, ..old });
                drop(store.insert_connection(&record.unwrap_or_else(|| connection(&format!("c{n}"))), true).await);
            }
            Step::Credential(n) => {
                if let Some(record) = named(*n) {
                    store.update_credential(&record.id, &update(record.version + 1), None).await.unwrap();
                }
            }
            Step::State(n) => {
                if let Some(record) = named(*n) {
                    let state = ConnectionState::Attention;
                    store.set_connection_state(&record.id, record.version, state, Some("x")).await.unwrap();
                }
            }
            Step::Disable(n, on) => drop(store.set_connection_disabled(&scope, &format!("c{n}"), *on).await),
            Step::Delete(n) => drop(store.delete_connection(&scope, &format!("c{n}")).await),
            Step::Token(n) => store.insert_token(&token(&format!("a{n}"))).await.unwrap(),
            Step::Revoke(n) => {
                if let Some(id) = chosen(*n) {
                    store.revoke_token(&scope, id, NOW).await.unwrap();
                }
            }
            Step::Rotate(n) => {
                if let Some(id) = chosen(*n) {
                    let digest = TokenDigest(crate::secret::random_bytes());
                    drop(store.rotate_token(&scope, id, digest, NOW, None).await);
                }
            }
            Step::App(n) => {
                let provider = format!("p{n}").parse().unwrap();
                let apps = store.list_apps(&scope).await.unwrap();
                let version = apps.iter().find(|app| app.provider == provider).map_or(1, |app| app.version + 1);
                let app = AppRecord {
                    scope: scope.clone(),
                    provider,
                    client_id: "id".to_owned(),
                    secret: None,
                    redirect_uri: None,
                    version,
                    updated_at: NOW,
                };
                store.put_app(&app).await.unwrap();
            }
            Step::DeleteApp(n) => drop(store.delete_app(&scope, &format!("p{n}")).await),
            Step::Reopen => {
                let keyring = Arc::clone(&store.keyring);
                store.close().await;
                store = StoreFile::open(&path).await.unwrap().unlock(keyring).await.unwrap();
            }
            Step::Rekey => {
                let next = store.keyring.add(&RootKey::from_bytes(&crate::secret::random_bytes()));
                store.rekey_manifest(next).await.unwrap();
            }
            Step::Accept => assert!(store.accept(true).await.unwrap().removed.is_empty()),
        }
        let changes = store.changes_since(&seen).await.unwrap();
        assert_eq!(changes.failed, [], "{step:?}");
        for id in &changes.deleted_connections {
            connections.remove(id);
        }
        connections.extend(changes.connections.into_iter().map(|record| (record.id.clone(), record)));
        tokens.extend(changes.tokens.into_iter().map(|record| (record.id.clone(), record)));
        seen = changes.seen;
        let all = store.changes_since(&Seen::default()).await.unwrap();
        let by_id = |records: Vec<ConnectionRecord>| -> BTreeMap<ConnectionId, ConnectionRecord> {
            records.into_iter().map(|record| (record.id.clone(), record)).collect()
        };
        assert_eq!(by_id(all.connections), connections, "{step:?}");
        assert_eq!(all.tokens.len(), tokens.len());
        assert!(all.tokens.iter().all(|token| tokens[&token.id] == *token), "{step:?}");
        assert_sound(&store, &format!("{step:?}")).await;
    }
}
