//! The parts that every request pays for, alone: `cargo bench --bench hot_path`.
#![expect(clippy::unwrap_used, reason = "a bench")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nexus::config::Loader;
use nexus::connection::{Connection, Frozen, RouteTable};
use nexus::identity::{Proof, TokenTable};
use nexus::policy::{Question, decide};
use nexus::proxy::Closing;
use nexus::proxy::body::Progress;
use nexus::proxy::framing::{HeadLimits, Scanner};
use nexus::proxy::live::{Asked, Live};
use nexus::secret::{AgentToken, Keyring, RootKey, Sealed, Secret, SecretFields, TokenDigest, random_bytes};
use nexus::store::{ConnectionRecord, ConnectionState, SqliteStore, Store, TokenKind, TokenRecord, TokenScope};
use nexus::strategy::{Placement, Strategy};
use nexus::types::{
    AgentName, CanonicalPath, ConnectionId, ConnectionName, ProviderId, Scheme, Scope, Target, TokenId, UnixSeconds,
    Url,
};
use std::hint::black_box;
use std::sync::Arc;

const NOW: UnixSeconds = 1_800_000_000;

fn keyring() -> Keyring {
    let text = Secret::new("0123456789abcdef".repeat(4));
    Keyring::new(&RootKey::parse(&text, "the bench").unwrap(), "bench")
}

/// A connection to `https://api-N.bench.test/v1` with a bearer token of 64 bytes.
fn connection(keyring: &Keyring, number: usize) -> Arc<Connection> {
    let url = Url::parse(format!("https://api-{number}.bench.test/v1").as_bytes()).unwrap();
    let placement = Placement::parse("header Authorization: Bearer {token}").unwrap();
    let frozen = Frozen::custom(&url, Strategy::new(vec![placement]).unwrap(), None).unwrap();
    let mut fields = SecretFields::default();
    fields.insert("token", Secret::new("s".repeat(64)));
    let mut record = ConnectionRecord {
        id: ConnectionId::generate(),
        scope: Scope::default(),
        name: ConnectionName::parse(&format!("api-{number}")).unwrap(),
        provider: ProviderId::parse("custom").unwrap(),
        definition: frozen.to_json(),
        version: 1,
        access: Sealed::from_bytes(&[]),
        grant: None,
        access_issued_at: None,
        access_expires_at: None,
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        orphaned_at: None,
    };
    let unsealed = Connection::from_record(&record, None).unwrap();
    record.access = unsealed.seal_access(keyring, 1, &fields);
    Arc::new(Connection::from_record(&record, None).unwrap())
}

fn token(number: usize, digest: TokenDigest, connections: &[ConnectionId]) -> TokenRecord {
    TokenRecord {
        id: TokenId::generate(),
        scope: Scope::default(),
        agent: AgentName::parse(&format!("agent-{number}")).unwrap(),
        run: None,
        digest,
        previous: None,
        connections: connections.to_vec(),
        methods: vec!["GET".to_owned()],
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

/// A table of `count` tokens and the value of one in the middle.
fn tokens(count: usize, connections: &[ConnectionId]) -> (TokenTable, AgentToken) {
    let wanted = AgentToken::generate();
    let records: Vec<_> = (0..count)
        .map(|number| {
            // Why exposed: the table knows tokens by the hash of their value.
            let digest = match number == count / 2 {
                true => AgentToken::digest(wanted.value().expose()),
                false => TokenDigest(random_bytes()),
            };
            token(number, digest, connections)
        })
        .collect();
    (TokenTable::default().updated(&records, &[]), wanted)
}

fn open_credential(c: &mut Criterion) {
    let keyring = keyring();
    let connection = connection(&keyring, 0);
    c.bench_function("open a sealed credential", |b| {
        b.iter(|| connection.open_access(&keyring, black_box(&connection.access())).unwrap());
    });
}

fn look_up_token(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash and look up a token");
    for count in [1, 100_000] {
        let (table, wanted) = tokens(count, &[ConnectionId::generate()]);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| table.authenticate(&AgentToken::digest(black_box(wanted.value().expose())), NOW).unwrap());
        });
    }
    group.finish();
}

fn change_token(c: &mut Criterion) {
    let mut group = c.benchmark_group("change a token of so many");
    for count in [1, 100_000] {
        let (table, _) = tokens(count, &[ConnectionId::generate()]);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| table.updated(&[token(count, TokenDigest(random_bytes()), &[])], &[]));
        });
    }
    group.finish();
}

