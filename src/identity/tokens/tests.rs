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
    assert!(none.is_empty() && none.0.by_digest.is_empty() && none.0.by_agent.is_empty());
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
    ]);
    assert_eq!(of(&tokens, &scope, &agent).unwrap(), "tok_c");
    assert_eq!(of(&tokens.updated(&[], &[record("c").id]), &scope, &agent).unwrap(), "tok_b");
    assert_eq!(of(&tokens, &scope, &other), None);
    let elsewhere = Scope { tenant: TenantName::parse("t2").unwrap(), ..Scope::default() };
    assert_eq!(of(&tokens, &elsewhere, &agent), None);
    let live =
        |value: &str| tokens.by_id(&record(value).id, NOW).map(|principal| principal.token_id.unwrap().to_string());
    assert_eq!(["a", "d", "e", "f"].map(live), [Some("tok_a".to_owned()), None, None, None]);
}
