#![expect(clippy::unwrap_used, reason = "tests")]

use super::{Rejected, TokenTable};
use crate::secret::{AgentToken, TokenDigest};
use crate::store::{TokenKind, TokenRecord, TokenScope};
use crate::types::{AgentName, ConnectionId, Scope, TenantName, TokenId, UnixSeconds};

const NOW: UnixSeconds = 1_000;

fn digest(text: &str) -> TokenDigest {
    AgentToken::digest(text)
}

fn record(value: &str) -> TokenRecord {
    TokenRecord {
        id: TokenId::parse(&format!("tok_{value}")).unwrap(),
        scope: Scope::default(),
        agent: AgentName::parse("bot").unwrap(),
        run: None,
        digest: digest(value),
        previous: None,
        connections: Vec::new(),
        methods: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
        scopes: vec![TokenScope::Use],
        kind: TokenKind::Opaque,
        parent: None,
        created_at: 1,
        lifetime: None,
        expires_at: None,
        revoked_at: None,
    }
}

fn table(records: &[TokenRecord]) -> TokenTable {
    TokenTable::default().updated(records, &[])
}

fn id_of(table: &TokenTable, value: &str, now: UnixSeconds) -> Result<String, Rejected> {
    let result = table.authenticate(&digest(value), now).map(|principal| principal.token_id.unwrap().to_string());
    assert_eq!(table.is_live(&digest(value), now), result.is_ok());
    result
}

#[test]
fn tokens_are_judged_by_their_state() {
    let with = |change: fn(&mut TokenRecord)| {
        let mut record = record("new");
        record.previous = Some((digest("old"), NOW + 10));
        change(&mut record);
        table(&[record])
    };
    let ok = || Ok("tok_new".to_owned());
    type Case = (&'static str, fn(&mut TokenRecord), &'static str, UnixSeconds, Result<String, Rejected>);
    let cases: [Case; 13] = [
        ("current", |_| {}, "new", NOW, ok()),
        ("unknown", |_| {}, "other", NOW, Err(Rejected::Unknown)),
        ("previous in its time", |_| {}, "old", NOW + 9, ok()),
        ("previous at its end", |_| {}, "old", NOW + 10, Err(Rejected::Expired)),
        ("current after the end of the previous", |_| {}, "new", NOW + 10, ok()),
        ("before its end", |r| r.expires_at = Some(NOW + 1), "new", NOW, ok()),
        ("at its end", |r| r.expires_at = Some(NOW), "new", NOW, Err(Rejected::Expired)),
        ("previous of an expired one", |r| r.expires_at = Some(NOW), "old", NOW, Err(Rejected::Expired)),
        ("revoked", |r| r.revoked_at = Some(NOW), "new", NOW, Err(Rejected::Revoked)),
        ("revoked, on a clock that is behind", |r| r.revoked_at = Some(NOW + 99), "new", NOW, Err(Rejected::Revoked)),
        ("previous of a revoked one", |r| r.revoked_at = Some(NOW), "old", NOW, Err(Rejected::Revoked)),
        (
            "revoked and expired",
            |r| (r.revoked_at, r.expires_at) = (Some(NOW), Some(NOW)),
            "new",
            NOW,
            Err(Rejected::Revoked),
        ),
        ("damaged", |r| r.paths = vec!["/a".to_owned(), "no slash".to_owned()], "new", NOW, Err(Rejected::Unknown)),
    ];
    for (name, change, value, now, expected) in cases {
        assert_eq!(id_of(&with(change), value, now), expected, "{name}");
    }
}

