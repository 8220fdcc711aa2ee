//! A root key that came in an environment variable: given through a pipe to this program, started anew without the
//! variable. Unsetting would not do, since the kernel shows the environment that a process was started with.

use super::{Config, RootKeySource};
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

/// No key and no passphrase is longer.
const LONGEST: usize = 4096;

/// Of both variables together, with their names. A pipe takes as much without a reader.
const LONGEST_TEXT: usize = 12 << 10;

/// What came through the pipe: variables and what was in them.
static HANDED: OnceLock<Vec<(String, Secret)>> = OnceLock::new();

/// Takes the root keys' variables out of the environment of this process by starting the program anew, which then takes
/// the keys from the pipe. Returns when there is nothing to hide, in the program that was started anew, and with an
/// error. Call it before there are threads.
///
/// # Errors
/// When the program cannot be started anew: the variables stay where they are.
pub fn hide_root_keys(config: &Config) -> io::Result<()> {
    let sources = [Some(&config.root_key), config.next_root_key.as_ref()];
    let mut variables: Vec<&str> = Vec::new();
    for source in sources.into_iter().flatten() {
        if let RootKeySource::Env(variable) = source
            && !variables.contains(&variable.as_str())
        {
            variables.push(variable);
        }
    }
    // The whole size at once: a buffer that grows leaves copies behind. Neither part can have a NUL.
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TEXT));
    for variable in &variables {
        let Some(value) = std::env::var_os(variable) else { continue };
        let value = Zeroizing::new(value.into_vec());
        // What is longer is not a key, which is said where it is read.
        if value.len() <= LONGEST && text.len() + variable.len() + value.len() + 2 <= LONGEST_TEXT {
            for part in [variable.as_bytes(), &value] {
                text.extend_from_slice(part);
                text.push(0);
            }
        }
    }
    if text.is_empty() {
        let descriptor = (!variables.is_empty()).then(|| std::env::var_os(ROOT_KEY_DESCRIPTOR)).flatten();
        return descriptor.map_or(Ok(()), |descriptor| take(&descriptor));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(&text)?;
    drop(writer);
    fcntl_setfd(&reader, FdFlags::empty())?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("nexus"));
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(arguments).env(ROOT_KEY_DESCRIPTOR, reader.as_raw_fd().to_string());
    for variable in variables {
        command.env_remove(variable);
    }
    Err(command.exec())
}

/// Reads the keys from the pipe, once, and closes it.
fn take(descriptor: &OsStr) -> io::Result<()> {
    let wrong = || io::Error::other(format!("{ROOT_KEY_DESCRIPTOR} does not name a pipe"));
    let number: i32 = descriptor.to_str().and_then(|text| text.parse().ok()).filter(|n| *n > 2).ok_or_else(wrong)?;
    let opened = File::open(format!("/proc/self/fd/{number}"))?;
    if !opened.metadata()?.file_type().is_fifo() {
        return Err(wrong());
    }
    nix::unistd::close(number)?;
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TEXT + 1));
    opened.take(LONGEST_TEXT as u64).read_to_end(&mut text)?;
    // What is not UTF-8 is not a key either; an empty text says so.
    let read = |part: &[u8]| std::str::from_utf8(part).unwrap_or_default().to_owned();
    let mut parts = text.split(|byte| *byte == 0);
    let mut handed = Vec::new();
    while let (Some(variable), Some(value)) = (parts.next(), parts.next()) {
        handed.push((read(variable), Secret::new(read(value))));
    }
    let _ = HANDED.set(handed);
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
    HANDED.get()?.iter().find(|(name, _)| name == variable).map(|(_, value)| value.duplicate())
}
