#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::store::{Emptied, Usage};
use crate::types::{NamespaceName, TenantName};
use std::collections::BTreeSet;

fn scope(tenant: &str, namespace: &str) -> Scope {
    Scope { tenant: TenantName::parse(tenant).unwrap(), namespace: NamespaceName::parse(namespace).unwrap() }
}

fn connection_in(scope: &Scope, name: &str) -> ConnectionRecord {
    ConnectionRecord { scope: scope.clone(), ..connection(name) }
}

fn token_in(scope: &Scope, agent: &str) -> TokenRecord {
    TokenRecord { scope: scope.clone(), ..token(agent) }
}

async fn with_tenants() -> (TempDir, SqliteStore) {
    let (directory, store) = store().await;
    for scope in [scope("a", "default"), scope("a", "prod"), scope("b", "default")] {
        store.insert_connection(&connection_in(&scope, "work"), false).await.unwrap();
        store.insert_token(&token_in(&scope, "bot")).await.unwrap();
    }
    for tenant in ["a", "b"] {
        let app = AppRecord {
            scope: scope(tenant, "default"),
            provider: "google".parse().unwrap(),
            client_id: "id".to_owned(),
            secret: None,
            redirect_uri: None,
            version: 1,
            updated_at: NOW,
        };
        store.put_app(&app).await.unwrap();
    }
    (directory, store)
}

async fn names(store: &SqliteStore) -> Vec<String> {
    store.list_tenants().await.unwrap().iter().map(|tenant| tenant.tenant.to_string()).collect()
}

#[tokio::test]
async fn tenants_exist_by_name_or_by_records() {
    let (_directory, store) = with_tenants().await;
    let made = TenantName::parse("made").unwrap();
    store.create_tenant(&made, NOW).await.unwrap();
    assert_eq!(refusal(store.create_tenant(&made, NOW).await), "exists");
    let tenants = store.list_tenants().await.unwrap();
    assert_eq!(names(&store).await, ["a", "b", "made"]);
    assert_eq!((tenants[0].namespaces, tenants[0].connections, tenants[0].tokens, tenants[0].apps), (2, 2, 2, 1));
    assert_eq!((tenants[2].namespaces, tenants[2].created_at), (0, Some(NOW)));
    let namespaces = store.list_namespaces(&scope("a", "x").tenant).await.unwrap();
    let counts: Vec<_> = namespaces.iter().map(|n| (n.namespace.as_str(), n.connections, n.tokens)).collect();
    assert_eq!(counts, [("default", 1, 1), ("prod", 1, 1)]);
}

#[tokio::test]
async fn a_deleted_tenant_is_unknown_and_the_others_stay() {
    let (_directory, store) = with_tenants().await;
    let (gone, stays) = (scope("a", "prod"), scope("b", "default"));
    let old = store.find_connection(&gone, "work").await.unwrap();
    let since = store.changes_since(&Seen::default()).await.unwrap().seen;
    store.acquire_refresh_lease(&old.id, 1, &owner(), NOW, 60).await.unwrap();

    let emptied = store.delete_tenant(&gone.tenant, NOW + 1).await.unwrap();
    assert_eq!(emptied, Emptied { connections: 2, tokens: 2, apps: 1 });
    assert_eq!(refusal(store.delete_tenant(&gone.tenant, NOW + 2).await), "not found");
    assert_eq!(names(&store).await, ["b"]);
    let changes = store.changes_since(&since).await.unwrap();
    assert_eq!(changes.deleted_connections.len(), 2);
    assert!(changes.connections.is_empty());
    assert!(changes.tokens.len() == 2 && changes.tokens.iter().all(|token| token.revoked_at == Some(NOW + 1)));

    // By name and id, for reading and for writing.
    for name in ["work", old.id.as_str()] {
        assert_eq!(refusal(store.find_connection(&gone, name).await), "not found");
        assert_eq!(refusal(store.set_connection_disabled(&gone, name, true).await), "not found");
        assert_eq!(refusal(store.delete_connection(&gone, name).await), "not found");
    }
    assert_eq!(refusal(store.update_credential(&old.id, &update(2), None).await), "not found");
    assert_eq!(refusal(store.acquire_refresh_lease(&old.id, 1, &owner(), NOW, 60).await), "not found");
    assert_eq!(refusal(store.set_connection_state(&old.id, 1, ConnectionState::Attention, None).await), "not found");
    assert!(store.list_connections(&gone).await.unwrap().is_empty());
    assert!(store.list_apps(&gone).await.unwrap().is_empty());
    assert_eq!(store.list_connections(&stays).await.unwrap().len(), 1);
    assert_eq!(store.list_apps(&stays).await.unwrap().len(), 1);

    // The name is free again, and the new tenant has nothing of the old one.
    store.insert_connection(&connection_in(&gone, "work"), false).await.unwrap();
    assert_ne!(store.find_connection(&gone, "work").await.unwrap().id, old.id);
    assert_eq!(refusal(store.find_connection(&gone, old.id.as_str()).await), "not found");
}

