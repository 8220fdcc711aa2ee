//! The socket's file: bound for its owner alone from birth, a dead one replaced, a live one never.

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A socket's address holds 107 bytes on Linux, and fewer elsewhere.
const ADDRESS_BYTES: usize = 100;

/// How long another server may take to bind.
const PATIENCE: Duration = Duration::from_secs(5);

/// A private directory that the socket is born in.
const CRADLE: &str = ".nexus.sock.new";

/// A socket file that is ours; removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Binds the first of `nexus.sock` and `nexus-N.sock` that no live server has.
    pub(super) fn bind(home: &Path, node: u32) -> io::Result<(Self, UnixListener)> {
        // Two servers that start at once must not both replace the same dead socket.
        let _held = hold(home)?;
        for name in ["nexus.sock".to_owned(), format!("nexus-{node}.sock")] {
            if !is_live(&home.join(&name))? {
                return Self::replace(home, &name);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("a live server has nexus.sock and nexus-{node}.sock")))
    }

    /// Binds this path. A dead socket there is replaced, a live one or another file never.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind_at(path: PathBuf) -> io::Result<(Self, UnixListener)> {
        let bind = move || {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let _held = hold(parent)?;
            if is_live(&path)? {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "a live server has it"));
            }
            Self::replace(parent, name)
        };
        tokio::task::spawn_blocking(bind).await.map_err(io::Error::other)?
    }

    fn replace(home: &Path, name: &str) -> io::Result<(Self, UnixListener)> {
        let cradle = home.join(CRADLE);
        remove_cradle(&cradle)?;
        DirBuilder::new().mode(0o700).create(&cradle)?;
        let born = cradle.join("s");
        let bound = (|| {
            let listener = UnixListener::bind(Address::of(&born)?.path())?;
            listener.set_nonblocking(true)?;
            std::fs::set_permissions(&born, Permissions::from_mode(0o600))?;
            let metadata = std::fs::symlink_metadata(&born)?;
            let path = home.join(name);
            std::fs::rename(&born, &path)?;
            Ok((Self { path, identity: (metadata.dev(), metadata.ino()) }, listener))
        })();
        remove_cradle(&cradle)?;
        bound
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let metadata = std::fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!("socket {}: {error}", self.path.display());
        }
    }
}

/// What to bind or connect to for a path. One that is too long for an address goes through its opened directory.
pub(super) struct Address {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl Address {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= ADDRESS_BYTES || !cfg!(target_os = "linux") {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    /// Holds as long as this value lives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether something answers. What is there and is no socket is an error: it is not ours to replace.
fn is_live(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket; remove it"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // Without waiting: a full queue is a server that is busy.
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    let address = Address::of(path)?;
    match connect(&socket, &SocketAddrUnix::new(address.path())?).map_err(io::Error::from) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if is_dead(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a failed connect says that nobody listens there any more.
pub(super) fn is_dead(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// The home, locked against other servers that bind.
fn hold(home: &Path) -> io::Result<File> {
    let directory = File::open(home)?;
    let begin = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// An earlier server may have died and left one.
fn remove_cradle(cradle: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(cradle) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
