//! `nexus ca`: the interception CA, for trust stores of machines and images.

use super::environment::write_file;
use super::{CliError, Context, Format, output};
use crate::app::AppError;
use crate::listener::CertificateAuthority;
use crate::secret::write_private_file;
use crate::types::{Host, parse_duration};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The interception CA
#[derive(Debug, clap::Subcommand)]
pub enum CaCommand {
    /// Print where the certificate is
    Path,
    /// Show the certificate's facts
    Show,
    /// Print the certificate as PEM
    Export,
    /// Make a certificate for a TLS listener, signed by the interception CA, which agents trust already
    #[command(
        after_help = "Examples:\n  nexus ca issue proxy.internal 10.0.0.5 --out tls\n\nWrites server.pem and server.key; in nexus.toml: tls = { cert = \"tls/server.pem\", key = \"tls/server.key\" }.\nAn existing server.key is kept from being overwritten; move it away first."
    )]
    Issue {
        /// Names and addresses that agents reach the listener by
        #[arg(required = true, value_parser = parse_host)]
        hosts: Vec<Host>,
        /// The directory to write to, relative to this one
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is valid
        #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = parse_duration)]
        expires: Duration,
    },
}

impl CaCommand {
    pub(super) async fn execute(self, context: &Context) -> Result<(), CliError> {
        let path = context.home.ca_certificate();
        if !path.exists() {
            return Err(CliError::NotFound(format!("there is no CA at {}; run: nexus init", path.display())));
        }
        match self {
            Self::Path if context.format == Format::Json => output::print_json(&json!({ "path": path })),
            Self::Path => output::print_line(&path.display().to_string()),
            Self::Export => output::print(&read(&path)?),
            Self::Issue { hosts, out, expires } => issue(context, &hosts, &out, expires),
            Self::Show => {
                let facts = Facts::read(&path)?;
                output::print_object(
                    context.format,
                    &json!({
                        "path": path,
                        "subject": facts.subject,
                        "not_before": output::time(facts.not_before),
                        "not_after": output::time(facts.not_after),
                        "sha256": facts.sha256,
                    }),
                )
            }
        }
    }
}

fn issue(context: &Context, hosts: &[Host], out: &Path, expires: Duration) -> Result<(), CliError> {
    let days = i64::try_from(expires.as_secs().div_ceil(86_400)).unwrap_or(i64::MAX);
    if !(1..=3650).contains(&days) {
        return Err(CliError::Usage("--expires must be from one day to ten years".to_owned()));
    }
    let authority = CertificateAuthority::load(&context.home.ca()).map_err(AppError::from)?;
    let (certificate, key) = authority
        .issue(hosts, days)
        .map_err(|error| CliError::Usage(format!("no certificate can be made for these hosts: {error}")))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(CliError::io(out))?;
    let (certificate_path, key_path) = (out.join("server.pem"), out.join("server.key"));
    // Exposed to be written to its private file.
    write_private_file(&key_path, key.expose().as_bytes()).map_err(CliError::io(&key_path))?;
    write_file(&certificate_path, &certificate, 0o644)?;
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let shown = json!({ "cert": certificate_path, "key": key_path, "hosts": hosts });
    output::print_object(context.format, &shown)
}

fn parse_host(text: &str) -> Result<Host, String> {
    Host::parse(text.as_bytes()).map_err(|error| error.to_string())
}

fn read(path: &std::path::Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(CliError::io(path))
}

/// What a certificate says of itself.
pub(super) struct Facts {
    subject: String,
    not_before: i64,
    /// When it ends.
    pub(super) not_after: i64,
    sha256: String,
}

impl Facts {
    /// Reads the first certificate of a PEM file.
    pub(super) fn read(path: &std::path::Path) -> Result<Self, CliError> {
        let damaged = || CliError::Failed(format!("{} holds no certificate", path.display()));
        let der = CertificateDer::from_pem_slice(read(path)?.as_bytes()).map_err(|_| damaged())?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| damaged())?;
        let digest = Sha256::digest(&der);
        Ok(Self {
            subject: certificate.subject().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            sha256: digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"),
        })
    }
}
