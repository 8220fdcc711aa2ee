//! Files that only their owner may read.

use super::random_bytes;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a new file that only its owner may read or write, whatever the umask. It is there whole, with these bytes,
/// or not at all, and survives a power loss once this returns.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when something has that name, a dangling symbolic link too: it is left as it is.
/// Otherwise what the file system says.
pub fn write_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = Temporary(temporary_name(directory, path)?);
    // `create_new` is O_CREAT|O_EXCL: no link that waits under the name is followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Unlike rename, link never replaces what is there: of two processes one wins and the other is told.
    std::fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    File::open(directory)?.sync_all()
}

fn temporary_name(directory: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_ne_bytes(random_bytes())));
    Ok(directory.join(temporary))
}

/// Removes the temporary name on every way out.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing to do when it fails: the name is random and the file is private.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_private_and_alone() {
        // The worst umask there is; no test depends on another.
        rustix::process::umask(rustix::fs::Mode::empty());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.key");
        write_private_file(&path, b"bytes").unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        assert_eq!(metadata.nlink(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
        assert_eq!(names(directory.path()), ["ca.key"]);
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("planted"), &link).unwrap();
        for path in [&path, &link] {
            assert_eq!(write_private_file(path, b"new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["file", "link"], "no planted file, no temporary file");
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_private_file(&directory.path().join("no/file"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(write_private_file(Path::new("/"), b"x").is_err());
    }

    #[test]
    fn of_many_writers_one_wins_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let wins: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || usize::from(write_private_file(path, &[n; 4096]).is_ok()))
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(wins, 1);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 4096);
        assert!(bytes.iter().all(|b| *b == bytes[0]));
    }
}
