#![expect(clippy::unwrap_used, reason = "tests")]
mod identity;

use super::*;
use crate::secret::{Sealed, TokenDigest};
use crate::store::{ConnectionRecord, ConnectionState, SqliteStore, TokenKind, TokenRecord, TokenScope};
use crate::types::{ConnectionId, Scope, Target, TokenId, UnixSeconds};
use std::time::Duration;
use tempfile::TempDir;

const NOW: UnixSeconds = 1_700_000_000;

struct Home {
    directory: TempDir,
    store: Arc<SqliteStore>,
}

impl Home {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store =
            SqliteStore::open(&directory.path().join("nexus.db"), &crate::secret::RootKey::from_bytes(&[1; 32]))
                .await
                .unwrap();
        Self { directory, store: Arc::new(store) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    async fn start(&self) -> Result<Loader, ConfigError> {
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        Loader::start(self.directory.path().to_owned(), None, store, Vec::new()).await
    }
}

fn ca_pem(name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).unwrap().pem()
}

fn definition(host: &str) -> String {
    use crate::strategy::{Placement, Strategy};
    let destination = crate::connection::Destination {
        scheme: crate::types::Scheme::Https,
        host: crate::types::HostPattern::parse(host).unwrap(),
        port: 443,
        path: crate::types::BasePath::default(),
        strategy: Strategy::new(vec![Placement::parse("header Authorization: Bearer {token}").unwrap()]).unwrap(),
    };
    crate::connection::Frozen {
        destinations: vec![destination],
        oauth: None,
        default_headers: Vec::new(),
        test: None,
        revision: None,
        source: None,
    }
    .to_json()
}

fn connection(name: &str, definition: String) -> ConnectionRecord {
    ConnectionRecord {
        id: ConnectionId::generate(),
        scope: Scope::default(),
        name: name.parse().unwrap(),
        provider: "custom".parse().unwrap(),
        definition,
        version: 1,
        access: Sealed::from_bytes(b"sealed"),
        grant: None,
        access_issued_at: None,
        access_expires_at: None,
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        orphaned_at: None,
    }
}

fn token(connections: Vec<ConnectionId>) -> TokenRecord {
    TokenRecord {
        id: TokenId::generate(),
        scope: Scope::default(),
        agent: "a".parse().unwrap(),
        run: None,
        digest: TokenDigest(crate::secret::random_bytes()),
        previous: None,
        connections,
        methods: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
        scopes: vec![TokenScope::Use],
        kind: TokenKind::Opaque,
        parent: None,
        created_at: NOW,
        lifetime: None,
        expires_at: None,
        revoked_at: None,
    }
}

const TARGET: &[u8] = b"api.example.test:443";

#[tokio::test]
async fn an_absent_file_is_the_default_unless_it_was_named() {
    let home = Home::new().await;
    let snapshot = home.start().await.unwrap().snapshot();
    assert_eq!(*snapshot.config, Config::default().resolved(home.directory.path()));
    assert_eq!(snapshot.config_version, 1);

    let named = home.path("absent.toml");
    assert!(matches!(Loader::read_config(home.directory.path(), Some(&named)), Err(ConfigError::Io { .. })));
    assert!(Loader::read_config(home.directory.path(), None).is_ok());
}

#[tokio::test]
async fn a_damaged_file_is_named_with_its_place() {
    let home = Home::new().await;
    home.write("nexus.toml", "[limits]\nconect = \"1s\"\n");
    home.write("providers/own.toml", "nonsense = 1\n");
    let error = home.start().await.err().unwrap().to_string();
    assert!(error.contains("nexus.toml:2:1 limits.conect: unknown key"), "{error}");
    assert!(error.contains("own.toml:"), "both kinds of files at once: {error}");

    std::fs::write(home.path("nexus.toml"), b"# ok\n x = \"\xff\"").unwrap();
    let error = Loader::read_config(home.directory.path(), None).err().unwrap().to_string();
    assert!(error.contains("nexus.toml:2:7 not UTF-8"), "{error}");
}

