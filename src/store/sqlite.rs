//! The store in an SQLite file (WAL, `synchronous=FULL`, `secure_delete=ON`, `busy_timeout` 5 s, writes
//! `BEGIN IMMEDIATE`).

/// A store in one SQLite file.
pub struct SqliteStore(());

impl SqliteStore {
    /// Opens the store, makes it if absent (0600), and brings its schema up to date.
    ///
    /// # Errors
    /// When the file is not a store, damaged, or made by a newer version; the file is left as it was.
    pub async fn open(_path: &std::path::Path) -> Result<Self, super::StoreError> {
        todo!()
    }
}
