//! What has to hold between the parts of a provider file: variables, hosts, URLs, placements and their fields.

use super::definition::anchored;
use super::document::{Located, Place, Problems, Table, did_you_mean};
use super::variables::{UNBALANCED, names, put_in};
use super::{Auth, AuthKind, Field, Route};
use crate::strategy::{Placement, PlacementError, Strategy, is_field_name};
use crate::types::{BasePath, CanonicalPath, HostPattern, Scheme, Url};
use std::collections::HashSet;

/// What stands in a variable's place while the text around it is checked.
const SAMPLE: &str = "x";

/// The checks of one file: its problems, its variables and which of them were used.
pub(super) struct Check<'c, 'a> {
    pub(super) problems: &'c mut Problems<'a>,
    vars: Vec<Located<Field>>,
    used: HashSet<String>,
    has_bad_placement: bool,
}

/// What a grant needs and no request carries.
const GRANT_FIELDS: [&str; 3] = ["client_id", "client_secret", "refresh_token"];

impl<'c, 'a> Check<'c, 'a> {
    pub(super) fn new(problems: &'c mut Problems<'a>) -> Self {
        Self { problems, vars: Vec::new(), used: HashSet::new(), has_bad_placement: false }
    }

    pub(super) fn read_vars(&mut self, root: &mut Table<'_, '_>) {
        let tables = root.tables(self.problems, "vars");
        let vars = tables.into_iter().filter_map(|table| self.field(table, false)).collect();
        self.vars = self.without_twins(vars);
    }

    /// The fields of one auth.
    pub(super) fn fields(&mut self, tables: Vec<Table<'_, '_>>) -> Vec<Located<Field>> {
        let fields = tables.into_iter().filter_map(|table| self.field(table, true)).collect();
        let fields = self.without_twins(fields);
        for field in &fields {
            if self.vars.iter().any(|var| var.value.name == field.value.name) {
                self.problems.add(&field.place, format!("{:?} is a variable already", field.value.name));
            }
        }
        fields
    }