#[tokio::test]
async fn a_valid_change_applies_and_an_invalid_one_changes_nothing() {
    let home = Home::new().await;
    let loader = home.start().await.unwrap();
    assert!(!loader.reload_files().await.unwrap(), "nothing differs");

    home.write("nexus.toml", "[limits]\ncall_body = \"1MiB\"\n");
    let before = loader.snapshot();
    assert!(loader.reload_files().await.unwrap());
    let after = loader.snapshot();
    assert_eq!((after.config.limits.call_body, after.config_version), (1 << 20, 2));
    assert_eq!(before.config.limits.call_body, 16 << 20, "a request keeps its snapshot");
    assert!(Arc::ptr_eq(&before.egress, &after.egress), "nothing of the way out changed");
    assert!(Arc::ptr_eq(&before.catalog, &after.catalog));

    home.write("nexus.toml", "[limits]\ncall_body = \"1MB\"\n");
    assert!(matches!(loader.reload_files().await, Err(ConfigError::Problems(_))));
    home.write("nexus.toml", "[limits]\ncall_body = \"2MiB\"\n[upstream]\nca_files = [\"absent.pem\"]\n");
    assert!(matches!(loader.reload_files().await, Err(ConfigError::Net(_))));
    assert!(Arc::ptr_eq(&after, &loader.snapshot()));
}

#[tokio::test]
async fn what_needs_a_restart_is_kept() {
    let home = Home::new().await;
    let loader = home.start().await.unwrap();
    let before = loader.snapshot();
    let server = "[server]\nlisten = []\nadmin = \"127.0.0.1:1\"\nshutdown_grace = \"1s\"\n[[server.listener]]\n\
                  address = \"127.0.0.1:2\"\n";
    let store = "[store]\nurl = \"sqlite://other.db\"\nroot_key = { env = \"K\" }\n";
    home.write("nexus.toml", &format!("{server}{store}"));
    assert!(!loader.reload_files().await.unwrap());
    assert!(Arc::ptr_eq(&before, &loader.snapshot()));

    home.write("nexus.toml", &format!("{server}{store}[egress]\nconnect_ports = [1]\n"));
    assert!(loader.reload_files().await.unwrap());
    let mut expected = (*before.config).clone();
    expected.egress.connect_ports = vec![1];
    assert_eq!(*loader.snapshot().config, expected);

    let keys = restart_keys(&before.config, &Loader::read_config(home.directory.path(), None).unwrap());
    let all =
        ["server.listen or server.listener", "server.admin", "server.shutdown_grace", "store.url", "store.root_key"];
    assert_eq!(keys, all);
}

#[tokio::test]
async fn the_way_out_is_rebuilt_when_a_ca_file_has_other_contents() {
    let home = Home::new().await;
    home.write("ca.pem", &ca_pem("one"));
    home.write("nexus.toml", "[upstream]\nca_files = [\"ca.pem\"]\n");
    let loader = home.start().await.unwrap();
    let one = loader.snapshot();
    assert!(!loader.reload_files().await.unwrap());

    home.write("ca.pem", &ca_pem("two"));
    assert!(loader.reload_files().await.unwrap());
    let two = loader.snapshot();
    assert!(one.egress.trust_root() != two.egress.trust_root());

    home.write("ca.pem", "not PEM");
    assert!(loader.reload_files().await.is_err());
    assert!(Arc::ptr_eq(&two, &loader.snapshot()));

    std::fs::remove_file(home.path("ca.pem")).unwrap();
    assert!(loader.reload_files().await.is_err());
    assert!(Arc::ptr_eq(&two, &loader.snapshot()));
}

#[tokio::test]
async fn an_emptied_file_waits_to_be_written() {
    let home = Home::new().await;
    home.write("nexus.toml", "[limits]\ncall_body = \"1MiB\"\n");
    let loader = Arc::new(home.start().await.unwrap());
    home.write("nexus.toml", "");
    let reload = tokio::spawn({
        let loader = Arc::clone(&loader);
        async move { loader.reload_files().await.unwrap() }
    });
    // The reload is waiting once it holds the lock; changes of the store do not wait with it.
    while loader.files.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    loader.reload_store().await.unwrap();
    assert!(!reload.is_finished());
    home.write("nexus.toml", "[limits]\ncall_body = \"2MiB\"\n");
    assert!(reload.await.unwrap());
    assert_eq!(loader.snapshot().config.limits.call_body, 2 << 20);

    home.write("nexus.toml", "\n");
    assert!(loader.reload_files().await.unwrap(), "a file that stays empty is meant");
    assert_eq!(loader.snapshot().config.limits.call_body, 16 << 20);
}

