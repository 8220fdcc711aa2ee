//! `nexus store`: copies of the store, and putting one back.

use super::{CliError, Context, Format, envelopes, output};
use crate::admin::control_sockets;
use crate::app::{self, AppError};
use crate::store::{Failed, Record, Report, Restore, StoreError, StoreFile};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The store's file
#[derive(Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// Copy the store to a new file, beside running servers
    #[command(
        after_help = "Examples:\n  nexus store backup /backups/nexus-$(date +%F).db\n\nThe copy is consistent and holds secrets only as they are sealed in the store: it is worth nothing without\nthe root key, which is not in it, and neither is the interception CA. Keep those apart."
    )]
    Backup {
        /// The file to make; one that exists is left as it is (exit 6)
        file: PathBuf,
    },
    /// Put a backup in the store's place
    #[command(
        after_help = "Examples:\n  nexus store restore /backups/nexus-2026-01-31.db\n\nThe backup is checked first: a damaged file, one of a newer version or one of another root key changes\nnothing. The present store is kept as nexus.db.before-restore-TIME. No server of this home may run (exit 6)."
    )]
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Check every record against the manifest, and that it opens
    #[command(
        after_help = "Examples:\n  nexus store verify\n  nexus store verify -o json\n\nWhat is wrong is named, one record a line; exit 8. It was changed by something other than nexus: restore a\nbackup, or register the record anew. --accept takes the store as it is: whatever was edited, added, removed\nor rolled back is from then on what the store says. A credential whose record was edited still does not open."
    )]
    Verify {
        /// Take the store as it is, after you have looked at what is wrong
        #[arg(long)]
        accept: bool,
        /// With --accept: delete the records that cannot be read, too
        #[arg(long, requires = "accept")]
        remove_unreadable: bool,
    },
}

impl StoreCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Backup { file } => backup(context, &file).await,
            Self::Restore { file } => restore(context, &file).await,
            Self::Verify { accept, remove_unreadable } => verify(context, accept, remove_unreadable).await,
        }
    }
}

async fn backup(context: &Context, file: &Path) -> Result<(), CliError> {
    let config = context.store_config()?;
    let path = context.home.path.join(&config.store);
    if !path.exists() {
        return Err(AppError::NotInitialised { home: context.home.path.clone() }.into());
    }
    let file = std::path::absolute(file).map_err(CliError::io(file))?;
    // No key is needed to copy what is sealed.
    let store = StoreFile::open(&path).await?;
    let install_id = store.install_id().to_owned();
    let copied = store.backup(&file).await;
    store.close().await;
    let bytes = copied?;
    output::say("the root key and the interception CA are not in the backup; keep them apart from it");
    output::print_object(context.format, &json!({ "backup": file, "bytes": bytes, "install_id": install_id }))
}

async fn restore(context: &Context, file: &Path) -> Result<(), CliError> {
    let config = context.store_config()?;
    let path = context.home.path.join(&config.store);
    if !context.home.path.is_dir() {
        return Err(AppError::NotInitialised { home: context.home.path.clone() }.into());
    }
    let file = std::path::absolute(file).map_err(CliError::io(file))?;
    refuse_running(context).await?;
    let prepared = Restore::prepare(&file, &path)?;
    // The copy is what is opened, and the person's file is what is spoken of.
    let store = app::open_backup(&context.home, &config, prepared.path())
        .await
        .map_err(|error| named(error, prepared.path(), &file))?;
    let install_id = crate::store::Store::install_id(&*store).to_owned();
    store.close().await;
    let kept = kept_name(&path, context.clock.now());
    refuse_running(context).await?;
    let was_there = path.exists();
    prepared.replace(&kept).await.map_err(|error| match error {
        StoreError::Conflict { .. } => in_use(&path),
        other => other.into(),
    })?;
    output::say(
        "credentials that were refreshed and tokens that were rotated or revoked since the backup are as they were then",
    );
    let kept = was_there.then_some(kept);
    output::print_object(
        context.format,
        &json!({ "restored": path, "from": file, "install_id": install_id, "kept": kept }),
    )
}

const COLUMNS: [(&str, &str); 5] =
    [("KIND", "kind"), ("ID", "id"), ("NAME", "name"), ("TENANT", "tenant"), ("PROBLEM", "reason")];

