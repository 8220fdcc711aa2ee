//! The built-in files say what is meant.

use super::*;

fn built_in(id: &str) -> std::sync::Arc<Definition> {
    std::sync::Arc::clone(Catalog::built_in().find(id).unwrap())
}

#[test]
fn the_list_is_the_directory() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers");
    let mut files: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let listed: Vec<&str> = BUILT_IN.iter().map(|(file, _)| *file).collect();
    assert_eq!(listed, files, "src/provider/catalog.rs lists each file of providers/, sorted");
}

#[test]
fn every_file_loads_without_a_problem() {
    let problems: Vec<String> = BUILT_IN
        .iter()
        .filter_map(|(file, text)| parse_file(file, text).err())
        .flatten()
        .map(|problem| problem.to_string())
        .collect();
    assert_eq!(problems, Vec::<String>::new());
    let catalog = Catalog::built_in();
    assert_eq!(catalog.iter().count(), BUILT_IN.len());
    assert!(catalog.iter().all(|(source, _)| source == CatalogSource::BuiltIn));
}

#[test]
fn every_file_is_complete_and_honest() {
    for (_, definition) in Catalog::built_in().iter() {
        let id = &definition.id;
        assert!(definition.verified.contains("nothing was called"), "{id} says how it was verified");
        assert!(definition.docs.is_some() && definition.test.is_some() && definition.placeholder.is_some(), "{id}");
        assert!(definition.auth.iter().all(|auth| auth.fields.iter().all(|f| !f.label.is_empty())), "{id}");
        let bound = definition.auth.iter().map(|auth| definition.bind(Some(&auth.id), &vars(&[("site", "acme")])));
        for bound in bound {
            match bound {
                Ok(bound) => assert_eq!(bound.routes.len(), definition.routes.len(), "{id}"),
                Err(BindError::Unknown { .. }) => assert!(definition.vars.is_empty(), "{id}"),
                Err(error) => panic!("{id}: {error}"),
            }
        }
    }
}

