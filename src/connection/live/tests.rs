#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::fixture::{frozen, record, scope};
use super::super::{Access, Connection, Frozen};
use crate::secret::{Keyring, RootKey, SealError, Sealed, Secret, SecretFields};
use crate::store::{ConnectionRecord, ConnectionState};
use crate::types::Scope;
use std::sync::Arc;

fn build(record: &ConnectionRecord, previous: Option<&Connection>) -> Connection {
    Connection::from_record(record, previous).unwrap()
}

fn first() -> ConnectionRecord {
    record(&Scope::default(), "github", &frozen(&["https://api.github.test/v1"]))
}

fn at_version(record: ConnectionRecord, version: u64) -> ConnectionRecord {
    ConnectionRecord { version, access: Sealed::from_bytes(format!("access {version}").as_bytes()), ..record }
}

fn access(version: u64, state: ConnectionState) -> Access {
    Access { state, ..Access::from(&at_version(first(), version)) }
}

#[test]
fn the_cell_outlives_a_reload_of_the_same_definition() {
    let old = build(&first(), None);
    let new = build(&ConnectionRecord { disabled: true, ..at_version(first(), 2) }, Some(&old));
    assert!(Arc::ptr_eq(&old.access, &new.access));
    assert_eq!(old.access().version, 2, "who holds the old snapshot sees the new credential");
    assert_eq!(new.access().access, Sealed::from_bytes(b"access 2"));
    assert!(new.disabled && !old.disabled);
}

#[test]
fn a_new_envelope_of_the_same_version_is_taken() {
    let old = build(&first(), None);
    let record = ConnectionRecord { access: Sealed::from_bytes(b"sealed again"), ..first() };
    let new = build(&record, Some(&old));
    assert_eq!((old.access().version, new.access().version), (1, 1));
    assert_eq!(old.access().access, Sealed::from_bytes(b"sealed again"), "who holds the old snapshot opens it too");
}

#[test]
fn what_is_sealed_again_opens_with_the_new_root_key_alone() {
    let keyring = Keyring::new(&RootKey::from_bytes(&[1; 32]), "install");
    let connection = build(&first(), None);
    let mut fields = SecretFields::default();
    fields.insert("token", Secret::new("value".to_owned()));
    let (access, grant) = (connection.seal_access(&keyring, 3, &fields), connection.seal_grant(&keyring, 3, &fields));
    let old_id = keyring.key_id();
    let next_id = keyring.add(&RootKey::from_bytes(&[2; 32]));
    assert!(keyring.seal_with_root(next_id));
    let (access, grant) = connection.reseal(&keyring, 3, &access, Some(&grant)).unwrap();
    keyring.forget(old_id);
    assert_eq!(keyring.key_ids(), [next_id]);
    let record = ConnectionRecord { version: 3, access, grant, ..first() };
    let again = build(&record, None);
    assert!(again.open_access(&keyring, &again.access()).unwrap().get("token").is_some());
    assert!(again.open_grant(&keyring, &again.access()).unwrap().is_some());
    assert_eq!(connection.reseal(&keyring, 4, &record.access, None), Err(SealError::Integrity), "another version");
}

#[test]
fn another_spelling_of_a_definition_is_the_same() {
    let old = build(&first(), None);
    let spelled = ConnectionRecord { definition: first().definition.replace(',', " ,\n"), ..first() };
    assert!(Arc::ptr_eq(&old.access, &build(&spelled, Some(&old)).access));
}

#[test]
fn another_definition_gets_its_own_cell() {
    let old = build(&first(), None);
    let other = frozen(&["https://api.github.test/v2"]);
    let replaced = at_version(record(&Scope::default(), "github", &other), 2);
    let new = build(&replaced, Some(&old));
    assert_eq!((old.access().version, new.access().version), (1, 2));
    assert_ne!(old.access_digest, new.access_digest);
    new.adopt(access(3, ConnectionState::Active));
    assert_eq!(old.access().version, 1);
}

#[test]
fn another_connection_gets_its_own_cell() {
    let old = build(&first(), None);
    for other in [
        record(&Scope::default(), "gitlab", &frozen(&["https://api.github.test/v1"])),
        ConnectionRecord { scope: scope("acme/default"), ..first() },
    ] {
        assert!(!Arc::ptr_eq(&old.access, &build(&other, Some(&old)).access));
    }
}

#[test]
fn an_older_record_does_not_turn_the_cell_back() {
    let old = build(&at_version(first(), 5), None);
    let new = build(&at_version(first(), 4), Some(&old));
    assert_eq!(new.access().version, 5);
    assert_eq!(new.access().access, Sealed::from_bytes(b"access 5"));
}

