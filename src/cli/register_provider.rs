//! `nexus register PROVIDER`: a connection from the catalogue.

use super::app::{self, OpenApp};
use super::register::{Credential, NewConnection, Register, check_name, check_scheme};
use super::secret_input::{self, Given};
use super::{CliError, Context, output, provider, register_custom};
use crate::app::Install;
use crate::connection::{Destination, Frozen, Grant, OAuthGrant, Source};
use crate::provider::{Auth, AuthKind, BindError, Bound, BoundRoute, Catalog, Definition, Field, TestRequest};
use crate::secret::{Secret, SecretFields};
use crate::strategy::Strategy;
use crate::types::{ConnectionName, HostPattern, Scheme, Url};
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// Refuses what is wrong whatever the secrets are.
pub(super) fn check(register: &Register, catalog: &Catalog) -> Result<(), CliError> {
    if catalog.find(&register.provider).is_none() {
        return Err(provider::unknown(&register.provider));
    }
    refuse_custom_flags(register)?;
    for (flag, url) in [("--base-url", &register.base_url), ("--token-url", &register.token_url)] {
        if let Some(url) = url {
            check_scheme(url, register.allow_http, flag)?;
        }
    }
    Ok(())
}

/// Reads prompts and secrets into a connection.
pub(super) async fn prepare(
    register: Register,
    context: &Context,
    install: &Install,
) -> Result<NewConnection, CliError> {
    let catalog = context.catalog()?;
    let definition = catalog.find(&register.provider).ok_or_else(|| provider::unknown(&register.provider))?;
    let name = match &register.name {
        Some(name) => name.clone(),
        None => ConnectionName::parse(definition.id.as_str()).map_err(|error| CliError::Usage(error.to_string()))?,
    };
    check_name(context, install, &name, register.replace).await?;

    let given = register.secret.read()?;
    let auth = choose_auth(definition, register.auth.as_deref(), &given)?;
    let mut plain: BTreeMap<String, String> = register.set.iter().cloned().collect();
    ask_for_plain_fields(definition, auth, &given, &mut plain)?;
    let bound = definition.bind(Some(&auth.id), &plain).map_err(usage)?;

    let app = match (&bound.oauth, &register.app) {
        (None, Some(_)) => return Err(CliError::Usage(format!("--app is for OAuth; {} is not", bound.auth.id))),
        (None, None) => None,
        (Some(_), named) => open_app(context, install, definition, named.as_ref()).await?,
    };
    let (oauth, credential) = match bound.auth.kind {
        AuthKind::Oauth2 => oauth(definition, &bound, &register, given, app, context.clock.now())?,
        _ => (None, Credential { access: static_fields(&bound.auth, given)?, ..Credential::default() }),
    };
    let source = Source {
        auth: bound.auth.id.clone(),
        settings: plain,
        base_url: register.base_url.clone(),
        token_url: register.token_url.clone(),
    };
    let frozen = freeze(definition, bound, oauth, source)?;
    let plain = definition.plain_names();
    Ok(NewConnection { name, provider: definition.id.clone(), frozen, credential, plain })
}

pub(super) fn usage(error: BindError) -> CliError {
    CliError::Usage(error.to_string())
}

fn refuse_custom_flags(register: &Register) -> Result<(), CliError> {
    let flags = [
        ("--inject", !register.inject.is_empty()),
        ("--oauth", register.oauth.is_some()),
        ("--token-auth", register.token_auth.is_some()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(CliError::Usage(format!(
            "{flag} is for custom connections; {} has it in its file (nexus provider show {0})",
            register.provider
        ))),
        None => Ok(()),
    }
}

/// The way to authenticate that was named, or the first that what was given fits.
fn choose_auth<'a>(definition: &'a Definition, named: Option<&str>, given: &Given) -> Result<&'a Auth, CliError> {
    if let Some(id) = named {
        let found = definition.auth.iter().find(|auth| auth.id.eq_ignore_ascii_case(id));
        let chosen = found.ok_or_else(|| {
            let known: Vec<&str> = definition.auth.iter().map(|auth| auth.id.as_str()).collect();
            CliError::Usage(format!("{} has no auth {id:?}; use one of {}", definition.id, known.join(", ")))
        })?;
        if chosen.kind == AuthKind::Oauth2 && !matches!(given, Given::Fields(_)) {
            return Err(oauth_needs_fields(definition, chosen));
        }
        return Ok(chosen);
    }
    let is_oauth = |auth: &&Auth| auth.kind == AuthKind::Oauth2;
    let looks_like_oauth = match given {
        Given::Fields(fields) => ["refresh_token", "client_id"].iter().any(|name| fields.get(name).is_some()),
        _ => false,
    };
    let fits = |auth: &&Auth| match given {
        Given::Fields(fields) => fields.iter().all(|(name, _)| auth.fields.iter().any(|field| field.name == name)),
        Given::One(_) => auth.fields.iter().filter(|field| field.secret).count() == 1,
        Given::Nothing => true,
    };
    let statics = || definition.auth.iter().filter(|auth| auth.kind != AuthKind::Oauth2);
    let oauth = definition.auth.iter().find(is_oauth);
    let chosen = if looks_like_oauth { oauth.or_else(|| statics().find(fits)) } else { statics().find(fits) };
    match (chosen.or_else(|| statics().next()), oauth) {
        (Some(auth), _) => Ok(auth),
        (None, Some(oauth)) => Err(oauth_needs_fields(definition, oauth)),
        (None, None) => Err(CliError::Failed(format!("{} has no way to authenticate in its file", definition.id))),
    }
}

