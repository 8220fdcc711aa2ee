//! All providers that this install knows: the built-in ones and the user's own.

use super::file::{ReadFile, read};
use super::{Definition, FileProblem};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Where a definition came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogSource {
    /// Embedded in the binary.
    BuiltIn,
    /// `$NEXUS_HOME/providers/`; an own file with a built-in id takes its place.
    Own,
}

/// The catalogue. Share by `Arc`.
#[derive(Debug, Clone, Default)]
pub struct Catalog(Vec<(CatalogSource, Arc<Definition>)>);

impl Catalog {
    /// The built-in files alone.
    #[must_use]
    pub fn built_in() -> Self {
        let read = |(file, text): &(&str, &str)| {
            let definition = super::parse_file(file, text).expect("the built-in provider files are valid");
            (CatalogSource::BuiltIn, Arc::new(definition))
        };
        Self::sorted(BUILT_IN.iter().map(read).collect())
    }

    /// The built-in files and those in `directory` (`*.toml`; an absent directory is fine). An own file takes its id
    /// and aliases from the built-in ones: a built-in with such an id is replaced, one with such an alias loses it.
    ///
    /// # Errors
    /// Every problem in every file.
    pub fn load(directory: &Path) -> Result<Self, Vec<FileProblem>> {
        let mut problems = Vec::new();
        let mut own: Vec<(CatalogSource, Arc<Definition>)> = Vec::new();
        // Who has a name already, among the own files.
        let mut taken: HashMap<String, String> = HashMap::new();
        for path in own_files(directory, &mut problems) {
            let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            // With its directory, since the problems are told wherever the catalogue is read.
            let shown = path.display().to_string();
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    problems.push(FileProblem::at(&shown, "", 0, "", format!("cannot be read: {error}")));
                    continue;
                }
            };
            match read(&file, &text) {
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| FileProblem { file: shown.clone(), ..problem }));
                }
                Ok(ReadFile { definition, aliases }) => {
                    let aliases = aliases.iter().map(|alias| (&*alias.value, alias.place.offset, &*alias.place.key));
                    for (name, offset, key) in std::iter::once((definition.id.as_str(), 0, "")).chain(aliases) {
                        if let Some(other) = taken.insert(plain_name(name), file.clone()) {
                            let message = format!("{name:?} is the id or an alias of {other}, too");
                            problems.push(FileProblem::at(&shown, &text, offset, key, message));
                        }
                    }
                    own.push((CatalogSource::Own, Arc::new(definition)));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let is_taken = |name: &str| taken.contains_key(&plain_name(name));
        let mut all: Vec<_> =
            Self::built_in().0.into_iter().filter(|(_, built_in)| !is_taken(built_in.id.as_str())).collect();
        for (_, built_in) in &mut all {
            if built_in.aliases.iter().any(|alias| is_taken(alias)) {
                Arc::make_mut(built_in).aliases.retain(|alias| !is_taken(alias));
            }
        }
        all.extend(own);
        Ok(Self::sorted(all))
    }

    /// A provider by id or alias (case-insensitive; `_` and `-` alike).
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Arc<Definition>> {
        let wanted = plain_name(id);
        let has_name = |definition: &Definition| {
            plain_name(definition.id.as_str()) == wanted
                || definition.aliases.iter().any(|alias| plain_name(alias) == wanted)
        };
        self.0.iter().map(|(_, definition)| definition).find(|definition| has_name(definition))
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (CatalogSource, &Arc<Definition>)> {
        self.0.iter().map(|(source, definition)| (*source, definition))
    }

    fn sorted(mut all: Vec<(CatalogSource, Arc<Definition>)>) -> Self {
        all.sort_by(|(_, a), (_, b)| a.id.as_str().cmp(b.id.as_str()));
        Self(all)
    }
}

/// A name as it is compared: lower case, `-` for `_`.
pub(super) fn plain_name(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// The `*.toml` files of a directory, by name; an absent directory has none. Hidden files are an editor's.
fn own_files(directory: &Path, problems: &mut Vec<FileProblem>) -> Vec<std::path::PathBuf> {
    let unreadable = |error: std::io::Error| {
        FileProblem::at(&directory.display().to_string(), "", 0, "", format!("cannot be read: {error}"))
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(unreadable(error));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => {
                let path = entry.path();
                let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
                if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
                    files.push(path);
                }
            }
            Err(error) => problems.push(unreadable(error)),
        }
    }
    files.sort();
    files
}

/// The files of `providers/`; a test compares this list with the directory.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    ("anthropic.toml", include_str!("../../providers/anthropic.toml")),
    ("github.toml", include_str!("../../providers/github.toml")),
    ("gitlab.toml", include_str!("../../providers/gitlab.toml")),
    ("google.toml", include_str!("../../providers/google.toml")),
    ("hubspot.toml", include_str!("../../providers/hubspot.toml")),
    ("jira.toml", include_str!("../../providers/jira.toml")),
    ("notion.toml", include_str!("../../providers/notion.toml")),
    ("openai.toml", include_str!("../../providers/openai.toml")),
    ("sendgrid.toml", include_str!("../../providers/sendgrid.toml")),
    ("slack.toml", include_str!("../../providers/slack.toml")),
    ("stripe.toml", include_str!("../../providers/stripe.toml")),
    ("telegram.toml", include_str!("../../providers/telegram.toml")),
];
