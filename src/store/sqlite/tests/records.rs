//! Records, changes and the watch.

use super::*;
use std::sync::Arc;

#[tokio::test]
async fn a_connection_is_read_as_it_was_written() {
    let (_directory, store) = store().await;
    let mut written = connection("work");
    written.state = ConnectionState::Attention;
    written.state_reason = Some("invalid_grant".to_owned());
    written.disabled = true;
    store.insert_connection(&written, false).await.unwrap();
    let mut bare = connection("bare");
    (bare.grant, bare.access_issued_at, bare.access_expires_at) = (None, None, None);
    store.insert_connection(&bare, false).await.unwrap();
    let scope = Scope::default();
    assert_eq!(store.find_connection(&scope, "work").await.unwrap(), written);
    assert_eq!(store.find_connection(&scope, written.id.as_str()).await.unwrap(), written);
    assert_eq!(store.list_connections(&scope).await.unwrap(), [bare, written]);
    assert_eq!(refusal(store.find_connection(&scope, "nothing").await), "not found");
}

#[tokio::test]
async fn scopes_do_not_see_each_other() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let token = token("a");
    store.insert_token(&token).await.unwrap();
    store.record_usage(&[Usage { id: token.id.to_string(), last_used_at: NOW, address: None }]).await.unwrap();
    for other in [scope("other", "default"), scope("default", "other")] {
        assert_eq!(refusal(store.find_connection(&other, "work").await), "not found");
        assert_eq!(refusal(store.find_connection(&other, record.id.as_str()).await), "not found");
        assert_eq!(refusal(store.set_connection_disabled(&other, "work", true).await), "not found");
        assert_eq!(refusal(store.delete_connection(&other, "work").await), "not found");
        assert_eq!(refusal(store.revoke_token(&other, &token.id, NOW).await), "not found");
        let rotated = store.rotate_token(&other, &token.id, TokenDigest([1; 32]), NOW, None).await;
        assert_eq!(refusal(rotated), "not found");
        assert!(store.list_connections(&other).await.unwrap().is_empty());
        assert!(store.list_tokens(&other).await.unwrap().is_empty());
        assert!(store.usage(&other).await.unwrap().is_empty());
        // The same name is free there.
        store.insert_connection(&ConnectionRecord { scope: other, ..connection("work") }, false).await.unwrap();
    }
    assert_eq!(store.find_connection(&Scope::default(), "work").await.unwrap(), record);
}

#[tokio::test]
async fn an_id_wins_over_a_name_that_looks_like_it() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let impostor = connection(record.id.as_str());
    store.insert_connection(&impostor, false).await.unwrap();
    let found = store.find_connection(&Scope::default(), record.id.as_str()).await.unwrap();
    assert_eq!(found.name, record.name);
}

#[tokio::test]
async fn a_taken_name_is_refused_and_replaced_only_by_its_next_version() {
    let (_directory, store) = store().await;
    let old = connection("work");
    store.insert_connection(&old, false).await.unwrap();
    store.record_usage(&[Usage { id: old.id.to_string(), last_used_at: NOW, address: None }]).await.unwrap();
    assert_eq!(refusal(store.insert_connection(&connection("work"), false).await), "exists");
    let same_id = ConnectionRecord { name: "other".parse().unwrap(), ..old.clone() };
    assert_eq!(refusal(store.insert_connection(&same_id, false).await), "exists");
    assert_eq!(refusal(store.insert_connection(&same_id, true).await), "exists");

    let next = ConnectionRecord { version: 2, definition: "{}".to_owned(), created_at: NOW + 5, ..old.clone() };
    let rows = [
        ("another id", ConnectionRecord { id: ConnectionId::generate(), ..next.clone() }),
        ("the same version", ConnectionRecord { version: 1, ..next.clone() }),
        ("a version left out", ConnectionRecord { version: 3, ..next.clone() }),
    ];
    for (name, record) in rows {
        assert_eq!(refusal(store.insert_connection(&record, true).await), "conflict", "{name}");
        assert_eq!(store.find_connection(&Scope::default(), "work").await.unwrap(), old, "{name}");
    }
    store.insert_connection(&next, true).await.unwrap();
    assert_eq!(store.list_connections(&Scope::default()).await.unwrap(), [next]);
    assert!(store.usage(&Scope::default()).await.unwrap().is_empty(), "nothing of the old one is kept");
    let fresh = connection("fresh");
    store.insert_connection(&fresh, true).await.unwrap();
    assert_eq!(store.find_connection(&Scope::default(), "fresh").await.unwrap(), fresh);
}

