//! The file: who may read it, and what is not a store.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

async fn refused(path: &Path) -> String {
    let error = open(path).await.unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(matches!(error, StoreError::Unusable { .. } | StoreError::Newer { .. }), "{error:?}");
    error.to_string()
}

/// The bytes of a store with some records, closed.
async fn bytes_of_a_store() -> Vec<u8> {
    let (directory, store) = store().await;
    for n in 0..20 {
        store.insert_connection(&connection(&format!("c{n}")), false).await.unwrap();
        store.insert_token(&token("a")).await.unwrap();
    }
    store.close().await;
    let mut files = files(directory.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["nexus.db"], "a closed store is one file");
    files.remove("nexus.db").unwrap()
}

#[tokio::test]
async fn every_file_is_private_whatever_the_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
    let (directory, store) = store().await;
    store.insert_token(&token("a")).await.unwrap();
    let names = files(directory.path());
    assert_eq!(names.keys().collect::<Vec<_>>(), ["nexus.db", "nexus.db-shm", "nexus.db-wal"]);
    for name in names.keys() {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn the_settings_hold_on_every_connection() {
    let (_directory, store) = store().await;
    store.insert_token(&token("a")).await.unwrap();
    for pool in [&store.writer, &store.readers] {
        for (pragma, expected) in [
            ("PRAGMA synchronous", "2"),
            ("PRAGMA secure_delete", "1"),
            ("PRAGMA foreign_keys", "1"),
            ("PRAGMA busy_timeout", "5000"),
            ("PRAGMA journal_mode", "wal"),
        ] {
            let row = sqlx::query(pragma).fetch_one(pool).await.unwrap();
            let value = sqlx::Row::try_get::<String, _>(&row, 0)
                .or_else(|_| sqlx::Row::try_get::<i64, _>(&row, 0).map(|n| n.to_string()))
                .unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
    }
    assert!(sqlx::query("UPDATE meta SET fence = 9").execute(&store.readers).await.is_err(), "readers only read");
}

#[tokio::test]
async fn a_store_is_opened_again_as_it_was() {
    let (directory, store) = store().await;
    let path = directory.path().join("nexus.db");
    let (id, record) = (store.install_id().to_owned(), connection("work"));
    store.insert_connection(&record, false).await.unwrap();
    store.close().await;
    let again = open(&path).await.unwrap();
    assert_eq!(again.install_id(), id);
    assert_eq!(again.path(), path);
    assert_eq!(again.find_connection(&Scope::default(), "work").await.unwrap(), record);
    let (_other, other) = super::store().await;
    assert_ne!(other.install_id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_make_it_at_once_get_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nexus.db");
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { open(&path).await.unwrap() })
        })
        .collect();
    let mut stores = Vec::new();
    for open in opening {
        stores.push(open.await.unwrap());
    }
    for store in &stores {
        assert_eq!(store.install_id(), stores[0].install_id());
        store.insert_token(&token("a")).await.unwrap();
    }
    assert_eq!(stores[0].list_tokens(&Scope::default()).await.unwrap().len(), 6);
    let names = files(directory.path());
    assert_eq!(names.keys().collect::<Vec<_>>(), ["nexus.db", "nexus.db-shm", "nexus.db-wal"]);
}

#[tokio::test]
async fn what_is_no_store_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nexus.db");
    let mut newer_header = bytes_of_a_store().await;
    newer_header[18..20].fill(9);
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("text", b"hello".to_vec()),
        ("garbage", (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()),
        ("zeroes", vec![0; 8192]),
        ("magic alone", b"SQLite format 3\0".to_vec()),
        ("magic and garbage", [&b"SQLite format 3\0"[..], &[0xaa; 8176]].concat()),
        ("a file format of the future", newer_header),
    ];
    for (name, bytes) in rows {
        std::fs::write(&path, &bytes).unwrap();
        let message = refused(&path).await;
        let after = files(directory.path());
        assert_eq!(after["nexus.db"], bytes, "{name}: {message}");
        assert_eq!(after.len(), 1, "{name}: nothing beside it");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused(&path).await;
    refused(&directory.path().join("no/nexus.db")).await;
}

#[tokio::test]
async fn a_store_cut_at_any_length_is_refused_and_left() {
    let bytes = bytes_of_a_store().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nexus.db");
    let lengths = (0..bytes.len()).filter(|n| *n < 130 || n % 509 == 0 || n % 4096 < 2 || bytes.len() - n < 3);
    for length in lengths {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let opened = open(&path).await;
        assert!(matches!(opened, Err(StoreError::Unusable { .. })), "{length} bytes: {opened:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes[..length], "{length} bytes");
    }
    std::fs::write(&path, &bytes).unwrap();
    open(&path).await.unwrap();
}

#[tokio::test]
async fn a_newer_or_foreign_schema_is_refused_and_left() {
    let rows = [
        (
            "newer",
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (7777, 'x', 1, x'00', 0)",
            "made by a newer version of nexus (schema 7777, this version knows",
        ),
        ("another program's", "PRAGMA application_id = 1", "an SQLite file of another program"),
        ("edited migration", "UPDATE _sqlx_migrations SET checksum = x'00'", "its schema is none of this program's"),
        ("no migrations", "DROP TABLE _sqlx_migrations", "it is damaged"),
        ("no install id", "DELETE FROM meta", "it is damaged"),
    ];
    for (name, edit, message) in rows {
        let (directory, store) = store().await;
        let path = directory.path().join("nexus.db");
        store.insert_token(&token("a")).await.unwrap();
        sqlx::query(edit).execute(&store.writer).await.unwrap();
        store.close().await;
        let before = files(directory.path());
        let shown = refused(&path).await;
        assert!(shown.contains(message), "{name}: {shown}");
        assert_eq!(files(directory.path())["nexus.db"], before["nexus.db"], "{name}");
    }
}

#[tokio::test]
async fn a_planted_link_is_not_followed_to_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let (link, planted) = (directory.path().join("nexus.db"), directory.path().join("planted"));
    std::os::unix::fs::symlink(&planted, &link).unwrap();
    refused(&link).await;
    assert!(!planted.exists());
}

