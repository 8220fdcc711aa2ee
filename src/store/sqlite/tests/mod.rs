#![expect(clippy::unwrap_used, reason = "tests")]

mod agents;
mod crash;
mod file;
mod leases;
mod lockdown;
mod records;
mod rotation;
mod tampering;
mod tenants;

use super::*;
use crate::secret::{KeyId, RootKey, Sealed};
use crate::store::{Record, TokenKind, TokenScope};
use std::path::Path;
use tempfile::TempDir;

const NOW: UnixSeconds = 1_700_000_000;

/// The store of a file, by the root key of all these tests.
async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, &RootKey::from_bytes(&[1; 32])).await
}

/// A store in a directory of its own.
async fn store() -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("nexus.db")).await.unwrap();
    (directory, store)
}

fn scope(tenant: &str, namespace: &str) -> Scope {
    Scope { tenant: tenant.parse().unwrap(), namespace: namespace.parse().unwrap() }
}

fn connection(name: &str) -> ConnectionRecord {
    ConnectionRecord {
        id: ConnectionId::generate(),
        scope: Scope::default(),
        name: name.parse().unwrap(),
        provider: "github".parse().unwrap(),
        definition: format!(r#"{{"of":"{name}"}}"#),
        version: 1,
        access: Sealed::from_bytes(b"sealed access"),
        grant: Some(Sealed::from_bytes(b"sealed grant")),
        access_issued_at: Some(NOW),
        access_expires_at: Some(NOW + 3600),
        state: ConnectionState::Active,
        state_reason: None,
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        orphaned_at: None,
    }
}

fn token(agent: &str) -> TokenRecord {
    TokenRecord {
        id: TokenId::generate(),
        scope: Scope::default(),
        agent: agent.parse().unwrap(),
        run: Some("run 7".parse().unwrap()),
        digest: TokenDigest(crate::secret::random_bytes()),
        previous: None,
        connections: vec![ConnectionId::generate(), ConnectionId::generate()],
        methods: vec!["GET".to_owned()],
        paths: vec!["/repos/**".to_owned()],
        hosts: Vec::new(),
        scopes: vec![TokenScope::Use],
        kind: TokenKind::Opaque,
        parent: None,
        created_at: NOW,
        lifetime: Some(86_400),
        expires_at: Some(NOW + 86_400),
        revoked_at: None,
    }
}

fn update(version: u64) -> CredentialUpdate {
    CredentialUpdate {
        version,
        access: Sealed::from_bytes(format!("access {version}").as_bytes()),
        grant: None,
        access_issued_at: Some(NOW + 10),
        access_expires_at: None,
        now: NOW + 10,
    }
}

/// Names of what was refused, for short assertions.
fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    match result.unwrap_err() {
        StoreError::Exists { .. } => "exists",
        StoreError::NotFound { .. } => "not found",
        StoreError::Conflict { .. } => "conflict",
        StoreError::Full { .. } => "full",
        StoreError::Unusable { .. } => "unusable",
        StoreError::Newer { .. } => "newer",
        StoreError::Integrity { .. } => "integrity",
        StoreError::KeyUnknown { .. } => "key unknown",
        StoreError::OldKey => "old key",
        StoreError::Database(error) => panic!("{error}"),
    }
}
