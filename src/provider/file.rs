//! Reading one provider file: typed, spanned, `deny_unknown_fields`, all problems at once.

use super::catalog::plain_name;
use super::check::Check;
use super::document::{Located, Place, Problems, Table, parse_document};
use super::{Auth, AuthKind, Definition, Field, OAuth, Route, TestRequest, TokenClientAuth};
use crate::strategy::{Placement, is_injectable_header};
use crate::types::{BasePath, ProviderId};
use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// One problem of a file. `Display`: `github.toml:14:7 auth[0].inject[0]: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub file: String,
    /// 1-based line.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
    /// Where in the document, such as `auth[0].inject[0]`; may be empty.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for FileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, column, key, message } = self;
        if key.is_empty() {
            write!(f, "{file}:{line}:{column} {message}")
        } else {
            write!(f, "{file}:{line}:{column} {key}: {message}")
        }
    }
}

impl FileProblem {
    /// A problem at a byte offset of `text`.
    #[must_use]
    pub fn at(file: &str, text: &str, offset: usize, key: &str, message: String) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Self { file: file.to_owned(), line, column, key: key.to_owned(), message }
    }
}

/// Parses and checks a provider file. `file` is its name, whose stem is the id.
///
/// # Errors
/// Every problem found.
pub fn parse_file(file: &str, text: &str) -> Result<Definition, Vec<FileProblem>> {
    read(file, text).map(|read| read.definition)
}

/// A definition, and where its aliases stand, for the catalogue's problems.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) definition: Definition,
    pub(super) aliases: Vec<Located<String>>,
}

/// [`parse_file`], with places.
pub(super) fn read(file: &str, text: &str) -> Result<ReadFile, Vec<FileProblem>> {
    let mut problems = Problems::new(file, text);
    let read = read_document(file, text, &mut problems);
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(problems.into_list()),
    }
}

/// `None` only with a problem noted.
fn read_document(file: &str, text: &str, problems: &mut Problems<'_>) -> Option<ReadFile> {
    let document = parse_document(text, problems)?;
    let mut root = Table::root(&document);
    let id = read_id(file, &mut root, problems);
    let name = root.required_text(problems, "name");
    let category = root.required_text(problems, "category");
    let aliases = read_aliases(id.as_ref(), &mut root, problems);
    let docs = root.text(problems, "docs");
    let verified = root.required_text(problems, "verified");

    let mut check = Check::new(problems);
    check.read_vars(&mut root);
    if let Some(docs) = &docs {
        check.url(docs);
    }
    let auth = read_auths(&mut root, &mut check);
    let routes = read_routes(&mut root, &auth, &mut check);
    let default_headers = read_headers(&mut root, &auth, &routes, &mut check);
    let test = root.table(check.problems, "test").and_then(|table| read_test(table, &routes, &mut check));
    let agent = root.table(check.problems, "agent").map(|table| read_agent(table, &mut check)).unwrap_or_default();
    check.unused_fields(&auth, &routes);
    let vars = check.finish();
    root.finish(problems);

    Some(ReadFile {
        definition: Definition {
            id: id?,
            name: name?.value,
            category: category?.value,
            aliases: aliases.iter().map(|alias| alias.value.clone()).collect(),
            docs: docs.map(|docs| docs.value),
            verified: verified?.value,
            vars,
            routes: routes.into_iter().map(|route| route.value).collect(),
            auth: auth.into_iter().map(|auth| auth.value).collect(),
            default_headers,
            test,
            env: agent.env,
            base_url_env: agent.base_url_env,
            base_url_path: agent.base_url_path,
            placeholder: agent.placeholder,
            revision: Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect(),
        },
        aliases,
    })
}

/// The id is the file's stem; the key `id` may say it again.
fn read_id(file: &str, root: &mut Table<'_, '_>, problems: &mut Problems<'_>) -> Option<ProviderId> {
    let stem = Path::new(file).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let said = root.text(problems, "id");
    if let Some(said) = said.filter(|said| said.value != stem) {
        problems.add(&said.place, format!("{:?} is not the name of the file, which makes the id {stem:?}", said.value));
    }
    match ProviderId::parse(&stem) {
        Ok(id) => Some(id),
        Err(error) => {
            problems.add(&root.place, format!("the file's name is the id, and {error}"));
            None
        }
    }
}

