//! `nexus register custom`: a connection to anything, described by flags.

use super::CliError;
use super::register::{Credential, NewConnection, OAuthKind, Register, TokenAuth, check_scheme};
use super::secret_input::{Given, prompt};
use crate::connection::{Frozen, Grant, OAuthGrant};
use crate::provider::TokenClientAuth;
use crate::secret::{Secret, SecretFields};
use crate::strategy::{Placement, Strategy};
use crate::types::{ConnectionName, ProviderId, UnixSeconds, Url};

/// The fields that an OAuth connection is made from.
const OAUTH_FIELDS: [&str; 5] = ["client_id", "client_secret", "refresh_token", "access_token", "expires_in"];

/// Longer than this is taken as unknown.
const LONGEST_LIFETIME: i64 = 10 * 365 * 86_400;

const INJECT_NEEDED: &str = "\
say with --inject where the credential goes, for example:
  --inject 'header Authorization: Bearer {token}'
  --inject 'header X-Api-Key: {token}'
  --inject 'query api_key={token}'
  --inject 'basic {user}:{password}'";

/// A custom connection as the flags say, still without its secrets.
pub(super) struct Custom {
    /// Its name.
    pub(super) name: ConnectionName,
    base_url: Url,
    strategy: Strategy,
    oauth: Option<CustomOAuth>,
}

struct CustomOAuth {
    grant: Grant,
    token_url: Url,
    token_auth: Option<TokenAuth>,
    scope: Option<String>,
}

/// Reads the flags.
pub(super) fn check(register: &Register) -> Result<Custom, CliError> {
    let usage = |text: &str| CliError::Usage(text.to_owned());
    let name = register.name.clone().ok_or_else(|| usage("a custom connection needs a --name"))?;
    let base_url = register.base_url.clone().ok_or_else(|| usage("a custom connection needs a --base-url"))?;
    for (flag, given) in
        [("--set", !register.set.is_empty()), ("--auth", register.auth.is_some()), ("--app", register.app.is_some())]
    {
        if given {
            return Err(CliError::Usage(format!("{flag} is for providers of the catalogue, not for custom")));
        }
    }
    check_scheme(&base_url, register.allow_http, "--base-url")?;
    let oauth = match (register.oauth, &register.token_url) {
        (None, None) => None,
        (Some(kind), Some(token_url)) => {
            check_scheme(token_url, register.allow_http, "--token-url")?;
            let grant = match kind {
                OAuthKind::RefreshToken => Grant::RefreshToken,
                OAuthKind::ClientCredentials => Grant::ClientCredentials,
            };
            let (token_auth, scope) = (register.token_auth, register.scope.clone());
            Some(CustomOAuth { grant, token_url: token_url.clone(), token_auth, scope })
        }
        _ => return Err(usage("--token-url and --oauth refresh_token or client_credentials go together")),
    };
    let mut placements = register.inject.clone();
    if placements.is_empty() {
        if oauth.is_none() {
            return Err(usage(INJECT_NEEDED));
        }
        placements.push(bearer());
    }
    let strategy = Strategy::new(placements).map_err(|error| CliError::Usage(error.to_string()))?;
    let has_token = |name: &String| matches!(name.as_str(), "access_token" | "token");
    if let (Some(_), Some(other)) = (&oauth, strategy.fields().iter().find(|name| !has_token(name))) {
        return Err(CliError::Usage(format!(
            "an OAuth connection injects {{access_token}} only; the placements name {{{other}}} too"
        )));
    }
    Ok(Custom { name, base_url, strategy, oauth })
}

/// Adds the secrets that came in.
pub(super) fn prepare(custom: Custom, given: Given, now: UnixSeconds) -> Result<NewConnection, CliError> {
    let Custom { name, base_url, strategy, oauth } = custom;
    let (oauth, credential) = match oauth {
        Some(CustomOAuth { grant, token_url, token_auth, scope }) => {
            let fields = oauth_fields(given)?;
            let client_auth = client_auth(token_auth, fields.get("client_secret").is_some())?;
            let credential = oauth_credential(grant, &fields, now)?;
            (Some(OAuthGrant { grant, token_url, client_auth, scope }), credential)
        }
        None => (None, Credential { access: static_fields(&strategy, given)?, ..Credential::default() }),
    };
    let frozen = Frozen::custom(&base_url, strategy, oauth)
        .map_err(|error| CliError::Usage(format!("--base-url {base_url}: {error}")))?;
    let provider = ProviderId::parse("custom").expect("custom is a provider id");
    Ok(NewConnection { name, provider, frozen, credential, plain: Vec::new() })
}

