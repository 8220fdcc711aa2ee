//! `[[identity.issuer]]`: who else than this install may say who calls, and what that means here.

use super::{list, text_error};
use crate::config::file::{Document, Section, Value};
use crate::identity::{Claim, Condition, Mapping, Rule, Template};
use crate::types::{Glob, HostPattern, PathPattern};

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
