//! From verified attributes to a principal: who it is, by templates, and what it may use, by rules.
//!
//! Attributes are a JSON object that somebody trusted has vouched for: the claims of a JWT, or the names in a client
//! certificate. The config says what they mean. Connections are named there, and looked up in the principal's own
//! scope when it is made, so that a name that passes to another connection goes on working.

use super::{Grant, Principal};
use crate::types::{
    AgentName, ConnectionId, Glob, HostPattern, NameError, NamespaceName, PathPattern, RunId, Scope, TenantName,
};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// What was verified about a caller, by name.
pub type Attributes = serde_json::Map<String, Value>;

/// Where the names of connections are looked up.
pub trait Names: fmt::Debug + Send + Sync {
    /// The connection of this scope with this name or id.
    fn connection(&self, scope: &Scope, name_or_id: &str) -> Option<ConnectionId>;
}

/// How attributes become a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The tenant.
    pub tenant: Template,
    /// The namespace.
    pub namespace: Template,
    /// The agent.
    pub agent: Template,
    /// The run, if there are runs.
    pub run: Option<Template>,
    /// What it may use; the first that fits holds.
    pub rules: Vec<Rule>,
}

/// What callers with certain attributes may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which callers: all of these must hold. None: everybody.
    pub when: Vec<Condition>,
    /// Names or ids of connections. One that does not exist grants nothing.
    pub connections: Vec<String>,
    /// The methods, upper case; empty means all.
    pub methods: Vec<String>,
    /// The paths, as sent upstream; empty means all.
    pub paths: Vec<PathPattern>,
    /// The hosts; empty means all.
    pub hosts: Vec<HostPattern>,
}

/// An attribute and what it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The attribute.
    pub claim: Claim,
    /// One of these must match; of an attribute that is a list, any element. Numbers and booleans count as their JSON.
    pub any_of: Vec<Glob>,
}

/// Why attributes are no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A template names an attribute that is not there.
    #[error("the claim {0} is missing")]
    Missing(String),
    /// A template names an attribute that is no text.
    #[error("the claim {0} is not text")]
    NotText(String),
    /// A template gives something that cannot be a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing is granted to such callers.
    #[error("no rule fits the claims")]
    NoRule,
}

impl Mapping {
    /// The principal with these attributes. `issuer` is the name, from the config, of who vouches for them.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn principal(
        &self,
        issuer: &Arc<str>,
        attributes: &Attributes,
        names: &dyn Names,
    ) -> Result<Principal, MappingError> {
        let scope = Scope {
            tenant: TenantName::parse(&self.tenant.fill(attributes)?)?,
            namespace: NamespaceName::parse(&self.namespace.fill(attributes)?)?,
        };
        let agent = AgentName::parse(&self.agent.fill(attributes)?)?;
        let run = self.run.as_ref().map(|run| RunId::parse(&run.fill(attributes)?).map_err(MappingError::from));
        let run = run.transpose()?;
        let rule = self.rules.iter().find(|rule| rule.fits(attributes)).ok_or(MappingError::NoRule)?;
        let grant = Arc::new(rule.grant(&scope, names));
        Ok(Principal { scope, agent, run, token_id: None, issuer: Some(Arc::clone(issuer)), grant })
    }
}

impl Rule {
    fn fits(&self, attributes: &Attributes) -> bool {
        self.when.iter().all(|condition| condition.holds(attributes))
    }

    fn grant(&self, scope: &Scope, names: &dyn Names) -> Grant {
        let mut connections: Vec<ConnectionId> =
            self.connections.iter().filter_map(|name| names.connection(scope, name)).collect();
        connections.sort_unstable();
        connections.dedup();
        Grant {
            connections,
            methods: self.methods.clone(),
            paths: self.paths.clone(),
            hosts: self.hosts.clone(),
            ..Grant::default()
        }
    }
}

impl Condition {
    fn holds(&self, attributes: &Attributes) -> bool {
        match self.claim.find(attributes) {
            Some(Value::Array(elements)) => elements.iter().any(|element| self.matches(element)),
            Some(value) => self.matches(value),
            None => false,
        }
    }

    fn matches(&self, value: &Value) -> bool {
        let matches = |text: &str| self.any_of.iter().any(|glob| glob.matches(text));
        match value {
            Value::String(text) => matches(text),
            Value::Number(number) => matches(&number.to_string()),
            Value::Bool(truth) => matches(if *truth { "true" } else { "false" }),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}

/// The place of an attribute: its name, or, where it begins with `/`, a JSON pointer (RFC 6901) to one inside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(Box<str>);

/// Why a template or the name of a claim is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing between the braces, or an empty text as a whole.
    #[error("the name of a claim is missing")]
    Empty,
    /// A brace that does not belong to a pair.
    #[error("a brace has no partner; write {{claim}}, and {{{{ or }}}} for a brace itself")]
    Brace,
    /// `~` in a JSON pointer that is neither `~0` nor `~1`.
    #[error("in a JSON pointer ~ is written ~0, and / in a name ~1")]
    Pointer,
}

impl Claim {
    /// Parses a name or a JSON pointer.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if matches!(text, "" | "/") {
            return Err(TemplateError::Empty);
        }
        let mut after_tildes = text.split('~').skip(1);
        if text.starts_with('/') && after_tildes.any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(TemplateError::Pointer);
        }
        Ok(Self(Box::from(text)))
    }

    fn find<'a>(&self, attributes: &'a Attributes) -> Option<&'a Value> {
        let Some(pointer) = self.0.strip_prefix('/') else { return attributes.get(&*self.0) };
        let (first, rest) = match pointer.find('/') {
            Some(at) => pointer.split_at(at),
            None => (pointer, ""),
        };
        attributes.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text with the values of claims in it: `{sub}`, `{/kubernetes.io/namespace}`, `ci-{repository}`, or no claim at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Claim(Claim),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut fixed = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            fixed.push_str(&rest[..at]);
            let from_brace = &rest[at..];
            if from_brace.starts_with("{{") || from_brace.starts_with("}}") {
                fixed.push_str(&from_brace[..1]);
                rest = &from_brace[2..];
                continue;
            }
            let inside = from_brace.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let end = inside.find(['{', '}']).ok_or(TemplateError::Brace)?;
            if !inside[end..].starts_with('}') {
                return Err(TemplateError::Brace);
            }
            if !fixed.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut fixed)));
            }
            parts.push(Part::Claim(Claim::parse(&inside[..end])?));
            rest = &inside[end + 1..];
        }
        fixed.push_str(rest);
        if !fixed.is_empty() {
            parts.push(Part::Text(fixed));
        }
        if parts.is_empty() { Err(TemplateError::Empty) } else { Ok(Self(parts)) }
    }

    /// The text, if no claim is in it.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The template with the claims filled in.
    fn fill(&self, attributes: &Attributes) -> Result<String, MappingError> {
        let mut filled = String::new();
        for part in &self.0 {
            filled.push_str(match part {
                Part::Text(text) => text,
                Part::Claim(claim) => match claim.find(attributes) {
                    Some(Value::String(text)) => text,
                    Some(_) => return Err(MappingError::NotText(claim.to_string())),
                    None => return Err(MappingError::Missing(claim.to_string())),
                },
            });
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests;