fn owner() -> crate::store::LeaseOwner {
    crate::store::LeaseOwner { boot: "boot".to_owned(), pid: 1, started: 1 }
}

#[tokio::test]
async fn a_deleted_namespace_leaves_the_tenant() {
    let (_directory, store) = with_tenants().await;
    let emptied = store.delete_namespace(&scope("a", "prod"), NOW).await.unwrap();
    assert_eq!(emptied, Emptied { connections: 1, tokens: 1, apps: 0 });
    assert_eq!(refusal(store.delete_namespace(&scope("a", "prod"), NOW).await), "not found");
    assert_eq!(refusal(store.delete_namespace(&scope("c", "prod"), NOW).await), "not found");
    assert_eq!(store.list_connections(&scope("a", "default")).await.unwrap().len(), 1);
    assert_eq!(store.list_apps(&scope("a", "prod")).await.unwrap().len(), 1);
    assert_eq!(store.list_tokens(&scope("a", "default")).await.unwrap()[0].revoked_at, None);
}

#[tokio::test]
async fn orphans_are_purged_after_their_time() {
    let (_directory, store) = with_tenants().await;
    let (a, b) = (scope("a", "default"), scope("b", "default"));
    let old = store.find_connection(&a, "work").await.unwrap();
    store.delete_tenant(&a.tenant, NOW).await.unwrap();
    store.delete_tenant(&b.tenant, NOW + 100).await.unwrap();
    let used = Usage { id: old.id.to_string(), last_used_at: NOW, address: None };
    store.record_usage(&[used]).await.unwrap();

    assert_eq!(store.purge_orphans(None, NOW - 1).await.unwrap(), 0);
    let since = store.changes_since(&Seen::default()).await.unwrap().seen;
    assert_eq!(store.purge_orphans(None, NOW - 1).await.unwrap(), 0);
    assert_eq!(
        store.changes_since(&Seen::default()).await.unwrap().generation,
        since.generation(),
        "a purge of nothing changes nothing"
    );
    assert_eq!(store.purge_orphans(Some(&b.tenant), NOW).await.unwrap(), 0, "another tenant's");
    assert_eq!(store.purge_orphans(None, NOW).await.unwrap(), 2);
    assert!(store.changes_since(&since).await.unwrap().deleted_connections.contains(&old.id));
    assert_eq!(store.purge_orphans(Some(&b.tenant), NOW + 100).await.unwrap(), 1);
    let left: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM connections) + (SELECT count(*) FROM usage)")
        .fetch_one(&store.readers)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn dead_tokens_are_purged_and_never_above_one_that_works() {
    let (_directory, store) = store().await;
    let forever = |agent: &str| TokenRecord { expires_at: None, lifetime: None, ..token(agent) };
    let below = |agent: &str, parent: &TokenRecord| TokenRecord { parent: Some(parent.id.clone()), ..forever(agent) };
    let live = forever("live");
    let dead_child = TokenRecord { expires_at: Some(NOW), ..below("dead child", &live) };
    let revoked = TokenRecord { revoked_at: Some(NOW), ..forever("revoked") };
    let child_of_revoked = below("child of revoked", &revoked);
    let grandchild_of_revoked = below("grandchild of revoked", &child_of_revoked);
    let expired = TokenRecord { expires_at: Some(NOW + 5), ..forever("expired") };
    let run = TokenRecord { kind: TokenKind::Run, expires_at: Some(NOW + 50), ..forever("run") };
    let lost = TokenRecord { parent: Some(TokenId::generate()), created_at: NOW, ..forever("lost") };
    let (ring_a, ring_b) = (forever("ring a"), forever("ring b"));
    let ring_a = TokenRecord { parent: Some(ring_b.id.clone()), ..ring_a };
    let ring_b = TokenRecord { parent: Some(ring_a.id.clone()), ..ring_b };
    let all = [
        &live,
        &dead_child,
        &revoked,
        &child_of_revoked,
        &grandchild_of_revoked,
        &expired,
        &run,
        &lost,
        &ring_a,
        &ring_b,
    ];
    for record in all {
        store.insert_token(record).await.unwrap();
    }
    let left = async || {
        let tokens = store.list_tokens(&Scope::default()).await.unwrap();
        tokens.iter().map(|token| token.agent.to_string()).collect::<BTreeSet<_>>()
    };
    let everyone = left().await;
    assert_eq!(store.purge_tokens(NOW - 1, NOW - 1).await.unwrap(), 0);

    // The brief ones first.
    let since = store.changes_since(&Seen::default()).await.unwrap().seen;
    assert_eq!(store.purge_tokens(NOW - 1, NOW).await.unwrap(), 4);
    let gone: BTreeSet<_> =
        ["dead child", "child of revoked", "grandchild of revoked", "lost"].map(str::to_owned).into();
    assert_eq!(left().await, &everyone - &gone);
    assert_eq!(store.changes_since(&since).await.unwrap().deleted_tokens.len(), 4);
    assert_eq!(store.purge_tokens(NOW - 1, NOW + 50).await.unwrap(), 1, "of the run");
    assert_eq!(store.purge_tokens(NOW, NOW + 50).await.unwrap(), 1, "the revoked one");
    assert_eq!(store.purge_tokens(NOW + 4, NOW + 50).await.unwrap(), 0);
    assert_eq!(store.purge_tokens(NOW + 5, NOW + 50).await.unwrap(), 1, "the expired one");
    // Dead too, and harmless.
    assert_eq!(left().await, ["live", "ring a", "ring b"].map(str::to_owned).into());
    assert_eq!(store.purge_tokens(i64::MAX - 1, i64::MAX - 1).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_purge_at_once_remove_each_record_once() {
    let (directory, store) = store().await;
    for n in 0..1_200 {
        let dead = TokenRecord { revoked_at: Some(NOW), ..token(&format!("a{n}")) };
        store.insert_token(&dead).await.unwrap();
    }
    let other = open(&directory.path().join("nexus.db")).await.unwrap();
    let (one, two) = tokio::join!(store.purge_tokens(NOW, NOW), other.purge_tokens(NOW, NOW));
    assert_eq!(one.unwrap() + two.unwrap(), 1_200);
    assert!(store.list_tokens(&Scope::default()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn askers_at_once_do_not_pass_the_limit_of_children() {
    let (directory, store) = store().await;
    let other = open(&directory.path().join("nexus.db")).await.unwrap();
    let parent = token("parent");
    store.insert_token(&parent).await.unwrap();
    let child = || TokenRecord { parent: Some(parent.id.clone()), ..token("child") };
    for dead in [Some(NOW - 1), Some(NOW)] {
        store.insert_token(&TokenRecord { expires_at: dead, ..child() }).await.unwrap();
    }
    let stores = [Arc::new(store), Arc::new(other)];
    let asking: Vec<_> = (0..12)
        .map(|n| {
            let (store, record) = (Arc::clone(&stores[n % 2]), child());
            tokio::spawn(async move { store.insert_child_token(&record, NOW, 5).await })
        })
        .collect();
    let mut made = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(()) => made += 1,
            Err(error) => assert_eq!(refusal::<()>(Err(error)), "full"),
        }
    }
    assert_eq!(made, 5);
}
