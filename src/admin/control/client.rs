//! The command's end.

use super::socket::{Address, is_dead};
use super::{Read, read_line, write_line};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long when it is to read root keys, whose commands have 10 s each and whose passphrases are slow by intent.
const PATIENCE_FOR_KEYS: Duration = Duration::from_secs(30);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not reachable, or broke off.
    #[error("control socket {path}: {source}")]
    Io {
        /// The socket.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("control socket {0}: no answer within {secs} s", secs = .1.as_secs())]
    Timeout(String, Duration),
    /// The server answered that it could not do it.
    #[error("control socket {path}: the server could not do it: {reason}")]
    Refused {
        /// The socket.
        path: String,
        /// What the server said.
        reason: String,
    },
}

/// The control sockets of a home whose server answers, with their status objects.
pub async fn control_sockets(home: &Path) -> Vec<(PathBuf, Value)> {
    let answers = ask_all(home, "status", PATIENCE).await.unwrap_or_default();
    answers.into_iter().filter_map(|(path, answer)| Some((path, answer.ok().flatten()?))).collect()
}

/// Tells every server of the home to apply changes; 2 s at most each. No server is fine. Gives the warnings to print.
pub async fn notify_servers(home: &Path) -> Vec<ControlError> {
    notify(home, PATIENCE).await
}

/// The same when they have root keys to read: 30 s at most each.
pub async fn notify_servers_of_keys(home: &Path) -> Vec<ControlError> {
    notify(home, PATIENCE_FOR_KEYS).await
}

async fn notify(home: &Path, patience: Duration) -> Vec<ControlError> {
    match ask_all(home, "reload", patience).await {
        Ok(answers) => answers.into_iter().filter_map(|(_, answer)| answer.err()).collect(),
        Err(source) => vec![ControlError::Io { path: home.display().to_string(), source }],
    }
}

/// Asks every socket at once; in the order of their names. A dead one answers `None`.
async fn ask_all(
    home: &Path,
    op: &'static str,
    patience: Duration,
) -> io::Result<Vec<(PathBuf, Result<Option<Value>, ControlError>)>> {
    let mut asked = JoinSet::new();
    for path in sockets(home)? {
        asked.spawn(async move {
            let answer = ask(&path, op, patience).await;
            (path, answer)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(answers)
}

async fn ask(path: &Path, op: &str, patience: Duration) -> Result<Option<Value>, ControlError> {
    let shown = path.display().to_string();
    let exchanged = match tokio::time::timeout(patience, exchange(path, op)).await {
        Ok(exchanged) => exchanged,
        Err(_) => return Err(ControlError::Timeout(shown, patience)),
    };
    match exchanged {
        Ok(Some(answer)) if answer["ok"] == true => Ok(Some(answer)),
        Ok(Some(answer)) => {
            let reason = answer["error"].as_str().unwrap_or("no reason given").to_owned();
            Err(ControlError::Refused { path: shown, reason })
        }
        Ok(None) => Ok(None),
        Err(source) => Err(ControlError::Io { path: shown, source }),
    }
}

async fn exchange(path: &Path, op: &str) -> io::Result<Option<Value>> {
    let address = Address::of(path)?;
    let mut stream = match UnixStream::connect(address.path()).await {
        Ok(stream) => stream,
        Err(error) if is_dead(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    write_line(&mut stream, &json!({ "op": op })).await?;
    let mut line = Vec::new();
    match read_line(&mut BufReader::new(stream), &mut line).await? {
        Read::Line => Ok(Some(serde_json::from_slice(&line)?)),
        Read::TooLong => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is longer than 64 KiB")),
        Read::End => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `nexus.sock` and every `nexus-N.sock`. A missing home has none.
fn sockets(home: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix("nexus")?.strip_suffix(".sock"));
        let ours = middle.is_some_and(|middle| {
            let digits = middle.strip_prefix('-');
            middle.is_empty() || digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if ours {
            found.push(entry.path());
        }
    }
    Ok(found)
}
