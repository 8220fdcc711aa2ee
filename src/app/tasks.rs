//! What a server does beside requests, again and again.

use super::integrity::Counter;
use crate::config::watch_files;
use crate::proxy::Plane;
use crate::store::{SqliteStore, Store, StoreError};
use crate::types::Clock;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often idle upstream connections are looked at, and last-used times are written.
const SWEEP: Duration = Duration::from_secs(5);

/// How often what is of no use any more is looked for.
const PURGE: Duration = Duration::from_secs(3_600);

/// How long orphaned connections and dead tokens are kept.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// How long dead tokens are kept that were made for a run or by another token.
const KEPT_BRIEFLY: Duration = Duration::from_secs(86_400);

/// How often what is under way is asked whether its time is over.
const JUDGE: Duration = Duration::from_millis(500);

/// Cuts what ended by time alone.
pub(super) async fn follow_time(plane: Arc<Plane>) {
    let mut interval = tokio::time::interval(JUDGE);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        plane.judge();
    }
}

/// Applies changes of the config file and provider files.
pub(super) async fn follow_files(plane: Arc<Plane>, home: PathBuf, config_file: PathBuf) {
    let mut changes = watch_files(home, config_file);
    while changes.recv().await.is_some() {
        match plane.loader.reload_files().await {
            Ok(true) => {
                plane.judge();
                plane.spool.set_settings(plane.loader.snapshot().config.audit);
                plane.metrics.config_reloaded(true);
                tracing::info!("the configuration was reloaded");
            }
            Ok(false) => {}
            Err(error) => {
                plane.metrics.config_reloaded(false);
                tracing::error!("the configuration was not reloaded, the old one stays in force: {error}");
            }
        }
    }
}

/// Fetches the keys of JWT issuers ahead of need.
pub(super) async fn keep_keys_fresh(plane: Arc<Plane>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let snapshot = plane.loader.snapshot();
        plane.verifier.keep_keys_fresh(&snapshot.directory, &snapshot.egress);
    }
}

/// Closes idle upstream connections and writes last-used times.
pub(super) async fn sweep(plane: Arc<Plane>, store: Arc<SqliteStore>, counter: Arc<Counter>) {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        plane.pool.sweep();
        write_usage(&plane, &store).await;
        counter.remember(plane.loader.snapshot().generation);
    }
}

/// Removes for good what is of no use any more. Other servers of the home do the same, each on its own.
pub(super) async fn purge_often(plane: Arc<Plane>, store: Arc<SqliteStore>) {
    let mut interval = tokio::time::interval(PURGE);
    loop {
        interval.tick().await;
        match purge(&*store, &plane.clock).await {
            Ok(Purged { connections: 0, tokens: 0 }) => {}
            Ok(Purged { connections, tokens }) => {
                tracing::info!("purged {connections} orphaned connections and {tokens} dead tokens");
            }
            Err(error) => tracing::warn!("orphaned connections and dead tokens could not be purged: {error}"),
        }
    }
}

/// What [`purge`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Orphaned connections.
    pub connections: u64,
    /// Dead tokens.
    pub tokens: u64,
}

/// Removes connections that were orphaned, and tokens that were dead, for [`KEPT`]; tokens of runs and those made by
/// others after a day.
///
/// # Errors
/// When the store fails; what was removed until then stays so.
pub async fn purge(store: &dyn Store, clock: &Clock) -> Result<Purged, StoreError> {
    let before = |kept: Duration| clock.now().saturating_sub_unsigned(kept.as_secs());
    Ok(Purged {
        connections: store.purge_orphans(None, before(KEPT)).await?,
        tokens: store.purge_tokens(before(KEPT), before(KEPT_BRIEFLY)).await?,
    })
}

pub(super) async fn write_usage(plane: &Plane, store: &SqliteStore) {
    let usage = plane.usage.take();
    if !usage.is_empty()
        && let Err(error) = store.record_usage(&usage).await
    {
        tracing::warn!("last-used times could not be written: {error}");
    }
}