#[tokio::test]
async fn state_is_set_for_the_version_it_is_about() {
    let (_directory, store) = store().await;
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let set = |version, state, reason| store.set_connection_state(&record.id, version, state, reason);
    set(1, ConnectionState::Attention, Some("invalid_grant")).await.unwrap();
    let found = store.find_connection(&Scope::default(), "work").await.unwrap();
    assert_eq!(
        found,
        ConnectionRecord {
            state: ConnectionState::Attention,
            state_reason: Some("invalid_grant".to_owned()),
            ..record.clone()
        }
    );
    let generation = store.changes_since(&Seen::default()).await.unwrap().generation;
    set(1, ConnectionState::Attention, Some("invalid_grant")).await.unwrap();
    assert_eq!(store.changes_since(&Seen::default()).await.unwrap().generation, generation, "nothing changed");
    store.update_credential(&record.id, &update(2), None).await.unwrap();
    assert_eq!(refusal(set(1, ConnectionState::Attention, Some("late")).await), "conflict");
    let found = store.find_connection(&Scope::default(), "work").await.unwrap();
    assert_eq!((found.state, found.state_reason, found.version), (ConnectionState::Active, None, 2));
    assert_eq!(found.access, Sealed::from_bytes(b"access 2"));
    assert_eq!((found.grant, found.access_expires_at, found.updated_at), (None, None, NOW + 10));
    let unknown = ConnectionId::generate();
    assert_eq!(refusal(store.set_connection_state(&unknown, 1, ConnectionState::Active, None).await), "not found");
    assert_eq!(refusal(store.update_credential(&unknown, &update(2), None).await), "not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_updates_to_one_version_one_wins() {
    let (directory, store) = store().await;
    let other = open(&directory.path().join("nexus.db")).await.unwrap();
    let record = connection("work");
    store.insert_connection(&record, false).await.unwrap();
    let stores = [Arc::new(store), Arc::new(other)];
    for version in 2..8 {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (store, id) = (Arc::clone(&stores[n % 2]), record.id.clone());
                tokio::spawn(async move { store.update_credential(&id, &update(version), None).await })
            })
            .collect();
        let mut wins = 0;
        for writer in writers {
            match writer.await.unwrap() {
                Ok(()) => wins += 1,
                refused => assert_eq!(refusal(refused), "conflict"),
            }
        }
        assert_eq!(wins, 1, "version {version}");
    }
}

#[tokio::test]
async fn tokens_are_read_revoked_and_rotated() {
    let (_directory, store) = store().await;
    let scope = Scope::default();
    let first = token("first");
    let second = TokenRecord { created_at: NOW + 1, run: None, lifetime: None, expires_at: None, ..token("second") };
    store.insert_token(&second).await.unwrap();
    store.insert_token(&first).await.unwrap();
    assert_eq!(store.list_tokens(&scope).await.unwrap(), [first.clone(), second.clone()]);

    let new = TokenDigest([9; 32]);
    store.rotate_token(&scope, &first.id, new, NOW + 300, Some(NOW + 900)).await.unwrap();
    let rotated = TokenRecord {
        digest: new,
        previous: Some((first.digest, NOW + 300)),
        expires_at: Some(NOW + 900),
        ..first.clone()
    };
    assert_eq!(store.list_tokens(&scope).await.unwrap()[0], rotated);
    let newer = TokenDigest([10; 32]);
    store.rotate_token(&scope, &first.id, newer, NOW + 400, None).await.unwrap();
    let previous = store.list_tokens(&scope).await.unwrap()[0].previous;
    assert_eq!(previous, Some((new, NOW + 400)), "one old value at most");

    store.revoke_token(&scope, &first.id, NOW + 50).await.unwrap();
    store.revoke_token(&scope, &first.id, NOW + 60).await.unwrap();
    assert_eq!(store.list_tokens(&scope).await.unwrap()[0].revoked_at, Some(NOW + 50));
    assert_eq!(refusal(store.rotate_token(&scope, &first.id, TokenDigest([11; 32]), NOW, None).await), "not found");
    assert_eq!(refusal(store.revoke_token(&scope, &TokenId::generate(), NOW).await), "not found");
}

