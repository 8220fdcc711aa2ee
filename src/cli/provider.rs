//! `nexus provider`: the catalogue.

use super::{CliError, Context, Format, config, output};
use crate::provider::{AuthKind, CatalogSource, Definition, parse_file, starter_file};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The catalogue of providers
#[derive(Debug, clap::Subcommand)]
pub enum ProviderCommand {
    /// List the providers
    List,
    /// Show what a provider's file says
    Show {
        /// The provider
        provider: String,
    },
    /// Check a provider file; every problem at once, each with file:line:column
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a provider file to start from
    #[command(after_help = "Example:\n  nexus provider new acme > ~/.local/share/nexus/providers/acme.toml")]
    New,
}

const COLUMNS: [(&str, &str); 5] =
    [("ID", "id"), ("NAME", "name"), ("CATEGORY", "category"), ("AUTH", "auth"), ("SOURCE", "source")];

impl ProviderCommand {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::List => {
                let catalog = context.catalog()?;
                let rows: Vec<Value> = catalog
                    .iter()
                    .map(|(source, definition)| {
                        let auth: Vec<&str> = definition.auth.iter().map(|auth| kind(auth.kind)).collect();
                        json!({
                            "id": definition.id.as_str(),
                            "name": definition.name,
                            "category": definition.category,
                            "auth": auth,
                            "source": source_name(source),
                        })
                    })
                    .collect();
                output::print_list(context.format, &COLUMNS, &rows)
            }
            Self::Show { provider } => {
                let catalog = context.catalog()?;
                let definition = catalog.find(&provider).ok_or_else(|| unknown(&provider))?;
                let source = catalog.iter().find(|(_, other)| other.id == definition.id).map(|(source, _)| source);
                output::print_object(context.format, &show(definition, source))
            }
            Self::Check { file } => check(context, &file),
            Self::New => output::print(starter_file()),
        }
    }
}

fn check(context: &Context, file: &Path) -> Result<(), CliError> {
    let text = std::fs::read_to_string(file).map_err(CliError::io(file))?;
    let name = file.file_name().map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into_owned());
    match parse_file(&name, &text) {
        Ok(definition) => {
            config::print_findings(context.format, &[])?;
            if context.format == Format::Table {
                output::say(&format!("{} is fine: {}", file.display(), definition.name));
            }
            Ok(())
        }
        Err(problems) => {
            config::print_findings(context.format, &problems)?;
            Err(CliError::Check(format!("{} problems in {}", problems.len(), file.display())))
        }
    }
}

/// A provider that the catalogue does not have.
pub(super) fn unknown(provider: &str) -> CliError {
    let provider = output::printable(provider);
    CliError::NotFound(format!(
        "provider {provider} is not in the catalogue; nexus provider list shows all, and nexus register custom makes a connection to anything"
    ))
}

fn kind(kind: AuthKind) -> &'static str {
    match kind {
        AuthKind::ApiKey => "api_key",
        AuthKind::Basic => "basic",
        AuthKind::Oauth2 => "oauth2",
    }
}

fn source_name(source: CatalogSource) -> &'static str {
    match source {
        CatalogSource::BuiltIn => "built-in",
        CatalogSource::Own => "own",
    }
}

fn show(definition: &Definition, source: Option<CatalogSource>) -> Value {
    let routes: Vec<String> = definition
        .routes
        .iter()
        .map(|route| match route.port {
            443 => format!("https://{}{}", route.host, route.path.as_str()),
            port => format!("https://{}:{port}{}", route.host, route.path.as_str()),
        })
        .collect();
    let mut shown = json!({
        "id": definition.id.as_str(),
        "name": definition.name,
        "category": definition.category,
        "aliases": definition.aliases,
        "docs": definition.docs,
        "verified": definition.verified,
        "source": source.map(source_name),
        "routes": routes,
        "asks": definition.vars.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(),
        "env": definition.env,
        "test": definition.test.as_ref().map(|test| format!("{} {}", test.method, test.url)),
    });
    for auth in &definition.auth {
        let fields: Vec<String> = auth
            .fields
            .iter()
            .map(|field| format!("{}{}", field.name, if field.secret { " (secret)" } else { "" }))
            .collect();
        let inject: Vec<String> = auth.inject.iter().map(ToString::to_string).collect();
        shown[format!("auth_{}", auth.id)] = Value::String(format!(
            "{}; fields {}; injects {}",
            kind(auth.kind),
            if fields.is_empty() { "none".to_owned() } else { fields.join(", ") },
            inject.join(" & ")
        ));
    }
    shown
}
