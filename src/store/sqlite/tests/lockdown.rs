//! The lockdown's mark, and the end of every token.

use super::*;

#[tokio::test]
async fn a_lockdown_is_set_without_a_key_and_shows_at_once() {
    let (_directory, store) = store().await;
    let before = store.changes_since(&Seen::default()).await.unwrap();
    assert!(!before.locked);
    assert_eq!(store.lockdown_at().await.unwrap(), None);

    let file = StoreFile::open(store.path()).await.unwrap();
    assert_eq!(file.set_lockdown(NOW).await.unwrap(), NOW);
    // Again: the first one counts.
    assert_eq!(file.set_lockdown(NOW + 5).await.unwrap(), NOW);
    assert_eq!(file.lockdown_at().await.unwrap(), Some(NOW));
    file.close().await;

    assert_eq!(store.lockdown_at().await.unwrap(), Some(NOW));
    assert!(store.changes_since(&before.seen).await.unwrap().locked);
}

#[tokio::test]
async fn all_tokens_of_all_tenants_end() {
    let (_directory, store) = store().await;
    let elsewhere = TokenRecord { scope: scope("other", "prod"), ..token("a") };
    let revoked = TokenRecord { revoked_at: Some(NOW - 7), ..token("b") };
    let expired = TokenRecord { expires_at: Some(NOW - 1), ..token("c") };
    for record in [&token("d"), &elsewhere, &revoked, &expired] {
        store.insert_token(record).await.unwrap();
    }
    let before = store.changes_since(&Seen::default()).await.unwrap().seen;
    assert_eq!(store.revoke_all_tokens(NOW).await.unwrap(), 2);
    let changes = store.changes_since(&before).await.unwrap();
    assert_eq!(changes.tokens.len(), 3);
    assert!(changes.tokens.iter().all(|token| token.revoked_at == Some(NOW)));
    let all = store.changes_since(&Seen::default()).await.unwrap().tokens;
    assert_eq!(all.iter().find(|token| token.id == revoked.id).unwrap().revoked_at, Some(NOW - 7));
    // Nothing is left to do, and nothing is written.
    assert_eq!(store.revoke_all_tokens(NOW + 1).await.unwrap(), 0);
    assert_eq!(store.changes_since(&Seen::default()).await.unwrap().generation, changes.generation);
}

#[tokio::test]
async fn lifting_revokes_what_was_made_meanwhile() {
    let (_directory, store) = store().await;
    assert_eq!(store.lift_lockdown(NOW).await.unwrap(), None);
    let kept = token("a");
    store.insert_token(&kept).await.unwrap();
    assert_eq!(store.lift_lockdown(NOW).await.unwrap(), None);
    assert_eq!(store.list_tokens(&Scope::default()).await.unwrap(), [kept]);

    let file = StoreFile::open(store.path()).await.unwrap();
    file.set_lockdown(NOW).await.unwrap();
    file.close().await;
    store.insert_token(&token("b")).await.unwrap();
    assert_eq!(store.lift_lockdown(NOW + 9).await.unwrap(), Some(2));
    assert_eq!(store.lockdown_at().await.unwrap(), None);
    assert!(store.list_tokens(&Scope::default()).await.unwrap().iter().all(|token| token.revoked_at == Some(NOW + 9)));
    store.insert_token(&token("c")).await.unwrap();
    assert_eq!(store.lift_lockdown(NOW + 10).await.unwrap(), None);
}