    /// A word of a list.
    pub(super) fn one_of<T: Copy>(&mut self, text: &Located<String>, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            self.problems
                .add(&text.place, format!("{:?} is not known{}", text.value, did_you_mean(&text.value, &words)));
        }
        found
    }

    /// A host: a name, `*.` before one (only for hosts that the vendor alone runs), or `{var}` as a whole label.
    pub(super) fn host(&mut self, host: &Located<String>, vendor_hosts_only: Option<&Located<bool>>) -> Option<String> {
        let text = host.value.to_lowercase();
        let sample = self.sample(&Located { value: text.clone(), place: host.place.clone() })?;
        let pattern = match HostPattern::parse(&sample) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.problems.add(&host.place, error.to_string());
                return None;
            }
        };
        let labels: Vec<&str> = text.split('.').collect();
        if labels.iter().any(|label| {
            label.contains('{') && !(label.starts_with('{') && label.ends_with('}') && label.matches('{').count() == 1)
        }) {
            self.problems.add(&host.place, "has a variable that is not a whole label");
        }
        let is_free = |label: &&str| label.contains('{') && !self.has_pattern(label);
        if labels.iter().rev().take(2).any(is_free) {
            let message =
                "has a variable in its last two labels, so that it could be anybody's host; give it a pattern";
            self.problems.add(&host.place, message);
        }
        let acknowledged = vendor_hosts_only.is_some_and(|flag| flag.value);
        match (pattern.exact(), vendor_hosts_only) {
            (None, _) if labels.len() < 3 => {
                self.problems.add(&host.place, "has a wildcard over a whole top-level domain");
            }
            (None, _) if !acknowledged => self.problems.add(
                &host.place,
                "has a wildcard; if the vendor alone runs all such hosts, say vendor_hosts_only = true, else use a {variable}",
            ),
            (Some(_), Some(flag)) => self.problems.add(&flag.place, "has no meaning for a host without a wildcard"),
            _ => {}
        }
        // Canonical where there is nothing to put in; a variable's name survives only as it is written.
        Some(if sample == text { pattern.to_string() } else { text })
    }

    pub(super) fn base_path(&mut self, path: &Located<String>) -> Option<BasePath> {
        let sample = self.sample(path)?;
        match BasePath::parse(&sample).and_then(|_| BasePath::parse(&path.value)) {
            Ok(path) => Some(path),
            Err(error) => {
                self.problems.add(&path.place, error.to_string());
                None
            }
        }
    }

    /// An `https` URL.
    pub(super) fn url(&mut self, url: &Located<String>) {
        let Some(sample) = self.sample(url) else { return };
        match Url::parse(sample.as_bytes()) {
            Ok(parsed) if parsed.target.scheme == Scheme::Https => {}
            Ok(_) => self.problems.add(&url.place, "is not an https:// URL"),
            Err(error) => self.problems.add(&url.place, error.to_string()),
        }
    }

    /// A path under the first route, or a URL under any.
    pub(super) fn test_url(&mut self, url: &Located<String>, routes: &[Located<Route>]) {
        let Some(sample) = self.sample(url) else { return };
        if sample.starts_with('/') {
            if let Err(error) = CanonicalPath::parse(sample.as_bytes()) {
                self.problems.add(&url.place, error.to_string());
            }
            return;
        }
        let parsed = match Url::parse(sample.as_bytes()) {
            Ok(parsed) => parsed,
            Err(error) => {
                let message = format!("is neither a path under the first route nor a URL: {error}");
                return self.problems.add(&url.place, message);
            }
        };
        let covers = |route: &Route| {
            let put = |text: &str| put_in(text, |_| Some(SAMPLE));
            HostPattern::parse(&put(&route.host)).is_ok_and(|host| host.matches(&parsed.target.host))
                && route.port == parsed.target.port
                && BasePath::parse(&put(route.path.as_str())).is_ok_and(|base| base.covers(&parsed.path))
        };
        // Of routes with problems of their own nothing is known.
        let is_covered = routes.is_empty() || routes.iter().any(|route| covers(&route.value));
        if parsed.target.scheme != Scheme::Https || !is_covered {
            self.problems.add(&url.place, "is not under any route, so the credential would not go there");
        }
    }

    /// Placements whose fields have to be known in each of `auths` (fields, and whether it is OAuth).
    pub(super) fn placements(
        &mut self,
        texts: &[Located<String>],
        auths: &[(&[Located<Field>], bool)],
    ) -> Vec<Placement> {
        let mut placements: Vec<Placement> = Vec::new();
        for text in texts {
            let placement = match Placement::parse(&text.value) {
                Ok(placement) => placement,
                Err(error) => {
                    self.problems.add(&text.place, error.to_string());
                    self.has_bad_placement = true;
                    continue;
                }
            };
            for (fields, is_oauth) in auths {
                self.placement_fields(&placement, &text.place, fields, *is_oauth);
            }
            placements.push(placement);
            if let Err(PlacementError::Twice(place)) = Strategy::new(placements.clone()) {
                self.problems.add(&text.place, format!("an earlier placement goes to {place}, too"));
                placements.pop();
            }
        }
        placements
    }

    fn placement_fields(&mut self, placement: &Placement, place: &Place, fields: &[Located<Field>], is_oauth: bool) {
        // A secret of a placement keeps it a placement when variables and plain fields have been put in.
        let mut has_secret = false;
        for name in placement.fields() {
            if self.vars.iter().any(|var| var.value.name == name) {
                self.used.insert(name.to_owned());
                continue;
            }
            if is_oauth && GRANT_FIELDS.contains(&name) {
                self.problems
                    .add(place, format!("has the field {name}, which belongs to the grant; use {{access_token}}"));
                return;
            }
            let declared = fields.iter().find(|field| is_same_field(&field.value.name, name));
            has_secret |= declared.is_none_or(|field| field.value.secret);
            if declared.is_none() && !(is_oauth && is_same_field("access_token", name)) {
                let mut known: Vec<&str> = fields.iter().map(|field| field.value.name.as_str()).collect();
                if is_oauth {
                    known.retain(|name| !GRANT_FIELDS.contains(name));
                    known.push("access_token");
                }
                let message = format!("has a field {name:?} that is not declared{}", did_you_mean(name, &known));
                self.problems.add(place, message);
            }
        }
        if !has_secret {
            self.problems.add(place, "has no secret field, so it carries no credential");
        }
    }

    /// Notes fields that are asked for and go nowhere.
    pub(super) fn unused_fields(&mut self, auths: &[Located<Auth>], routes: &[Located<Route>]) {
        if self.has_bad_placement {
            return;
        }
        let own = || routes.iter().filter_map(|route| route.value.inject.as_ref()).flatten();
        for (index, auth) in auths.iter().enumerate().filter(|(_, auth)| auth.value.kind != AuthKind::Oauth2) {
            for field in &auth.value.fields {
                let mut placements = auth.value.inject.iter().chain(own());
                let is_used =
                    placements.any(|placement| placement.fields().any(|name| is_same_field(name, &field.name)));
                if !is_used {
                    let place = Place { offset: auth.place.offset, key: format!("auth[{index}]") };
                    self.problems.add(&place, format!("no placement uses its field {:?}", field.name));
                }
            }
        }
    }

    /// Notes variables that nothing uses, and gives them all.
    pub(super) fn finish(self) -> Vec<Field> {
        for var in self.vars.iter().filter(|var| !self.used.contains(&var.value.name)) {
            self.problems.add(&var.place, format!("nothing uses the variable {:?}", var.value.name));
        }
        self.vars.into_iter().map(|var| var.value).collect()
    }

    /// The text with a sample in each variable's place; `None` when that cannot be.
    fn sample(&mut self, text: &Located<String>) -> Option<String> {
        let Some(names) = names(&text.value) else {
            self.problems.add(&text.place, UNBALANCED);
            return None;
        };
        let mut is_known = true;
        for name in names {
            if self.vars.iter().any(|var| var.value.name == name) {
                self.used.insert(name.to_owned());
            } else {
                is_known = false;
                let known: Vec<&str> = self.vars.iter().map(|var| var.value.name.as_str()).collect();
                let hint =
                    if known.is_empty() { "; add it as [[vars]]".to_owned() } else { did_you_mean(name, &known) };
                self.problems.add(&text.place, format!("has a variable {name:?} that is not declared{hint}"));
            }
        }
        is_known.then(|| put_in(&text.value, |_| Some(SAMPLE)))
    }

    fn has_pattern(&self, label: &str) -> bool {
        let name = label.trim_matches(['{', '}']);
        self.vars.iter().any(|var| var.value.name == name && var.value.pattern.is_some())
    }

    fn field(&mut self, mut table: Table<'_, '_>, may_be_secret: bool) -> Option<Located<Field>> {
        let name = table.required_text(self.problems, "name");
        if let Some(name) = name.as_ref().filter(|name| !is_field_name(&name.value)) {
            self.problems.add(&name.place, format!("{:?} is not a field name; use a-z, 0-9 and _", name.value));
        }
        let label = table.required_text(self.problems, "label");
        // What is asked for is a secret unless the file says otherwise.
        let secret = may_be_secret && table.boolean(self.problems, "secret").is_none_or(|flag| flag.value);
        let help = table.text(self.problems, "help");
        let pattern = table.text(self.problems, "pattern");
        if let Some(pattern) = &pattern
            && anchored(&pattern.value).is_err()
        {
            self.problems.add(&pattern.place, "is not a regular expression");
        }
        table.finish(self.problems);
        let name = name?;
        let field = Field {
            name: name.value,
            label: label.map(|label| label.value).unwrap_or_default(),
            secret,
            help: help.map(|help| help.value),
            pattern: pattern.map(|pattern| pattern.value),
        };
        Some(Located { value: field, place: name.place })
    }

    fn without_twins(&mut self, fields: Vec<Located<Field>>) -> Vec<Located<Field>> {
        let mut kept: Vec<Located<Field>> = Vec::new();
        for field in fields {
            if kept.iter().any(|other| is_same_field(&other.value.name, &field.value.name)) {
                self.problems.add(&field.place, format!("{:?} is there already", field.value.name));
            } else {
                kept.push(field);
            }
        }
        kept
    }
}

/// Equal names; `token` and `access_token` are one.
fn is_same_field(one: &str, other: &str) -> bool {
    let plain = |name| if name == "access_token" { "token" } else { name };
    plain(one) == plain(other)
}
