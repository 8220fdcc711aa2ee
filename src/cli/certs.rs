//! A directory with the interception CA for `SSL_CERT_DIR`. OpenSSL looks a CA up there by a hash of its subject, which
//! the machine's own `openssl` computes; without one the certificate is there for those that read every file.

use super::CliError;
use super::environment::{make_directory, write_file};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The certificate's name in the directory.
const CERTIFICATE: &str = "nexus-ca.pem";

/// Makes the directory with this PEM; what is right already is left alone.
pub(super) fn write(ca: &str, directory: &Path) -> Result<PathBuf, CliError> {
    let certs = directory.join("certs");
    make_directory(&certs)?;
    let certificate = certs.join(CERTIFICATE);
    let is_new = std::fs::read(&certificate).map_or(true, |old| old != ca.as_bytes());
    let mut links = links(&certs);
    if is_new {
        write_file(&certificate, ca, 0o644)?;
        // They are named after the CA that was there before.
        for link in links.drain(..) {
            std::fs::remove_file(&link).map_err(CliError::io(&link))?;
        }
    }
    if links.is_empty()
        && let Some(hash) = subject_hash(&certificate)
    {
        // Another command may have made it just now.
        let _ = symlink(CERTIFICATE, certs.join(format!("{hash}.0")));
    }
    Ok(certs)
}

fn links(certs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(certs).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| std::fs::read_link(path).is_ok_and(|target| target == Path::new(CERTIFICATE))).collect()
}

fn subject_hash(certificate: &Path) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-subject_hash", "-in"]).arg(certificate).stdin(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let hash = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hash)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn ca(name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn the_ca_is_there_by_name_and_by_hash() {
        let has_openssl = Command::new("openssl").arg("version").output().is_ok();
        let directory = tempfile::tempdir().unwrap();
        let mut before = Vec::new();
        for name in ["one", "two"] {
            let ca = ca(name);
            let certs = write(&ca, directory.path()).unwrap();
            assert_eq!(std::fs::read_to_string(certs.join(CERTIFICATE)).unwrap(), ca);
            let links = links(&certs);
            assert_eq!(links.len(), usize::from(has_openssl), "{name}: the link of an earlier CA is gone");
            assert!(!has_openssl || links != before, "{name}");
            for link in &links {
                assert_eq!(std::fs::read_to_string(link).unwrap(), ca);
            }
            assert_eq!(write(&ca, directory.path()).unwrap(), certs);
            before = links;
        }
    }
}
