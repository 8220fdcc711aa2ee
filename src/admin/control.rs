//! `$NEXUS_HOME/nexus.sock` (0600): how a writing command tells the running servers of this home.
//!
//! One JSON object a line each way. `{"op":"reload"}` -> `{"ok":true,"generation":7}`; `{"op":"status"}` ->
//! `{"ok":true,"listen":["127.0.0.1:8470"],"admin":"127.0.0.1:8471","version":"0.1.0","pid":123}`. What cannot be done
//! is `{"ok":false,"error":"…"}`. A second server on the same home listens on `nexus-N.sock` (N its audit node).

mod client;
mod socket;
#[cfg(test)]
mod tests;

pub use client::{ControlError, control_sockets, notify_servers, notify_servers_of_keys};

use serde_json::{Value, json};
pub use socket::SocketFile;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Longest line, either way.
const LINE_BYTES: usize = 64 << 10;

/// The server's end.
pub struct ControlServer {
    // Dropped first: the file goes while the socket still answers, so that nobody takes it for a dead one.
    bound: SocketFile,
    listener: UnixListener,
}

impl ControlServer {
    /// Binds `nexus.sock`, or `nexus-N.sock` when another live server has that one; a dead socket file is replaced.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(home: &Path, node: u32) -> std::io::Result<Self> {
        let home = home.to_owned();
        let bind = tokio::task::spawn_blocking(move || SocketFile::bind(&home, node));
        let (bound, listener) = bind.await.map_err(std::io::Error::other)??;
        Ok(Self { bound, listener: UnixListener::from_std(listener)? })
    }

    /// The socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.bound.path()
    }

    /// Serves until cancelled. `reload` applies the store's changes and returns the generation; `status` gives the
    /// status object. Removes the socket file when dropped.
    pub async fn serve<R, F>(self, reload: R, status: Value)
    where
        R: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<i64, String>> + Send,
    {
        let (reload, status) = (Arc::new(reload), Arc::new(status_answer(status)));
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (reload, status) = (Arc::clone(&reload), Arc::clone(&status));
                        clients.spawn(async move {
                            // A client that went away wants no answer.
                            let _ = serve_client(stream, &*reload, &status).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!("control socket {}: {error}", self.path().display());
                        // Out of descriptors, most likely: accepting again at once would only spin.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

fn status_answer(status: Value) -> Value {
    let mut answer = json!({ "ok": true });
    if let (Value::Object(answer), Value::Object(mut status)) = (&mut answer, status) {
        answer.append(&mut status);
    }
    answer
}

#[derive(serde::Deserialize)]
struct Order {
    op: String,
}

async fn serve_client<R, F>(stream: UnixStream, reload: &R, status: &Value) -> std::io::Result<()>
where
    R: Fn() -> F + Sync,
    F: Future<Output = Result<i64, String>> + Send,
{
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        match read_line(&mut from, &mut line).await? {
            Read::End => return Ok(()),
            Read::TooLong => return write_line(&mut to, &failed("the line is longer than 64 KiB")).await,
            Read::Line => {}
        }
        let order = serde_json::from_slice::<Order>(&line);
        let answer = match order.as_ref().map(|order| order.op.as_str()) {
            Ok("status") => status.clone(),
            Ok("reload") => match reload().await {
                Ok(generation) => json!({ "ok": true, "generation": generation }),
                Err(error) => failed(&error),
            },
            Ok(_) => failed("unknown op; use reload or status"),
            Err(_) => failed("not a JSON object with an op"),
        };
        write_line(&mut to, &answer).await?;
    }
}

fn failed(error: &str) -> Value {
    json!({ "ok": false, "error": error })
}

async fn write_line(to: &mut (impl AsyncWriteExt + Unpin), value: &Value) -> std::io::Result<()> {
    to.write_all(format!("{value}\n").as_bytes()).await
}

enum Read {
    Line,
    TooLong,
    End,
}

/// Reads a line into `line`, without more than the cap. A last line without a newline is none.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> std::io::Result<Read> {
    line.clear();
    from.take(LINE_BYTES as u64 + 1).read_until(b'\n', line).await?;
    Ok(if line.pop_if(|last| *last == b'\n').is_some() {
        Read::Line
    } else if line.len() > LINE_BYTES {
        Read::TooLong
    } else {
        Read::End
    })
}
