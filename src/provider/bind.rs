//! A provider with one way to authenticate chosen and its variables put in: what a connection freezes.

use super::variables::{is_label, put_in};
use super::{Auth, Definition, Field, OAuth, TestRequest};
use crate::strategy::{Placement, PlacementError, Strategy};
use crate::types::{BasePath, HostPattern, Url};
use std::collections::BTreeMap;

/// A provider without variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Where the credential may go and how; the first is the base URL.
    pub routes: Vec<BoundRoute>,
    /// The chosen way to authenticate; plain fields that were put into placements are no
    /// longer among its fields.
    pub auth: Auth,
    /// Its OAuth endpoints.
    pub oauth: Option<OAuth>,
    /// Headers set when the agent sent none: name, value.
    pub default_headers: Vec<(String, String)>,
    /// The test request.
    pub test: Option<TestRequest>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundRoute {
    /// Text of a [`HostPattern`], in canonical form.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The base path.
    pub path: BasePath,
    /// How the credential goes onto requests there.
    pub placements: Vec<Placement>,
}

/// Why a provider could not be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No way to authenticate has this id.
    #[error("{provider} has no auth {given:?}; use one of {known}")]
    Auth {
        /// The provider.
        provider: String,
        /// What was asked for.
        given: String,
        /// The ids that there are.
        known: String,
    },
    /// A variable was not given.
    #[error("{name} is missing ({label}); give it with --set {name}=VALUE")]
    Missing {
        /// The variable.
        name: String,
        /// What it is.
        label: String,
    },
    /// A value for something that is neither a variable nor a plain field.
    #[error("{provider} has no variable {name:?}; {known}")]
    Unknown {
        /// The provider.
        provider: String,
        /// What was given.
        name: String,
        /// The names that there are, in words.
        known: String,
    },
    /// A secret field was given as a plain value.
    #[error("{0} is a secret; give it by prompt or standard input, not with --set")]
    Secret(String),
    /// A value of the wrong form.
    #[error("{name} {value:?} is not valid; it has to {rule}")]
    Value {
        /// The variable or field.
        name: String,
        /// What was given.
        value: String,
        /// What would be accepted.
        rule: String,
    },
    /// With the values in, two placements of a route collide.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl Definition {
    /// Chooses a way to authenticate (`None`: the first) and puts values in: each variable has to be given, plain
    /// fields (not secret) of the chosen auth may be. A plain field that is given becomes fixed text of the placements,
    /// so that it is neither sealed nor looked for in answers; one that is not given stays a field of the credential.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(&self, auth_id: Option<&str>, vars: &BTreeMap<String, String>) -> Result<Bound, BindError> {
        let mut auth = self.choose(auth_id)?.clone();
        self.check_names(&auth, vars)?;
        for var in &self.vars {
            let (name, label) = (var.name.clone(), var.label.clone());
            let value = vars.get(&var.name).ok_or(BindError::Missing { name, label })?;
            check_value(var, value, true)?;
        }
        for field in &auth.fields {
            if let Some(value) = vars.get(&field.name) {
                check_value(field, value, false)?;
            }
        }
        let put = |text: &str| put_in(text, |name| vars.get(name).map(String::as_str));
        // A plain field that no placement uses (an OAuth client's id) is the caller's to keep.
        let own = self.routes.iter().filter_map(|route| route.inject.as_ref()).flatten();
        let placed: Vec<&str> = auth.inject.iter().chain(own).flat_map(Placement::fields).collect();
        auth.fields.retain(|field| !(vars.contains_key(&field.name) && placed.contains(&field.name.as_str())));
        auth.inject = fix(&auth.inject, vars)?;
        if let Some(oauth) = &mut auth.oauth {
            oauth.token_url = put(&oauth.token_url);
            oauth.authorize_url = oauth.authorize_url.as_deref().map(put);
        }
        let mut routes = Vec::with_capacity(self.routes.len());
        for route in &self.routes {
            let placements = match &route.inject {
                Some(own) => fix(own, vars)?,
                None => auth.inject.clone(),
            };
            Strategy::new(placements.clone())?;
            let host = put(&route.host);
            // Cannot fail after the checks above; the message is for a variable whose pattern lets too much through.
            let host = HostPattern::parse(&host).map_err(|error| misfit("host", &host, &error))?.to_string();
            let path = put(route.path.as_str());
            let path = BasePath::parse(&path).map_err(|error| misfit("path", &path, &error))?;
            routes.push(BoundRoute { host, port: route.port, path, placements });
        }
        if let Some(oauth) = &auth.oauth {
            let url = &oauth.token_url;
            Url::parse(url.as_bytes()).map_err(|error| misfit("token URL", url, &error))?;
        }
        let test = self.test.clone().map(|test| TestRequest { url: put(&test.url), ..test });
        Ok(Bound { routes, oauth: auth.oauth.clone(), auth, default_headers: self.default_headers.clone(), test })
    }

    fn choose(&self, auth_id: Option<&str>) -> Result<&Auth, BindError> {
        let chosen = match auth_id {
            None => self.auth.first(),
            Some(id) => self.auth.iter().find(|auth| auth.id.eq_ignore_ascii_case(id)),
        };
        chosen.ok_or_else(|| BindError::Auth {
            provider: self.id.to_string(),
            given: auth_id.unwrap_or_default().to_owned(),
            known: self.auth.iter().map(|auth| auth.id.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    fn check_names(&self, auth: &Auth, vars: &BTreeMap<String, String>) -> Result<(), BindError> {
        for name in vars.keys() {
            if self.vars.iter().any(|var| var.name == *name) {
                continue;
            }
            match auth.fields.iter().find(|field| field.name == *name) {
                Some(field) if field.secret => return Err(BindError::Secret(name.clone())),
                Some(_) => {}
                None => {
                    let plain = auth.fields.iter().filter(|field| !field.secret);
                    let known: Vec<&str> = self.vars.iter().chain(plain).map(|field| field.name.as_str()).collect();
                    let known =
                        if known.is_empty() { "it has none".to_owned() } else { format!("use {}", known.join(", ")) };
                    return Err(BindError::Unknown { provider: self.id.to_string(), name: name.clone(), known });
                }
            }
        }
        Ok(())
    }
}

/// Placements with the given plain values in place of their fields.
fn fix(placements: &[Placement], vars: &BTreeMap<String, String>) -> Result<Vec<Placement>, BindError> {
    placements
        .iter()
        .map(|placement| {
            vars.iter().try_fold(placement.clone(), |placement, (name, value)| {
                if !placement.fields().any(|field| field == name) {
                    return Ok(placement);
                }
                placement.substitute(name, value).ok_or_else(|| BindError::Value {
                    name: name.clone(),
                    value: value.clone(),
                    rule: format!("fit into {placement}"),
                })
            })
        })
        .collect()
}

fn check_value(field: &Field, value: &str, is_variable: bool) -> Result<(), BindError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let rule = match &field.pattern {
        Some(pattern) if !field.accepts(value) => format!("match {pattern}"),
        // Whatever a pattern lets through, it never ends a host, path or query.
        Some(_) if is_variable && !value.bytes().all(is_plain) => {
            "be made of letters, digits, '-', '.', '_' and '~'".to_owned()
        }
        None if is_variable && !is_label(value) => {
            "be one label of a host name: letters, digits and inner hyphens".to_owned()
        }
        None if value.is_empty() => "have a value".to_owned(),
        _ => return Ok(()),
    };
    Err(BindError::Value { name: field.name.clone(), value: value.chars().take(80).collect(), rule })
}

fn misfit(what: &str, text: &str, error: &dyn std::fmt::Display) -> BindError {
    BindError::Value { name: what.to_owned(), value: text.to_owned(), rule: format!("be valid: {error}") }
}
