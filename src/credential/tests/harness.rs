//! A token endpoint over TLS that answers by script, and an install around it.

use crate::connection::{Connection, Frozen, Grant, OAuthGrant};
use crate::credential::{CredentialSettings, Credentials};
use crate::identity::Principal;
use crate::net::{Egress, EgressSettings};
use crate::policy::{Permit, Question, decide};
use crate::provider::TokenClientAuth;
use crate::secret::{Keyring, RootKey, Secret, SecretFields};
use crate::store::{ConnectionRecord, ConnectionState, SqliteStore, Store};
use crate::strategy::{Placement, Strategy};
use crate::telemetry::Metrics;
use crate::types::{CanonicalPath, Clock, ConnectionId, Host, Scope, TokenId, UnixSeconds, Url};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(super) const START: UnixSeconds = 1_800_000_000;

/// One call that the endpoint got.
pub(super) struct Call {
    /// 1 for the first.
    pub(super) number: usize,
    pub(super) head: String,
    pub(super) form: HashMap<String, String>,
}

type Script = dyn Fn(&Call) -> Vec<u8> + Send + Sync;

/// A token endpoint on loopback.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    calls: watch::Sender<usize>,
    held: watch::Sender<bool>,
}

impl Endpoint {
    pub(super) async fn start(acceptor: TlsAcceptor, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, _) = watch::channel(0);
        let (held, _) = watch::channel(false);
        let (count, gate) = (calls.clone(), held.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, script, count, mut gate) =
                    (acceptor.clone(), script.clone(), count.clone(), gate.subscribe());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Some(mut call) = read_call(&mut stream).await else { return };
                    count.send_modify(|n| *n += 1);
                    call.number = *count.borrow();
                    if gate.wait_for(|held| !held).await.is_err() {
                        return;
                    }
                    let _ = stream.write_all(&script(&call)).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, calls, held }
    }

    pub(super) fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// Waits until so many calls have come in.
    pub(super) async fn called(&self, times: usize) {
        self.calls.subscribe().wait_for(|n| *n >= times).await.unwrap();
    }

    /// Holds answers back until [`Endpoint::release`].
    pub(super) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(super) fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn read_call(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Call> {
    let mut bytes = Vec::new();
    let split = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..split].to_vec()).ok()?;
    let length: usize =
        head.to_ascii_lowercase().split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok()?;
    while bytes.len() < split + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = std::str::from_utf8(&bytes[split..]).ok()?;
    let decode =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned();
    let form = body.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect();
    Some(Call { number: 0, head, form })
}

/// A whole answer.
pub(super) fn answer(status: u16, body: &str) -> Vec<u8> {
    answer_with(status, "content-type: application/json\r\n", body)
}

pub(super) fn answer_with(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An answer with a token, its lifetime and maybe a new refresh token.
pub(super) fn token(access: &str, expires_in: i64, refresh: Option<&str>) -> Vec<u8> {
    let refresh = refresh.map(|token| format!(r#","refresh_token":"{token}""#)).unwrap_or_default();
    let body = format!(r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{expires_in}{refresh}}}"#);
    answer(200, &body)
}

/// What a connection is registered with.
pub(super) struct Setup {
    pub(super) grant: Grant,
    pub(super) client_auth: TokenClientAuth,
    pub(super) access_token: Option<&'static str>,
    pub(super) refresh_token: Option<&'static str>,
    pub(super) issued_at: Option<UnixSeconds>,
    pub(super) expires_at: Option<UnixSeconds>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            grant: Grant::RefreshToken,
            client_auth: TokenClientAuth::Post,
            access_token: Some("access-1"),
            refresh_token: Some("refresh-1"),
            issued_at: Some(START),
            expires_at: Some(START + 3600),
        }
    }
}

/// An install with its token endpoint.
pub(super) struct Install {
    pub(super) endpoint: Endpoint,
    pub(super) egress: Arc<Egress>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) store: Arc<SqliteStore>,
    pub(super) clock: Clock,
    pub(super) acceptor: TlsAcceptor,
    directory: tempfile::TempDir,
}

impl Install {
    pub(super) async fn new(script: impl Fn(&Call) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let acceptor = acceptor(&directory.path().join("ca.pem"));
        let endpoint = Endpoint::start(acceptor.clone(), Arc::new(script)).await;
        let egress = Egress::new(
            EgressSettings {
                hosts: HashMap::from([(Host::parse(b"auth.test").unwrap(), Ipv4Addr::LOCALHOST.into())]),
                allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
                ca_files: vec![directory.path().join("ca.pem")],
                connect: Duration::from_secs(10),
                ..EgressSettings::default()
            },
            None,
        );
        let store = SqliteStore::open(&directory.path().join("nexus.db"), &root()).await.unwrap();
        Self {
            endpoint,
            egress: Arc::new(egress.unwrap()),
            keyring: Arc::clone(store.keyring()),
            store: Arc::new(store),
            clock: Clock::fixed(START),
            acceptor,
            directory,
        }
    }

    pub(super) fn credentials(&self) -> Credentials {
        self.credentials_over(self.store.clone())
    }

    pub(super) fn impatient(&self, settings: CredentialSettings) -> Credentials {
        self.credentials().with_settings(settings)
    }

