#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn serving() -> Serving {
    Serving {
        head: HeadLimits { bytes: 64 * 1024, fields: 128, target: 16 * 1024 },
        head_time: Duration::from_secs(10),
        first_head_is_due: true,
        idle: None,
        draining: CancellationToken::new(),
        ending: CancellationToken::new(),
    }
}

fn entry() -> Entry {
    Entry {
        client: None,
        tunnel: None,
        is_private: true,
        is_tls: false,
        standing: None,
        decision: None,
        close: Arc::default(),
    }
}

async fn answer(request: Request<Incoming>, _: Arc<Entry>) -> Response<ResponseBody> {
    assert!(request.uri().path() != "/panic", "a fault in one request");
    Response::new(ResponseBody::text(request.uri().path().to_owned()))
}

/// Sends `text` over a stream of its own, ends, and gives everything that came back.
async fn exchange(text: &str) -> String {
    let (mut agent, stream) = tokio::io::duplex(64 * 1024);
    let served = tokio::spawn(serve_http1(stream, entry(), serving(), answer));
    agent.write_all(text.as_bytes()).await.unwrap();
    let mut back = String::new();
    agent.read_to_string(&mut back).await.unwrap();
    served.await.unwrap();
    back
}

#[tokio::test]
async fn a_panic_is_one_requests_alone() {
    let (mut agent, stream) = tokio::io::duplex(64 * 1024);
    let served = tokio::spawn(serve_http1(stream, entry(), serving(), answer));
    agent.write_all(b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut bytes = [0; 4096];
    let length = agent.read(&mut bytes).await.unwrap();
    assert!(String::from_utf8_lossy(&bytes[..length]).starts_with("HTTP/1.1 200"));
    agent.write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut back = String::new();
    agent.read_to_string(&mut back).await.unwrap();
    assert!(back.starts_with("HTTP/1.1 500"), "{back}");
    assert!(back.contains("x-nexus-error: internal_error"), "{back}");
    served.await.unwrap();
    let after = exchange("GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(after.ends_with("/after"), "{after}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let text: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let back = exchange(&(text + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    let order: Vec<usize> = (0..50).map(|n| back.find(&format!("\r\n\r\n/{n}HTTP")).unwrap()).collect();
    assert!(order.is_sorted());
    assert!(back.ends_with("/last"));
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let (mut agent, stream) = tokio::io::duplex(64 * 1024);
    let serving = Serving { head_time: Duration::from_millis(50), ..serving() };
    let served = tokio::spawn(serve_http1(stream, entry(), serving, answer));
    agent.write_all(b"GET / HT").await.unwrap();
    let mut back = Vec::new();
    agent.read_to_end(&mut back).await.unwrap();
    assert!(back.is_empty());
    served.await.unwrap();
}

#[tokio::test]
async fn draining_ends_an_idle_connection_and_lets_an_answer_finish() {
    let serving = serving();
    let (mut agent, stream) = tokio::io::duplex(64 * 1024);
    let served = tokio::spawn(serve_http1(stream, entry(), serving.clone(), answer));
    agent.write_all(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut bytes = [0; 4096];
    assert!(agent.read(&mut bytes).await.unwrap() > 0);
    serving.draining.cancel();
    assert_eq!(agent.read(&mut bytes).await.unwrap(), 0);
    served.await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_slow_answer_is_not() {
    let (mut agent, stream) = tokio::io::duplex(64 * 1024);
    let serving = Serving { idle: Some(Duration::from_millis(100)), ..serving() };
    let slow = |_: Request<Incoming>, _: Arc<Entry>| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Response::new(ResponseBody::text("slow"))
    };
    let served = tokio::spawn(serve_http1(stream, entry(), serving, slow));
    agent.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut back = String::new();
    agent.read_to_string(&mut back).await.unwrap();
    assert!(back.ends_with("slow"), "{back}");
    served.await.unwrap();
}

async fn h2_client(
    agent: tokio::io::DuplexStream,
) -> hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>> {
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(agent)).await.unwrap();
    tokio::spawn(connection);
    send
}

#[tokio::test]
async fn an_h2_connection_without_a_request_ends() {
    let (agent, stream) = tokio::io::duplex(64 * 1024);
    let serving = Serving { head_time: Duration::from_millis(50), idle: Some(Duration::from_secs(60)), ..serving() };
    let served = tokio::spawn(serve_http2(stream, entry(), serving, answer));
    let _client = h2_client(agent).await;
    served.await.unwrap();
}

#[tokio::test]
async fn an_idle_h2_connection_is_closed_and_a_slow_answer_is_not() {
    let (agent, stream) = tokio::io::duplex(64 * 1024);
    let serving = Serving { idle: Some(Duration::from_millis(100)), ..serving() };
    let slow = |_: Request<Incoming>, _: Arc<Entry>| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Response::new(ResponseBody::text("slow"))
    };
    let served = tokio::spawn(serve_http2(stream, entry(), serving, slow));
    let mut client = h2_client(agent).await;
    let request = Request::get("http://a/").body(http_body_util::Empty::new()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    served.await.unwrap();
}