fn oauth_needs_fields(definition: &Definition, auth: &Auth) -> CliError {
    CliError::Usage(format!(
        "{0} is connected by OAuth: give what you have as one JSON object, for example\n  \
         nexus register {0} --auth {1} --stdin-json <<< '{{\"client_id\":\"...\",\"client_secret\":\"...\",\"refresh_token\":\"...\"}}'\n\
         or keep the client with nexus app set {0} --client-id ID --stdin, and give only refresh_token \
         (access_token and expires_in may be added)",
        definition.id, auth.id
    ))
}

/// Asks for the provider's variables and plain fields that were not given; they are shown as they are typed.
fn ask_for_plain_fields(
    definition: &Definition,
    auth: &Auth,
    given: &Given,
    plain: &mut BTreeMap<String, String>,
) -> Result<(), CliError> {
    let is_given = |name: &str| matches!(given, Given::Fields(fields) if fields.get(name).is_some());
    let has_client_id = |field: &&Field| auth.kind == AuthKind::Oauth2 && field.name == "client_id";
    let fields = auth.fields.iter().filter(|field| !field.secret && !has_client_id(field));
    for field in definition.vars.iter().chain(fields) {
        if plain.contains_key(&field.name) || is_given(&field.name) {
            continue;
        }
        // Standard input may hold the secret; then `bind` names the flag for what is missing.
        if matches!(given, Given::Nothing) && std::io::stdin().is_terminal() {
            plain.insert(field.name.clone(), secret_input::ask(&label(field))?);
        } else if !definition.vars.contains(field) {
            return Err(CliError::Usage(format!(
                "{} is missing ({}); give it with --set {0}=VALUE",
                field.name, field.label
            )));
        }
    }
    Ok(())
}

fn label(field: &Field) -> String {
    match &field.help {
        Some(help) => format!("{} ({help})", field.label),
        None => field.label.clone(),
    }
}

/// The secret fields of a static credential.
fn static_fields(auth: &Auth, given: Given) -> Result<SecretFields, CliError> {
    let names = || auth.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut fields = SecretFields::default();
    match given {
        Given::One(value) => match auth.fields.as_slice() {
            [only] => fields.insert(&only.name, value),
            _ => {
                let names = names();
                return Err(CliError::Usage(format!("{} needs {names}; give them by --stdin-json", auth.id)));
            }
        },
        Given::Fields(given) => {
            if let Some((name, _)) = given.iter().find(|(name, _)| !auth.fields.iter().any(|f| f.name == *name)) {
                let name = output::printable(name);
                return Err(CliError::Usage(format!("{} has no field {name}; it has {}", auth.id, names())));
            }
            for field in &auth.fields {
                let value = given.get(&field.name).filter(|value| !value.is_empty());
                let value = value.ok_or_else(|| {
                    CliError::Usage(format!("the field {} ({}) was not given", field.name, field.label))
                })?;
                fields.insert(&field.name, value.duplicate());
            }
        }
        Given::Nothing => {
            for field in &auth.fields {
                fields.insert(&field.name, secret_input::prompt(&label(field))?);
            }
        }
    }
    Ok(fields)
}

async fn open_app(
    context: &Context,
    install: &Install,
    definition: &Definition,
    named: Option<&crate::types::ProviderId>,
) -> Result<Option<OpenApp>, CliError> {
    let Some(id) = named else { return app::open(context, install, definition).await };
    let catalog = context.catalog()?;
    let owner = catalog.find(id.as_str()).ok_or_else(|| provider::unknown(id.as_str()))?;
    match app::open(context, install, owner).await? {
        Some(app) => Ok(Some(app)),
        None => Err(CliError::NotFound(format!(
            "there is no app registration of {id}; make one: nexus app set {id} --client-id ID --stdin"
        ))),
    }
}

