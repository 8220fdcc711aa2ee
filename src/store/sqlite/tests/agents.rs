//! Invitations, and agents that are disabled.

use super::*;

fn invitation(code: [u8; 32]) -> TokenRecord {
    TokenRecord { kind: TokenKind::Certificate, previous: Some((TokenDigest(code), NOW + 60)), ..token("invited") }
}

#[tokio::test]
async fn a_code_is_taken_once() {
    let (_directory, store) = store().await;
    let record = invitation([7; 32]);
    store.insert_token(&record).await.unwrap();
    let before = store.changes_since(&Seen::default()).await.unwrap().seen;
    let taken = store.redeem_code(TokenDigest([7; 32]), NOW).await.unwrap();
    assert_eq!(taken, TokenRecord { previous: None, ..record });
    let changes = store.changes_since(&before).await.unwrap();
    assert_eq!(changes.tokens, [taken]);
    assert_eq!(refusal(store.redeem_code(TokenDigest([7; 32]), NOW).await), "not found");
}

#[tokio::test]
async fn of_many_that_come_with_a_code_one_gets_it() {
    let (_directory, store) = store().await;
    let store = Arc::new(store);
    store.insert_token(&invitation([7; 32])).await.unwrap();
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = Arc::clone(&store);
        tries.spawn(async move { store.redeem_code(TokenDigest([7; 32]), NOW).await.is_ok() });
    }
    assert_eq!(tries.join_all().await.into_iter().filter(|taken| *taken).count(), 1);
}

#[tokio::test]
async fn codes_that_cannot_be_taken_are_unknown() {
    type Change = fn(&mut TokenRecord);
    let rows: [(&str, Change); 5] = [
        ("ended", |r| r.previous = Some((TokenDigest([7; 32]), NOW))),
        ("revoked", |r| r.revoked_at = Some(NOW)),
        ("the record ended", |r| r.expires_at = Some(NOW)),
        ("a token's old value", |r| r.kind = TokenKind::Opaque),
        ("another code", |r| r.previous = Some((TokenDigest([8; 32]), NOW + 60))),
    ];
    for (name, change) in rows {
        let (_directory, store) = store().await;
        let mut record = invitation([7; 32]);
        change(&mut record);
        store.insert_token(&record).await.unwrap();
        assert_eq!(refusal(store.redeem_code(TokenDigest([7; 32]), NOW).await), "not found", "{name}");
        assert_eq!(store.list_tokens(&Scope::default()).await.unwrap(), [record], "{name}");
    }
}

#[tokio::test]
async fn agents_are_disabled_in_their_scope() {
    let (_directory, store) = store().await;
    let agent: AgentName = "java".parse().unwrap();
    let here = Scope::default();
    let told = async |store: &SqliteStore| {
        store
            .changes_since(&Seen::default())
            .await
            .unwrap()
            .disabled_agents
            .into_iter()
            .map(|(scope, _)| scope)
            .collect::<Vec<_>>()
    };
    for time in [NOW, NOW + 5] {
        store.set_agent_disabled(&here, &agent, true, time).await.unwrap();
    }
    assert_eq!(store.disabled_agents(&here).await.unwrap(), [(agent.clone(), NOW)], "twice is once");
    let other = scope("other", "default");
    assert!(store.disabled_agents(&other).await.unwrap().is_empty());
    store.set_agent_disabled(&other, &agent, false, NOW).await.unwrap();
    assert_eq!(told(&store).await, std::slice::from_ref(&here));
    let before = store.changes_since(&Seen::default()).await.unwrap().seen;
    store.set_agent_disabled(&here, &agent, false, NOW).await.unwrap();
    assert!(store.changes_since(&before).await.unwrap().generation > before.generation(), "a reader learns of it");
    assert!(told(&store).await.is_empty());
}

#[tokio::test]
async fn an_agent_whose_record_was_removed_stays_disabled() {
    let (directory, store) = store().await;
    let (lost, kept): (AgentName, AgentName) = ("lost".parse().unwrap(), "kept".parse().unwrap());
    let here = Scope::default();
    store.set_agent_disabled(&here, &lost, true, NOW).await.unwrap();
    let seen = store.changes_since(&Seen::default()).await.unwrap().seen;
    sqlx::query("DELETE FROM disabled_agents").execute(&store.writer).await.unwrap();

    // Whoever has seen the record knows, whether anything else changes or not.
    let is_disabled = |changes: &Changes, agent: &AgentName| {
        changes.disabled_agents.contains(&(here.clone(), agent.clone())) || changes.doubtful_agents.has(&here, agent)
    };
    let mut known = store.changes_since(&seen).await.unwrap();
    assert!(is_disabled(&known, &lost) && !is_disabled(&known, &kept));
    for agent in ["a", "b"] {
        store.insert_token(&token(agent)).await.unwrap();
        known = store.changes_since(&known.seen).await.unwrap();
        assert!(is_disabled(&known, &lost) && !is_disabled(&known, &kept));
    }
    // Whoever has not knows of no agent of that bucket whether it is disabled.
    for _ in 0..2 {
        let store = open(&directory.path().join("nexus.db")).await.unwrap();
        let first = store.changes_since(&Seen::default()).await.unwrap();
        assert!(is_disabled(&first, &lost) && !is_disabled(&first, &kept));
        assert!(first.failed.iter().any(|failed| failed.kind == "bucket"), "{:?}", first.failed);
        let again = store.changes_since(&first.seen).await.unwrap();
        assert!(is_disabled(&again, &lost) && !is_disabled(&again, &kept));
        store.close().await;
    }
    // It takes a person to say that the record is not missed.
    assert_eq!(refusal(store.set_agent_disabled(&here, &lost, true, NOW).await), "integrity");
    store.accept(false).await.unwrap();
    let after = store.changes_since(&known.seen).await.unwrap();
    assert!(!is_disabled(&after, &lost), "{after:?}");
    assert!(!is_disabled(&store.changes_since(&Seen::default()).await.unwrap(), &lost));
}

#[tokio::test]
async fn an_agent_that_is_enabled_again_is() {
    let (_directory, store) = store().await;
    let agent: AgentName = "java".parse().unwrap();
    let mut seen = Seen::default();
    for disabled in [true, false, true, false] {
        store.set_agent_disabled(&Scope::default(), &agent, disabled, NOW).await.unwrap();
        for _ in 0..2 {
            let changes = store.changes_since(&seen).await.unwrap();
            assert_eq!(!changes.disabled_agents.is_empty(), disabled);
            assert_eq!(changes.doubtful_agents, Default::default());
            seen = changes.seen;
        }
    }
}
