//! Issuers in the config, and the examples of `docs/identity.md` with tokens as those platforms make them.

use super::*;
use crate::identity::testing::{Endpoint, SigningKey, key_set};
use crate::identity::{Algorithm, Principal, Verifier};
use crate::secret::{Keyring, RootKey};
use crate::telemetry::Metrics;
use crate::types::{Clock, NamespaceName};
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../../../docs/identity.md");

/// The TOML block under a heading of the document.
fn example(heading: &str) -> &'static str {
    let (_, section) = DOCUMENT.split_once(&format!("\n### {heading}\n")).expect(heading);
    let (_, block) = section.split_once("```toml\n").expect(heading);
    block.split_once("```").expect(heading).0
}

/// What lets the config reach the endpoint.
fn way_to(endpoint: &Endpoint) -> String {
    format!(
        "[dns]\nhosts = {{ \"issuer.test\" = \"127.0.0.1\" }}\n[egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n[upstream]\nca_files = [{:?}]\n",
        endpoint.ca_file()
    )
}

async fn with_connections(home: &Home, namespace: &str, names: &[&str]) -> Vec<ConnectionId> {
    let mut ids = Vec::new();
    for name in names {
        let mut record = connection(name, definition("api.example.test"));
        record.scope.namespace = NamespaceName::parse(namespace).unwrap();
        home.store.insert_connection(&record, false).await.unwrap();
        ids.push(record.id);
    }
    ids
}

async fn recognise(loader: &Loader, text: &str, now: UnixSeconds) -> Result<Principal, String> {
    let snapshot = loader.snapshot();
    let keyring = Arc::new(Keyring::new(&RootKey::from_bytes(&[1; 32]), "test"));
    let verifier = Verifier::new(keyring, Arc::new(Metrics::new()), Clock::fixed(now));
    let presented = snapshot.directory.presented(text).ok_or("none of ours")?;
    let proof =
        verifier.prove(&snapshot.directory, &snapshot.egress, &presented).await.map_err(|error| error.to_string())?;
    snapshot.directory.recognise(&proof, now).map_err(|error| error.to_string())
}