fn read_aliases(
    id: Option<&ProviderId>,
    root: &mut Table<'_, '_>,
    problems: &mut Problems<'_>,
) -> Vec<Located<String>> {
    let aliases = root.texts(problems, "aliases").unwrap_or_default();
    let mut taken: Vec<String> = id.map(|id| plain_name(id.as_str())).into_iter().collect();
    for alias in &aliases {
        if let Err(error) = ProviderId::parse(&alias.value) {
            problems.add(&alias.place, error.to_string());
        }
        let plain = plain_name(&alias.value);
        if taken.contains(&plain) {
            problems.add(&alias.place, format!("{:?} is there already", alias.value));
        }
        taken.push(plain);
    }
    aliases
}

fn read_auths(root: &mut Table<'_, '_>, check: &mut Check<'_, '_>) -> Vec<Located<Auth>> {
    root.require(check.problems, "auth");
    let mut auths: Vec<Located<Auth>> = Vec::new();
    for table in root.tables(check.problems, "auth") {
        let place = table.place.clone();
        let Some((id, auth)) = read_auth(table, check) else { continue };
        if auths.iter().any(|other| other.value.id.eq_ignore_ascii_case(&id.value)) {
            check.problems.add(&id.place, format!("{:?} is there already", id.value));
        }
        auths.push(Located { value: auth, place });
    }
    auths
}

fn read_auth(mut table: Table<'_, '_>, check: &mut Check<'_, '_>) -> Option<(Located<String>, Auth)> {
    let id = table.required_text(check.problems, "id");
    if let Some(id) = &id
        && let Err(error) = ProviderId::parse(&id.value)
    {
        check.problems.add(&id.place, format!("{:?} is not an id; use {}", id.value, error.rule));
    }
    let kinds = [("api_key", AuthKind::ApiKey), ("basic", AuthKind::Basic), ("oauth2", AuthKind::Oauth2)];
    let kind = table.required_text(check.problems, "kind").and_then(|text| check.one_of(&text, &kinds));
    let label = table.required_text(check.problems, "label");
    let field_tables = table.tables(check.problems, "fields");
    let mut fields = check.fields(field_tables);
    let oauth_table = table.table(check.problems, "oauth");
    let oauth_place = oauth_table.as_ref().map(|table| table.place.clone());
    let oauth = oauth_table.and_then(|table| read_oauth(table, check));
    match (kind, &oauth_place) {
        (Some(AuthKind::Oauth2), None) => table.require(check.problems, "oauth"),
        (Some(AuthKind::ApiKey | AuthKind::Basic), Some(place)) => {
            check.problems.add(place, "is only for kind = \"oauth2\"");
        }
        _ => {}
    }
    // A wrong kind is one problem: beside OAuth endpoints the rest is read as OAuth.
    let is_oauth = oauth_place.is_some() || kind == Some(AuthKind::Oauth2);
    if let Some(oauth) = oauth.as_ref().filter(|_| kind == Some(AuthKind::Oauth2)) {
        add_oauth_fields(&mut fields, oauth);
    }
    if fields.is_empty() && !is_oauth && matches!(kind, Some(AuthKind::ApiKey | AuthKind::Basic)) {
        table.require(check.problems, "fields");
    }
    table.require(check.problems, "inject");
    let texts = table.texts(check.problems, "inject");
    let inject = texts.map(|texts| check.placements(&texts, &[(&fields, is_oauth)])).unwrap_or_default();
    table.finish(check.problems);
    let auth = Auth {
        id: id.as_ref()?.value.clone(),
        kind: kind?,
        label: label?.value,
        fields: fields.into_iter().map(|field| field.value).collect(),
        inject,
        oauth,
    };
    Some((id?, auth))
}