#[tokio::test]
async fn a_file_that_went_missing_keeps_its_text() {
    let home = Home::new().await;
    home.write("nexus.toml", "[limits]\ncall_body = \"1MiB\"\n");
    let loader = home.start().await.unwrap();
    std::fs::remove_file(home.path("nexus.toml")).unwrap();
    assert!(!loader.reload_files().await.unwrap());
    assert_eq!(loader.snapshot().config.limits.call_body, 1 << 20);
    home.write("nexus.toml", "[limits]\ncall_body = \"2MiB\"\n");
    assert!(loader.reload_files().await.unwrap());
}

#[tokio::test]
async fn records_come_change_and_go() {
    let home = Home::new().await;
    let record = connection("one", definition("api.example.test"));
    home.store.insert_connection(&record, false).await.unwrap();
    let agent = token(vec![record.id.clone()]);
    home.store.insert_token(&agent).await.unwrap();
    let loader = home.start().await.unwrap();
    let first = loader.snapshot();
    let principal = first.directory.tokens.authenticate(&agent.digest, NOW).unwrap();
    let target = Target::parse_connect(TARGET).unwrap();
    assert!(first.routes.covers_host(&principal, &target));
    assert_eq!(loader.reload_store().await.unwrap().generation, first.generation);
    assert!(Arc::ptr_eq(&first, &loader.snapshot()), "nothing changed");

    home.store.set_connection_disabled(&Scope::default(), "one", true).await.unwrap();
    let generation = loader.reload_store().await.unwrap().generation;
    let second = loader.snapshot();
    assert!(generation > first.generation && second.generation == generation);
    assert!(!second.routes.covers_host(&principal, &target));
    assert!(first.routes.covers_host(&principal, &target), "an older snapshot stays as it was");

    home.store.revoke_token(&Scope::default(), &agent.id, NOW).await.unwrap();
    home.store.delete_connection(&Scope::default(), "one").await.unwrap();
    let reloaded = loader.reload_store().await.unwrap();
    assert_eq!(reloaded.deleted, std::slice::from_ref(&record.id));
    let third = loader.snapshot();
    assert!(third.directory.tokens.authenticate(&agent.digest, NOW).is_err());
    assert!(third.routes.get(&record.id).is_none());
    assert_eq!(third.config_version, 1);
}

#[tokio::test]
async fn a_damaged_definition_leaves_the_others_alone() {
    let home = Home::new().await;
    let good = connection("good", definition("good.example.test"));
    let mut bad = connection("bad", definition("bad.example.test"));
    home.store.insert_connection(&good, false).await.unwrap();
    home.store.insert_connection(&bad, false).await.unwrap();
    let loader = home.start().await.unwrap();
    assert!(loader.snapshot().routes.get(&bad.id).is_some());

    bad.definition = "{}".to_owned();
    bad.version = 2;
    home.store.insert_connection(&bad, true).await.unwrap();
    loader.reload_store().await.unwrap();
    let routes = &loader.snapshot().routes;
    assert!(routes.get(&bad.id).is_none(), "the former self is gone too");
    assert!(routes.get(&good.id).is_some());
    assert!(home.start().await.unwrap().snapshot().routes.get(&good.id).is_some());
}