/// With claims set, or removed by null.
fn edited(claims: &Value, edits: Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in edits.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn kubernetes_claims() -> Value {
    json!({
        "aud": ["nexus"],
        "exp": NOW + 3600,
        "iat": NOW,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
        "kubernetes.io": {
            "namespace": "agents",
            "node": { "name": "worker-1", "uid": "58456cb0-dd00-45ed-b797-5578fdceaced" },
            "pod": { "name": "runner-69cbfb9798-jv9gn", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33" },
            "serviceaccount": { "name": "runner", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af" },
        },
        "nbf": NOW,
        "sub": "system:serviceaccount:agents:runner",
    })
}

#[tokio::test]
async fn the_kubernetes_example_takes_projected_tokens() {
    let home = Home::new().await;
    let granted = with_connections(&home, "agents", &["github"]).await;
    with_connections(&home, "default", &["github"]).await;
    let key = SigningKey::new("3Rg8x", Algorithm::RS256);
    home.write("jwks.json", &key_set(&[&key]));
    home.write("nexus.toml", example("Kubernetes"));
    let loader = home.start().await.unwrap();
    let claims = kubernetes_claims();
    // Kubernetes writes no typ.
    let sign = |claims: &Value| key.sign_parts(r#"{"alg":"RS256","kid":"3Rg8x"}"#, &claims.to_string());
    let principal = recognise(&loader, &sign(&claims), NOW + 10).await.unwrap();
    assert_eq!(principal.scope.namespace.as_str(), "agents");
    assert_eq!(principal.agent.as_str(), "runner");
    assert_eq!(principal.run.unwrap().as_str(), "runner-69cbfb9798-jv9gn");
    assert_eq!(principal.issuer.as_deref(), Some("kubernetes"));
    assert_eq!(principal.grant.connections, granted);
    assert_eq!(principal.grant.methods, ["GET"]);
    let mut of_a_node = claims.clone();
    of_a_node["kubernetes.io"].as_object_mut().unwrap().remove("pod");
    let refused = [
        ("another service account", edited(&claims, json!({ "sub": "system:serviceaccount:agents:default" }))),
        ("for the API server", edited(&claims, json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] }))),
        ("a legacy token, without an end", edited(&claims, json!({ "exp": null }))),
        ("another cluster", edited(&claims, json!({ "iss": "https://kubernetes.default.svc" }))),
        ("not bound to a pod", of_a_node),
        ("past its end", edited(&claims, json!({ "exp": NOW - 60 }))),
    ];
    for (name, claims) in refused {
        assert!(recognise(&loader, &sign(&claims), NOW).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn the_kubernetes_example_works_with_a_url_too() {
    let home = Home::new().await;
    with_connections(&home, "agents", &["github"]).await;
    let endpoint = Endpoint::start().await;
    let key = SigningKey::new("3Rg8x", Algorithm::RS256);
    endpoint.publish(&[&key]);
    let url = endpoint.url_text("/openid/v1/jwks");
    let issuer = example("Kubernetes").replace("{ file = \"jwks.json\" }", &format!("{{ url = {url:?} }}"));
    home.write("nexus.toml", &format!("{}{issuer}", way_to(&endpoint)));
    let loader = home.start().await.unwrap();
    assert!(recognise(&loader, &key.sign(&kubernetes_claims()), NOW).await.is_ok());
    assert_eq!(endpoint.hits(), 1);
    // Another limit does not ask again.
    home.write("nexus.toml", &format!("{}{issuer}[limits]\ncall_body = \"1MiB\"\n", way_to(&endpoint)));
    assert!(loader.reload_files().await.unwrap());
    assert!(recognise(&loader, &key.sign(&kubernetes_claims()), NOW).await.is_ok());
    assert_eq!(endpoint.hits(), 1);
}

#[tokio::test]
async fn the_github_example_takes_tokens_of_actions() {
    let home = Home::new().await;
    let granted = with_connections(&home, "default", &["github", "pypi"]).await;
    let endpoint = Endpoint::start().await;
    let (key, next) = (SigningKey::new("38826b17", Algorithm::RS256), SigningKey::new("cc413527", Algorithm::RS256));
    endpoint.publish(&[&key, &next]);
    let documented = "https://token.actions.githubusercontent.com/.well-known/jwks";
    assert!(example("GitHub Actions").contains(documented));
    let issuer = example("GitHub Actions").replace(documented, &endpoint.url_text("/.well-known/jwks"));
    home.write("nexus.toml", &format!("{}{issuer}", way_to(&endpoint)));
    let loader = home.start().await.unwrap();
    let claims = json!({
        "jti": "6f0a2b1c-8b5e-4f63-9e2e-0c9bb8e5b0a1",
        "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
        "aud": "https://nexus.example.com",
        "ref": "refs/heads/main",
        "sha": "0123456789abcdef0123456789abcdef01234567",
        "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org",
        "actor_id": "12",
        "repository_visibility": "private",
        "repository_id": "74",
        "repository_owner_id": "65",
        "run_id": "8765432100",
        "run_number": "10",
        "run_attempt": "2",
        "runner_environment": "github-hosted",
        "actor": "octocat",
        "workflow": "release",
        "workflow_ref": "octo-org/octo-repo/.github/workflows/release.yml@refs/heads/main",
        "head_ref": "",
        "base_ref": "",
        "event_name": "workflow_dispatch",
        "ref_type": "branch",
        "ref_protected": "true",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "iss": "https://token.actions.githubusercontent.com",
        "nbf": NOW - 300,
        "exp": NOW + 300,
        "iat": NOW,
    });
    let sign = |claims: &Value| {
        key.sign_parts(r#"{"typ":"JWT","alg":"RS256","x5t":"OIJrFw","kid":"38826b17"}"#, &claims.to_string())
    };
    let principal = recognise(&loader, &sign(&claims), NOW).await.unwrap();
    assert_eq!(principal.agent.as_str(), "octo-org/octo-repo");
    assert_eq!(principal.run.as_ref().unwrap().as_str(), "8765432100-2");
    assert_eq!(principal.issuer.as_deref(), Some("github-actions"));
    assert_eq!(principal.grant.connections, granted[1..]);
    let rows = [
        ("a pull request", json!({ "ref": "refs/pull/1/merge", "event_name": "pull_request" })),
        ("another repository", json!({ "repository": "octo-org/other" })),
        ("another event", json!({ "event_name": "schedule" })),
    ];
    for (name, edits) in rows {
        let principal = recognise(&loader, &sign(&edited(&claims, edits)), NOW).await.unwrap();
        assert_eq!(
            (&principal.grant.connections[..], &principal.grant.methods[..]),
            (&granted[..1], &["GET".to_owned()][..]),
            "{name}"
        );
    }
    let refused = [
        ("a namesake", json!({ "repository_owner_id": "66" })),
        ("GitHub's usual audience", json!({ "aud": "https://github.com/octo-org" })),
        ("past its end", json!({ "exp": NOW - 30 })),
        ("a custom issuer of an enterprise", json!({ "iss": "https://token.actions.githubusercontent.com/octo" })),
    ];
    for (name, edits) in refused {
        assert!(recognise(&loader, &sign(&edited(&claims, edits)), NOW).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes() {
    let home = Home::new().await;
    with_connections(&home, "agents", &["github"]).await;
    let (one, two) = (SigningKey::new("1", Algorithm::RS256), SigningKey::new("2", Algorithm::RS256));
    home.write("nexus.toml", example("Kubernetes"));
    assert!(matches!(home.start().await.err(), Some(ConfigError::Io { .. })), "the file must be there");
    home.write("jwks.json", "{}");
    let error = home.start().await.err().unwrap().to_string();
    assert!(error.contains("jwks.json") && error.contains("not a JSON web key set"), "{error}");
    home.write("jwks.json", &key_set(&[&one]));
    let loader = home.start().await.unwrap();
    let (first, second) = (one.sign(&kubernetes_claims()), two.sign(&kubernetes_claims()));
    assert!(recognise(&loader, &first, NOW).await.is_ok());
    assert!(recognise(&loader, &second, NOW).await.is_err());
    assert!(!loader.reload_files().await.unwrap(), "nothing changed");
    home.write("jwks.json", &key_set(&[&two]));
    assert!(loader.reload_files().await.unwrap());
    assert!(recognise(&loader, &first, NOW).await.is_err());
    assert!(recognise(&loader, &second, NOW).await.is_ok());
    home.write("jwks.json", "gone");
    assert!(loader.reload_files().await.is_err());
    assert!(recognise(&loader, &second, NOW).await.is_ok(), "the last good version stays");
    home.write("nexus.toml", "");
    assert!(loader.reload_files().await.unwrap());
    assert!(recognise(&loader, &second, NOW).await.is_err(), "the issuer is gone");
}

#[tokio::test]
async fn a_connection_that_is_made_anew_keeps_its_name() {
    let home = Home::new().await;
    let first = with_connections(&home, "agents", &["github"]).await;
    let key = SigningKey::new("1", Algorithm::RS256);
    home.write("jwks.json", &key_set(&[&key]));
    home.write("nexus.toml", example("Kubernetes"));
    let loader = home.start().await.unwrap();
    let text = key.sign(&kubernetes_claims());
    assert_eq!(recognise(&loader, &text, NOW).await.unwrap().grant.connections, first);
    let scope = Scope { namespace: NamespaceName::parse("agents").unwrap(), ..Scope::default() };
    home.store.delete_connection(&scope, first[0].as_str()).await.unwrap();
    loader.reload_store().await.unwrap();
    assert!(recognise(&loader, &text, NOW).await.unwrap().grant.connections.is_empty());
    let second = with_connections(&home, "agents", &["github"]).await;
    loader.reload_store().await.unwrap();
    assert_eq!(recognise(&loader, &text, NOW).await.unwrap().grant.connections, second);
}