#[tokio::test]
async fn a_digest_is_of_one_token_only() {
    let (_directory, store) = store().await;
    let scope = Scope::default();
    let (a, b) = (token("a"), token("b"));
    store.insert_token(&a).await.unwrap();
    store.insert_token(&b).await.unwrap();
    store.rotate_token(&scope, &a.id, TokenDigest([9; 32]), NOW, None).await.unwrap();
    for digest in [TokenDigest([9; 32]), a.digest, b.digest] {
        assert_eq!(refusal(store.insert_token(&TokenRecord { digest, ..token("c") }).await), "exists");
        assert_eq!(refusal(store.rotate_token(&scope, &b.id, digest, NOW, None).await), "exists");
    }
    assert_eq!(refusal(store.insert_token(&TokenRecord { id: b.id, ..token("c") }).await), "exists");
}

#[tokio::test]
async fn apps_belong_to_the_tenant_and_count_their_versions() {
    let (_directory, store) = store().await;
    let app = AppRecord {
        scope: Scope::default(),
        provider: "github".parse().unwrap(),
        client_id: "Iv1".to_owned(),
        secret: Some(Sealed::from_bytes(b"sealed")),
        redirect_uri: None,
        version: 1,
        updated_at: NOW,
    };
    store.put_app(&app).await.unwrap();
    assert_eq!(refusal(store.put_app(&app).await), "conflict");
    let next = AppRecord { version: 2, redirect_uri: Some("http://127.0.0.1:1".to_owned()), ..app.clone() };
    store.put_app(&next).await.unwrap();
    assert_eq!(store.list_apps(&scope("default", "other")).await.unwrap(), [next]);
    assert!(store.list_apps(&scope("other", "default")).await.unwrap().is_empty());
    assert_eq!(refusal(store.delete_app(&scope("other", "default"), "github").await), "not found");
    let generation = store.changes_since(&Seen::default()).await.unwrap().generation;
    store.delete_app(&Scope::default(), "github").await.unwrap();
    assert_eq!(store.changes_since(&Seen::default()).await.unwrap().generation, generation + 1);
    assert_eq!(refusal(store.delete_app(&Scope::default(), "github").await), "not found");
    store.put_app(&app).await.unwrap();
}

#[tokio::test]
async fn changes_are_told_once() {
    let (_directory, store) = store().await;
    let start = store.changes_since(&Seen::default()).await.unwrap();
    assert_eq!((start.connections.len(), start.tokens.len(), start.failed.len()), (0, 0, 0));
    let (a, b) = (connection("a"), connection("b"));
    store.insert_connection(&a, false).await.unwrap();
    store.insert_connection(&b, false).await.unwrap();
    let token = token("agent");
    store.insert_token(&token).await.unwrap();
    let all = store.changes_since(&Seen::default()).await.unwrap();
    assert_eq!(all.connections, [a.clone(), b.clone()]);
    assert_eq!(all.tokens, std::slice::from_ref(&token));
    assert_eq!(store.changes_since(&all.seen).await.unwrap().connections, []);
    assert_eq!(store.changes_since(&all.seen).await.unwrap().generation, all.generation);

    store.set_connection_disabled(&Scope::default(), "a", true).await.unwrap();
    store.set_connection_disabled(&Scope::default(), "a", true).await.unwrap();
    let disabled = store.changes_since(&all.seen).await.unwrap();
    assert_eq!(disabled.generation, all.generation + 1);
    assert_eq!(disabled.connections, [ConnectionRecord { disabled: true, ..a.clone() }]);
    assert!(disabled.tokens.is_empty());

    store.revoke_token(&Scope::default(), &token.id, NOW).await.unwrap();
    assert_eq!(store.delete_connection(&Scope::default(), "b").await.unwrap(), b.name);
    let rest = store.changes_since(&disabled.seen).await.unwrap();
    assert_eq!(rest.tokens, [TokenRecord { revoked_at: Some(NOW), ..token }]);
    assert_eq!((rest.connections, rest.deleted_connections), (vec![], vec![b.id.clone()]));
    assert!(store.changes_since(&rest.seen).await.unwrap().deleted_connections.is_empty());

    let again = ConnectionRecord { name: "c".parse().unwrap(), ..b.clone() };
    store.insert_connection(&again, false).await.unwrap();
    let back = store.changes_since(&disabled.seen).await.unwrap();
    assert_eq!((back.connections, back.deleted_connections), (vec![again], vec![]), "added after it was deleted");
}

