//! Another root key: who may write what, and when.

use super::*;

/// An envelope that names a root key, as far as the store looks into it.
fn sealed(key_id: KeyId, text: &str) -> Sealed {
    Sealed::from_bytes(&[&[1], &key_id[..], text.as_bytes()].concat())
}

fn keyed(key_id: KeyId, name: &str) -> ConnectionRecord {
    ConnectionRecord { access: sealed(key_id, "access"), grant: Some(sealed(key_id, "grant")), ..connection(name) }
}

fn next() -> RootKey {
    RootKey::from_bytes(&[2; 32])
}

#[tokio::test]
async fn from_the_change_of_keys_on_every_writer_seals_with_the_new_one() {
    let (directory, store) = store().await;
    let old_id = store.keyring.key_id();
    store.insert_connection(&keyed(old_id, "a"), false).await.unwrap();
    let told = open(&directory.path().join("nexus.db")).await.unwrap();
    let untold = open(&directory.path().join("nexus.db")).await.unwrap();
    let next_id = store.keyring.add(&next());
    told.keyring.add(&next());
    assert_eq!(refusal(untold.rekey_manifest(next_id).await), "key unknown");
    store.rekey_manifest(next_id).await.unwrap();
    store.rekey_manifest(next_id).await.unwrap();
    assert_eq!((store.keyring.key_id(), told.keyring.key_id()), (next_id, old_id));
    assert_eq!(store.count_stale(next_id).await.unwrap(), 1);

    // What was sealed before the change is refused, and once it is known the keyring seals with the new one.
    assert_eq!(refusal(told.insert_connection(&keyed(old_id, "b"), false).await), "old key");
    assert_eq!(told.keyring.key_id(), next_id);
    told.insert_connection(&keyed(next_id, "b"), false).await.unwrap();
    let id = told.find_connection(&Scope::default(), "a").await.unwrap().id;
    let update = |key| CredentialUpdate { access: sealed(key, "access 2"), ..update(2) };
    assert_eq!(refusal(told.update_credential(&id, &update(old_id), None).await), "old key");
    told.update_credential(&id, &update(next_id), None).await.unwrap();
    assert_eq!(told.count_stale(next_id).await.unwrap(), 0);
    // Also after it has forgotten the old one.
    told.keyring.forget(old_id);
    assert!(!told.keyring.has(old_id));
    assert_eq!(refusal(told.insert_connection(&keyed(old_id, "c"), false).await), "old key");

    for refused in [
        untold.insert_token(&token("a")).await,
        untold.changes_since(&Seen::default()).await.map(|_| ()),
        untold.list_tokens(&Scope::default()).await.map(|_| ()),
        untold.find_connection(&Scope::default(), "a").await.map(|_| ()),
    ] {
        assert_eq!(refusal(refused), "key unknown");
    }
    untold.keyring.add(&next());
    untold.insert_token(&token("a")).await.unwrap();
    assert!(store.verify(|_| Ok(())).await.unwrap().failed.is_empty());
}

#[tokio::test]
async fn a_reader_learns_of_new_envelopes_of_the_same_version() {
    let (_directory, store) = store().await;
    let old_id = store.keyring.key_id();
    for n in 0..5 {
        store.insert_connection(&keyed(old_id, &format!("c{n}")), false).await.unwrap();
    }
    let next_id = store.keyring.add(&next());
    let seen = store.changes_since(&Seen::default()).await.unwrap().seen;
    store.rekey_manifest(next_id).await.unwrap();
    let rekeyed = store.changes_since(&seen).await.unwrap();
    assert_eq!((rekeyed.failed.len(), rekeyed.deleted_connections.len(), rekeyed.went_back), (0, 0, false));

    let mut cursor = Cursor::default();
    let mut resealed = Vec::new();
    loop {
        let (records, after) = store.stale(next_id, cursor, 2).await.unwrap();
        if records.is_empty() {
            break;
        }
        assert!(records.len() <= 2);
        cursor = after;
        for record in records {
            let Record::Connection(old) = record else { panic!("{record:?}") };
            resealed.push(old.name.to_string());
            let (access, grant) = (sealed(next_id, "access"), Some(sealed(next_id, "grant")));
            assert_eq!(store.reseal(&[Resealed::Connection { old, access, grant }]).await.unwrap(), 1);
        }
    }
    assert_eq!(resealed.len(), 5);
    let changes = store.changes_since(&rekeyed.seen).await.unwrap();
    assert_eq!(changes.connections.len(), 5);
    assert!(changes.connections.iter().all(|c| c.version == 1 && c.access == sealed(next_id, "access")));
}

#[tokio::test]
async fn a_store_that_does_not_verify_is_not_put_under_another_key() {
    let (_directory, store) = store().await;
    store.insert_token(&token("a")).await.unwrap();
    sqlx::query("UPDATE tokens SET agent = 'b'").execute(&store.writer).await.unwrap();
    let next_id = store.keyring.add(&next());
    assert_eq!(refusal(store.rekey_manifest(next_id).await), "integrity");
    assert_eq!(store.verify(|_| Ok(())).await.unwrap().failed.len(), 1, "the damage is not made good by it");
}