fn read_oauth(mut table: Table<'_, '_>, check: &mut Check<'_, '_>) -> Option<OAuth> {
    let authorize_url = table.text(check.problems, "authorize_url");
    let token_url = table.required_text(check.problems, "token_url");
    authorize_url.iter().chain(&token_url).for_each(|url| check.url(url));
    let kinds = [("basic", TokenClientAuth::Basic), ("post", TokenClientAuth::Post), ("none", TokenClientAuth::None)];
    let client_auth = match table.text(check.problems, "client_auth") {
        Some(text) => check.one_of(&text, &kinds),
        None => Some(TokenClientAuth::default()),
    };
    let scopes = table.texts(check.problems, "scopes").unwrap_or_default();
    for scope in &scopes {
        if scope.value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            check.problems.add(&scope.place, "has a space; write one scope an item");
        }
    }
    let separators = [("space", " "), ("comma", ",")];
    let scope_separator = match table.text(check.problems, "scope_separator") {
        Some(text) => check.one_of(&text, &separators),
        None => Some(" "),
    };
    table.finish(check.problems);
    Some(OAuth {
        authorize_url: authorize_url.map(|url| url.value),
        token_url: token_url?.value,
        client_auth: client_auth?,
        scopes: scopes.into_iter().map(|scope| scope.value).collect::<Vec<_>>().join(" "),
        scope_separator: scope_separator?.to_owned(),
    })
}

/// What every OAuth connection needs, unless the file describes it itself.
fn add_oauth_fields(fields: &mut Vec<Located<Field>>, oauth: &OAuth) {
    let usual = [
        ("client_id", "Client id", false),
        ("client_secret", "Client secret", true),
        ("refresh_token", "Refresh token", true),
    ];
    for (name, label, secret) in usual {
        let is_needed = name != "client_secret" || oauth.client_auth != TokenClientAuth::None;
        if is_needed && !fields.iter().any(|field| field.value.name == name) {
            let (name, label) = (name.to_owned(), label.to_owned());
            let value = Field { name, label, secret, help: None, pattern: None };
            fields.push(Located { value, place: Place { offset: 0, key: String::new() } });
        }
    }
}

fn read_routes(root: &mut Table<'_, '_>, auths: &[Located<Auth>], check: &mut Check<'_, '_>) -> Vec<Located<Route>> {
    root.require(check.problems, "routes");
    let mut routes: Vec<Located<Route>> = Vec::new();
    for mut table in root.tables(check.problems, "routes") {
        let vendor = table.boolean(check.problems, "vendor_hosts_only");
        let host = table.required_text(check.problems, "host").and_then(|host| check.host(&host, vendor.as_ref()));
        let port = table.number(check.problems, "port", 1..=u16::MAX).map_or(443, |port| port.value);
        let path = match table.text(check.problems, "path") {
            Some(path) => check.base_path(&path),
            None => Some(BasePath::default()),
        };
        let inject = table.texts(check.problems, "inject").map(|texts| {
            let fields: Vec<Vec<Located<Field>>> = auths.iter().map(|auth| located(&auth.value.fields)).collect();
            let kinds = auths.iter().map(|auth| auth.value.kind == AuthKind::Oauth2);
            let known: Vec<_> = fields.iter().map(Vec::as_slice).zip(kinds).collect();
            check.placements(&texts, &known)
        });
        let place = table.place.clone();
        table.finish(check.problems);
        let (Some(host), Some(path)) = (host, path) else { continue };
        let same = |other: &Located<Route>| {
            let other = &other.value;
            other.host == host && other.port == port && other.path == path
        };
        if let Some(other) = routes.iter().find(|other| same(other)) {
            check.problems.add(&place, format!("has the host, port and path of {}", other.place.key));
        }
        routes.push(Located { value: Route { host, port, path, inject }, place });
    }
    routes
}

fn located(fields: &[Field]) -> Vec<Located<Field>> {
    let place = Place { offset: 0, key: String::new() };
    fields.iter().map(|field| Located { value: field.clone(), place: place.clone() }).collect()
}