/// Where an OAuth access token goes unless told otherwise (RFC 6750 section 2.1).
fn bearer() -> Placement {
    Placement::parse("header Authorization: Bearer {access_token}").expect("the placement is right")
}

/// The fields that the placements name.
fn static_fields(strategy: &Strategy, given: Given) -> Result<SecretFields, CliError> {
    let needed = strategy.fields();
    let mut fields = SecretFields::default();
    match given {
        Given::One(value) => match needed.as_slice() {
            [only] if alias(only).is_some() => fields.insert(only, value),
            // Another name is more likely a slip of the hand than what one value is called.
            [other] => {
                return Err(CliError::Usage(format!(
                    "--stdin and --from-env give {{token}}, and the placements name {{{other}}}; write {{token}}, or give \
                     {other} by --stdin-json"
                )));
            }
            several => {
                return Err(CliError::Usage(format!(
                    "the placements need the fields {}; give them by --stdin-json as one JSON object",
                    several.join(", ")
                )));
            }
        },
        Given::Fields(given) => {
            check_names(&given, &needed)?;
            for name in &needed {
                let value = given.get(name).or_else(|| alias(name).and_then(|alias| given.get(alias)));
                let Some(value) = value.filter(|value| !value.is_empty()) else {
                    return Err(CliError::Usage(format!("the placements need the field {name}, which was not given")));
                };
                fields.insert(name, value.duplicate());
            }
        }
        Given::Nothing => {
            for name in &needed {
                fields.insert(name, prompt(name)?);
            }
        }
    }
    Ok(fields)
}

/// `token` and `access_token` stand for each other.
fn alias(name: &str) -> Option<&'static str> {
    match name {
        "token" => Some("access_token"),
        "access_token" => Some("token"),
        _ => None,
    }
}

