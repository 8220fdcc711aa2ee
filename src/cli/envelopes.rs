//! Every envelope of a record: whether it opens, and the same under the root key that seals now.

use super::app;
use crate::app::Install;
use crate::connection::Connection;
use crate::provider::Catalog;
use crate::store::{Record, Resealed};

/// Seals a record's secrets again for the same version; `None` when nothing is sealed in it.
///
/// # Errors
/// Why something in it does not open.
pub(super) fn reseal(install: &Install, catalog: &Catalog, record: &Record) -> Result<Option<Resealed>, String> {
    match record {
        Record::Connection(record) => {
            let connection = Connection::from_record(record, None).map_err(|error| error.to_string())?;
            let (access, grant) = connection
                .reseal(&install.keyring, record.version, &record.access, record.grant.as_ref())
                .map_err(|error| error.to_string())?;
            Ok(Some(Resealed::Connection { old: record.clone(), access, grant }))
        }
        Record::App(record) => {
            let secret = app::reseal(&install.keyring, catalog, record)?;
            Ok(secret.map(|secret| Resealed::App { old: record.clone(), secret }))
        }
        Record::Token(_) | Record::Other => Ok(None),
    }
}

/// What a record is called in a message.
pub(super) fn describe(record: &Record) -> String {
    match record {
        Record::Connection(record) => {
            format!("connection {} ({}) of tenant {}", record.name, record.id, record.scope.tenant)
        }
        Record::App(record) => format!("app {} of tenant {}", record.provider, record.scope.tenant),
        Record::Token(record) => format!("token {} of tenant {}", record.id, record.scope.tenant),
        Record::Other => "another record".to_owned(),
    }
}