/// The OAuth grant and its credential, from what was given and the app registration.
fn oauth(
    definition: &Definition,
    bound: &Bound,
    register: &Register,
    given: Given,
    app: Option<OpenApp>,
    now: crate::types::UnixSeconds,
) -> Result<(Option<OAuthGrant>, Credential), CliError> {
    let Given::Fields(mut fields) = given else { return Err(oauth_needs_fields(definition, &bound.auth)) };
    let Some(endpoints) = &bound.oauth else {
        return Err(CliError::Failed(format!("{} has no token endpoint in its file", definition.id)));
    };
    if let Some(app) = app {
        // The app's own client, unless another was given.
        if fields.get("client_id").is_none() {
            fields.insert("client_id", Secret::new(app.client_id));
            if let Some(secret) = app.client_secret {
                fields.insert("client_secret", secret);
            }
        }
    }
    let token_url = match &register.token_url {
        Some(url) => url.clone(),
        None => Url::parse(endpoints.token_url.as_bytes())
            .map_err(|error| CliError::Failed(format!("{}: {error}", endpoints.token_url)))?,
    };
    let grant = if fields.get("refresh_token").is_some() { Grant::RefreshToken } else { Grant::ClientCredentials };
    if grant == Grant::ClientCredentials && fields.get("client_secret").is_none() {
        return Err(oauth_needs_fields(definition, &bound.auth));
    }
    let known = ["client_id", "client_secret", "refresh_token", "access_token", "token", "expires_in"];
    let is_known = |name: &str| known.contains(&name) || bound.auth.fields.iter().any(|field| field.name == name);
    if let Some((name, _)) = fields.iter().find(|(name, _)| !is_known(name)) {
        let name = output::printable(name);
        return Err(CliError::Usage(format!("{} has no field {name}", definition.id)));
    }
    let mut credential = register_custom::oauth_credential(grant, &fields, now)?;
    // Further secrets that placements name beside the access token, such as a developer token.
    for field in bound.auth.fields.iter().filter(|field| !known.contains(&field.name.as_str())) {
        let value = fields
            .get(&field.name)
            .ok_or_else(|| CliError::Usage(format!("the field {} ({}) was not given", field.name, field.label)))?;
        credential.access.insert(&field.name, value.duplicate());
    }
    let scope = register.scope.clone().or_else(|| {
        // A refresh keeps the scopes that were consented to; asking for others would be refused.
        (grant == Grant::ClientCredentials && !endpoints.scopes.is_empty()).then(|| endpoints.scopes.clone())
    });
    Ok((Some(OAuthGrant { grant, token_url, client_auth: endpoints.client_auth, scope }), credential))
}

/// What the connection keeps of the provider's file.
pub(super) fn freeze(
    definition: &Definition,
    bound: Bound,
    oauth: Option<OAuthGrant>,
    source: Source,
) -> Result<Frozen, CliError> {
    let broken = |error: String| CliError::Failed(format!("the file of provider {} is broken: {error}", definition.id));
    let mut destinations = Vec::with_capacity(bound.routes.len());
    for route in bound.routes {
        destinations.push(destination(route).map_err(broken)?);
    }
    let mut default_headers = Vec::with_capacity(bound.default_headers.len());
    for (name, value) in bound.default_headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|error| broken(error.to_string()))?;
        let value = http::HeaderValue::from_str(&value).map_err(|error| broken(error.to_string()))?;
        default_headers.push((name, value));
    }
    let mut test = bound.test;
    if let Some(base_url) = &source.base_url {
        test = test.and_then(|test| moved_test(test, &destinations));
        move_to(&mut destinations, base_url)?;
    }
    let revision = Some(definition.revision.clone());
    Ok(Frozen { destinations, oauth, default_headers, test, revision, source: Some(source) })
}

fn destination(route: BoundRoute) -> Result<Destination, String> {
    Ok(Destination {
        scheme: Scheme::Https,
        host: HostPattern::parse(&route.host).map_err(|error| error.to_string())?,
        port: route.port,
        path: route.path,
        strategy: Strategy::new(route.placements).map_err(|error| error.to_string())?,
    })
}

/// Moves the first destination to another place. The provider's further hosts are not that place, so the credential
/// does not go there.
fn move_to(destinations: &mut Vec<Destination>, base_url: &Url) -> Result<(), CliError> {
    if destinations.len() > 1 {
        output::say("with --base-url the credential goes there only, not to the provider's other hosts");
    }
    destinations.truncate(1);
    if let Some(first) = destinations.first_mut() {
        first.scheme = base_url.target.scheme;
        first.host = HostPattern::parse(&base_url.target.host.to_string())
            .map_err(|error| CliError::Usage(format!("--base-url {base_url}: {error}")))?;
        first.port = base_url.target.port;
        let path = crate::types::BasePath::parse(base_url.path.path())
            .map_err(|error| CliError::Usage(format!("--base-url {base_url}: {error}")))?;
        if !path.is_root() {
            first.path = path;
        }
    }
    Ok(())
}

/// The test request for another place: its path under the base path, if it went to the first destination.
fn moved_test(test: TestRequest, destinations: &[Destination]) -> Option<TestRequest> {
    if !test.url.contains("://") {
        return Some(test);
    }
    let url = Url::parse(test.url.as_bytes()).ok()?;
    let first = destinations.first()?;
    let goes_there = first.host.matches(&url.target.host) && first.port == url.target.port;
    let path = url.path.as_str().strip_prefix(first.path.as_str()).filter(|path| path.starts_with('/'))?;
    goes_there.then(|| TestRequest { url: path.to_owned(), ..test })
}
