//! Provider files: the built-in ones, each kind of problem, binding, the catalogue.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::catalog::BUILT_IN;
use super::*;
use crate::secret::{Secret, SecretFields};
use crate::strategy::{Edit, Strategy};
use std::collections::BTreeMap;
use std::path::Path;

mod bind;
mod built_in;
mod catalog;
mod problems;

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A small valid file, to be changed by tests.
const ACME: &str = r#"name = "Acme"
category = "tools"
verified = "never"

[[vars]]
name = "site"
label = "Site"

[[routes]]
host = "{site}.acme.test"
path = "/api"

[[auth]]
id = "key"
kind = "api_key"
label = "Key"
inject = ["header X-Key: {key}"]

[[auth.fields]]
name = "key"
label = "Acme key"
"#;