async fn verify(context: &Context, accept: bool, remove_unreadable: bool) -> Result<(), CliError> {
    let install = context.open_records().await?;
    let catalog = context.catalog()?;
    // Opened and sealed again in memory, which is thrown away.
    let check = |record: &Record| envelopes::reseal(&install, &catalog, record).map(drop);
    let report = install.store.verify(check).await?;
    if !accept {
        print_report(context, &report)?;
        return if report.failed.is_empty() { Ok(()) } else { Err(CliError::Check(String::new())) };
    }
    let accepted = install.store.accept(remove_unreadable).await?;
    context.notify().await;
    let rows = |failed: &[Failed]| failed.iter().map(row).collect::<Vec<_>>();
    if context.format == Format::Json {
        return output::print_json(&json!({
            "records": accepted.records,
            "accepted": rows(&report.failed),
            "unreadable": rows(&accepted.unreadable),
            "removed": rows(&accepted.removed),
        }));
    }
    for (failed, what) in
        [(&report.failed, "accepted"), (&accepted.removed, "removed"), (&accepted.unreadable, "unreadable")]
    {
        for Failed { kind, id, tenant, reason, .. } in failed.iter() {
            output::say(&output::printable(&format!("{what}: {kind} {id} of tenant {tenant}: {reason}")));
        }
    }
    output::print_line(&format!("{} records are listed", accepted.records))
}

fn print_report(context: &Context, report: &Report) -> Result<(), CliError> {
    let rows: Vec<Value> = report.failed.iter().map(row).collect();
    if context.format == Format::Json {
        let counts: serde_json::Map<String, Value> =
            report.counts.iter().map(|(kind, count)| (kind.as_str().to_owned(), json!(count))).collect();
        let ok = rows.is_empty();
        return output::print_json(&json!({
            "ok": ok, "generation": report.generation, "records": counts, "failed": rows,
        }));
    }
    if rows.is_empty() {
        let total: u64 = report.counts.values().sum();
        return output::print_line(&format!("ok, {total} records"));
    }
    output::print_list(context.format, &COLUMNS, &rows)?;
    output::say(
        "restore a backup, or register what is named anew; nexus store verify --accept takes the store as it is",
    );
    Ok(())
}

fn row(failed: &Failed) -> Value {
    json!({
        "kind": failed.kind,
        "id": failed.id,
        "name": failed.name,
        "tenant": failed.tenant,
        "reason": failed.reason.to_string(),
    })
}

/// A server has the old file open and would go on with it.
async fn refuse_running(context: &Context) -> Result<(), CliError> {
    match control_sockets(&context.home.path).await.first() {
        None => Ok(()),
        Some((_, status)) => Err(CliError::Conflict(format!(
            "a server of this home is running (process {}); stop it, restore, and start it again",
            status["pid"]
        ))),
    }
}

fn in_use(store: &Path) -> CliError {
    CliError::Conflict(format!("another program has {} open; end it and try again", store.display()))
}

/// The error with the name that the person knows the file by.
fn named(error: AppError, copy: &Path, file: &Path) -> AppError {
    let name = |path: String| if path == copy.display().to_string() { file.display().to_string() } else { path };
    match error {
        AppError::WrongKey { .. } => AppError::WrongKey { store: file.to_owned() },
        AppError::Store(StoreError::Unusable { path, reason }) => {
            AppError::Store(StoreError::Unusable { path: name(path), reason })
        }
        AppError::Store(StoreError::Newer { path, found, known }) => {
            AppError::Store(StoreError::Newer { path: name(path), found, known })
        }
        other => other,
    }
}

/// `nexus.db.before-restore-20260131T120000Z`, with a number behind it when that is taken.
fn kept_name(store: &Path, now: crate::types::UnixSeconds) -> PathBuf {
    let time = jiff::Timestamp::from_second(now)
        .map_or_else(|_| now.to_string(), |t| t.strftime("%Y%m%dT%H%M%SZ").to_string());
    let mut name = store.as_os_str().to_owned();
    name.push(format!(".before-restore-{time}"));
    let first = PathBuf::from(name);
    let mut candidate = first.clone();
    for number in 2.. {
        if candidate.symlink_metadata().is_err() {
            break;
        }
        let mut name = first.clone().into_os_string();
        name.push(format!("-{number}"));
        candidate = name.into();
    }
    candidate
}
