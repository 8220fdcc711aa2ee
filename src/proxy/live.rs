//! Everything that is under way, so that a revocation reaches it.
//!
//! A request is here from the moment it knows who calls until its last byte is through, a tunnel for as long as it is
//! open. After each change of the snapshot, and twice a second for what ends by time alone, every one of them is asked
//! again whether it may still be; what may not is cut.
//!
//! Nothing slips through between two snapshots: whoever enters looks at the current snapshot after it is in the table,
//! and whoever publishes looks at the table after the snapshot is there. One of the two sees the other.

use super::body::Progress;
use super::exchange::may_pass_without;
use super::tunnel::Closing;
use crate::config::Snapshot;
use crate::connection::Connection;
use crate::identity::{Proof, Rejected};
use crate::policy::{self, Question, may_reach};
use crate::types::{CanonicalPath, Target, UnixSeconds};
use dashmap::DashMap;
use futures_util::task::AtomicWaker;
use http::Method;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long what was cut may take to notice. A client that does not read keeps the engine from looking; then its
/// connection is closed.
const OVERDUE: Duration = Duration::from_secs(1);

/// How long an intercepted tunnel stays open after its end for a request that is on its way: its refusal says why, where
/// a closed connection would not.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Why something that was under way was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// The token was revoked, or is not known any more.
    TokenRevoked = 1,
    /// The token, or this value of it, has ended.
    TokenExpired,
    /// The connection was turned off.
    ConnectionDisabled,
    /// The connection is gone.
    ConnectionDeleted,
    /// The connection may go elsewhere now than what is under way was made for.
    ConnectionReplaced,
    /// Policy does not allow it any more.
    Denied,
    /// All agents are locked out.
    LockedDown,
}

impl Cut {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::TokenRevoked,
        Self::TokenExpired,
        Self::ConnectionDisabled,
        Self::ConnectionDeleted,
        Self::ConnectionReplaced,
        Self::Denied,
        Self::LockedDown,
    ];

    /// The word in the audit record and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenRevoked => "token_revoked",
            Self::TokenExpired => "token_expired",
            Self::ConnectionDisabled => "connection_disabled",
            Self::ConnectionDeleted => "connection_deleted",
            Self::ConnectionReplaced => "connection_replaced",
            Self::Denied => "denied",
            Self::LockedDown => "locked_down",
        }
    }
}

/// What tells the bearer that it is cut. One waiter on each side.
#[derive(Debug, Default)]
pub struct Fuse {
    cut: AtomicU8,
    agent: AtomicWaker,
    upstream: AtomicWaker,
}

/// Who waits at a fuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What answers the agent.
    Agent,
    /// What sends to the upstream.
    Upstream,
}

impl Fuse {
    /// Why it is cut, if it is.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        let code = self.cut.load(Ordering::Acquire);
        Cut::ALL.into_iter().find(|cut| *cut as u8 == code)
    }

    /// Ready when it is cut.
    pub fn poll_cut(&self, side: Side, cx: &mut Context<'_>) -> Poll<Cut> {
        if let Some(cut) = self.cut() {
            return Poll::Ready(cut);
        }
        let waker = match side {
            Side::Agent => &self.agent,
            Side::Upstream => &self.upstream,
        };
        waker.register(cx.waker());
        // It may have been cut before the waker was there.
        self.cut().map_or(Poll::Pending, Poll::Ready)
    }

    /// Returns when it is cut.
    pub async fn until_cut(&self) -> Cut {
        poll_fn(|cx| self.poll_cut(Side::Agent, cx)).await
    }

    /// Gives whether this was the first reason.
    fn blow(&self, cut: Cut) -> bool {
        let first = self.cut.compare_exchange(0, cut as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.agent.wake();
        self.upstream.wake();
        first
    }
}

/// What something under way does, as far as it is known.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A request that has not been routed yet.
    Nothing,
    /// An intercepted tunnel, whose requests are judged by themselves.
    Tunnel,
    /// To a host without a credential.
    Bare(Target),
    /// With a connection.
    With {
        /// The connection, as it was then.
        connection: Arc<Connection>,
        /// Where to.
        target: Target,
        /// The method.
        method: Method,
        /// The path as sent.
        path: CanonicalPath,
    },
}

/// One thing that is under way.
#[derive(Debug)]
struct Watched {
    proof: Proof,
    asked: Mutex<Asked>,
    progress: Weak<Progress>,
    closing: Arc<Closing>,
    cut_at: OnceLock<Instant>,
}