/// The file as it is, its log folded in.
async fn copy_of_the_file(home: &Home) -> Vec<u8> {
    let store = open_again(home).await;
    store.close().await;
    let file = home.path("nexus.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await.unwrap();
    pool.close().await;
    std::fs::read(file).unwrap()
}

async fn open_again(home: &Home) -> SqliteStore {
    SqliteStore::open(&home.path("nexus.db"), &crate::secret::RootKey::from_bytes(&[1; 32])).await.unwrap()
}

#[tokio::test]
async fn a_store_that_went_back_is_read_anew_and_told() {
    let home = Home::new().await;
    let (kept, late) =
        (connection("one", definition("api.example.test")), connection("two", definition("b.example.test")));
    home.store.insert_connection(&kept, false).await.unwrap();
    let old = copy_of_the_file(&home).await;
    let agent = token(vec![kept.id.clone()]);
    home.store.insert_token(&agent).await.unwrap();
    home.store.insert_connection(&late, false).await.unwrap();
    let loader = home.start().await.unwrap();
    let before = loader.snapshot().generation;
    home.store.close().await;
    std::fs::write(home.path("nexus.db"), &old).unwrap();

    let restored = Loader::start(home.directory.path().to_owned(), None, Arc::new(open_again(&home).await), Vec::new())
        .await
        .unwrap();
    // As if the server had held the file open all the time.
    restored.snapshot.store(loader.snapshot());
    let reloaded = restored.reload_store().await.unwrap();
    assert_eq!(reloaded.went_back_from, Some(before));
    assert!(reloaded.failed.is_empty(), "{:?}", reloaded.failed);
    let after = restored.snapshot();
    assert_eq!(after.generation, reloaded.generation);
    assert!(after.routes.get(&kept.id).is_some() && after.routes.get(&late.id).is_none());
    assert!(after.directory.tokens.authenticate(&agent.digest, NOW).is_err());
}

#[tokio::test]
async fn what_fails_the_integrity_check_is_not_loaded_and_told_once() {
    let home = Home::new().await;
    let (good, bad) =
        (connection("good", definition("a.example.test")), connection("bad", definition("b.example.test")));
    home.store.insert_connection(&good, false).await.unwrap();
    home.store.insert_connection(&bad, false).await.unwrap();
    let loader = home.start().await.unwrap();
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", home.path("nexus.db").display())).await.unwrap();
    let steered = bad.definition.replace("b.example.test", "evil.example.test");
    sqlx::query("UPDATE connections SET definition = ? WHERE id = ?")
        .bind(&steered)
        .bind(bad.id.as_str())
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let again = home.start().await.unwrap();
    assert!(again.snapshot().routes.get(&bad.id).is_none() && again.snapshot().routes.get(&good.id).is_some());
    let failed = again.failed_at_start();
    assert_eq!(failed.iter().map(|failed| failed.id.as_str()).collect::<Vec<_>>(), [bad.id.as_str()]);
    assert!(again.failed_at_start().is_empty());
    home.store.insert_token(&token(vec![])).await.unwrap();
    assert!(again.reload_store().await.unwrap().failed.is_empty(), "told before");
    // The running one has the record as it was written, and goes on with that.
    assert!(loader.reload_store().await.unwrap().failed.is_empty());
    assert_eq!(loader.snapshot().routes.get(&bad.id).unwrap().frozen.to_json(), bad.definition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reloads_at_once_lose_nothing() {
    let home = Home::new().await;
    let loader = Arc::new(home.start().await.unwrap());
    let files = tokio::spawn({
        let (loader, path) = (Arc::clone(&loader), home.path("nexus.toml"));
        async move {
            for body in 1..=20_u64 {
                let next = path.with_extension("new");
                std::fs::write(&next, format!("[limits]\ncall_body = \"{body}MiB\"\n")).unwrap();
                std::fs::rename(&next, &path).unwrap();
                loader.reload_files().await.unwrap();
            }
        }
    });
    for index in 0..20 {
        let record = connection(&format!("c{index}"), definition("api.example.test"));
        home.store.insert_connection(&record, false).await.unwrap();
        loader.reload_store().await.unwrap();
    }
    files.await.unwrap();
    let snapshot = loader.snapshot();
    assert_eq!((snapshot.routes.len(), snapshot.config.limits.call_body), (20, 20 << 20));
}

#[tokio::test]
async fn a_relative_home_is_made_absolute() {
    let config = Loader::read_config(Path::new("no/such/home"), None).unwrap();
    assert!(config.store.is_absolute() && config.store.ends_with("no/such/home/nexus.db"));
}

#[tokio::test]
async fn a_pipe_is_refused() {
    let home = Home::new().await;
    let path = home.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let read = tokio::time::timeout(
        Duration::from_secs(60),
        read::blocking(move || Loader::read_config(Path::new("/"), Some(&path)).is_err()),
    );
    assert!(read.await.unwrap());
}
