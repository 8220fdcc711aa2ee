//! Notices commits by others: `PRAGMA data_version` on a connection that never writes.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, query_scalar};
use std::time::Duration;
use tokio::sync::Mutex;

const INTERVAL: Duration = Duration::from_millis(250);

/// The connection and what it last saw.
#[derive(Debug)]
pub(super) struct Watch {
    options: SqliteConnectOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Option<SqliteConnection>,
    /// The number means something on its own connection only; `None` after that was lost.
    seen: Option<i64>,
}

impl Watch {
    /// Watches from now on.
    pub(super) async fn start(
        options: SqliteConnectOptions,
        mut connection: SqliteConnection,
    ) -> Result<Self, sqlx::Error> {
        let seen = Some(data_version(&mut connection).await?);
        Ok(Self { options, state: Mutex::new(State { connection: Some(connection), seen }) })
    }

    /// Takes what was committed until now as seen.
    pub(super) async fn catch_up(&self) -> Result<(), sqlx::Error> {
        self.state.lock().await.poll(&self.options).await.map(|_| ())
    }

    pub(super) async fn changed(&self) {
        let mut failing = false;
        loop {
            match self.state.lock().await.poll(&self.options).await {
                Ok(true) => return,
                Ok(false) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot watch the store for changes; trying again");
                    }
                    failing = true;
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.state.lock().await.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "the store's watching connection did not close");
        }
    }
}

impl State {
    /// Whether something was committed since the last look. Dropping this midway loses nothing: `seen` is set last.
    async fn poll(&mut self, options: &SqliteConnectOptions) -> Result<bool, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.seen = None;
                options.connect().await?
            }
        };
        let now = Some(data_version(&mut connection).await?);
        self.connection = Some(connection);
        let changed = self.seen != now;
        self.seen = now;
        Ok(changed)
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    query_scalar("PRAGMA data_version").fetch_one(connection).await
}
