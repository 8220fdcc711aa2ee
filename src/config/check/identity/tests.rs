#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::config::check_text;
use std::path::Path;

const ISSUER: &str = r#"[[identity.issuer]]
name = "ci"
issuer = "https://issuer.test"
audience = "nexus"
algorithm = "RS256"
jwks = { url = "https://issuer.test/jwks" }
rule = [{ use = ["github"] }]
"#;

fn check(text: &str) -> Result<Config, Vec<String>> {
    check_text("nexus.toml", text, Path::new("/home")).map_err(|problems| {
        problems.iter().map(|p| p.to_string().strip_prefix("nexus.toml:").unwrap().to_owned()).collect()
    })
}

#[test]
fn defaults_are_safe() {
    let config = check(ISSUER).unwrap();
    let issuer = &config.issuers[0];
    assert_eq!((&*issuer.name, issuer.issuer.as_str()), ("ci", "https://issuer.test"));
    assert_eq!(issuer.audience, ["nexus"]);
    assert_eq!(issuer.algorithm, Algorithm::RS256);
    assert_eq!(issuer.keys, KeyLocation::Url(Url::parse(b"https://issuer.test/jwks").unwrap()));
    assert_eq!((issuer.leeway.as_secs(), issuer.max_lifetime.as_secs()), (30, 86_400));
    assert_eq!(issuer.mapping.tenant.fixed(), Some("default"));
    assert_eq!(issuer.mapping.namespace.fixed(), Some("default"));
    assert_eq!(issuer.mapping.agent, Template::parse("{sub}").unwrap());
    assert_eq!(issuer.mapping.run, None);
    let [rule] = issuer.mapping.rules.as_slice() else { panic!("one rule") };
    assert_eq!((rule.when.len(), rule.connections.as_slice()), (0, &["github".to_owned()][..]));
}

#[test]
fn every_key_is_read() {
    let text = r#"
[[identity.issuer]]
name = "k8s"
issuer = "https://kubernetes.default.svc"
audience = ["nexus", "other"]
algorithm = "EdDSA"
jwks = { file = "keys/jwks.json" }
leeway = "60s"
max_lifetime = "1h"
tenant = "acme"
namespace = "{/kubernetes.io/namespace}"
agent = "{sub}"
run = "{jti}"
[[identity.issuer.rule]]
when = { sub = ["a*", "b"], "/kubernetes.io/namespace" = "prod" }
use = ["github", "slack"]
methods = ["get", "HEAD"]
paths = ["/repos/**"]
hosts = ["api.github.com", "*.slack.com"]
[[identity.issuer.rule]]
use = "github"
"#;
    let config = check(text).unwrap();
    let issuer = &config.issuers[0];
    assert_eq!(issuer.keys, KeyLocation::File("/home/keys/jwks.json".into()));
    assert_eq!(config.key_files().collect::<Vec<_>>(), [Path::new("/home/keys/jwks.json")]);
    assert_eq!(issuer.leeway.as_secs(), 60);
    assert_eq!(issuer.mapping.namespace, Template::parse("{/kubernetes.io/namespace}").unwrap());
    assert_eq!(issuer.mapping.run, Some(Template::parse("{jti}").unwrap()));
    let [first, second] = issuer.mapping.rules.as_slice() else { panic!("two rules") };
    assert_eq!(first.when.len(), 2);
    assert!(
        first.when.contains(&Condition {
            claim: Claim::parse("sub").unwrap(),
            any_of: vec![Glob::new("a*"), Glob::new("b")]
        })
    );
    assert_eq!(first.methods, ["GET", "HEAD"]);
    assert_eq!((first.paths.len(), first.hosts.len()), (1, 2));
    assert_eq!(second.connections, ["github"]);
}

