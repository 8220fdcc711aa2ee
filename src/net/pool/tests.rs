#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::net::EgressSettings;
use crate::types::Scheme;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

type Nothing = Empty<Bytes>;

/// An upstream in clear that gives each connection to `serve`.
async fn upstream<F, R>(serve: F) -> (PoolKey, Egress, SocketAddr)
where
    F: Fn(tokio::net::TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let settings = EgressSettings {
        allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
        connect: Duration::from_secs(10),
        ..EgressSettings::default()
    };
    let egress = Egress::new(settings, None).unwrap();
    let target = Target::parse_authority(Scheme::Http, address.to_string().as_bytes()).unwrap();
    let key = PoolKey {
        tenant: TenantName::parse("default").unwrap(),
        connection: None,
        trust_root: egress.trust_root(),
        target,
    };
    (key, egress, address)
}

fn request() -> Request<Nothing> {
    Request::get("/").header("host", "a").body(Empty::new()).unwrap()
}

/// One request, over a kept connection if there is one; gives the body and whether the connection was kept.
async fn get(pool: &Pool<Nothing>, egress: &Egress, key: &PoolKey, address: SocketAddr) -> (Bytes, bool) {
    let mut spare = Some(request());
    if let Some(kept) = pool.checkout(key, Alpn::Http1) {
        match kept.send(spare.take().unwrap()).await {
            Ok(answer) => return (answer.into_body().collect().await.unwrap().to_bytes(), true),
            Err(error) => spare = Some(error.unsent.unwrap_or_else(request)),
        }
    }
    let new = pool.connect(egress, key, &[address], Alpn::Http1).await.unwrap();
    let answer = new.send(spare.unwrap()).await.map_err(|error| error.source).unwrap();
    (answer.into_body().collect().await.unwrap().to_bytes(), false)
}

async fn read_head(stream: &mut tokio::net::TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let (key, egress, address) = upstream(|mut stream| async move {
        while read_head(&mut stream).await {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let pool = Pool::default();
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (body, was_kept) = get(&pool, &egress, &key, address).await;
        assert_eq!(body, "ok");
        kept.push(was_kept);
    }
    assert_eq!(kept, [false, true, true]);
    let other = PoolKey { tenant: TenantName::parse("other").unwrap(), ..key };
    assert!(pool.checkout(&other, Alpn::Http1).is_none());
}

/// The upstream closes cleanly a moment after each answer, so that requests meet connections in every stage of closing.
#[tokio::test]
async fn an_upstream_that_closes_after_answering_never_leaves_a_request_hanging() {
    let (key, egress, address) = upstream(|mut stream| async move {
        if read_head(&mut stream).await {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let nanos = u64::from(stream.peer_addr().unwrap().port()) * 7919 % 400_000;
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
        }
    })
    .await;
    let pool = Pool::default();
    for _ in 0..500 {
        let answered = tokio::time::timeout(Duration::from_secs(20), get(&pool, &egress, &key, address)).await;
        assert_eq!(answered.expect("an answer or an error comes").0, "ok");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_does_not_come_back() {
    let (key, egress, address) = upstream(|mut stream| async move {
        while read_head(&mut stream).await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
        }
    })
    .await;
    let pool: Pool<Nothing> = Pool::default();
    let new = pool.connect(&egress, &key, &[address], Alpn::Http1).await.unwrap();
    let answer = new.send(request()).await.map_err(|error| error.source).unwrap();
    drop(answer);
    assert!(pool.checkout(&key, Alpn::Http1).is_none());
}

/// Bytes behind an answer belong to nobody: the connection that brought them is not used again.
#[tokio::test]
async fn a_second_answer_is_never_matched_to_the_next_request() {
    let (key, egress, address) = upstream(|mut stream| async move {
        let mut first = true;
        while read_head(&mut stream).await {
            let text: &[u8] = if first {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            };
            first = false;
            if stream.write_all(text).await.is_err() {
                return;
            }
        }
    })
    .await;
    let pool = Pool::default();
    for _ in 0..20 {
        assert_eq!(get(&pool, &egress, &key, address).await.0, "ok");
    }
}

/// What was sent over it is still in its buffers, so a connection ends with the credential that it carried.
#[tokio::test]
async fn what_is_forgotten_is_closed_and_does_not_come_back() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let (mut key, egress, address) = upstream(move |mut stream| {
        let open = Arc::clone(&counted);
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            while read_head(&mut stream).await {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let (connection, other) = (ConnectionId::generate(), ConnectionId::generate());
    key.connection = Some(connection.clone());
    let pool = Pool::default();
    assert!(!get(&pool, &egress, &key, address).await.1);
    assert!(get(&pool, &egress, &key, address).await.1);

    pool.forget(std::slice::from_ref(&other));
    assert!(get(&pool, &egress, &key, address).await.1, "another one's connection stays");
    // One is kept and one is in use.
    let busy = pool.connect(&egress, &key, &[address], Alpn::Http1).await.unwrap();
    let answer = busy.send(request()).await.map_err(|error| error.source).unwrap();
    pool.forget(std::slice::from_ref(&connection));
    assert!(pool.checkout(&key, Alpn::Http1).is_none());
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok", "what is under way goes on");
    assert!(pool.checkout(&key, Alpn::Http1).is_none());
    while open.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }

    assert!(!get(&pool, &egress, &key, address).await.1);
    assert!(get(&pool, &egress, &key, address).await.1, "the next credential's connections are kept");
    pool.forget_all();
    assert!(pool.checkout(&key, Alpn::Http1).is_none());
    assert!(pool.0.cohorts.is_empty() && pool.0.http1.is_empty());
}
