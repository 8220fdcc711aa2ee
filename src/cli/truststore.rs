//! A PKCS#12 trust store for Java, made with the machine's own `keytool`; without one it is left out.

use super::output;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The usual password of trust stores. It protects nothing: the store holds certificates only.
pub(super) const PASSWORD: &str = "changeit";

/// Makes the trust store unless it is there and newer than the CA.
pub(super) fn make(ca: &Path, directory: &Path) -> Option<PathBuf> {
    let store = directory.join("truststore.p12");
    let changed = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if changed(&store).is_some_and(|made| changed(ca).is_none_or(|ca| ca <= made)) {
        return Some(store);
    }
    let keytool = find_keytool()?;
    // Java takes seconds over it, so a waiting person is told.
    output::say("nexus: making a trust store for Java, this once");
    let cradle = directory.join(format!("truststore.{}", std::process::id()));
    let made = make_in(&cradle, &keytool, ca, &store);
    let _ = std::fs::remove_dir_all(&cradle);
    match made {
        Ok(()) => Some(store),
        Err(error) => {
            output::warn(&format!("no trust store for Java: {error}"));
            None
        }
    }
}

/// Makes it in a private directory and moves it out when its mode is right: keytool's own file may be writable by others.
fn make_in(cradle: &Path, keytool: &Path, ca: &Path, store: &Path) -> std::io::Result<()> {
    let _ = std::fs::remove_dir_all(cradle);
    std::fs::DirBuilder::new().mode(0o700).create(cradle)?;
    let born = cradle.join("truststore.p12");
    fill(keytool, ca, &born)?;
    std::fs::set_permissions(&born, Permissions::from_mode(0o644))?;
    std::fs::rename(&born, store)
}

fn fill(keytool: &Path, ca: &Path, store: &Path) -> std::io::Result<()> {
    let to = |command: &mut Command, prefix: &str| {
        command.arg(format!("-{prefix}keystore")).arg(store);
        command.args([&format!("-{prefix}storetype"), "PKCS12", &format!("-{prefix}storepass"), PASSWORD]);
    };
    if let Some(roots) = java_roots(keytool) {
        let mut command = Command::new(keytool);
        command.args(["-importkeystore", "-noprompt", "-srcstorepass", PASSWORD, "-srckeystore"]).arg(roots);
        to(&mut command, "dest");
        run(command)?;
    }
    let mut command = Command::new(keytool);
    command.args(["-importcert", "-noprompt", "-alias", "nexus-interception-ca", "-file"]).arg(ca);
    to(&mut command, "");
    run(command)
}

fn run(mut command: Command) -> std::io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Err(std::io::Error::other(output::printable(text.lines().next().unwrap_or("keytool failed"))))
}

fn find_keytool() -> Option<PathBuf> {
    let java_home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    java_home
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join("keytool"))
        .find(|p| p.is_file())
}

/// The roots of the Java installation that the tool belongs to.
fn java_roots(keytool: &Path) -> Option<PathBuf> {
    let home = keytool.canonicalize().ok()?.parent()?.parent()?.to_path_buf();
    Some(home.join("lib/security/cacerts")).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_store_is_made_where_java_is() {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, certificate.pem()).unwrap();
        let made = make(&ca, directory.path());
        assert_eq!(made.is_some(), find_keytool().is_some());
        if let Some(store) = made {
            let before = std::fs::metadata(&store).unwrap().modified().unwrap();
            assert_eq!(make(&ca, directory.path()), Some(store.clone()));
            assert_eq!(std::fs::metadata(&store).unwrap().modified().unwrap(), before, "it is made once");
            let keytool = find_keytool().unwrap();
            let mut command = Command::new(keytool);
            command.args(["-list", "-alias", "nexus-interception-ca", "-storepass", PASSWORD, "-keystore"]).arg(&store);
            run(command).unwrap();
        }
    }
}