#[tokio::test]
async fn usage_is_kept_outside_the_generation() {
    let (_directory, store) = store().await;
    let (record, token) = (connection("a"), token("agent"));
    store.insert_connection(&record, false).await.unwrap();
    store.insert_token(&token).await.unwrap();
    let generation = store.changes_since(&Seen::default()).await.unwrap().generation;
    let used = |id: &str, at, address: Option<&str>| Usage {
        id: id.to_owned(),
        last_used_at: at,
        address: address.map(|a| a.parse().unwrap()),
    };
    let later = used(token.id.as_str(), NOW + 9, Some("2001:db8::1"));
    store.record_usage(&[]).await.unwrap();
    store.record_usage(&[used(record.id.as_str(), NOW, None), later.clone()]).await.unwrap();
    store.record_usage(&[used(token.id.as_str(), NOW + 5, Some("192.0.2.1"))]).await.unwrap();
    store.record_usage(&[used("con_gone", NOW, None)]).await.unwrap();
    let usage = store.usage(&Scope::default()).await.unwrap();
    assert_eq!(usage, [used(record.id.as_str(), NOW, None), later.clone()]);
    assert_eq!(store.changes_since(&Seen::default()).await.unwrap().generation, generation);
    store.delete_connection(&Scope::default(), "a").await.unwrap();
    assert_eq!(store.usage(&Scope::default()).await.unwrap(), [later]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_another_process_is_noticed() {
    let (directory, store) = store().await;
    let cli = open(&directory.path().join("nexus.db")).await.unwrap();
    for round in 0..3 {
        let seen = store.changes_since(&Seen::default()).await.unwrap().seen;
        cli.insert_connection(&connection(&format!("c{round}")), false).await.unwrap();
        // Before the wait began: noticed all the same.
        store.changed().await;
        assert_eq!(store.changes_since(&seen).await.unwrap().connections.len(), 1);
    }
    let watching = async {
        store.changed().await;
        store.list_connections(&Scope::default()).await.unwrap().len()
    };
    let writing = async { cli.insert_connection(&connection("late"), false).await.unwrap() };
    assert_eq!(tokio::join!(watching, writing).0, 4);
}

#[tokio::test]
async fn without_a_commit_nothing_is_noticed_and_a_wait_may_be_dropped() {
    let (directory, store) = store().await;
    let cli = open(&directory.path().join("nexus.db")).await.unwrap();
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(600), store.changed()).await;
    assert!(quiet.is_err(), "nothing was written");
    cli.insert_token(&token("a")).await.unwrap();
    // Waits that are dropped at their first pause do not swallow the commit.
    loop {
        let mut wait = Box::pin(store.changed());
        tokio::select! {
            biased;
            () = &mut wait => break,
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_cli_write_to_one_file() {
    let (directory, server) = store().await;
    let cli = open(&directory.path().join("nexus.db")).await.unwrap();
    assert_eq!(server.install_id(), cli.install_id());
    assert_eq!(server.install_id().len(), 32);
    let stores = [Arc::new(server), Arc::new(cli)];
    let writers: Vec<_> = (0..40)
        .map(|n| {
            let store = Arc::clone(&stores[n % 2]);
            tokio::spawn(async move {
                let record = token(&format!("agent-{n}"));
                store.insert_token(&record).await.unwrap();
                record.id
            })
        })
        .collect();
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    for store in &stores {
        let changes = store.changes_since(&Seen::default()).await.unwrap();
        assert_eq!((changes.generation, changes.tokens.len()), (41, 40));
        assert!(written.iter().all(|id| changes.tokens.iter().any(|t| t.id == *id)));
    }
}
