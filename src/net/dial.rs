//! TCP to the first of several addresses that answers (RFC 8305).

use futures_util::stream::{FuturesUnordered, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long an attempt has before the next one starts beside it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a connection to one of `addresses`, in their order: the next attempt starts when one has failed, or after
/// [`ATTEMPT_DELAY`]. The attempts that lose are dropped.
pub(super) async fn dial(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.iter().copied();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    attempts.extend(waiting.next().map(attempt));
    while !attempts.is_empty() {
        match tokio::time::timeout(ATTEMPT_DELAY, attempts.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => last_error = error,
            Ok(None) => {}
            Err(_) if waiting.len() == 0 => match attempts.next().await {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => last_error = error,
                None => {}
            },
            Err(_) => {}
        }
        attempts.extend(waiting.next().map(attempt));
    }
    Err(last_error)
}

async fn attempt(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    // Heads and small bodies are written whole; waiting for more only adds latency.
    stream.set_nodelay(true)?;
    Ok((stream, address))
}
