#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use parking_lot::Mutex;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Admin {
    address: SocketAddr,
    reasons: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

async fn start() -> Admin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let state = AdminState {
        metrics: Arc::new(Metrics::new()),
        readiness: Arc::new({
            let reasons = Arc::clone(&reasons);
            move || reasons.lock().clone()
        }),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve_admin(listener, state, async {
        let _ = stopped.await;
    }));
    Admin { address, reasons, stop, served }
}

/// Sends a head as it stands and gives status, head and body.
async fn send(address: SocketAddr, head: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

async fn get(admin: &Admin, path: &str) -> (u16, String, String) {
    send(admin.address, &format!("GET {path} HTTP/1.1\r\nHost: {}", admin.address)).await
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let admin = start().await;
    let (status, _, body) = get(&admin, "/healthz").await;
    assert_eq!((status, body.as_str()), (200, "ok"));

    let (status, _, body) = get(&admin, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, r#"{"ready":true,"reasons":[]}"#));
    admin.reasons.lock().push("audit_unavailable".to_owned());
    let (status, _, body) = get(&admin, "/readyz").await;
    assert_eq!((status, body.as_str()), (503, r#"{"ready":false,"reasons":["audit_unavailable"]}"#));

    let (status, head, body) = get(&admin, "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("nexus_build_info"), "{body}");
}

#[tokio::test]
async fn nothing_else_is_there() {
    let admin = start().await;
    for path in ["/", "/healthz/", "//healthz", "/metrics/x", "/debug/pprof", "/v1/call", "/%68ealthz"] {
        let (status, head, body) = get(&admin, path).await;
        assert_eq!(status, 404, "{path}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"]["code"] == "not_found");
    }
    let (status, _, body) = send(admin.address, "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0").await;
    assert_eq!(status, 405, "{body}");
}

#[tokio::test]
async fn a_name_of_somebody_else_is_misdirected() {
    let admin = start().await;
    let cases = [
        ("Host: 127.0.0.1", 200),
        ("Host: 127.0.0.1:9", 200),
        ("Host: 10.0.0.7:8471", 200),
        ("Host: [::1]:8471", 200),
        ("Host: localhost", 200),
        ("Host: LOCALHOST:8471", 200),
        ("Host: evil.test", 421),
        ("Host: evil.test:8471", 421),
        ("Host: localhost.evil.test", 421),
        ("Host: 127.0.0.1.evil.test", 421),
        ("Host: 127.0.0.1@evil.test", 421),
        ("Host: ", 421),
        ("X-Host: localhost", 421),
        ("Host: localhost\r\nHost: evil.test", 421),
    ];
    for (header, expected) in cases {
        for path in ["/healthz", "/nothing"] {
            let expected = if expected == 200 && path == "/nothing" { 404 } else { expected };
            let (status, _, body) = send(admin.address, &format!("GET {path} HTTP/1.1\r\n{header}")).await;
            assert_eq!(status, expected, "{header} {path}: {body}");
        }
    }
    let absolute = "GET http://evil.test/healthz HTTP/1.1\r\nHost: localhost";
    assert_eq!(send(admin.address, absolute).await.0, 421);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_client_that_says_nothing() {
    let admin = start().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /healthz HT").await.unwrap();
    assert_eq!(get(&admin, "/healthz").await.0, 200);
    admin.stop.send(()).unwrap();
    admin.served.await.unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
}
