#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::types::UnixSeconds;

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home { path: directory.path().join("home") };
    (directory, home)
}

#[tokio::test]
async fn a_lost_root_key_is_not_replaced() {
    let (_directory, home) = home();
    let config = Config::default();
    init(&home, &config).await.unwrap();
    assert!(init(&home, &config).await.unwrap().is_empty());
    std::fs::remove_file(home.path.join("root.key")).unwrap();
    assert!(matches!(init(&home, &config).await, Err(AppError::KeyMissing { .. })));
    assert!(!home.path.join("root.key").exists());
}

#[tokio::test]
async fn what_is_of_no_use_is_purged_after_thirty_days() {
    let (_directory, home) = home();
    let config = Config::default();
    init(&home, &config).await.unwrap();
    let install = open(&home, config).await.unwrap();
    let clock = Clock::fixed(1_700_000_000);
    seal_something(&install, clock.now()).await;
    install.store.delete_namespace(&Default::default(), clock.now()).await.unwrap();
    let nothing = Purged { connections: 0, tokens: 0 };
    assert_eq!(purge(&*install.store, &clock).await.unwrap(), nothing);
    clock.advance(30 * 86_400 - 1);
    assert_eq!(purge(&*install.store, &clock).await.unwrap(), nothing);
    clock.advance(1);
    assert_eq!(purge(&*install.store, &clock).await.unwrap(), Purged { connections: 1, tokens: 0 });
    assert_eq!(purge(&*install.store, &clock).await.unwrap(), nothing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_purges_when_it_starts() {
    let (_directory, home) = home();
    let config = Config::default();
    init(&home, &config).await.unwrap();
    let install = open(&home, config).await.unwrap();
    seal_something(&install, 1_000).await;
    install.store.delete_namespace(&Default::default(), 1_000).await.unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServeOptions { home, config_file: None, listen: Some(vec![any_port]), admin: Some(any_port) };
    let generation = install.store.changes_since(&crate::store::Seen::default()).await.unwrap().generation;
    let server = serve(options).await.unwrap();
    let purged = async {
        while install.store.changes_since(&crate::store::Seen::default()).await.unwrap().generation == generation {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), purged).await.unwrap();
    server.stop().await;
    assert_eq!(install.store.purge_orphans(None, i64::MAX).await.unwrap(), 0, "the server has done it");
}

#[tokio::test]
async fn another_root_key_does_not_open_the_store() {
    let (_directory, home) = home();
    let config = Config::default();
    init(&home, &config).await.unwrap();
    let install = open(&home, config.clone()).await.unwrap();
    seal_something(&install, 1_700_000_000).await;
    install.store.close().await;
    open(&home, config.clone()).await.unwrap().store.close().await;
    std::fs::write(home.path.join("root.key"), "ab".repeat(32)).unwrap();
    assert!(matches!(open(&home, config).await, Err(AppError::WrongKey { .. })));
}

async fn seal_something(install: &Install, now: UnixSeconds) {
    use crate::secret::{SealContext, Sealed};
    use crate::store::{ConnectionRecord, ConnectionState};
    use crate::types::{ConnectionId, ConnectionName, ProviderId, Scope};
    let context =
        SealContext { tenant: "default", record: "con_1", field: "access", version: 1, destination: &[0; 32] };
    let access: Sealed = install.keyring.seal(&context, b"secret");
    let record = ConnectionRecord {
        id: ConnectionId::generate(),
        scope: Scope::default(),
        name: ConnectionName::parse("acme").unwrap(),
        provider: ProviderId::parse("custom").unwrap(),
        definition: "{}".to_owned(),
        version: 1,
        access,
        grant: None,
        access_issued_at: None,
        access_expires_at: None,
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: now,
        updated_at: now,
        orphaned_at: None,
    };
    install.store.insert_connection(&record, false).await.unwrap();
}
