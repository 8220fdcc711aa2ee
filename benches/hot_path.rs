//! The parts that every request pays for, alone: `cargo bench --bench hot_path`.
#![expect(clippy::unwrap_used, reason = "a bench")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nexus::connection::{Connection, Frozen, RouteTable};
use nexus::identity::TokenTable;
use nexus::policy::{Question, decide};
use nexus::proxy::framing::{HeadLimits, Scanner};
use nexus::secret::{AgentToken, Keyring, RootKey, Sealed, Secret, SecretFields, TokenDigest, random_bytes};
use nexus::store::{ConnectionRecord, ConnectionState, TokenKind, TokenRecord, TokenScope};
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

criterion_group!(benches, open_credential, look_up_token, change_token, scan_head, route_and_decide);
criterion_main!(benches);
