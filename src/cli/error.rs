//! What can go wrong in a command, and the one table from errors to exit codes.

use crate::app::AppError;
use crate::config::ConfigError;
use crate::connection::DefinitionError;
use crate::net::{ClientError, NetError};
use crate::secret::SealError;
use crate::store::StoreError;
use std::path::PathBuf;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A record, provider or file that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// It may not be done now, or a proof of identity was not taken.
    #[error("{0}")]
    NotAuthorised(String),
    /// Policy says no.
    #[error("{0}")]
    Denied(String),
    /// Something is in the way: a name that is taken, a record that changed.
    #[error("{0}")]
    Conflict(String),
    /// An API could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// A check found something.
    #[error("{0}")]
    Check(String),
    /// Something else.
    #[error("{0}")]
    Failed(String),
    /// The child of `nexus run` ended with this code; nothing is printed.
    #[error("the command ended with {0}")]
    Child(u8),
    /// The reader of standard output went away; nothing is printed.
    #[error("standard output was closed")]
    OutputClosed,
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The install.
    #[error(transparent)]
    App(#[from] AppError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored definition.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A sealed record.
    #[error("the credential cannot be opened: {0}; was it sealed with another root key, or the record edited?")]
    Seal(#[from] SealError),
    /// The way out.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl CliError {
    /// An error of a file.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Whether the error is told by the exit code alone.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Child(_) | Self::OutputClosed => true,
            Self::Check(message) => message.is_empty(),
            _ => false,
        }
    }

    /// What to do about it, where the error itself cannot know.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        let Self::Store(StoreError::NotFound { kind, .. }) = self else { return None };
        Some(match *kind {
            "connection" => "nexus connection list shows all of this tenant and namespace",
            "token" => "nexus token list shows all of this tenant and namespace",
            "app" => "nexus app list shows all of this tenant",
            "tenant" => "nexus tenant list shows all",
            "namespace" => "nexus namespace list shows all of this tenant",
            _ => return None,
        })
    }

    /// The exit code: 0 ok, 1 failure, 2 usage, 3 not found, 4 not authorised, 5 denied by policy, 6 conflict,
    /// 7 unreachable, 8 a check failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::NotAuthorised(_) => 4,
            Self::Denied(_) => 5,
            Self::Conflict(_) => 6,
            Self::Unreachable(_) => 7,
            Self::Check(_) => 8,
            Self::Failed(_) | Self::Definition(_) | Self::Seal(_) => 1,
            Self::Child(code) => *code,
            Self::OutputClosed => 0,
            Self::Io { source, .. } => io_code(source),
            Self::App(error) => match error {
                AppError::NotInitialised { .. } => 3,
                AppError::AddressInUse { .. } => 6,
                AppError::Config(error) => config_code(error),
                AppError::Store(error) => store_code(error),
                AppError::Io { source, .. } => io_code(source),
                _ => 1,
            },
            Self::Config(error) => config_code(error),
            Self::Store(error) => store_code(error),
            Self::Net(error) => net_code(error),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Net(error) => Self::Net(error),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn io_code(error: &std::io::Error) -> u8 {
    match error.kind() {
        std::io::ErrorKind::NotFound => 3,
        std::io::ErrorKind::PermissionDenied => 4,
        _ => 1,
    }
}

fn store_code(error: &StoreError) -> u8 {
    match error {
        StoreError::NotFound { .. } => 3,
        StoreError::Exists { .. } | StoreError::Conflict { .. } | StoreError::OldKey => 6,
        StoreError::Integrity { .. } => 8,
        _ => 1,
    }
}

fn config_code(error: &ConfigError) -> u8 {
    match error {
        ConfigError::Problems(_) => 8,
        ConfigError::Io { source, .. } => io_code(source),
        ConfigError::Net(error) => net_code(error),
        ConfigError::Store(error) => store_code(error),
        ConfigError::Tls(_) => 8,
    }
}

fn net_code(error: &NetError) -> u8 {
    match error {
        NetError::AddressRefused { .. } => 5,
        NetError::CaFile { .. } => 1,
        _ => 7,
    }
}

/// The error and its causes in one line; a cause whose text stands in the line already is left out.
#[must_use]
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Reason;

    fn io(kind: std::io::ErrorKind) -> std::io::Error {
        std::io::Error::from(kind)
    }

    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        let exists = || StoreError::Exists { kind: "connection", name: "a".into() };
        let missing = || StoreError::NotFound { kind: "connection", name: "a".into() };
        let changed = || StoreError::Conflict { kind: "connection", name: "a".into() };
        let address = "127.0.0.1:1".to_owned();
        let rows: Vec<(&str, CliError, u8)> = vec![
            ("failure", CliError::Failed("x".into()), 1),
            ("damaged record", SealError::Integrity.into(), 1),
            ("usage", CliError::Usage("x".into()), 2),
            ("not found", CliError::NotFound("x".into()), 3),
            (
                "edited record",
                StoreError::Integrity { kind: "token", name: "a".into(), reason: Reason::Edited }.into(),
                8,
            ),
            ("no such record", missing().into(), 3),
            ("no such record, deep", AppError::Store(missing()).into(), 3),
            ("no install", AppError::NotInitialised { home: "/x".into() }.into(), 3),
            ("no such file", CliError::io("/x")(io(std::io::ErrorKind::NotFound)), 3),
            ("not authorised", CliError::io("/x")(io(std::io::ErrorKind::PermissionDenied)), 4),
            ("proof not taken", CliError::NotAuthorised("x".into()), 4),
            ("denied", CliError::Denied("x".into()), 5),
            ("taken name", exists().into(), 6),
            ("changed meanwhile", changed().into(), 6),
            ("used port", AppError::AddressInUse { address }.into(), 6),
            ("unreachable", CliError::Unreachable("x".into()), 7),
            ("timeout", NetError::Timeout { target: "a:1".into(), limit: std::time::Duration::from_secs(1) }.into(), 7),
            ("check", CliError::Check(String::new()), 8),
            ("broken config", ConfigError::Problems(Vec::new()).into(), 8),
            ("child", CliError::Child(143), 143),
        ];
        for (name, error, code) in rows {
            assert_eq!(error.exit_code(), code, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_comes_with_where_to_look() {
        let missing = |kind| CliError::Store(StoreError::NotFound { kind, name: "a".into() });
        for kind in ["connection", "token", "app", "tenant", "namespace"] {
            assert!(missing(kind).hint().is_some_and(|hint| hint.contains(kind)), "{kind}");
        }
        assert_eq!(CliError::Failed("x".into()).hint(), None);
    }

    #[test]
    fn causes_are_told_once() {
        let error = CliError::io("/x")(std::io::Error::other("disk on fire"));
        assert_eq!(describe(&error), "/x: disk on fire");
    }
}