#[test]
fn rotation_drops_the_value_before_the_previous() {
    let first = table(&[record("a")]);
    let rotated = |value: &str, previous: &str| TokenRecord {
        digest: digest(value),
        previous: Some((digest(previous), NOW + 10)),
        ..record("a")
    };
    let second = first.updated(&[rotated("b", "a")], &[]);
    let third = second.updated(&[rotated("c", "b")], &[]);
    for (value, expected) in [("a", Err(Rejected::Unknown)), ("b", Ok(())), ("c", Ok(()))] {
        assert_eq!(id_of(&third, value, NOW).map(drop), expected, "{value}");
    }
    assert!(first.is_live(&digest("a"), NOW), "an older table stays as it was");
    assert!(!first.is_live(&digest("b"), NOW));
    assert_eq!(third.len(), 1);
}

#[test]
fn deleted_tokens_are_unknown() {
    let both = table(&[record("a"), record("b")]);
    let one = both.updated(&[], &[record("a").id]);
    assert_eq!(id_of(&one, "a", NOW), Err(Rejected::Unknown));
    assert_eq!(id_of(&one, "b", NOW), Ok("tok_b".to_owned()));
    let none = one.updated(&[], &[record("b").id]);
    assert!(none.is_empty() && none.0.by_digest.is_empty() && none.0.by_agent.is_empty() && none.0.children.is_empty());
    assert_eq!(id_of(&both.updated(&[record("a")], &[record("a").id]), "a", NOW), Err(Rejected::Unknown));
}

#[test]
fn a_damaged_record_takes_the_good_one_away() {
    let good = table(&[record("a")]);
    let damaged = TokenRecord { paths: vec![String::new()], ..record("a") };
    assert_eq!(id_of(&good.updated(&[damaged], &[]), "a", NOW), Err(Rejected::Unknown));
}

#[test]
fn grants_are_sorted_and_upper_case() {
    let connection = |id: &str| ConnectionId::parse(id).unwrap();
    let record = TokenRecord {
        connections: vec![connection("con_c"), connection("con_a"), connection("con_c"), connection("con_b")],
        methods: vec!["get".to_owned()],
        paths: vec!["/a/**".to_owned()],
        ..record("a")
    };
    let grant = table(&[record]).authenticate(&digest("a"), NOW).unwrap().grant;
    assert_eq!(grant.connections, ["con_a", "con_b", "con_c"].map(connection));
    assert_eq!(grant.methods, ["GET"]);
    assert!(grant.has_connection(&connection("con_b")) && !grant.has_connection(&connection("con_d")));
}

#[test]
fn an_agent_acts_by_its_newest_live_token() {
    let made = |value: &str, created_at: UnixSeconds| TokenRecord { created_at, ..record(value) };
    let scope = Scope::default();
    let (agent, other) = (AgentName::parse("bot").unwrap(), AgentName::parse("other").unwrap());
    let of = |table: &TokenTable, scope: &Scope, agent: &AgentName| {
        table.principal_of_agent(scope, agent, NOW).map(|principal| principal.token_id.unwrap().to_string())
    };
    let tokens = table(&[
        made("b", 2),
        made("a", 1),
        made("c", 2),
        TokenRecord { expires_at: Some(NOW), ..made("d", 3) },
        TokenRecord { revoked_at: Some(NOW), ..made("e", 4) },
        TokenRecord { kind: TokenKind::Run, ..made("f", 5) },
        TokenRecord { kind: TokenKind::Certificate, ..made("g", 6) },
        TokenRecord { scopes: vec![TokenScope::Mint], ..made("h", 7) },
        TokenRecord { parent: Some(record("a").id), ..made("i", 8) },
        TokenRecord { parent: Some(record("a").id), agent: AgentName::parse("bot/sub").unwrap(), ..made("j", 9) },
    ]);
    let sub = AgentName::parse("bot/sub").unwrap();
    assert_eq!(of(&tokens, &scope, &sub).unwrap(), "tok_j");
    assert_eq!(of(&tokens, &scope, &agent).unwrap(), "tok_c");
    assert_eq!(of(&tokens.updated(&[], &[record("c").id]), &scope, &agent).unwrap(), "tok_b");
    assert_eq!(of(&tokens, &scope, &other), None);
    let elsewhere = Scope { tenant: TenantName::parse("t2").unwrap(), ..Scope::default() };
    assert_eq!(of(&tokens, &elsewhere, &agent), None);
    let live =
        |value: &str| tokens.by_id(&record(value).id, NOW).map(|principal| principal.token_id.unwrap().to_string());
    assert_eq!(["a", "d", "e", "k"].map(live), [Some("tok_a".to_owned()), None, None, None]);
}