/// Everything under way. Share by `Arc`.
#[derive(Debug, Default)]
pub struct Live {
    entries: DashMap<u64, Arc<Watched>>,
    next: AtomicU64,
}

/// A place in the table; given back when dropped.
#[derive(Debug)]
pub struct Watch {
    live: Arc<Live>,
    number: u64,
    watched: Arc<Watched>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.live.entries.remove(&self.number);
    }
}

impl Watch {
    /// What it does is known now.
    pub(super) fn set_asked(&self, asked: Asked) {
        *self.watched.asked.lock() = asked;
    }

    /// Judges this one alone.
    pub(super) fn judge(&self, snapshot: &Snapshot, now: UnixSeconds) -> Option<Cut> {
        let cut = self.watched.judge(snapshot, now)?;
        self.watched.cut(cut);
        Some(cut)
    }
}

impl Live {
    /// Enters what `proof` was shown for. The caller must look at the current snapshot after this.
    pub fn enter(
        self: &Arc<Self>,
        proof: Proof,
        asked: Asked,
        progress: &Arc<Progress>,
        closing: &Arc<Closing>,
    ) -> Watch {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let watched = Arc::new(Watched {
            proof,
            asked: Mutex::new(asked),
            progress: Arc::downgrade(progress),
            closing: Arc::clone(closing),
            cut_at: OnceLock::new(),
        });
        self.entries.insert(number, Arc::clone(&watched));
        Watch { live: Arc::clone(self), number, watched }
    }

    /// Asks everything under way again, and cuts what may not go on. Gives why, once for each that was cut now.
    pub fn judge(&self, snapshot: &Snapshot, now: UnixSeconds) -> Vec<Cut> {
        let mut condemned = Vec::new();
        let mut overdue = Vec::new();
        for entry in &self.entries {
            let watched = entry.value();
            if let Some(at) = watched.cut_at.get() {
                match (watched.is_tunnel(), at.elapsed()) {
                    (false, age) if age >= OVERDUE => overdue.push(Arc::clone(watched)),
                    (true, age) if age >= LAST_WORD + OVERDUE => overdue.push(Arc::clone(watched)),
                    (true, age) if age >= LAST_WORD => watched.closing.gently(),
                    _ => {}
                }
            } else if let Some(cut) = watched.judge(snapshot, now) {
                condemned.push((Arc::clone(watched), cut));
            }
        }
        for watched in overdue {
            watched.closing.at_once();
        }
        condemned.into_iter().filter_map(|(watched, cut)| watched.cut(cut).then_some(cut)).collect()
    }

    /// How much is under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Watched {
    /// Why it may not go on, if so.
    fn judge(&self, snapshot: &Snapshot, now: UnixSeconds) -> Option<Cut> {
        let principal = match snapshot.directory.recognise(&self.proof, now) {
            Ok(principal) => principal,
            Err(Rejected::LockedOut) => return Some(Cut::LockedDown),
            Err(Rejected::Expired) => return Some(Cut::TokenExpired),
            Err(_) => return Some(Cut::TokenRevoked),
        };
        match &*self.asked.lock() {
            Asked::Nothing | Asked::Tunnel => None,
            Asked::Bare(target) => {
                let may = may_pass_without(&snapshot.config, target) && may_reach(&principal, &target.host).is_ok();
                (!may).then_some(Cut::Denied)
            }
            Asked::With { connection, target, method, path } => {
                let Some(current) = snapshot.routes.get(&connection.id) else { return Some(Cut::ConnectionDeleted) };
                if !Arc::ptr_eq(current, connection) {
                    if current.disabled {
                        return Some(Cut::ConnectionDisabled);
                    }
                    if current.scope != connection.scope || current.frozen != connection.frozen {
                        return Some(Cut::ConnectionReplaced);
                    }
                }
                let question = Question { connection: &connection.id, target, method, path };
                policy::decide(&principal, &question).is_err().then_some(Cut::Denied)
            }
        }
    }

    fn is_tunnel(&self) -> bool {
        matches!(&*self.asked.lock(), Asked::Tunnel)
    }

    /// Gives whether it was not cut before.
    fn cut(&self, cut: Cut) -> bool {
        let _ = self.cut_at.set(Instant::now());
        self.progress.upgrade().is_some_and(|progress| progress.fuse().blow(cut))
    }
}

#[cfg(test)]
mod tests;