fn scan_head(c: &mut Criterion) {
    let mut head = b"GET /v1/repos/owner/name/issues?state=open HTTP/1.1\r\nHost: api-0.bench.test\r\n".to_vec();
    for number in 0..12 {
        head.extend_from_slice(format!("X-Header-{number}: {}\r\n", "v".repeat(40)).as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let mut group = c.benchmark_group("judge a request head");
    group.throughput(Throughput::Bytes(head.len() as u64));
    group.bench_function("14 fields", |b| {
        b.iter(|| {
            let mut scanner = Scanner::new(HeadLimits { bytes: 64 * 1024, fields: 128, target: 16 * 1024 });
            let step = scanner.advance(black_box(&head));
            assert_eq!(step.passed, head.len());
            step
        });
    });
    group.finish();
}

fn route_and_decide(c: &mut Criterion) {
    let keyring = keyring();
    let mut group = c.benchmark_group("route and decide");
    for count in [1, 100, 10_000] {
        let connections: Vec<_> = (0..count).map(|number| connection(&keyring, number)).collect();
        let table = RouteTable::default().updated(connections.clone(), &[]);
        // A token holds few grants, however many connections there are.
        let granted: Vec<_> = connections.iter().take(8).map(|connection| connection.id.clone()).collect();
        let (known, wanted) = tokens(1, &granted);
        let principal = known.authenticate(&AgentToken::digest(wanted.value().expose()), NOW).unwrap();
        let target = Target::parse_authority(Scheme::Https, b"api-0.bench.test").unwrap();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let path = CanonicalPath::parse(black_box(b"/v1/repos/owner/name/issues?state=open")).unwrap();
                let choice = table.route(&principal, None, &target, &path).unwrap();
                let question = Question {
                    connection: &choice.connection.id,
                    target: &target,
                    method: &http::Method::GET,
                    path: &path,
                };
                decide(&principal, &question).unwrap()
            });
        });
    }
    group.finish();
}

/// What the watch over everything under way costs: its share of each request, and one look at all of them.
fn watch_what_is_under_way(c: &mut Criterion) {
    let keyring = keyring();
    let connection = connection(&keyring, 0);
    let wanted = AgentToken::generate();
    // Why exposed: the store knows tokens by the hash of their value.
    let digest = AgentToken::digest(wanted.value().expose());
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let loader = runtime.block_on(async {
        let root = RootKey::parse(&Secret::new("0123456789abcdef".repeat(4)), "the bench").unwrap();
        let store = SqliteStore::open(&directory.path().join("nexus.db"), &root).await.unwrap();
        let mut record = token(0, digest, std::slice::from_ref(&connection.id));
        record.methods.clear();
        store.insert_token(&record).await.unwrap();
        let record = ConnectionRecord {
            id: connection.id.clone(),
            scope: Scope::default(),
            name: connection.name.clone(),
            provider: ProviderId::parse("custom").unwrap(),
            definition: connection.frozen.to_json(),
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
        };
        store.insert_connection(&record, false).await.unwrap();
        Loader::start(directory.path().to_owned(), None, Arc::new(store), Vec::new()).await.unwrap()
    });
    let snapshot = loader.snapshot();
    let live = Arc::<Live>::default();
    let closing = Arc::<Closing>::default();
    let asked = || Asked::With {
        connection: Arc::clone(snapshot.routes.get(&connection.id).unwrap()),
        target: Target::parse_authority(Scheme::Https, b"api-0.bench.test").unwrap(),
        method: http::Method::GET,
        path: CanonicalPath::parse(b"/v1/repos/owner/name/issues?state=open").unwrap(),
    };
    let ready = asked();
    let mut group = c.benchmark_group("what is under way");
    group.bench_function("enter and leave", |b| {
        b.iter(|| {
            let progress = Arc::<Progress>::default();
            live.enter(Proof::Token(digest), black_box(ready.clone()), &progress, &closing)
        });
    });
    let open: Vec<_> = (0..10_000)
        .map(|_| {
            let progress = Arc::<Progress>::default();
            let watch = live.enter(Proof::Token(digest), asked(), &progress, &closing);
            (progress, watch)
        })
        .collect();
    group.bench_function("judge 10000", |b| {
        b.iter(|| assert!(live.judge(black_box(&snapshot), NOW).is_empty()));
    });
    group.finish();
    drop(open);
}

criterion_group!(
    benches,
    open_credential,
    look_up_token,
    change_token,
    scan_head,
    route_and_decide,
    watch_what_is_under_way
);
criterion_main!(benches);
