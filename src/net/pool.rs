//! Connections to upstreams, kept between requests.

use super::TrustRootId;
use crate::types::{ConnectionId, Target, TenantName};

/// What two requests must share to share an upstream connection; compared in full.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The tenant.
    pub tenant: TenantName,
    /// The connection; none for requests forwarded without a credential.
    pub connection: Option<ConnectionId>,
    /// The trust roots.
    pub trust_root: TrustRootId,
    /// Scheme, host and port.
    pub target: Target,
}

/// The pool.
pub struct Pool(());

/// One upstream connection out of the pool.
pub struct Upstream(());
