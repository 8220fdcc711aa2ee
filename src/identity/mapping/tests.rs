#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use serde_json::json;

/// Every scope has one connection `github`; the scope `acme` and `default` one `slack` too.
#[derive(Debug)]
struct Known;

fn id(scope: &Scope, name: &str) -> ConnectionId {
    ConnectionId::parse(&format!("con_{}.{}.{name}", scope.tenant, scope.namespace)).unwrap()
}

impl Names for Known {
    fn connection(&self, scope: &Scope, name: &str) -> Option<ConnectionId> {
        let is_known = name == "github" || name == "slack" && scope.tenant.as_str() == "acme";
        is_known.then(|| id(scope, name))
    }
}

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn rule(when: &[(&str, &[&str])], connections: &[&str]) -> Rule {
    let condition = |(claim, globs): &(&str, &[&str])| Condition {
        claim: Claim::parse(claim).unwrap(),
        any_of: globs.iter().map(|glob| Glob::new(glob)).collect(),
    };
    Rule {
        when: when.iter().map(condition).collect(),
        connections: connections.iter().map(|name| (*name).to_owned()).collect(),
        methods: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
    }
}

fn mapping(agent: &str, rules: Vec<Rule>) -> Mapping {
    Mapping { tenant: template("acme"), namespace: template("default"), agent: template(agent), run: None, rules }
}

fn attributes(value: Value) -> Attributes {
    value.as_object().unwrap().clone()
}

fn principal(mapping: &Mapping, value: Value) -> Result<Principal, MappingError> {
    mapping.principal(&Arc::from("ci"), &attributes(value), &Known)
}

#[test]
fn templates_take_claims_by_name_and_by_pointer() {
    let claims = json!({
        "sub": "bob",
        "https://acme.test/team": "red",
        "a/b": "slash",
        "n": 7,
        "list": ["x", "y"],
        "none": null,
        "empty": "",
        "kubernetes.io": { "namespace": "prod", "serviceaccount": { "name": "runner" }, "t~e": "tilde" },
    });
    let rows = [
        ("fixed", Ok("fixed")),
        ("{sub}", Ok("bob")),
        ("a-{sub}-b", Ok("a-bob-b")),
        ("{sub}{sub}", Ok("bobbob")),
        ("{https://acme.test/team}", Ok("red")),
        ("{a/b}", Ok("slash")),
        ("{/a~1b}", Ok("slash")),
        ("{/kubernetes.io/t~0e}", Ok("tilde")),
        ("{/kubernetes.io/namespace}:{/kubernetes.io/serviceaccount/name}", Ok("prod:runner")),
        ("{/list/1}", Ok("y")),
        ("{{{sub}}}", Ok("{bob}")),
        ("{missing}", Err(MappingError::Missing("missing".to_owned()))),
        ("{/kubernetes.io/pod/name}", Err(MappingError::Missing("/kubernetes.io/pod/name".to_owned()))),
        ("{n}", Err(MappingError::NotText("n".to_owned()))),
        ("{list}", Err(MappingError::NotText("list".to_owned()))),
        ("{none}", Err(MappingError::NotText("none".to_owned()))),
        ("{kubernetes.io}", Err(MappingError::NotText("kubernetes.io".to_owned()))),
    ];
    for (text, expected) in rows {
        let mapping = mapping(text, vec![rule(&[], &["github"])]);
        let agent = principal(&mapping, claims.clone()).map(|principal| principal.agent.to_string());
        assert_eq!(agent, expected.map(str::to_owned), "{text}");
    }
    // A claim that is there but cannot be a name refuses too.
    for (text, value) in [("{empty}", ""), ("{x}", "line\nbreak"), ("{x}", " space"), ("{x}", "nxt_abc")] {
        let mapping = mapping(text, vec![rule(&[], &["github"])]);
        let refused = principal(&mapping, json!({ "empty": "", "x": value }));
        assert!(matches!(refused, Err(MappingError::Name(_))), "{text} {value:?}");
    }
}

#[test]
fn a_broken_template_is_told() {
    for (text, error) in [
        ("", TemplateError::Empty),
        ("{}", TemplateError::Empty),
        ("{/}", TemplateError::Empty),
        ("{sub", TemplateError::Brace),
        ("sub}", TemplateError::Brace),
        ("{a{b}", TemplateError::Brace),
        ("{{sub}", TemplateError::Brace),
        ("{/a~b}", TemplateError::Pointer),
        ("{/a~}", TemplateError::Pointer),
    ] {
        assert_eq!(Template::parse(text), Err(error), "{text}");
    }
    assert_eq!(template("acme").fixed(), Some("acme"));
    assert_eq!(template("{{x}}").fixed(), Some("{x}"));
    assert_eq!(template("{tenant}").fixed(), None);
}

