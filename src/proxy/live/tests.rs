#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::Loader;
use crate::connection::Frozen;
use crate::secret::{RootKey, Sealed, TokenDigest};
use crate::store::{
    ConnectionRecord, ConnectionState, SqliteStore, Store, StoreFile, TokenKind, TokenRecord, TokenScope,
};
use crate::strategy::{Placement, Strategy};
use crate::types::{ConnectionId, Scheme, Scope, TokenId, Url};
use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use std::sync::Barrier;
use tempfile::TempDir;

const NOW: UnixSeconds = 1_700_000_000;
const HOUR: i64 = 3_600;

/// An install with a token for the connections `one` and `two`, and a token of another agent.
struct Install {
    directory: TempDir,
    store: Arc<SqliteStore>,
    loader: Loader,
    token: TokenRecord,
    other: TokenRecord,
}

impl Install {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes(&[1; 32]);
        let store = Arc::new(SqliteStore::open(&directory.path().join("nexus.db"), &root).await.unwrap());
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let record = connection(name, name);
            ids.push(record.id.clone());
            store.insert_connection(&record, false).await.unwrap();
        }
        let (token, other) = (token("cut", 1, &ids), token("other", 2, &ids));
        store.insert_token(&token).await.unwrap();
        store.insert_token(&other).await.unwrap();
        let config = "[egress]\nunmatched = \"tunnel\"\nallow_hosts = [\"bare.test\"]\n";
        std::fs::write(directory.path().join("nexus.toml"), config).unwrap();
        let dynamic = Arc::clone(&store) as Arc<dyn Store>;
        let loader = Loader::start(directory.path().to_owned(), None, dynamic, Vec::new()).await.unwrap();
        Self { directory, store, loader, token, other }
    }

    /// `register --replace` of the connection `one`.
    async fn replace(&self, host: &str) {
        let old = self.store.find_connection(&Scope::default(), "one").await.unwrap();
        let new = ConnectionRecord { id: old.id, version: old.version + 1, ..connection("one", host) };
        self.store.insert_connection(&new, true).await.unwrap();
    }

    /// What `GET https://NAME.test/a` by the connection of that name is.
    fn asked(&self, name: &str) -> Asked {
        let snapshot = self.loader.snapshot();
        let connection = snapshot.routes.in_scope(&Scope::default()).into_iter().find(|c| c.name.as_str() == name);
        Asked::With {
            connection: connection.unwrap(),
            target: target(name),
            method: Method::GET,
            path: CanonicalPath::parse(b"/a").unwrap(),
        }
    }
}

fn target(name: &str) -> Target {
    Target::parse_authority(Scheme::Https, format!("{name}.test").as_bytes()).unwrap()
}