/// A token that another one made.
fn child(value: &str, parent: &str) -> TokenRecord {
    TokenRecord { parent: Some(record(parent).id), ..record(value) }
}

#[test]
fn a_token_lives_as_long_as_all_that_made_it() {
    type Change = fn(&mut TokenRecord);
    let revoked: Change = |record| record.revoked_at = Some(NOW);
    let expired: Change = |record| record.expires_at = Some(NOW);
    let elsewhere: Change = |record| record.scope.tenant = TenantName::parse("t2").unwrap();
    let damaged: Change = |record| record.paths = vec!["x".to_owned()];
    let nothing: Change = |_| {};
    for (name, at, change, expected) in [
        ("all live", 0, nothing, Ok("tok_c".to_owned())),
        ("its parent is revoked", 1, revoked, Err(Rejected::Revoked)),
        ("its parent is expired", 1, expired, Err(Rejected::Expired)),
        ("the first of the chain is revoked", 0, revoked, Err(Rejected::Revoked)),
        ("the first of the chain is expired", 0, expired, Err(Rejected::Expired)),
        ("its parent is damaged", 1, damaged, Err(Rejected::Revoked)),
        ("the first of the chain is another tenant's", 0, elsewhere, Err(Rejected::Revoked)),
        ("itself is revoked", 2, revoked, Err(Rejected::Revoked)),
    ] {
        let mut records = [record("a"), child("b", "a"), child("c", "b")];
        change(&mut records[at]);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]] {
            let one_by_one =
                order.iter().fold(TokenTable::default(), |table, at| table.updated(&records[*at..=*at], &[]));
            assert_eq!(id_of(&one_by_one, "c", NOW), expected, "{name}, {order:?}");
            let live = one_by_one.by_id(&record("c").id, NOW).is_some();
            assert_eq!(live, expected.is_ok(), "{name}");
        }
        let later = table(&[record("a"), child("b", "a"), child("c", "b")]).updated(&records, &[]);
        assert_eq!(id_of(&later, "c", NOW), expected, "{name}, changed later");
    }
    let all = table(&[record("a"), child("b", "a"), child("c", "b")]);
    for gone in ["a", "b"] {
        let fewer = all.updated(&[], &[record(gone).id]);
        assert_eq!(id_of(&fewer, "c", NOW), Err(Rejected::Revoked), "{gone} is deleted");
        assert!(fewer.updated(&[all_of(gone)], &[]).is_live(&digest("c"), NOW), "{gone} is back");
    }
}

fn all_of(value: &str) -> TokenRecord {
    if value == "a" { record("a") } else { child("b", "a") }
}

#[test]
fn a_grant_is_within_those_of_the_chain() {
    let connection = |id: &str| ConnectionId::parse(id).unwrap();
    let with = |record: TokenRecord, ids: &[&str]| TokenRecord {
        connections: ids.iter().map(|id| connection(id)).collect(),
        ..record
    };
    let records = [
        with(record("a"), &["con_1", "con_2"]),
        with(child("b", "a"), &["con_1", "con_2", "con_3"]),
        with(child("c", "b"), &["con_1", "con_3"]),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]] {
        let table = order.iter().fold(TokenTable::default(), |table, at| table.updated(&records[*at..=*at], &[]));
        let granted = |table: &TokenTable| {
            let grant = table.authenticate(&digest("c"), NOW).unwrap().grant;
            assert_eq!(grant.chain().count(), 3);
            ["con_1", "con_2", "con_3"].map(|id| grant.has_connection(&connection(id)))
        };
        assert_eq!(granted(&table), [true, false, false], "{order:?}");
        let narrowed = table.updated(&[with(record("a"), &["con_2"])], &[]);
        assert_eq!(granted(&narrowed), [false; 3], "the first of the chain was narrowed, {order:?}");
        assert_eq!(granted(&table), [true, false, false], "an older table stays as it was");
    }
}