#[test]
fn the_first_rule_that_fits_holds() {
    let mapping = mapping(
        "{sub}",
        vec![
            rule(&[("repository", &["acme/*"]), ("ref", &["refs/heads/main", "refs/tags/*"])], &["github", "slack"]),
            rule(&[("repository", &["acme/*"])], &["github"]),
            rule(&[("groups", &["admins"])], &["slack"]),
            rule(&[("level", &["3"])], &["slack"]),
            rule(&[("trusted", &["true"])], &["slack"]),
        ],
    );
    let scope = Scope { tenant: TenantName::parse("acme").unwrap(), ..Scope::default() };
    let (github, slack) = (id(&scope, "github"), id(&scope, "slack"));
    let rows = [
        ("both conditions", json!({ "repository": "acme/a", "ref": "refs/heads/main" }), Some(vec![&github, &slack])),
        ("another of the list", json!({ "repository": "acme/a", "ref": "refs/tags/v1" }), Some(vec![&github, &slack])),
        ("one condition", json!({ "repository": "acme/a", "ref": "refs/pull/1/merge" }), Some(vec![&github])),
        ("no second claim", json!({ "repository": "acme/a" }), Some(vec![&github])),
        ("an element of a list", json!({ "groups": ["users", "admins"] }), Some(vec![&slack])),
        ("no element of a list", json!({ "groups": ["users"] }), None),
        ("a list in a list", json!({ "groups": [["admins"]] }), None),
        ("a number", json!({ "level": 3 }), Some(vec![&slack])),
        ("another number", json!({ "level": 33 }), None),
        ("a boolean", json!({ "trusted": true }), Some(vec![&slack])),
        ("null", json!({ "trusted": null }), None),
        ("another owner", json!({ "repository": "acme-evil/a" }), None),
        ("nothing", json!({}), None),
    ];
    for (name, mut claims, expected) in rows {
        claims["sub"] = json!("bob");
        let granted = principal(&mapping, claims).map(|principal| principal.grant.connections.clone());
        match expected {
            Some(expected) => assert_eq!(granted.unwrap().iter().collect::<Vec<_>>(), expected, "{name}"),
            None => assert_eq!(granted, Err(MappingError::NoRule), "{name}"),
        }
    }
}

#[test]
fn connections_are_those_of_the_principals_own_scope() {
    let mut mapping = mapping("{sub}", vec![rule(&[], &["slack", "github", "github", "gone"])]);
    mapping.tenant = template("{tenant}");
    mapping.namespace = template("{space}");
    mapping.run = Some(template("{run}"));
    let claims = |tenant: &str| json!({ "sub": "bob", "tenant": tenant, "space": "prod", "run": "42" });
    let acme = principal(&mapping, claims("acme")).unwrap();
    assert_eq!(acme.scope.tenant.as_str(), "acme");
    assert_eq!(acme.scope.namespace.as_str(), "prod");
    assert_eq!(acme.run.as_ref().map(RunId::as_str), Some("42"));
    assert_eq!(acme.issuer.as_deref(), Some("ci"));
    assert_eq!(acme.token_id, None);
    assert_eq!(acme.grant.connections, [id(&acme.scope, "github"), id(&acme.scope, "slack")]);
    let other = principal(&mapping, claims("other")).unwrap();
    assert_eq!(other.grant.connections, [id(&other.scope, "github")]);
    assert!(matches!(principal(&mapping, claims("../acme")), Err(MappingError::Name(_))));
}

#[test]
fn the_rules_narrowing_is_the_grants() {
    let mut narrow = rule(&[], &["github"]);
    narrow.methods = vec!["GET".to_owned()];
    narrow.paths = vec![PathPattern::parse("/repos/**").unwrap()];
    narrow.hosts = vec![HostPattern::parse("api.github.com").unwrap()];
    let grant = principal(&mapping("{sub}", vec![narrow.clone()]), json!({ "sub": "bob" })).unwrap().grant;
    assert_eq!((&grant.methods, &grant.paths, &grant.hosts), (&narrow.methods, &narrow.paths, &narrow.hosts));
    assert!(grant.may_use && !grant.may_mint);
}
