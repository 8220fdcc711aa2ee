//! A root key that came in an environment variable: given through a pipe to this program, started anew without the
//! variable. Unsetting would not do, since the kernel shows the environment that a process was started with.

use super::RootKeySource;
use crate::secret::Secret;
use rustix::io::{FdFlags, fcntl_setfd};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// The variable that names the pipe's reading end to the program that is started anew. Nothing secret.
pub const ROOT_KEY_DESCRIPTOR: &str = "NEXUS_ROOT_KEY_FD";

/// No key and no passphrase is longer, and a pipe takes as much without a reader.
const LONGEST: usize = 4096;

/// What came through the pipe, and the variable that it was in.
static HANDED: OnceLock<(String, Secret)> = OnceLock::new();

/// Takes the root key's variable out of the environment of this process by starting the program anew, which then takes
/// the key from the pipe. Returns when there is nothing to hide, in the program that was started anew, and with an
/// error. Call it before there are threads.
///
/// # Errors
/// When the program cannot be started anew: the variable stays where it is.
pub fn hide_root_key(source: &RootKeySource) -> io::Result<()> {
    let RootKeySource::Env(variable) = source else { return Ok(()) };
    let Some(value) = std::env::var_os(variable) else {
        return std::env::var_os(ROOT_KEY_DESCRIPTOR).map_or(Ok(()), |descriptor| take(variable, &descriptor));
    };
    let value = Zeroizing::new(value.into_vec());
    if value.len() > LONGEST {
        // Not a key, which is said where it is read.
        return Ok(());
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(&value)?;
    drop(writer);
    fcntl_setfd(&reader, FdFlags::empty())?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("nexus"));
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(arguments);
    command.env_remove(variable).env(ROOT_KEY_DESCRIPTOR, reader.as_raw_fd().to_string());
    Err(command.exec())
}

/// Reads the key from the pipe, once, and closes it.
fn take(variable: &str, descriptor: &OsStr) -> io::Result<()> {
    let wrong = || io::Error::other(format!("{ROOT_KEY_DESCRIPTOR} does not name a pipe"));
    let number: i32 = descriptor.to_str().and_then(|text| text.parse().ok()).filter(|n| *n > 2).ok_or_else(wrong)?;
    let opened = File::open(format!("/proc/self/fd/{number}"))?;
    if !opened.metadata()?.file_type().is_fifo() {
        return Err(wrong());
    }
    nix::unistd::close(number)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
    opened.take(LONGEST as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8(std::mem::take(&mut *bytes)).unwrap_or_else(|error| {
        // Not a key either; an empty text says so.
        drop(Zeroizing::new(error.into_bytes()));
        String::new()
    });
    let _ = HANDED.set((variable.to_owned(), Secret::new(text)));
    // The kernel names a process after the file that was started, which was `/proc/self/exe`.
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or(OsStr::new("nexus"));
    if let Ok(name) = CString::new(name.as_bytes()) {
        rustix::thread::set_name(&name)?;
    }
    Ok(())
}

/// What was in the variable when the program was started first.
pub(super) fn handed(variable: &str) -> Option<Secret> {
    HANDED.get().filter(|(name, _)| name == variable).map(|(_, value)| value.duplicate())
}
