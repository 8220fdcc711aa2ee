//! All providers that this install knows: the built-in ones and the user's own.

use super::{Definition, FileProblem};
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
#[derive(Debug, Default)]
pub struct Catalog(Vec<(CatalogSource, Arc<Definition>)>);

impl Catalog {
    /// The built-in files alone.
    #[must_use]
    pub fn built_in() -> Self {
        todo!()
    }

    /// The built-in files and those in `directory` (`*.toml`; an absent directory is fine).
    ///
    /// # Errors
    /// Every problem in every file.
    pub fn load(_directory: &Path) -> Result<Self, Vec<FileProblem>> {
        todo!()
    }

    /// A provider by id or alias (case-insensitive; `_` and `-` alike).
    #[must_use]
    pub fn find(&self, _id: &str) -> Option<&Arc<Definition>> {
        todo!()
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (CatalogSource, &Arc<Definition>)> {
        self.0.iter().map(|(source, definition)| (*source, definition))
    }
}
