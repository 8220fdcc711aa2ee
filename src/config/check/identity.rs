//! `[[identity.issuer]]`: who else than this install may say who calls, and what that means here.

use super::{duration, list, path, positive, text_error};
use crate::config::Config;
use crate::config::file::{Document, Place, Section, Value, shown};
use crate::identity::{Algorithm, Claim, Condition, IssuerSettings, KeyLocation, Mapping, Rule, Template};
use crate::types::{Glob, HostPattern, PathPattern, Scheme, Url};
use std::sync::Arc;
use std::time::Duration;

/// How much clocks may differ, at most.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// Reads `[identity]`.
pub(super) fn identity(document: &mut Document<'_>, mut section: Section<'_>, config: &mut Config) {
    let issuers = section.take(document, "issuer");
    let mut known: Vec<Known> = Vec::new();
    for value in list(document, issuers, "one [[identity.issuer]] for each issuer") {
        let Some(section) = value.section(document) else { continue };
        config.issuers.extend(issuer(document, section, &mut known));
    }
    super::certificates::certificates(document, &mut section, config);
    section.finish(document);
}

/// What must not stand twice.
struct Known {
    key: String,
    name: String,
    issuer: String,
    audience: Vec<String>,
}

fn issuer(document: &mut Document<'_>, mut section: Section<'_>, known: &mut Vec<Known>) -> Option<IssuerSettings> {
    let name = section.required_text(document, "name");
    let issuer = section.required_text(document, "issuer");
    let audience = section.take(document, "audience");
    let audience_place = audience.as_ref().map_or_else(|| section.place.clone(), |value| value.place.clone());
    if audience.is_none() {
        document.problem(&audience_place, "audience is missing: whom its tokens must be made for".to_owned());
    }
    let audience = texts(document, audience, "the audience, or an array of several");
    let algorithm = algorithm(document, &mut section);
    let keys = key_location(document, &mut section);
    let leeway = section.take(document, "leeway");
    let leeway_place = leeway.as_ref().map(|value| value.place.clone());
    let leeway = duration(document, leeway).unwrap_or(Duration::from_secs(30));
    if let Some(place) = leeway_place.filter(|_| leeway > MAX_LEEWAY) {
        document.problem(&place, "at most 60s; set the clocks instead".to_owned());
    }
    let max_lifetime = section.take(document, "max_lifetime");
    let max_lifetime = positive(document, max_lifetime).unwrap_or(Duration::from_secs(24 * 60 * 60));
    let mapping = mapping(document, &mut section);
    let key = section.place.key.clone();
    section.finish(document);

    let (name, name_place) = name?;
    let (issuer, issuer_place) = issuer?;
    check_name(document, name, &name_place);
    if issuer.is_empty() || issuer.starts_with("nexus:") {
        document.problem(&issuer_place, "write the exact iss of its tokens, which is not nexus: and an id".to_owned());
    }
    for other in known.iter() {
        if other.name == name {
            document.problem(&name_place, format!("{} has this name already", other.key));
        }
        if other.issuer == issuer
            && let Some(shared) = audience.iter().find(|audience| other.audience.contains(audience))
        {
            let message = format!("{} takes tokens of this issuer for {} already", other.key, shown(shared));
            document.problem(&audience_place, message);
        }
    }
    known.push(Known { key, name: name.to_owned(), issuer: issuer.to_owned(), audience: audience.clone() });
    Some(IssuerSettings {
        name: Arc::from(name),
        issuer: issuer.to_owned(),
        audience,
        algorithm: algorithm?,
        keys: keys?,
        leeway,
        max_lifetime,
        mapping: mapping?,
    })
}

/// A short name: it stands in every audit line.
fn check_name(document: &mut Document<'_>, name: &str, place: &Place) {
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !is_name {
        document.problem(place, "use 1 to 64 letters, digits, '.', '_' or '-'".to_owned());
    }
}

fn algorithm(document: &mut Document<'_>, section: &mut Section<'_>) -> Option<Algorithm> {
    let names = Algorithm::ALL.map(Algorithm::name).join(", ");
    let Some(value) = section.take(document, "algorithm") else {
        let place = section.place.clone();
        document.problem(&place, format!("algorithm is missing: the one that it signs with, of {names}"));
        return None;
    };
    let parse = |text: &str| {
        let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == text);
        found.ok_or_else(|| match text {
            "none" => format!("tokens must be signed; write one of {names}"),
            text if text.starts_with("HS") => {
                format!("with a shared key whoever verifies could sign; write one of {names}")
            }
            text => format!("{} is not known; write one of {names}", shown(text)),
        })
    };
    value.parsed(document, "an algorithm such as \"RS256\"", parse).map(|(algorithm, _)| algorithm)
}