#[test]
fn adopt_takes_newer_and_equal_versions() {
    use ConnectionState::{Active, Attention};
    let cases = [
        ("newer", 4, Attention, (4, Attention)),
        ("much newer", 9, Active, (9, Active)),
        ("another state of the same", 3, Attention, (3, Attention)),
        ("older", 2, Attention, (3, Active)),
    ];
    for (name, version, state, expected) in cases {
        let connection = build(&at_version(first(), 3), None);
        connection.adopt(access(version, state));
        assert_eq!((connection.access().version, connection.access().state), expected, "{name}");
    }
}

#[test]
fn concurrent_adopters_leave_the_newest() {
    let connection = build(&first(), None);
    std::thread::scope(|threads| {
        for start in 0..4 {
            let connection = &connection;
            threads.spawn(move || {
                (0..250).rev().for_each(|n| connection.adopt(access(2 + n * 4 + start, ConnectionState::Active)));
            });
        }
    });
    assert_eq!(connection.access().version, 2 + 249 * 4 + 3);
}

#[test]
fn a_damaged_definition_is_an_error() {
    let damaged = ConnectionRecord { definition: "{}".to_owned(), ..first() };
    assert!(Connection::from_record(&damaged, None).is_err());
}

fn keyring() -> Keyring {
    Keyring::new(&RootKey::parse(&Secret::new("11".repeat(32)), "test").unwrap(), "install")
}

fn fields(value: &str) -> SecretFields {
    let mut fields = SecretFields::default();
    fields.insert("token", Secret::new(value.to_owned()));
    fields
}

/// A record of `frozen` whose access and grant fields are sealed for version 1.
fn sealed(keyring: &Keyring, frozen: &Frozen) -> ConnectionRecord {
    let record = record(&Scope::default(), "github", frozen);
    let connection = build(&record, None);
    let grant = Some(connection.seal_grant(keyring, 1, &fields("the grant")));
    ConnectionRecord { access: connection.seal_access(keyring, 1, &fields("the token")), grant, ..record }
}

#[test]
fn what_was_sealed_opens() {
    let keyring = keyring();
    let connection = build(&sealed(&keyring, &frozen(&["https://api.github.test"])), None);
    let access = connection.access();
    let opened = connection.open_access(&keyring, &access).unwrap();
    assert_eq!(opened.get("token").unwrap().expose(), "the token");
    let opened = connection.open_grant(&keyring, &access).unwrap().unwrap();
    assert_eq!(opened.get("token").unwrap().expose(), "the grant");
    let without = Access { grant: None, ..Access::clone(&access) };
    assert!(connection.open_grant(&keyring, &without).unwrap().is_none());
}

#[test]
fn what_was_moved_or_edited_does_not_open() {
    let keyring = keyring();
    let good = sealed(&keyring, &frozen(&["https://api.github.test/v1"]));
    let with_definition = |urls: &[&str]| ConnectionRecord { definition: frozen(urls).to_json(), ..good.clone() };
    let other = record(&Scope::default(), "gitlab", &frozen(&["https://api.github.test/v1"]));
    let cases = [
        ("another host", with_definition(&["https://evil.test/v1"])),
        ("another port", with_definition(&["https://api.github.test:8443/v1"])),
        ("another scheme", with_definition(&["http://api.github.test:443/v1"])),
        ("another base path", with_definition(&["https://api.github.test"])),
        ("one more destination", with_definition(&["https://api.github.test/v1", "https://evil.test"])),
        (
            "another placement",
            ConnectionRecord { definition: good.definition.replace("authorization", "x-echo"), ..good.clone() },
        ),
        ("another tenant", ConnectionRecord { scope: scope("acme/default"), ..good.clone() }),
        ("another connection", ConnectionRecord { id: other.id, ..good.clone() }),
        ("another version", ConnectionRecord { version: 2, ..good.clone() }),
        (
            "fields swapped",
            ConnectionRecord { access: good.grant.clone().unwrap(), grant: Some(good.access.clone()), ..good.clone() },
        ),
    ];
    for (name, record) in cases {
        let connection = build(&record, None);
        let access = connection.access();
        assert_eq!(connection.open_access(&keyring, &access).err(), Some(SealError::Integrity), "{name}");
        assert_eq!(connection.open_grant(&keyring, &access).err(), Some(SealError::Integrity), "{name}: grant");
    }
    let namespace = build(&ConnectionRecord { scope: scope("default/staging"), ..good }, None);
    assert!(namespace.open_access(&keyring, &namespace.access()).is_ok(), "a namespace is no cryptographic boundary");
}