#[tokio::test]
async fn what_is_deleted_is_overwritten() {
    let (directory, store) = store().await;
    let record = ConnectionRecord {
        definition: "CANARY-definition".repeat(500),
        access: Sealed::from_bytes(b"CANARY-access"),
        ..connection("work")
    };
    store.insert_connection(&record, false).await.unwrap();
    store.insert_connection(&connection("other"), false).await.unwrap();
    let found = || {
        let files = files(directory.path());
        files.values().any(|bytes| bytes.windows(6).any(|window| window == b"CANARY"))
    };
    assert!(found());
    store.delete_connection(&Scope::default(), "work").await.unwrap();
    assert!(!found(), "neither in the file nor in its log");
    assert_eq!(store.list_connections(&Scope::default()).await.unwrap().len(), 1);
}

/// SQLite ends a transaction by itself when the disk is full; the connection is not to be stuck in it for ever.
#[tokio::test]
async fn a_full_disk_is_survived() {
    let (_directory, store) = store().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.writer).await.unwrap();
    // As much as a full disk to the one connection that writes, and a new one has none of it.
    sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"))).execute(&store.writer).await.unwrap();
    let mut written = 0;
    let error = loop {
        match store.insert_connection(&connection(&format!("name-{written}")), false).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("full"), "{error}");
    store.insert_connection(&connection("after"), false).await.unwrap();
    let listed = store.list_connections(&Scope::default()).await.unwrap();
    assert_eq!(listed.len(), written + 1);
}

#[tokio::test]
async fn what_was_planted_in_the_schema_takes_part_in_nothing() {
    let widening = "CREATE TRIGGER widen AFTER INSERT ON tokens BEGIN \
                    UPDATE tokens SET methods = '[]' WHERE id = NEW.id; END";
    let rows: [(&str, &str, bool); 7] = [
        ("a trigger", widening, true),
        ("a view", "CREATE VIEW v AS SELECT * FROM tokens", true),
        ("a table", "CREATE TABLE t (x)", false),
        ("an index", "CREATE INDEX i ON tokens (agent)", false),
        ("a column", "ALTER TABLE tokens ADD COLUMN x TEXT DEFAULT 'y'", false),
        ("a missing index", "DROP INDEX connections_by_name", false),
        ("another table", "ALTER TABLE leases RENAME COLUMN fence TO f", false),
    ];
    for (name, statement, at_once) in rows {
        let (directory, store) = store().await;
        let path = directory.path().join("nexus.db");
        store.insert_token(&token("a")).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&store.writer).await.unwrap();
        if at_once {
            for refused in [store.insert_token(&token("b")).await, store.accept(false).await.map(|_| ())] {
                assert_eq!(refusal(refused), "unusable", "{name}");
            }
            assert_eq!(store.changes_since(&Seen::default()).await.unwrap().tokens.len(), 1, "{name}");
        }
        store.close().await;
        let before = std::fs::read(&path).unwrap();
        let error = open(&path).await.unwrap_err().to_string();
        assert!(error.contains("changed its schema"), "{name}: {error}");
        assert!(std::fs::read(&path).unwrap() == before, "{name}");
    }
    // Statistics for the planner are anybody's.
    let (directory, store) = store().await;
    sqlx::query("ANALYZE").execute(&store.writer).await.unwrap();
    store.insert_token(&token("a")).await.unwrap();
    store.close().await;
    open(&directory.path().join("nexus.db")).await.unwrap().close().await;
}

#[tokio::test]
async fn a_log_without_its_store_is_not_played_into_a_new_one() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let (directory, store) = store().await;
        let path = directory.path().join("nexus.db");
        store.close().await;
        std::fs::remove_file(&path).unwrap();
        let log = directory.path().join(format!("nexus.db{suffix}"));
        std::fs::write(&log, "what was committed last").unwrap();
        let error = open(&path).await.unwrap_err().to_string();
        assert!(error.contains("is missing") && error.contains(suffix), "{error}");
        assert!(!path.exists(), "{suffix}");
        assert_eq!(std::fs::read(&log).unwrap(), b"what was committed last");
        std::fs::remove_file(&log).unwrap();
        open(&path).await.unwrap().close().await;
    }
}
