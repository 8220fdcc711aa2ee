//! How changes of the store come into force.

use super::integrity;
use super::keys::Keys;
use super::lockdown;
use crate::config::{ConfigError, Reloaded};
use crate::proxy::Plane;
use crate::proxy::plane::Applying;
use crate::store::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// Applies the store's changes to a running server, whoever made them.
pub(super) struct StoreChanges {
    pub(super) plane: Arc<Plane>,
    pub(super) keys: Arc<Keys>,
}

impl StoreChanges {
    /// Applies what has changed, to what is under way too; gives the generation that is in force then.
    pub(super) async fn apply(&self) -> Result<i64, ConfigError> {
        let reloaded = match self.plane.loader.reload_store().await {
            Err(error @ ConfigError::Store(StoreError::KeyUnknown { .. })) => {
                // The root key was rotated, and this server was not told.
                if let Err(unread) = self.keys.refresh_anew().await {
                    tracing::error!("the root key cannot be read: {unread}");
                    return Err(error);
                }
                self.plane.loader.reload_store().await?
            }
            reloaded => reloaded?,
        };
        let Reloaded { generation, deleted, changed, failed, went_back_from } = reloaded;
        integrity::report(&self.plane, &failed);
        if let Some(from) = went_back_from {
            integrity::went_back(&self.plane, from, generation);
        }
        for connection in &deleted {
            self.plane.credentials.forget(connection);
        }
        if went_back_from.is_some() {
            self.plane.pool.forget_all();
        } else if !deleted.is_empty() || !changed.is_empty() {
            self.plane.pool.forget(&[deleted, changed].concat());
        }
        lockdown::heed(&self.plane, false);
        self.plane.judge();
        Ok(generation)
    }

    /// [`StoreChanges::apply`] for commands: a rotation tells its key this way, and waits for the answer.
    pub(super) async fn apply_with_keys(&self) -> Result<i64, String> {
        // First of all the changes: a revocation or lockdown does not wait for a key that cannot be had just now.
        let applied = self.apply().await.map_err(|error| error.to_string());
        match self.keys.refresh().await {
            // A lockdown needs no key, and is in force.
            Err(error) if !self.plane.loader.snapshot().directory.locked => Err(error.to_string()),
            _ => applied,
        }
    }

    /// Applies what other processes and this one commit.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            self.plane.store.changed().await;
            if let Err(error) = self.apply().await {
                tracing::error!("the store's changes could not be applied: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Applies when a request asks for it, having written to the store itself.
    pub(super) async fn serve(self: Arc<Self>, mut asked: Applying) {
        while let Some(answer) = asked.next().await {
            // Whoever asked may be gone.
            let _ = answer.send(self.apply().await.map_err(|error| error.to_string()));
        }
    }
}