/// Refuses fields that nothing uses: a misspelt name must not be lost silently.
fn check_names(given: &SecretFields, known: &[String]) -> Result<(), CliError> {
    for (name, _) in given.iter() {
        let used = known.iter().any(|k| k == name || alias(k) == Some(name));
        if !used {
            return Err(CliError::Usage(format!(
                "there is no use for the field {}; known are {}",
                super::output::printable(name),
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// The fields of an OAuth connection, all or some of them.
pub(super) fn oauth_fields(given: Given) -> Result<SecretFields, CliError> {
    let known: Vec<String> = OAUTH_FIELDS.iter().map(|name| (*name).to_owned()).collect();
    match given {
        Given::Fields(fields) => {
            check_names(&fields, &known)?;
            Ok(fields)
        }
        _ => Err(CliError::Usage(format!(
            "an OAuth connection is made from several fields; give them by --stdin-json as one JSON object with {}",
            known.join(", ")
        ))),
    }
}

/// How the client proves itself: without a secret it is a public client.
fn client_auth(asked: Option<TokenAuth>, has_secret: bool) -> Result<TokenClientAuth, CliError> {
    match (asked, has_secret) {
        (Some(TokenAuth::Basic), true) => Ok(TokenClientAuth::Basic),
        (Some(TokenAuth::Post) | None, true) => Ok(TokenClientAuth::Post),
        (None, false) => Ok(TokenClientAuth::None),
        (Some(_), false) => Err(CliError::Usage("--token-auth needs the field client_secret".to_owned())),
    }
}

/// Splits OAuth fields into what injection needs and what a refresh needs.
///
/// Without an access token the first request gets one.
pub(super) fn oauth_credential(grant: Grant, fields: &SecretFields, now: UnixSeconds) -> Result<Credential, CliError> {
    let needed: &[&str] = match grant {
        Grant::RefreshToken => &["client_id", "refresh_token"],
        Grant::ClientCredentials => &["client_id", "client_secret"],
    };
    let value = |name: &str| fields.get(name).filter(|value| !value.is_empty());
    if let Some(missing) = needed.iter().find(|name| value(name).is_none()) {
        return Err(CliError::Usage(format!(
            "this grant needs the fields {}; {missing} was not given",
            needed.join(" and ")
        )));
    }
    let mut grant_fields = SecretFields::default();
    for name in ["client_id", "client_secret", "refresh_token"] {
        if let Some(value) = value(name) {
            grant_fields.insert(name, value.duplicate());
        }
    }
    let mut access = SecretFields::default();
    let (issued_at, expires_at) = match value("access_token").or_else(|| fields.get("token")) {
        Some(token) => {
            access.insert("access_token", token.duplicate());
            let lifetime = value("expires_in").map(lifetime).transpose()?.flatten();
            (Some(now), lifetime.map(|seconds| now + seconds))
        }
        None => (None, None),
    };
    Ok(Credential { access, grant: Some(grant_fields), issued_at, expires_at })
}

/// Seconds; not positive or absurdly long means unknown.
fn lifetime(text: &Secret) -> Result<Option<i64>, CliError> {
    // A number, not a secret; it came in among them.
    match text.expose().trim().parse::<i64>() {
        Ok(seconds) => Ok((1..=LONGEST_LIFETIME).contains(&seconds).then_some(seconds)),
        Err(_) => Err(CliError::Usage("expires_in is not a number of seconds".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> SecretFields {
        let mut fields = SecretFields::default();
        for (name, value) in pairs {
            fields.insert(name, Secret::new((*value).to_owned()));
        }
        fields
    }

    #[test]
    fn oauth_fields_are_split() {
        let given = fields(&[
            ("client_id", "id"),
            ("client_secret", "cs"),
            ("refresh_token", "rt"),
            ("access_token", "at"),
            ("expires_in", "3600"),
        ]);
        let credential = oauth_credential(Grant::RefreshToken, &given, 1_000).unwrap();
        let names: Vec<&str> = credential.access.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["access_token"]);
        let grant = credential.grant.unwrap();
        let names: Vec<&str> = grant.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["client_id", "client_secret", "refresh_token"]);
        assert_eq!((credential.issued_at, credential.expires_at), (Some(1_000), Some(4_600)));
    }

    #[test]
    fn the_access_token_may_be_left_out() {
        let given = fields(&[("client_id", "id"), ("client_secret", "cs")]);
        let credential = oauth_credential(Grant::ClientCredentials, &given, 1_000).unwrap();
        assert!(credential.access.is_empty());
        assert_eq!((credential.issued_at, credential.expires_at), (None, None));
    }

    #[test]
    fn missing_oauth_fields_are_named() {
        for (name, grant, given, missing) in [
            ("no refresh token", Grant::RefreshToken, fields(&[("client_id", "a")]), "refresh_token"),
            ("empty", Grant::RefreshToken, fields(&[("client_id", ""), ("refresh_token", "r")]), "client_id"),
            ("no client secret", Grant::ClientCredentials, fields(&[("client_id", "a")]), "client_secret"),
        ] {
            let error = oauth_credential(grant, &given, 0).unwrap_err();
            assert!(error.to_string().contains(missing), "{name}: {error}");
            assert_eq!(error.exit_code(), 2, "{name}");
        }
    }

    #[test]
    fn absurd_lifetimes_are_unknown() {
        for (text, seconds) in [("3600", Some(3_600)), ("0", None), ("-5", None), ("99999999999", None)] {
            assert_eq!(lifetime(&Secret::new(text.to_owned())).unwrap(), seconds, "{text}");
        }
        assert!(lifetime(&Secret::new("soon".to_owned())).is_err());
    }

    #[test]
    fn a_client_without_secret_is_public() {
        assert_eq!(client_auth(None, false).unwrap(), TokenClientAuth::None);
        assert_eq!(client_auth(None, true).unwrap(), TokenClientAuth::Post);
        assert_eq!(client_auth(Some(TokenAuth::Basic), true).unwrap(), TokenClientAuth::Basic);
        assert!(client_auth(Some(TokenAuth::Basic), false).is_err());
    }
}