#[test]
fn one_problem_each() {
    let with = |old: &str, new: &str| ISSUER.replace(old, new);
    let rows: Vec<(&str, String, &str)> = vec![
        ("not a table", "[identity]\nissuer = 1".to_owned(), "2:10 identity.issuer: expected one [[identity.issuer]]"),
        ("unknown key", with("name = \"ci\"", "name = \"ci\"\nkid = \"x\""), "3:1 identity.issuer[0].kid: unknown key"),
        ("no name", with("name = \"ci\"\n", ""), "1:1 identity.issuer[0]: name is missing"),
        ("a bad name", with("\"ci\"", "\"c i\""), "2:8 identity.issuer[0].name: use 1 to 64 letters"),
        ("no issuer", with("issuer = \"https://issuer.test\"\n", ""), "1:1 identity.issuer[0]: issuer is missing"),
        (
            "empty issuer",
            with("\"https://issuer.test\"", "\"\""),
            "3:10 identity.issuer[0].issuer: write the exact iss",
        ),
        (
            "our own",
            with("\"https://issuer.test\"", "\"nexus:abc\""),
            "3:10 identity.issuer[0].issuer: write the exact",
        ),
        ("no audience", with("audience = \"nexus\"\n", ""), "1:1 identity.issuer[0]: audience is missing"),
        ("no audience in it", with("\"nexus\"", "[]"), "4:12 identity.issuer[0].audience: expected the audience, or"),
        ("empty audience", with("\"nexus\"", "[\"\"]"), "4:13 identity.issuer[0].audience[0]: the text is empty"),
        ("audience's type", with("\"nexus\"", "true"), "4:12 identity.issuer[0].audience: expected the audience, or"),
        ("no algorithm", with("algorithm = \"RS256\"\n", ""), "1:1 identity.issuer[0]: algorithm is missing"),
        ("none", with("RS256", "none"), "5:13 identity.issuer[0].algorithm: tokens must be signed"),
        ("HS256", with("RS256", "HS256"), "5:13 identity.issuer[0].algorithm: with a shared key"),
        (
            "ES512",
            with("RS256", "ES512"),
            "5:13 identity.issuer[0].algorithm: \"ES512\" is not known; write one of RS256",
        ),
        ("several", with("\"RS256\"", "[\"RS256\"]"), "5:13 identity.issuer[0].algorithm: expected an algorithm"),
        (
            "no jwks",
            with("jwks = { url = \"https://issuer.test/jwks\" }\n", ""),
            "1:1 identity.issuer[0].jwks: give exactly",
        ),
        ("url and file", with("{ url", "{ file = \"x\", url"), "6:8 identity.issuer[0].jwks: give exactly one"),
        (
            "in clear",
            with("url = \"https", "url = \"http"),
            "6:16 identity.issuer[0].jwks.url: keys that come in clear",
        ),
        ("no URL", with("https://issuer.test/jwks", "issuer.test"), "6:16 identity.issuer[0].jwks.url: "),
        (
            "empty file",
            with("url = \"https://issuer.test/jwks\"", "file = \"\""),
            "6:17 identity.issuer[0].jwks.file: the path",
        ),
        ("leeway", format!("{ISSUER}leeway = \"61s\""), "8:10 identity.issuer[0].leeway: at most 60s"),
        ("lifetime", format!("{ISSUER}max_lifetime = \"0s\""), "8:16 identity.issuer[0].max_lifetime: must be longer"),
        ("endless", format!("{ISSUER}max_lifetime = \"none\""), "8:16 identity.issuer[0].max_lifetime: cannot be"),
        ("template", format!("{ISSUER}agent = \"{{sub\""), "8:9 identity.issuer[0].agent: a brace has no partner"),
        ("empty template", format!("{ISSUER}tenant = \"\""), "8:10 identity.issuer[0].tenant: the name of a claim is"),
        ("no rule", with("rule = [{ use = [\"github\"] }]\n", ""), "1:1 identity.issuer[0]: nobody would be let in"),
        (
            "rule's type",
            with("[{ use = [\"github\"] }]", "\"github\""),
            "7:8 identity.issuer[0].rule: expected an array",
        ),
        ("rule without use", with("{ use = [\"github\"] }", "{}"), "7:9 identity.issuer[0].rule[0]: use is missing"),
        (
            "nothing to use",
            with("[\"github\"]", "[]"),
            "7:17 identity.issuer[0].rule[0].use: expected an array of names",
        ),
        (
            "no methods",
            with("{ use", "{ methods = [], use"),
            "7:21 identity.issuer[0].rule[0].methods: expected an array",
        ),
        (
            "method",
            with("{ use", "{ methods = [\"A B\"], use"),
            "7:22 identity.issuer[0].rule[0].methods[0]: not a method",
        ),
        ("path", with("{ use", "{ paths = [\"x\"], use"), "7:20 identity.issuer[0].rule[0].paths[0]: "),
        ("host", with("{ use", "{ hosts = [\"a b\"], use"), "7:20 identity.issuer[0].rule[0].hosts[0]: "),
        (
            "claim",
            with("{ use", "{ when = { \"/a~b\" = \"x\" }, use"),
            "7:20 identity.issuer[0].rule[0].when.\"/a~b\": in a JSON",
        ),
        (
            "glob's type",
            with("{ use", "{ when = { a = 1 }, use"),
            "7:24 identity.issuer[0].rule[0].when.a: expected a text",
        ),
        (
            "no glob",
            with("{ use", "{ when = { a = [] }, use"),
            "7:24 identity.issuer[0].rule[0].when.a: expected a text",
        ),
        (
            "a name twice",
            format!("{ISSUER}{}", with("\"nexus\"", "\"other\"")),
            "9:8 identity.issuer[1].name: identity.issuer[0] has",
        ),
        (
            "an issuer twice",
            format!("{ISSUER}{}", with("\"ci\"", "\"two\"").replace("\"nexus\"", "[\"other\", \"nexus\"]")),
            "11:12 identity.issuer[1].audience: identity.issuer[0] takes tokens of this issuer for \"nexus\"",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, expected) in rows {
        let found = check(&text).err().unwrap_or_default();
        if found.len() != 1 || !found[0].starts_with(expected) {
            wrong.push(format!("{name}: expected {expected:?}, found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
