//! How long a store of many connections takes to open, to load into a snapshot, to change and to load again.
//!
//! `cargo bench --bench store_load -- --connections 100000`; each connection has a token.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for measurements, not part of the product")]

use clap::Parser;
use nexus::config::Loader;
use nexus::connection::{Destination, Frozen};
use nexus::secret::{Keyring, RootKey, SealContext, SecretFields};
use nexus::store::{Seen, Store, StoreFile};
use nexus::strategy::{Placement, Strategy};
use nexus::types::{BasePath, HostPattern, Scheme, Scope};
use sqlx::Connection as _;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Parser)]
struct Arguments {
    /// How many connections, and as many tokens.
    #[arg(long, default_value_t = 100_000)]
    connections: u32,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure(arguments.connections));
}

async fn measure(count: u32) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nexus.db");
    let root = RootKey::load_or_create(&home.path().join("root.key")).unwrap();
    let file = StoreFile::open(&path).await.unwrap();
    let keyring = Arc::new(Keyring::new(&root, file.install_id()));
    let store = file.unlock(Arc::clone(&keyring)).await.unwrap();
    fill(&path, &keyring, count).await;
    let begun = Instant::now();
    store.accept(false).await.unwrap();
    println!("list all records in the manifest anew: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(store.verify(|_| Ok(())).await.unwrap().failed.is_empty());
    println!("verify: {:?}", begun.elapsed());
    store.close().await;

    let begun = Instant::now();
    let file = StoreFile::open(&path).await.unwrap();
    let store = Arc::new(file.unlock(keyring).await.unwrap());
    println!("open and unlock: {:?}", begun.elapsed());
    let loading = Instant::now();
    let loader = Loader::start(home.path().to_owned(), None, Arc::clone(&store) as Arc<dyn Store>, Vec::new());
    let loader = loader.await.unwrap();
    println!("load all into a snapshot: {:?}", loading.elapsed());
    println!("together, {count} connections and as many tokens: {:?}", begun.elapsed());
    assert_eq!(loader.snapshot().routes.len(), count as usize);

    let (mut writes, mut reloads) = (Vec::new(), Vec::new());
    for n in 0..50 {
        let begun = Instant::now();
        store.set_connection_disabled(&Scope::default(), &format!("c{n}"), true).await.unwrap();
        writes.push(begun.elapsed());
        let begun = Instant::now();
        loader.reload_store().await.unwrap();
        reloads.push(begun.elapsed());
    }
    writes.sort_unstable();
    reloads.sort_unstable();
    println!("one write: median {:?}", writes[25]);
    println!("one reload after it: median {:?}", reloads[25]);
    let seen = loader.snapshot().seen.clone();
    let begun = Instant::now();
    assert_eq!(store.changes_since(&seen).await.unwrap().seen, seen);
    assert_ne!(seen, Seen::default());
    println!("a look at nothing new: {:?}", begun.elapsed());
}

/// The rows as the program would write them, in one transaction past it.
async fn fill(path: &std::path::Path, keyring: &Keyring, count: u32) {
    let frozen = Frozen {
        destinations: vec![Destination {
            scheme: Scheme::Https,
            host: HostPattern::parse("api.example.test").unwrap(),
            port: 443,
            path: BasePath::default(),
            strategy: Strategy::new(vec![Placement::parse("header Authorization: Bearer {token}").unwrap()]).unwrap(),
        }],
        oauth: None,
        default_headers: Vec::new(),
        test: None,
        revision: None,
        source: None,
    };
    let (definition, destination) = (frozen.to_json(), frozen.access_digest());
    let mut fields = SecretFields::default();
    fields.insert("token", nexus::secret::Secret::new("t".repeat(40)));
    let mut connection =
        sqlx::sqlite::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    for n in 0..count {
        let id = format!("con_{:032x}", u128::from(n) + (7 << 76) + (1 << 63));
        let context =
            SealContext { tenant: "default", record: &id, field: "access", version: 1, destination: &destination };
        sqlx::query(
            "INSERT INTO connections (id, tenant, namespace, name, provider, definition, version, access_sealed, state, \
             disabled, created_at, updated_at, generation) \
             VALUES (?, 'default', 'default', ?, 'custom', ?, 1, ?, 'active', 0, 1, 1, 0)",
        )
        .bind(&id)
        .bind(format!("c{n}"))
        .bind(&definition)
        .bind(keyring.seal(&context, &fields.encode()).as_bytes())
        .execute(&mut *transaction)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO tokens (id, tenant, namespace, agent, digest, connections, methods, paths, created_at, generation) \
             VALUES (?, 'default', 'default', ?, ?, ?, '[]', '[]', 1, 0)",
        )
        .bind(id.replace("con_", "tok_"))
        .bind(format!("a{n}"))
        .bind(&nexus::secret::random_bytes::<32>()[..])
        .bind(format!("[\"{id}\"]"))
        .execute(&mut *transaction)
        .await
        .unwrap();
    }
    transaction.commit().await.unwrap();
    connection.close().await.unwrap();
}