fn read_headers(
    root: &mut Table<'_, '_>,
    auths: &[Located<Auth>],
    routes: &[Located<Route>],
    check: &mut Check<'_, '_>,
) -> Vec<(String, String)> {
    let entries = root.table(check.problems, "headers").map(|table| table.free_texts(check.problems));
    let own = auths.iter().flat_map(|auth| &auth.value.inject);
    let injected = own.chain(routes.iter().filter_map(|route| route.value.inject.as_ref()).flatten()).cloned();
    let injected: Vec<Placement> = injected.collect();
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in entries.unwrap_or_default() {
        let Some(header) = HeaderName::from_bytes(name.value.as_bytes()).ok().filter(is_injectable_header) else {
            check.problems.add(&name.place, "is not a header that can be set");
            continue;
        };
        let sets = |placement: &Placement| match placement {
            Placement::Header { name, .. } => *name == header,
            Placement::Basic { .. } => header == http::header::AUTHORIZATION,
            Placement::Query { .. } | Placement::Path { .. } => false,
        };
        if injected.iter().any(sets) {
            check.problems.add(&name.place, "carries the credential, so it has no default");
        }
        if headers.iter().any(|(other, _)| other == header.as_str()) {
            check.problems.add(&name.place, "is there already");
        }
        if HeaderValue::from_str(&value.value).is_err() {
            check.problems.add(&value.place, "has characters that a header cannot carry");
        }
        headers.push((header.as_str().to_owned(), value.value));
    }
    headers
}

fn read_test(mut table: Table<'_, '_>, routes: &[Located<Route>], check: &mut Check<'_, '_>) -> Option<TestRequest> {
    let methods = [("GET", "GET"), ("HEAD", "HEAD"), ("POST", "POST")];
    let method = match table.text(check.problems, "method") {
        Some(text) => check.one_of(&text, &methods),
        None => Some("GET"),
    };
    let url = table.required_text(check.problems, "url");
    if let Some(url) = &url {
        check.test_url(url, routes);
    }
    let expect_status = table.numbers(check.problems, "expect_status", 100..=599);
    let expect_json = table.text(check.problems, "expect_json");
    table.finish(check.problems);
    Some(TestRequest {
        method: method?.to_owned(),
        url: url?.value,
        expect_status: expect_status.filter(|list| !list.is_empty()).unwrap_or_else(|| vec![200]),
        expect_json: expect_json.map(|path| path.value),
    })
}

#[derive(Default)]
struct Agent {
    env: Vec<String>,
    base_url_env: Option<String>,
    base_url_path: String,
    placeholder: Option<String>,
}

fn read_agent(mut table: Table<'_, '_>, check: &mut Check<'_, '_>) -> Agent {
    let env = table.texts(check.problems, "env").unwrap_or_default();
    let base_url_env = table.text(check.problems, "base_url_env");
    for name in env.iter().chain(&base_url_env) {
        let starts_well = name.value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            check.problems.add(&name.place, format!("{:?} is not the name of an environment variable", name.value));
        }
    }
    let base_url_path = table.text(check.problems, "base_url_path");
    let path = base_url_path.as_ref().and_then(|path| match BasePath::parse(&path.value) {
        Ok(path) => Some(path.as_str().to_owned()),
        Err(error) => {
            check.problems.add(&path.place, error.to_string());
            None
        }
    });
    if let Some(path) = base_url_path.filter(|_| base_url_env.is_none()) {
        check.problems.add(&path.place, "needs base_url_env beside it");
    }
    let placeholder = table.text(check.problems, "placeholder");
    if let Some(text) = &placeholder
        && !text.value.bytes().all(|b| b.is_ascii_graphic())
    {
        check.problems.add(&text.place, "has characters that are not visible ASCII");
    }
    table.finish(check.problems);
    Agent {
        env: env.into_iter().map(|name| name.value).collect(),
        base_url_env: base_url_env.map(|name| name.value),
        base_url_path: path.unwrap_or_default(),
        placeholder: placeholder.map(|text| text.value),
    }
}
