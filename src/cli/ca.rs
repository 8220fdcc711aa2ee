//! `nexus ca`: the interception CA, for trust stores of machines and images.

use super::{CliError, Context, Format, output};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The interception CA
#[derive(Debug, clap::Subcommand)]
pub enum CaCommand {
    /// Print where the certificate is
    Path,
    /// Show the certificate's facts
    Show,
    /// Print the certificate as PEM
    Export,
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