fn key_location(document: &mut Document<'_>, section: &mut Section<'_>) -> Option<KeyLocation> {
    let mut jwks = section.section(document, "jwks");
    let place = jwks.place.clone();
    let url = jwks.take(document, "url");
    let file = jwks.take(document, "file");
    jwks.finish(document);
    if url.is_some() == file.is_some() {
        let message = "give exactly one of url and file, such as jwks = { url = \"https://…\" }";
        document.problem(&place, message.to_owned());
        return None;
    }
    if let Some(value) = url {
        let parsed = value.parsed(document, "an https URL in quotes", |text| {
            let url = text_error(Url::parse(text.as_bytes()))?;
            match url.target.scheme {
                Scheme::Https => Ok(url),
                Scheme::Http => Err("keys that come in clear can be anybody's; write an https URL".to_owned()),
            }
        });
        return parsed.map(|(url, _)| KeyLocation::Url(url));
    }
    let found = file.and_then(|value| value.text(document))?;
    path(document, found).map(KeyLocation::File)
}

/// Reads the keys `tenant`, `namespace`, `agent`, `run` and `rule`. `None` when there was a problem.
pub(super) fn mapping(document: &mut Document<'_>, section: &mut Section<'_>) -> Option<Mapping> {
    let mut template = |document: &mut Document<'_>, key, default: Option<&str>| {
        let value = section.take(document, key);
        let is_given = value.is_some();
        let expected = "text, with claims in braces such as \"{sub}\"";
        let found = value.and_then(|value| value.parsed(document, expected, |text| text_error(Template::parse(text))));
        match (found, default) {
            (Some((template, _)), _) => Some(template),
            (None, Some(default)) if !is_given => Some(Template::parse(default).expect("defaults are templates")),
            (None, _) => None,
        }
    };
    let tenant = template(document, "tenant", Some("default"));
    let namespace = template(document, "namespace", Some("default"));
    let agent = template(document, "agent", Some("{sub}"));
    let run = template(document, "run", None);
    let rules = section.take(document, "rule");
    let place = section.place.clone();
    if rules.is_none() {
        document.problem(
            &place,
            "nobody would be let in; write a rule, such as rule = [{ use = [\"github\"] }]".to_owned(),
        );
    }
    let rules: Vec<Option<Rule>> =
        list(document, rules, "an array of tables, each with use, and with when if it is not for everybody")
            .into_iter()
            .map(|value| rule(document, value))
            .collect();
    Some(Mapping {
        tenant: tenant?,
        namespace: namespace?,
        agent: agent?,
        run,
        rules: rules.into_iter().collect::<Option<_>>()?,
    })
}

fn rule(document: &mut Document<'_>, value: Value<'_>) -> Option<Rule> {
    let mut section = value.section(document)?;
    let place = section.place.clone();
    let when = section.section(document, "when");
    let mut conditions = Vec::new();
    for (name, place, value) in when.into_entries() {
        let claim = match Claim::parse(&name) {
            Ok(claim) => claim,
            Err(error) => {
                document.problem(&place, error.to_string());
                continue;
            }
        };
        let any_of = texts(document, Some(value), "a text in which * stands for any characters, or an array of them");
        conditions.push(Condition { claim, any_of: any_of.iter().map(|text| Glob::new(text)).collect() });
    }
    let connections = section.take(document, "use");
    if connections.is_none() {
        document.problem(&place, "use is missing: the names of the connections that such callers may use".to_owned());
    }
    let connections = texts(document, connections, "an array of names of connections");
    let methods = section.take(document, "methods");
    let methods = parsed(document, methods, "an array of methods", |text| {
        let upper = text.to_ascii_uppercase();
        let is_method = http::Method::from_bytes(upper.as_bytes()).is_ok();
        if is_method { Ok(upper) } else { Err("not a method; write one such as \"GET\"".to_owned()) }
    });
    let paths = section.take(document, "paths");
    let paths = parsed(document, paths, "an array of paths", |text| text_error(PathPattern::parse(text)));
    let hosts = section.take(document, "hosts");
    let hosts = parsed(document, hosts, "an array of hosts", |text| text_error(HostPattern::parse(text)));
    section.finish(document);
    Some(Rule { when: conditions, connections, methods, paths, hosts })
}

/// One text, or an array of at least one.
pub(super) fn texts(document: &mut Document<'_>, value: Option<Value<'_>>, expected: &str) -> Vec<String> {
    parsed(document, value, expected, |text| {
        if text.is_empty() { Err("the text is empty".to_owned()) } else { Ok(text.to_owned()) }
    })
}

/// As [`texts`], each parsed. An empty array would look like a restriction and be none, so it is a problem.
fn parsed<T>(
    document: &mut Document<'_>,
    value: Option<Value<'_>>,
    expected: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let Some(value) = value else { return Vec::new() };
    let place = value.place.clone();
    let values = if value.is_text() { Some(vec![value]) } else { value.list(document, expected) };
    let Some(values) = values else { return Vec::new() };
    if values.is_empty() {
        document.problem(&place, format!("expected {expected}, at least one; leave the key out for no restriction"));
    }
    values
        .into_iter()
        .filter_map(|value| value.parsed(document, "text in quotes", &parse))
        .map(|(found, _)| found)
        .collect()
}

#[cfg(test)]
mod tests;
