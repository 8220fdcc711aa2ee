//! A connection as the running proxy holds it: frozen facts, and the current credential, still sealed.

use super::{DefinitionError, Frozen};
use crate::secret::{Digest, Keyring, SealContext, SealError, Sealed, SecretFields};
use crate::store::{ConnectionRecord, ConnectionState};
use crate::types::{ConnectionId, ConnectionName, ProviderId, Scope, UnixSeconds};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// One version of a connection's credential, sealed.
#[derive(Debug, Clone)]
pub struct Access {
    /// The version.
    pub version: u64,
    /// The sealed access fields.
    pub access: Sealed,
    /// The sealed grant fields.
    pub grant: Option<Sealed>,
    /// When the access token was obtained.
    pub issued_at: Option<UnixSeconds>,
    /// When it ends, if known.
    pub expires_at: Option<UnixSeconds>,
    /// Whether it works.
    pub state: ConnectionState,
    /// Why it does not.
    pub state_reason: Option<String>,
}

impl From<&ConnectionRecord> for Access {
    fn from(record: &ConnectionRecord) -> Self {
        Self {
            version: record.version,
            access: record.access.clone(),
            grant: record.grant.clone(),
            issued_at: record.access_issued_at,
            expires_at: record.access_expires_at,
            state: record.state,
            state_reason: record.state_reason.clone(),
        }
    }
}

/// A connection. Snapshots share it by `Arc`; a refresh swaps its [`Access`] without a new snapshot.
#[derive(Debug)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Tenant and namespace.
    pub scope: Scope,
    /// Its name.
    pub name: ConnectionName,
    /// Its provider.
    pub provider: ProviderId,
    /// What it froze.
    pub frozen: Frozen,
    /// Turned off by a person.
    pub disabled: bool,
    /// Digest for access fields.
    pub access_digest: Digest,
    /// Digest for grant fields.
    pub grant_digest: Digest,
    access: Arc<ArcSwap<Access>>,
}

impl Connection {
    /// Builds from a record. When `previous` (the same id) froze the same definition, its cell is kept, and a record
    /// that is older than the cell does not turn it back.
    ///
    /// # Errors
    /// See [`DefinitionError`].
    pub fn from_record(record: &ConnectionRecord, previous: Option<&Self>) -> Result<Self, DefinitionError> {
        let frozen = Frozen::from_json(&record.definition)?;
        let kept = previous.filter(|old| old.id == record.id && old.scope == record.scope && old.frozen == frozen);
        let access = match kept {
            Some(old) => Arc::clone(&old.access),
            None => Arc::new(ArcSwap::from_pointee(Access::from(record))),
        };
        let connection = Self {
            id: record.id.clone(),
            scope: record.scope.clone(),
            name: record.name.clone(),
            provider: record.provider.clone(),
            disabled: record.disabled,
            access_digest: frozen.access_digest(),
            grant_digest: frozen.grant_digest(),
            frozen,
            access,
        };
        if kept.is_some() {
            connection.adopt(Access::from(record));
        }
        Ok(connection)
    }

    /// The current credential, sealed.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Takes a newer version, or the current one with another state; an older one is ignored.
    pub fn adopt(&self, access: Access) {
        let access = Arc::new(access);
        self.access.rcu(|current| Arc::clone(if access.version < current.version { current } else { &access }));
    }

    /// Opens the access fields of `access`.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open_access(&self, keyring: &Keyring, access: &Access) -> Result<SecretFields, SealError> {
        open(keyring, &self.access_context(access.version), &access.access)
    }

    /// Opens the grant fields of `access`; `None` when it has none.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open_grant(&self, keyring: &Keyring, access: &Access) -> Result<Option<SecretFields>, SealError> {
        access.grant.as_ref().map(|sealed| open(keyring, &self.grant_context(access.version), sealed)).transpose()
    }

    /// Seals access fields for `version` of this connection.
    #[must_use]
    pub fn seal_access(&self, keyring: &Keyring, version: u64, fields: &SecretFields) -> Sealed {
        keyring.seal(&self.access_context(version), &fields.encode())
    }

    /// Seals grant fields for `version` of this connection.
    #[must_use]
    pub fn seal_grant(&self, keyring: &Keyring, version: u64, fields: &SecretFields) -> Sealed {
        keyring.seal(&self.grant_context(version), &fields.encode())
    }

    /// The same fields of `version` under the root key that seals now.
    ///
    /// # Errors
    /// When what is sealed does not open.
    pub fn reseal(
        &self,
        keyring: &Keyring,
        version: u64,
        access: &Sealed,
        grant: Option<&Sealed>,
    ) -> Result<(Sealed, Option<Sealed>), SealError> {
        let again = |context: &SealContext<'_>, sealed: &Sealed| {
            keyring.open(context, sealed).map(|fields| keyring.seal(context, &fields))
        };
        let access = again(&self.access_context(version), access)?;
        let grant = grant.map(|grant| again(&self.grant_context(version), grant)).transpose()?;
        Ok((access, grant))
    }

    fn access_context(&self, version: u64) -> SealContext<'_> {
        self.context("access", version, &self.access_digest)
    }

    fn grant_context(&self, version: u64) -> SealContext<'_> {
        self.context("grant", version, &self.grant_digest)
    }

    fn context<'a>(&'a self, field: &'a str, version: u64, destination: &'a Digest) -> SealContext<'a> {
        SealContext { tenant: self.scope.tenant.as_str(), record: self.id.as_str(), field, version, destination }
    }
}

fn open(keyring: &Keyring, context: &SealContext<'_>, sealed: &Sealed) -> Result<SecretFields, SealError> {
    SecretFields::decode(&keyring.open(context, sealed)?).ok_or(SealError::Format)
}

#[cfg(test)]
mod tests;
