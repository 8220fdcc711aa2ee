//! Two streams handed to each other: blind tunnels and upgraded connections.

use bytes::Bytes;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Copies both ways until both sides have ended. `from_upstream` and `from_downstream` are bytes that were read already.
/// Gives the number of bytes from the agent and to the agent.
///
/// # Errors
/// When either side fails.
pub async fn splice<D, U>(
    downstream: &mut D,
    mut upstream: U,
    from_upstream: Bytes,
    from_downstream: Bytes,
) -> io::Result<(u64, u64)>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    if !from_upstream.is_empty() {
        downstream.write_all(&from_upstream).await?;
        downstream.flush().await?;
    }
    if !from_downstream.is_empty() {
        upstream.write_all(&from_downstream).await?;
        upstream.flush().await?;
    }
    let (up, down) = tokio::io::copy_bidirectional(downstream, &mut upstream).await?;
    Ok((up + from_downstream.len() as u64, down + from_upstream.len() as u64))
}