#[test]
fn a_rotation_leaves_the_grants_below_shared() {
    let before = table(&[record("a"), child("b", "a")]);
    let rotated = TokenRecord { digest: digest("a2"), previous: Some((digest("a"), NOW)), ..record("a") };
    let after = before.updated(&[rotated], &[]);
    let grant = |table: &TokenTable, value: &str| table.authenticate(&digest(value), NOW).unwrap().grant;
    assert!(std::sync::Arc::ptr_eq(&grant(&before, "b"), &grant(&after, "b")));
    assert!(std::sync::Arc::ptr_eq(&grant(&before, "a"), &grant(&after, "a2")));
}

#[test]
fn chains_end_after_some_generations_and_rings_are_dead() {
    let name = |n: usize| char::from(b'a' + u8::try_from(n).unwrap()).to_string();
    let chain: Vec<_> = (0..8).map(|n| if n == 0 { record("a") } else { child(&name(n), &name(n - 1)) }).collect();
    for records in [chain.clone(), chain.into_iter().rev().collect()] {
        let table = table(&records);
        for n in 0..8 {
            assert_eq!(table.is_live(&digest(&name(n)), NOW), n <= super::MAX_GENERATIONS, "generation {n}");
        }
        let standing = |n: usize| table.standing(&record(&name(n)).id, NOW).map(|standing| standing.generation);
        assert_eq!([0, 1, 5, 6].map(standing), [Some(0), Some(1), Some(5), None]);
        assert_eq!(table.lineage(&record("c").id).count(), 3);
        let last = table.authenticate(&digest("f"), NOW).unwrap();
        let renamed = crate::identity::Principal { agent: AgentName::parse("bot/made-up").unwrap(), ..last };
        assert_eq!(table.first_agent(&renamed).as_str(), "bot");
    }
    let ring = table(&[child("a", "c"), child("b", "a"), child("c", "b"), child("d", "d")]);
    for value in ["a", "b", "c", "d"] {
        assert_eq!(id_of(&ring, value, NOW), Err(Rejected::Revoked), "{value}");
        assert_eq!(ring.standing(&record(value).id, NOW), None);
        assert!(ring.lineage(&record(value).id).count() <= super::MAX_GENERATIONS + 1);
    }
}

#[test]
fn the_end_of_a_token_is_the_first_of_its_chain() {
    let ending = |record: TokenRecord, end| TokenRecord { expires_at: end, ..record };
    for (own, above, expected) in [
        (None, None, None),
        (Some(NOW + 5), None, Some(NOW + 5)),
        (None, Some(NOW + 7), Some(NOW + 7)),
        (Some(NOW + 9), Some(NOW + 7), Some(NOW + 7)),
    ] {
        let table = table(&[ending(record("a"), above), ending(child("b", "a"), own)]);
        assert_eq!(table.standing(&record("b").id, NOW).unwrap().expires_at, expected);
    }
}

#[test]
fn a_change_among_many_tokens_copies_little() {
    let records: Vec<_> = (0..5_000).map(|n| record(&format!("v{n}"))).collect();
    let before = table(&records);
    let after = before.updated(&[TokenRecord { revoked_at: Some(NOW), ..record("v17") }], &[]);
    let is_shared = |value: &str| {
        let of = |table: &TokenTable| std::sync::Arc::as_ptr(table.0.by_digest.get(&digest(value)).unwrap());
        of(&before) == of(&after)
    };
    assert!(records.iter().filter(|record| !is_shared(record.id.as_str().trim_start_matches("tok_"))).count() == 1);
    assert!(!after.is_live(&digest("v17"), NOW) && before.is_live(&digest("v17"), NOW));
}