fn connection(name: &str, host: &str) -> ConnectionRecord {
    let url = Url::parse(format!("https://{host}.test").as_bytes()).unwrap();
    let strategy = Strategy::new(vec![Placement::parse("header Authorization: Bearer {token}").unwrap()]).unwrap();
    ConnectionRecord {
        id: ConnectionId::generate(),
        scope: Scope::default(),
        name: name.parse().unwrap(),
        provider: "custom".parse().unwrap(),
        definition: Frozen::custom(&url, strategy, None).unwrap().to_json(),
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

fn token(agent: &str, number: u8, connections: &[ConnectionId]) -> TokenRecord {
    TokenRecord {
        id: TokenId::generate(),
        scope: Scope::default(),
        agent: agent.parse().unwrap(),
        run: None,
        digest: TokenDigest([number; 32]),
        previous: None,
        connections: connections.to_vec(),
        methods: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
        scopes: vec![TokenScope::Use],
        kind: TokenKind::Opaque,
        parent: None,
        created_at: NOW,
        lifetime: Some(HOUR),
        expires_at: Some(NOW + HOUR),
        revoked_at: None,
    }
}

/// Something under way.
struct Thing {
    progress: Arc<Progress>,
    closing: Arc<Closing>,
}

impl Thing {
    fn enter(live: &Arc<Live>, token: &TokenRecord, asked: Asked) -> Self {
        let (progress, closing) = (Arc::<Progress>::default(), Arc::default());
        let watch = live.enter(Proof::Token(token.digest), asked, &progress, &closing);
        progress.watch().set(watch).unwrap();
        Self { progress, closing }
    }

    fn cut(&self) -> Option<Cut> {
        self.progress.fuse().cut()
    }
}

#[tokio::test]
async fn every_change_cuts_what_it_forbids_and_nothing_else() {
    type Act = fn(&Install) -> futures_util::future::BoxFuture<'_, UnixSeconds>;
    // What is done, and what becomes of: a request not yet routed, a tunnel, a bare one, by `one`, by `two`, and by
    // another agent's token by `one`.
    let cases: Vec<(&str, Act, [Option<Cut>; 6])> = vec![
        ("nothing", |_| async { NOW }.boxed(), [None; 6]),
        (
            "revoked",
            |i| {
                async {
                    i.store.revoke_token(&Scope::default(), &i.token.id, NOW).await.unwrap();
                    NOW
                }
                .boxed()
            },
            [
                Some(Cut::TokenRevoked),
                Some(Cut::TokenRevoked),
                Some(Cut::TokenRevoked),
                Some(Cut::TokenRevoked),
                Some(Cut::TokenRevoked),
                None,
            ],
        ),
        ("almost expired", |_| async { NOW + HOUR - 1 }.boxed(), [None; 6]),
        ("expired", |_| async { NOW + HOUR }.boxed(), [Some(Cut::TokenExpired); 6]),
        (
            "disabled",
            |i| {
                async {
                    i.store.set_connection_disabled(&Scope::default(), "one", true).await.unwrap();
                    NOW
                }
                .boxed()
            },
            [None, None, None, Some(Cut::ConnectionDisabled), None, Some(Cut::ConnectionDisabled)],
        ),
        (
            "deleted",
            |i| {
                async {
                    i.store.delete_connection(&Scope::default(), "one").await.unwrap();
                    NOW
                }
                .boxed()
            },
            [None, None, None, Some(Cut::ConnectionDeleted), None, Some(Cut::ConnectionDeleted)],
        ),
        (
            "moved elsewhere",
            |i| {
                async {
                    i.replace("three").await;
                    NOW
                }
                .boxed()
            },
            [None, None, None, Some(Cut::ConnectionReplaced), None, Some(Cut::ConnectionReplaced)],
        ),
        (
            "given a new secret",
            |i| {
                async {
                    i.replace("one").await;
                    NOW
                }
                .boxed()
            },
            [None; 6],
        ),
        (
            "host allowed no more",
            |i| {
                async {
                    std::fs::write(i.directory.path().join("nexus.toml"), "[egress]\nunmatched = \"tunnel\"\n")
                        .unwrap();
                    assert!(i.loader.reload_files().await.unwrap());
                    NOW
                }
                .boxed()
            },
            [None, None, Some(Cut::Denied), None, None, None],
        ),
        (
            "locked down, without the key",
            |i| {
                async {
                    let file = StoreFile::open(i.store.path()).await.unwrap();
                    file.set_lockdown(NOW).await.unwrap();
                    file.close().await;
                    NOW
                }
                .boxed()
            },
            [Some(Cut::LockedDown); 6],
        ),
    ];
    for (name, act, expected) in cases {
        let install = Install::new().await;
        let live = Arc::<Live>::default();
        let things = [
            Thing::enter(&live, &install.token, Asked::Nothing),
            Thing::enter(&live, &install.token, Asked::Tunnel),
            Thing::enter(&live, &install.token, Asked::Bare(target("bare"))),
            Thing::enter(&live, &install.token, install.asked("one")),
            Thing::enter(&live, &install.token, install.asked("two")),
            Thing::enter(&live, &install.other, install.asked("one")),
        ];
        let now = act(&install).await;
        install.loader.reload_store().await.unwrap();
        let cuts = live.judge(&install.loader.snapshot(), now);
        assert_eq!(things.each_ref().map(Thing::cut), expected, "{name}");
        assert_eq!(cuts.len(), expected.iter().flatten().count(), "{name}");
        // Once each.
        assert!(live.judge(&install.loader.snapshot(), now).is_empty(), "{name}");
        // A tunnel stays for the refusal of a request that is on its way.
        assert!(things[1].closing.asked().now_or_never().is_none(), "{name}");
        assert_eq!(live.len(), 6);
        drop(things);
        assert!(live.is_empty());
        install.store.close().await;
    }
}

#[tokio::test]
async fn what_waits_is_woken_on_both_sides() {
    let install = Install::new().await;
    let live = Arc::<Live>::default();
    let thing = Thing::enter(&live, &install.token, Asked::Nothing);
    let progress = Arc::clone(&thing.progress);
    let upstream = tokio::spawn(async move { poll_fn(|cx| progress.fuse().poll_cut(Side::Upstream, cx)).await });
    let progress = Arc::clone(&thing.progress);
    let agent = tokio::spawn(async move { progress.fuse().until_cut().await });
    tokio::task::yield_now().await;
    live.judge(&install.loader.snapshot(), NOW + HOUR);
    assert_eq!((agent.await.unwrap(), upstream.await.unwrap()), (Cut::TokenExpired, Cut::TokenExpired));
}

#[tokio::test]
async fn what_does_not_notice_loses_its_connection() {
    let install = Install::new().await;
    let live = Arc::<Live>::default();
    let thing = Thing::enter(&live, &install.token, Asked::Nothing);
    let snapshot = install.loader.snapshot();
    live.judge(&snapshot, NOW + HOUR);
    live.judge(&snapshot, NOW + HOUR);
    assert!(thing.closing.cut().now_or_never().is_none());
    // As long as it is there, each later pass looks.
    while thing.closing.cut().now_or_never().is_none() {
        live.judge(&snapshot, NOW + HOUR);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whoever enters with an old snapshot while a new one is published is cut by one of the two.
#[tokio::test]
async fn nobody_slips_through_between_two_snapshots() {
    let install = Install::new().await;
    let open = install.loader.snapshot();
    let mut locked = (*open).clone();
    locked.directory.locked = true;
    let locked = Arc::new(locked);
    for round in 0..3_000 {
        let live = Arc::<Live>::default();
        let current = Arc::new(ArcSwap::new(Arc::clone(&open)));
        let start = Arc::new(Barrier::new(2));
        let publisher = std::thread::spawn({
            let (live, current, start, locked) =
                (Arc::clone(&live), Arc::clone(&current), Arc::clone(&start), Arc::clone(&locked));
            move || {
                start.wait();
                current.store(locked);
                live.judge(&current.load(), NOW);
            }
        });
        start.wait();
        let used = current.load_full();
        if used.directory.recognise(&Proof::Token(install.token.digest), NOW).is_err() {
            publisher.join().unwrap();
            continue;
        }
        let thing = Thing::enter(&live, &install.token, Asked::Nothing);
        let latest = current.load_full();
        if !Arc::ptr_eq(&latest, &used) {
            thing.progress.watch().get().unwrap().judge(&latest, NOW);
        }
        publisher.join().unwrap();
        assert_eq!(thing.cut(), Some(Cut::LockedDown), "round {round}");
    }
}

#[test]
fn metrics_know_every_reason() {
    let text = crate::telemetry::Metrics::new().render();
    for (number, cut) in Cut::ALL.into_iter().enumerate() {
        assert_eq!(cut as usize, number + 1);
        assert!(text.contains(&format!("nexus_cuts_total{{reason=\"{}\"}} 0", cut.as_str())), "{cut:?}");
    }
    let metrics = crate::telemetry::Metrics::new();
    metrics.cut(Cut::LockedDown as usize - 1);
    assert!(metrics.render().contains("nexus_cuts_total{reason=\"locked_down\"} 1"));
}
