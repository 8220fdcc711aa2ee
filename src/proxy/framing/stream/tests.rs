#![expect(clippy::unwrap_used, reason = "tests")]
use super::{GuardedStream, HeadLimits, violation_of};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What an engine answers that takes its time, after an agent sent these bytes.
async fn answer(sent: &[u8]) -> String {
    let (mut agent, ours) = tokio::io::duplex(1 << 20);
    let limits = HeadLimits { bytes: 1024, fields: 16, target: 512 };
    let stream = GuardedStream::new(ours, limits, Duration::from_secs(10), false);
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        tokio::task::yield_now().await;
        let status = if violation_of(request.headers()).is_some() { 400 } else { 200 };
        hyper::Response::builder().status(status).body(Empty::<Bytes>::new())
    });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    agent.write_all(sent).await.unwrap();
    let mut answered = Vec::new();
    let reading = agent.read_to_end(&mut answered);
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the connection is closed").unwrap();
    String::from_utf8(answered).unwrap()
}

#[tokio::test]
async fn refused_heads_are_answered_and_the_connection_is_closed() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let cases: [(&str, &[u8]); 4] = [
        ("bare line feeds", b"GET / HTTP/1.1\nHost: a\n\n"),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("a second head that is refused", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        ("too long", long.as_bytes()),
    ];
    for (name, sent) in cases {
        let answered = answer(sent).await;
        assert!(answered.contains("HTTP/1.1 400 "), "{name}: {answered}");
        assert!(answered.contains("connection: close"), "{name}: {answered}");
    }
}
