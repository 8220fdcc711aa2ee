//! `nexus tenant` and `nexus namespace`: who has records here, and the end of all that they have.

use super::{CliError, Context, confirm::confirm, output};
use crate::store::{Emptied, Store};
use crate::types::{NamespaceName, Scope, TenantName};
use serde_json::{Value, json};

/// Tenants: the boundary that nothing crosses
#[derive(Debug, clap::Subcommand)]
pub enum TenantCommand {
    /// Make a tenant by name; one also comes to be with its first record
    Create {
        /// The tenant
        tenant: TenantName,
    },
    /// List tenants that were made or have records
    List,
    /// Delete a tenant: its connections are orphaned, its tokens revoked, its app registrations deleted
    #[command(
        after_help = "Examples:\n  nexus tenant delete acme\n  nexus tenant delete acme --yes\n\nOrphaned connections are of no use to anybody; servers remove them for good after 30 days, and\nnexus connection purge --all --tenant acme at once. The tenant default belongs to the install and is emptied by\nnamespace: nexus namespace delete default."
    )]
    Delete {
        /// The tenant
        tenant: TenantName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Namespaces of a tenant
#[derive(Debug, clap::Subcommand)]
pub enum NamespaceCommand {
    /// List the namespaces that have records
    List,
    /// Delete a namespace: its connections are orphaned, its tokens revoked
    Delete {
        /// The namespace
        #[arg(value_name = "NAMESPACE")]
        name: NamespaceName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

const TENANT_COLUMNS: [(&str, &str); 6] = [
    ("TENANT", "tenant"),
    ("NAMESPACES", "namespaces"),
    ("CONNECTIONS", "connections"),
    ("TOKENS", "tokens"),
    ("APPS", "apps"),
    ("MADE", "created_at"),
];

const NAMESPACE_COLUMNS: [(&str, &str); 3] =
    [("NAMESPACE", "namespace"), ("CONNECTIONS", "connections"), ("TOKENS", "tokens")];

impl TenantCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create { tenant } => {
                let install = context.open_records_or_init().await?;
                let now = context.clock.now();
                install.store.create_tenant(&tenant, now).await?;
                output::print_object(
                    context.format,
                    &json!({"tenant": tenant.as_str(), "created_at": output::time(now)}),
                )
            }
            Self::List => {
                let install = context.open_records().await?;
                let tenants = install.store.list_tenants().await?;
                let rows: Vec<Value> = tenants
                    .iter()
                    .map(|tenant| {
                        json!({
                            "tenant": tenant.tenant.as_str(),
                            "namespaces": tenant.namespaces,
                            "connections": tenant.connections,
                            "tokens": tenant.tokens,
                            "apps": tenant.apps,
                            "created_at": tenant.created_at.map_or(Value::Null, output::time),
                        })
                    })
                    .collect();
                output::print_list(context.format, &TENANT_COLUMNS, &rows)
            }
            Self::Delete { tenant, yes } => {
                if tenant == Scope::default().tenant {
                    return Err(CliError::Conflict(
                        "the tenant default belongs to the install; empty it by namespace: nexus namespace delete default"
                            .to_owned(),
                    ));
                }
                let install = context.open_records().await?;
                confirm(yes, &format!("tenant {tenant} and all that it has will be of no use"), tenant.as_str())?;
                let emptied = install.store.delete_tenant(&tenant, context.clock.now()).await?;
                context.notify().await;
                say_emptied(&format!("tenant {tenant}"), emptied);
                Ok(())
            }
        }
    }
}

impl NamespaceCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::List => {
                let install = context.open_records().await?;
                let namespaces = install.store.list_namespaces(&context.scope.tenant).await?;
                let rows: Vec<Value> = namespaces
                    .iter()
                    .map(|namespace| {
                        json!({
                            "namespace": namespace.namespace.as_str(),
                            "connections": namespace.connections,
                            "tokens": namespace.tokens,
                        })
                    })
                    .collect();
                output::print_list(context.format, &NAMESPACE_COLUMNS, &rows)
            }
            Self::Delete { name, yes } => {
                let install = context.open_records().await?;
                let scope = Scope { tenant: context.scope.tenant.clone(), namespace: name };
                let what = format!("namespace {} of tenant {}", scope.namespace, scope.tenant);
                confirm(yes, &format!("{what} and all that it has will be of no use"), scope.namespace.as_str())?;
                let emptied = install.store.delete_namespace(&scope, context.clock.now()).await?;
                context.notify().await;
                say_emptied(&what, emptied);
                Ok(())
            }
        }
    }
}

fn say_emptied(what: &str, emptied: Emptied) {
    let Emptied { connections, tokens, apps } = emptied;
    output::say(&format!(
        "deleted {what}: {connections} connections orphaned, {tokens} tokens revoked, {apps} app registrations deleted"
    ));
}
