//! What a server does about a lockdown, and about its end.

use crate::audit::{Event, Kind};
use crate::proxy::Plane;
use crate::types::RequestId;
use std::sync::Arc;

/// Takes over whether the install is locked down. Nothing in here keeps a caller waiting.
pub(super) fn heed(plane: &Arc<Plane>, at_start: bool) {
    let locked = plane.loader.snapshot().directory.locked;
    if plane.credentials.set_locked(locked) == locked {
        return;
    }
    if locked {
        tracing::warn!("locked down: every agent is refused; nexus lockdown --lift ends it");
    } else {
        tracing::warn!("the lockdown was lifted; agents need new tokens");
    }
    if !at_start {
        let kind = if locked { Kind::Lockdown } else { Kind::LockdownLifted };
        plane.spool.finish(Event::new(kind, RequestId::generate()));
    }
    if locked {
        let (store, now) = (Arc::clone(&plane.store), plane.clock.now());
        plane.tasks.spawn(async move {
            match store.revoke_all_tokens(now).await {
                Ok(revoked) => tracing::warn!(revoked, "revoked all tokens"),
                // They are refused all the same, and lifting the lockdown revokes them first.
                Err(error) => tracing::error!("tokens could not be marked as revoked: {error}"),
            }
        });
    }
}