#[test]
fn names_are_unique_over_all_files() {
    let mut names: Vec<String> = Vec::new();
    for (_, definition) in Catalog::built_in().iter() {
        names.push(definition.id.to_string());
        names.extend(definition.aliases.iter().cloned());
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Each route as `host:port path`, and what a sample credential becomes there.
fn injected(id: &str, auth: &str, given: &[(&str, &str)], set: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    let bound = built_in(id).bind(Some(auth), &vars(set)).unwrap();
    let mut fields = SecretFields::default();
    given.iter().for_each(|(name, value)| fields.insert(name, Secret::new((*value).to_owned())));
    let edits = |route: &BoundRoute| {
        let injection = Strategy::new(route.placements.clone()).unwrap().inject(&fields).unwrap();
        let shown = injection.edits.iter().map(|edit| match edit {
            Edit::Header { name, value } => format!("{name}: {}", value.to_str().unwrap()),
            Edit::Query { pair } => format!("?{}", pair.expose()),
            Edit::PathPrefix { prefix } => prefix.expose().to_owned(),
        });
        shown.collect()
    };
    bound.routes.iter().map(|route| (format!("{}:{} {}", route.host, route.port, route.path), edits(route))).collect()
}

#[test]
fn each_file_injects_exactly_what_it_says() {
    let bearer = "authorization: Bearer t0p-secret";
    // Basic of `x-access-token`, `oauth2`, `me@acme.test` and of the key alone, each with `t0p-secret`.
    let git = "authorization: Basic eC1hY2Nlc3MtdG9rZW46dDBwLXNlY3JldA==";
    let gitlab = "authorization: Basic b2F1dGgyOnQwcC1zZWNyZXQ=";
    let jira = "authorization: Basic bWVAYWNtZS50ZXN0OnQwcC1zZWNyZXQ=";
    let stripe = "authorization: Basic dDBwLXNlY3JldDo=";
    let github = |token| {
        vec![
            ("api.github.com:443 /", token),
            ("uploads.github.com:443 /", token),
            ("raw.githubusercontent.com:443 /", token),
            ("github.com:443 /", git),
        ]
    };
    let google = [
        ("gmail.googleapis.com:443 /"),
        ("www.googleapis.com:443 /gmail"),
        ("www.googleapis.com:443 /upload/gmail"),
        ("www.googleapis.com:443 /batch/gmail"),
        ("www.googleapis.com:443 /drive"),
        ("www.googleapis.com:443 /upload/drive"),
        ("www.googleapis.com:443 /batch/drive"),
        ("www.googleapis.com:443 /calendar"),
        ("www.googleapis.com:443 /batch/calendar"),
    ];
    let slack = vec![("slack.com:443 /api", bearer), ("files.slack.com:443 /", bearer)];
    let hubspot = vec![("api.hubapi.com:443 /", bearer), ("api.hubspot.com:443 /", bearer)];
    let (api_key, token, access) = ("api_key", "token", "access_token");
    let mut covered = std::collections::BTreeSet::new();
    for (id, auth, field, set, expected) in [
        ("github", "token", token, vec![], github(bearer)),
        ("github", "oauth", access, vec![], github(bearer)),
        (
            "gitlab",
            "token",
            token,
            vec![],
            vec![("gitlab.com:443 /api", "private-token: t0p-secret"), ("gitlab.com:443 /", gitlab)],
        ),
        ("gitlab", "oauth", access, vec![], vec![("gitlab.com:443 /api", bearer), ("gitlab.com:443 /", gitlab)]),
        ("slack", "token", token, vec![], slack.clone()),
        ("slack", "oauth", access, vec![], slack),
        (
            "openai",
            "key",
            api_key,
            vec![],
            vec![
                ("api.openai.com:443 /", bearer),
                ("us.api.openai.com:443 /", bearer),
                ("eu.api.openai.com:443 /", bearer),
            ],
        ),
        ("anthropic", "key", api_key, vec![], vec![("api.anthropic.com:443 /", "x-api-key: t0p-secret")]),
        ("anthropic", "subscription", "auth_token", vec![], vec![("api.anthropic.com:443 /", bearer)]),
        ("google", "oauth", access, vec![], google.map(|route| (route, bearer)).to_vec()),
        ("notion", "token", token, vec![], vec![("api.notion.com:443 /", bearer)]),
        ("notion", "oauth", access, vec![], vec![("api.notion.com:443 /", bearer)]),
        (
            "stripe",
            "key",
            "secret_key",
            vec![],
            vec![("api.stripe.com:443 /", bearer), ("files.stripe.com:443 /", bearer)],
        ),
        (
            "stripe",
            "basic",
            "secret_key",
            vec![],
            vec![("api.stripe.com:443 /", stripe), ("files.stripe.com:443 /", stripe)],
        ),
        (
            "jira",
            "token",
            api_key,
            vec![("site", "acme"), ("email", "me@acme.test")],
            vec![("acme.atlassian.net:443 /rest", jira)],
        ),
        ("hubspot", "token", token, vec![], hubspot.clone()),
        ("hubspot", "oauth", access, vec![], hubspot),
        (
            "sendgrid",
            "key",
            api_key,
            vec![],
            vec![("api.sendgrid.com:443 /", bearer), ("api.eu.sendgrid.com:443 /", bearer)],
        ),
        (
            "telegram",
            "token",
            token,
            vec![],
            vec![("api.telegram.org:443 /", "/bott0p-secret"), ("api.telegram.org:443 /file", "/bott0p-secret")],
        ),
    ] {
        // Jira's token has a name of its own.
        let field = if id == "jira" { "api_token" } else { field };
        let expected: Vec<(String, Vec<String>)> =
            expected.into_iter().map(|(route, edit)| (route.to_owned(), vec![edit.to_owned()])).collect();
        assert_eq!(injected(id, auth, &[(field, "t0p-secret")], &set), expected, "{id} {auth}");
        covered.insert((id.to_owned(), auth.to_owned()));
    }
    let catalog = Catalog::built_in();
    let all = catalog.iter().flat_map(|(_, d)| d.auth.iter().map(|auth| (d.id.to_string(), auth.id.clone())));
    assert_eq!(covered, all.collect(), "every auth of every file has a row");
}

#[test]
fn default_headers_are_exact() {
    for (id, expected) in [
        ("anthropic", vec!["anthropic-version: 2023-06-01"]),
        (
            "github",
            vec!["accept: application/vnd.github+json", "user-agent: nexus", "x-github-api-version: 2022-11-28"],
        ),
        ("notion", vec!["notion-version: 2022-06-28"]),
        ("openai", vec![]),
    ] {
        let headers: Vec<String> =
            built_in(id).default_headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(headers, expected, "{id}");
    }
}

#[test]
fn oauth_endpoints_are_exact() {
    for (id, url, client_auth) in [
        ("github", "https://github.com/login/oauth/access_token", TokenClientAuth::Post),
        ("gitlab", "https://gitlab.com/oauth/token", TokenClientAuth::Post),
        ("slack", "https://slack.com/api/oauth.v2.access", TokenClientAuth::Basic),
        ("google", "https://oauth2.googleapis.com/token", TokenClientAuth::Post),
        ("notion", "https://api.notion.com/v1/oauth/token", TokenClientAuth::Basic),
        ("hubspot", "https://api.hubapi.com/oauth/2026-03/token", TokenClientAuth::Post),
    ] {
        let bound = built_in(id).bind(Some("oauth"), &vars(&[])).unwrap();
        let oauth = bound.oauth.unwrap();
        assert_eq!((oauth.token_url.as_str(), oauth.client_auth), (url, client_auth), "{id}");
        let asked: Vec<&str> = bound.auth.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(asked, ["client_id", "client_secret", "refresh_token"], "{id}");
    }
}

#[test]
fn the_google_names_are_one_provider() {
    for name in ["google", "gmail", "Google-Drive", "google_calendar"] {
        assert_eq!(built_in(name).id.as_str(), "google", "{name}");
    }
}

#[test]
fn placeholders_carry_what_sdks_check() {
    for (id, start) in [
        ("github", "ghp_"),
        ("gitlab", "glpat-"),
        ("slack", "xoxb-"),
        ("openai", "sk-"),
        ("anthropic", "sk-ant-api03-"),
        ("google", "ya29."),
        ("notion", "ntn_"),
        ("stripe", "sk_test_"),
        ("jira", "ATATT3x"),
        ("hubspot", "pat-na1-"),
        ("sendgrid", "SG."),
        ("telegram", "1000000000:"),
    ] {
        let placeholder = built_in(id).placeholder.clone().unwrap();
        assert!(placeholder.starts_with(start), "{id}: {placeholder}");
        assert!(!crate::secret::AgentToken::has_form(&placeholder), "{id}");
    }
    let of = |id: &str| built_in(id).placeholder.clone().unwrap();
    assert_eq!(of("sendgrid").split('.').map(str::len).collect::<Vec<_>>(), [2, 22, 43]);
    assert_eq!(of("telegram").split(':').map(str::len).collect::<Vec<_>>(), [10, 35]);
}