    fn credentials_over(&self, store: Arc<SqliteStore>) -> Credentials {
        Credentials::new(self.keyring.clone(), store, Arc::new(Metrics::new()), self.clock.clone())
    }

    /// Another process on the same home: its own store handle, its own connections.
    pub(super) async fn other_process(&self, connection: &Connection) -> (Credentials, Arc<Connection>) {
        let store = SqliteStore::open(&self.path(), &root()).await.unwrap();
        let record = store.find_connection(&connection.scope, connection.id.as_str()).await.unwrap();
        let connection = Connection::from_record(&record, None).unwrap();
        (self.credentials_over(Arc::new(store)), Arc::new(connection))
    }

    pub(super) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("nexus.db")
    }

    pub(super) fn oauth(&self, setup: &Setup) -> OAuthGrant {
        let url = format!("https://auth.test:{}/token", self.endpoint.address.port());
        OAuthGrant {
            grant: setup.grant,
            token_url: Url::parse(url.as_bytes()).unwrap(),
            client_auth: setup.client_auth,
            scope: Some("a b".to_owned()),
        }
    }

    pub(super) async fn register(&self, setup: Setup) -> Arc<Connection> {
        let oauth = self.oauth(&setup);
        let mut grant = fields(&[("client_id", "the client"), ("client_secret", "s:1")]);
        if let Some(token) = setup.refresh_token {
            grant.insert("refresh_token", Secret::new(token.to_owned()));
        }
        let mut access = fields(&[]);
        if let Some(token) = setup.access_token {
            access.insert("access_token", Secret::new(token.to_owned()));
        }
        self.insert(Some(oauth), &access, Some(&grant), setup.issued_at, setup.expires_at).await
    }

    pub(super) async fn insert(
        &self,
        oauth: Option<OAuthGrant>,
        access: &SecretFields,
        grant: Option<&SecretFields>,
        issued_at: Option<UnixSeconds>,
        expires_at: Option<UnixSeconds>,
    ) -> Arc<Connection> {
        let strategy =
            Strategy::new(vec![Placement::parse("header Authorization: Bearer {access_token}").unwrap()]).unwrap();
        let base = Url::parse(b"https://api.test/v1").unwrap();
        let frozen = Frozen::custom(&base, strategy, oauth).unwrap();
        let mut record = ConnectionRecord {
            id: ConnectionId::generate(),
            scope: Scope::default(),
            name: "api".parse().unwrap(),
            provider: "custom".parse().unwrap(),
            definition: frozen.to_json(),
            version: 1,
            access: crate::secret::Sealed::from_bytes(b""),
            grant: None,
            access_issued_at: issued_at,
            access_expires_at: expires_at,
            state: ConnectionState::Active,
            state_reason: None,
            disabled: false,
            created_at: START,
            updated_at: START,
            orphaned_at: None,
        };
        let unsealed = Connection::from_record(&record, None).unwrap();
        record.access = unsealed.seal_access(&self.keyring, 1, access);
        record.grant = grant.map(|grant| unsealed.seal_grant(&self.keyring, 1, grant));
        self.store.insert_connection(&record, false).await.unwrap();
        Arc::new(Connection::from_record(&record, None).unwrap())
    }

    pub(super) async fn stored(&self, connection: &Connection) -> ConnectionRecord {
        self.store.find_connection(&connection.scope, connection.id.as_str()).await.unwrap()
    }

    /// The access token and the refresh token that the store has, opened.
    pub(super) async fn stored_tokens(&self, connection: &Connection) -> (String, String) {
        let record = self.stored(connection).await;
        let stored = Connection::from_record(&record, None).unwrap();
        let access = stored.open_access(&self.keyring, &stored.access()).unwrap();
        let grant = stored.open_grant(&self.keyring, &stored.access()).unwrap().unwrap();
        let value = |fields: &SecretFields, name: &str| fields.get(name).map_or("", Secret::expose).to_owned();
        (value(&access, "access_token"), value(&grant, "refresh_token"))
    }
}

pub(super) fn fields(pairs: &[(&str, &str)]) -> SecretFields {
    let mut fields = SecretFields::default();
    for (name, value) in pairs {
        fields.insert(name, Secret::new((*value).to_owned()));
    }
    fields
}

pub(super) fn permit(connection: &Connection) -> Permit {
    let principal = Principal {
        scope: connection.scope.clone(),
        agent: "agent".parse().unwrap(),
        run: None,
        token_id: Some(TokenId::generate()),
        issuer: None,
        grant: Arc::new(crate::identity::Grant {
            connections: vec![connection.id.clone()],
            ..crate::identity::Grant::default()
        }),
    };
    let target = Url::parse(b"https://api.test/v1").unwrap().target;
    let path = CanonicalPath::parse(b"/v1/x").unwrap();
    let question = Question { connection: &connection.id, target: &target, method: &http::Method::GET, path: &path };
    decide(&principal, &question).unwrap()
}

/// A CA, written to `ca_file`, and a listener's certificate for `auth.test` by it.
fn acceptor(ca_file: &Path) -> TlsAcceptor {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca_file, ca.pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["auth.test".to_owned(), "evil.test".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn root() -> RootKey {
    RootKey::from_bytes(&[0xab; 32])
}
