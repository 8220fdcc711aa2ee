#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::net::testing::{NameServer, Peer, TestCa, egress, settings, target};
use rustls::HandshakeKind;
use std::io::ErrorKind;
use std::net::TcpListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One round trip: the peer answers `pong` to `ping`.
async fn ping(mut stream: UpstreamStream) {
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"pong");
}

async fn connect(egress: &Egress, target: &Target, alpn: Alpn) -> Result<UpstreamStream, NetError> {
    let addresses = egress.resolve(target).await?;
    let (stream, address) = egress.connect(target, &addresses, alpn).await?;
    assert!(addresses.contains(&address));
    Ok(stream)
}

#[tokio::test]
async fn a_verified_upstream_is_reached_and_sessions_resume() {
    let ca = TestCa::new("test root");
    let mut peer = Peer::start(Some(ca.serve(&["good.test"])), "ping", "pong").await;
    let first = egress(settings(&["good.test"], Some(&ca)));
    let target = target(&format!("https://good.test:{}", peer.address.port()));

    ping(connect(&first, &target, Alpn::H2OrHttp1).await.unwrap()).await;
    let served = peer.served().await;
    assert_eq!(served.handshake, Some(HandshakeKind::Full));
    assert_eq!(served.server_name.as_deref(), Some("good.test"));
    assert_eq!(served.received, b"ping");

    ping(connect(&first, &target, Alpn::H2OrHttp1).await.unwrap()).await;
    assert_eq!(peer.served().await.handshake, Some(HandshakeKind::Resumed));

    let reloaded = Egress::new(settings(&["good.test", "other.test"], Some(&ca)), Some(&first)).unwrap();
    ping(connect(&reloaded, &target, Alpn::H2OrHttp1).await.unwrap()).await;
    assert_eq!(peer.served().await.handshake, Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn an_ip_literal_is_verified_as_an_address() {
    let ca = TestCa::new("test root");
    let mut peer = Peer::start(Some(ca.serve(&["127.0.0.1"])), "ping", "pong").await;
    let egress = egress(settings(&[], Some(&ca)));
    let target = target(&format!("https://127.0.0.1:{}", peer.address.port()));
    ping(connect(&egress, &target, Alpn::Http1).await.unwrap()).await;
    assert_eq!(peer.served().await.server_name, None);
}

#[tokio::test]
async fn h2_is_offered_unless_the_caller_says_http1() {
    let ca = TestCa::new("test root");
    let config = ca.serve_with(&["good.test"], &["h2", "http/1.1"], |_| ());
    let peer = Peer::start(Some(config), "ping", "pong").await;
    let egress = egress(settings(&["good.test"], Some(&ca)));
    let target = target(&format!("https://good.test:{}", peer.address.port()));
    assert!(connect(&egress, &target, Alpn::H2OrHttp1).await.unwrap().is_h2());
    assert!(!connect(&egress, &target, Alpn::Http1).await.unwrap().is_h2());
}

#[tokio::test]
async fn an_upstream_that_does_not_verify_sees_no_byte() {
    let ca = TestCa::new("test root");
    let other = TestCa::new("other root");
    let day = |year| rcgen::date_time_ymd(year, 1, 1);
    for (name, config) in [
        ("wrong name", ca.serve(&["evil.test"])),
        ("suffix of the name", ca.serve(&["test"])),
        ("address only", ca.serve(&["127.0.0.1"])),
        ("other CA", other.serve(&["good.test"])),
        (
            "expired",
            ca.serve_with(&["good.test"], &[], |params| (params.not_before, params.not_after) = (day(2019), day(2020))),
        ),
        (
            "not yet valid",
            ca.serve_with(&["good.test"], &[], |params| (params.not_before, params.not_after) = (day(2099), day(2100))),
        ),
    ] {
        let mut peer = Peer::start(Some(config), "ping", "pong").await;
        let egress = egress(settings(&["good.test"], Some(&ca)));
        let target = target(&format!("https://good.test:{}", peer.address.port()));
        let error = connect(&egress, &target, Alpn::H2OrHttp1).await.unwrap_err();
        assert!(matches!(error, NetError::Tls { .. }), "{name}: {error:?}");
        assert_eq!(peer.served().await.received, b"", "{name}");
    }
}

#[tokio::test]
async fn a_certificate_for_a_name_does_not_serve_an_address() {
    let ca = TestCa::new("test root");
    let peer = Peer::start(Some(ca.serve(&["good.test"])), "ping", "pong").await;
    let target = target(&format!("https://127.0.0.1:{}", peer.address.port()));
    let error = connect(&egress(settings(&[], Some(&ca))), &target, Alpn::Http1).await.unwrap_err();
    assert!(matches!(error, NetError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_a_tls_error() {
    let mut peer = Peer::start(None, "\0", "HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let target = target(&format!("https://good.test:{}", peer.address.port()));
    let error = connect(&egress(settings(&["good.test"], None)), &target, Alpn::Http1).await.unwrap_err();
    assert!(matches!(error, NetError::Tls { .. }), "{error:?}");
    assert!(memchr::memmem::find(&peer.served().await.received, b"ping").is_none());
}

#[tokio::test]
async fn http_is_in_clear_and_tunnels_are_plain_tcp() {
    let mut peer = Peer::start(None, "ping", "pong").await;
    let egress = egress(settings(&["good.test"], None));
    let http = target(&format!("http://good.test:{}", peer.address.port()));
    let stream = connect(&egress, &http, Alpn::H2OrHttp1).await.unwrap();
    assert!(matches!(&stream, UpstreamStream::Plain(tcp) if tcp.nodelay().unwrap()));
    ping(stream).await;
    assert_eq!(peer.served().await.received, b"ping");

    let https = target(&format!("https://good.test:{}", peer.address.port()));
    let addresses = egress.resolve(&https).await.unwrap();
    let (stream, address) = egress.connect_tcp(&https, &addresses).await.unwrap();
    assert_eq!(address, peer.address);
    ping(UpstreamStream::Plain(stream)).await;
}

#[tokio::test]
async fn a_refused_address_gets_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let closed = EgressSettings { allow_cidrs: Vec::new(), ..settings(&["good.test"], None) };
    let own = EgressSettings { own_listeners: vec![address], ..settings(&["good.test"], None) };
    for (settings, expected) in [(closed, AddressRefusal::NotPublic), (own, AddressRefusal::OwnListener)] {
        let egress = egress(settings);
        for host in [
            "good.test",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::ffff:127.0.0.1]",
            "localhost",
            "a.localhost",
        ] {
            let target = target(&format!("https://{host}:{}", address.port()));
            for error in [
                egress.resolve(&target).await.unwrap_err(),
                egress.connect(&target, &[address], Alpn::Http1).await.unwrap_err(),
                egress.connect_tcp(&target, &[address]).await.unwrap_err(),
            ] {
                assert!(
                    matches!(error, NetError::AddressRefused { refusal, .. } if refusal == expected),
                    "{host}: {error:?}"
                );
            }
        }
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn metadata_names_are_refused_without_a_question() {
    let server = NameServer::start(&[("metadata.google.internal.", &["8.8.8.8"])]).await;
    let egress = egress(settings(&["metadata.google.internal"], None)).with_resolver(server.resolver());
    for host in ["metadata.google.internal", "METADATA.google.internal.", "metadata.goog", "169.254.169.254"] {
        let error = egress.resolve(&target(&format!("http://{host}"))).await.unwrap_err();
        assert!(
            matches!(error, NetError::AddressRefused { refusal: AddressRefusal::Metadata, .. }),
            "{host}: {error:?}"
        );
    }
    assert!(server.questions.lock().is_empty());
}

#[tokio::test]
async fn one_refused_answer_refuses_all() {
    let many: Vec<String> = (1..=40).map(|n| format!("8.8.4.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut tail = many.clone();
    tail.push("10.0.0.1");
    let server = NameServer::start(&[
        ("public.test.", &["8.8.8.8", "2606:4700::1111", "8.8.4.4"]),
        ("mixed.test.", &["8.8.8.8", "10.0.0.1"]),
        ("mixed6.test.", &["8.8.8.8", "::1"]),
        ("mapped.test.", &["8.8.8.8", "::ffff:10.0.0.1"]),
        ("meta.test.", &["127.0.0.1", "169.254.169.254"]),
        ("many.test.", &many),
        ("tail.test.", &tail),
    ])
    .await;
    let egress = egress(settings(&[], None)).with_resolver(server.resolver());

    let public: Vec<String> =
        egress.resolve(&target("https://public.test")).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(public, ["8.8.8.8:443", "[2606:4700::1111]:443", "8.8.4.4:443"]);
    assert_eq!(egress.resolve(&target("https://many.test")).await.unwrap().len(), MAX_ADDRESSES);
    for (name, expected) in [
        ("mixed.test", AddressRefusal::NotPublic),
        ("mixed6.test", AddressRefusal::NotPublic),
        ("mapped.test", AddressRefusal::NotPublic),
        ("meta.test", AddressRefusal::Metadata),
        ("tail.test", AddressRefusal::NotPublic),
    ] {
        let error = egress.resolve(&target(&format!("https://{name}"))).await.unwrap_err();
        assert!(
            matches!(&error, NetError::AddressRefused { refusal, .. } if *refusal == expected),
            "{name}: {error:?}"
        );
    }
    let error = egress.resolve(&target("https://missing.test")).await.unwrap_err();
    assert_eq!(error.to_string(), "missing.test could not be resolved: no such host");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_fails() {
    let peer = Peer::start(None, "ping", "pong").await;
    let port = peer.address.port();
    let egress = egress(settings(&["good.test"], None));
    // Nothing listens on these addresses at this port.
    let addresses: Vec<SocketAddr> =
        ["127.0.0.2", "127.0.0.3", "127.0.0.1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).into();
    let target = target(&format!("http://good.test:{port}"));
    let (stream, address) = egress.connect(&target, &addresses, Alpn::Http1).await.unwrap();
    assert_eq!(address, peer.address);
    ping(stream).await;

    let error = egress.connect_tcp(&target, &addresses[..2]).await.unwrap_err();
    assert!(
        matches!(&error, NetError::Connect { source, .. } if source.kind() == ErrorKind::ConnectionRefused),
        "{error:?}"
    );
    assert!(matches!(egress.connect_tcp(&target, &[]).await, Err(NetError::Connect { .. })));
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_at_the_limit() {
    // Accepts, reads and never answers.
    let peer = Peer::start(None, "never", "").await;
    let egress = egress(EgressSettings { connect: Duration::from_millis(50), ..settings(&["good.test"], None) });
    let target = target(&format!("https://good.test:{}", peer.address.port()));
    let error = connect(&egress, &target, Alpn::Http1).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn localhost_is_reached_where_loopback_is_allowed() {
    let peer = Peer::start(None, "ping", "pong").await;
    let egress = egress(settings(&[], None));
    for host in ["localhost", "foo.localhost"] {
        let target = target(&format!("http://{host}:{}", peer.address.port()));
        assert_eq!(egress.resolve(&target).await.unwrap(), [peer.address]);
    }
}

#[test]
fn trust_roots_are_known_by_their_contents() {
    let (one, two) = (TestCa::new("one"), TestCa::new("two"));
    let with = |files: &[&TestCa]| {
        egress(EgressSettings {
            ca_files: files.iter().map(|ca| ca.path().to_owned()).collect(),
            ..EgressSettings::default()
        })
        .trust_root()
    };
    assert_eq!(with(&[&one, &two]), with(&[&two, &one, &one]));
    assert_ne!(with(&[&one]), with(&[&two]));
    assert_ne!(with(&[&one]), with(&[]));
}

#[test]
fn unusable_ca_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = TestCa::new("interception");
    for (name, path) in [
        ("missing", dir.path().join("missing.pem")),
        ("empty", file("empty.pem", "")),
        ("text", file("text.pem", "hello")),
        ("damaged", file("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        ("distrusted", ca.path().to_owned()),
    ] {
        let settings = EgressSettings {
            ca_files: vec![path.clone()],
            distrusted: vec![ca.certificate()],
            ..EgressSettings::default()
        };
        match Egress::new(settings, None) {
            Err(NetError::CaFile { path: named, .. }) => assert_eq!(named, path.display().to_string(), "{name}"),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
}
