//! Watching config and provider files: notify on the directories (so that Kubernetes' `..data` symlink swap is seen),
//! with a poll of contents every second as fallback, debounced.

use super::{check_text, read};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Calls back through the channel whenever something under these paths may have changed: at most once per 200 ms, within
/// two seconds of the change. The CA files, key sets and TLS files of listeners that the config names are watched too.
/// Once at the start, for what changed
/// before the watch began. Ends when the receiver is dropped.
pub fn watch_files(home: PathBuf, config_file: PathBuf) -> tokio::sync::mpsc::Receiver<()> {
    // One notice that was not taken yet stands for all changes up to the moment it is taken.
    let (changes, receiver) = tokio::sync::mpsc::channel(1);
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let (home, config_file) = (absolute(home), absolute(config_file));
    let thread = std::thread::Builder::new().name("nexus-watch".to_owned());
    if let Err(error) = thread.spawn(move || Watch::new(home, config_file).run(&changes)) {
        warn!("config and provider files are not watched: {error}");
    }
    receiver
}

/// How long contents must stay the same before they are reported.
const QUIET: Duration = Duration::from_millis(200);

/// How often contents are looked at without being told: bind mounts and overflows tell nothing.
const POLL: Duration = Duration::from_secs(1);

/// After this long of changing without rest, what is there is reported.
const RESTLESS: Duration = Duration::from_millis(800);

/// Symbolic links followed from one file, at most.
const MAX_LINKS: usize = 40;

/// What a file held: nothing readable, or a digest.
type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

struct Watch {
    home: PathBuf,
    config_file: PathBuf,
    /// CA files, key sets and TLS files of listeners, as in the last config that had no problems.
    named_files: Vec<PathBuf>,
    /// The config's digest that `named_files` was read from.
    named_files_of: Option<[u8; 32]>,
    notify: Option<RecommendedWatcher>,
    /// Watched directories with device and inode: the same path may become another directory.
    directories: BTreeMap<PathBuf, (u64, u64)>,
    events: Receiver<notify::Result<notify::Event>>,
    /// Keeps the channel open where notify does not work.
    _events: Sender<notify::Result<notify::Event>>,
}

impl Watch {
    fn new(home: PathBuf, config_file: PathBuf) -> Self {
        let (sender, events) = channel();
        let notify = notify::recommended_watcher(sender.clone())
            .inspect_err(|error| warn!("file notifications do not work here, so files are read every second: {error}"))
            .ok();
        Self {
            home,
            config_file,
            named_files: Vec::new(),
            named_files_of: None,
            notify,
            directories: BTreeMap::new(),
            events,
            _events: sender,
        }
    }

    fn run(mut self, changes: &tokio::sync::mpsc::Sender<()>) {
        self.follow();
        let mut reported = self.contents();
        // A full channel has a notice waiting already, which is all that is to be said.
        let _ = changes.try_send(());
        while !changes.is_closed() {
            self.wait_for_event();
            self.follow();
            if self.contents() != reported {
                reported = self.settled();
                let _ = changes.try_send(());
            }
        }
    }

    /// Waits for an event about a watched file, until the next poll is due at most.
    fn wait_for_event(&self) {
        let due = Instant::now() + POLL;
        while let Ok(event) = self.events.recv_timeout(due.saturating_duration_since(Instant::now())) {
            if self.concerns(&event) {
                return;
            }
        }
    }

    /// Contents that stayed the same for a while.
    fn settled(&mut self) -> Contents {
        let give_up = Instant::now() + RESTLESS;
        let mut last = self.contents();
        loop {
            self.drain(Instant::now() + QUIET);
            self.follow();
            let now = self.contents();
            if now == last || Instant::now() >= give_up {
                return now;
            }
            last = now;
        }
    }

    fn drain(&self, until: Instant) {
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether contents may have changed. Reading is no change, and the home holds busy files that are none of ours.
    fn concerns(&self, event: &notify::Result<notify::Event>) -> bool {
        let Ok(event) = event else { return true };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            _ => {}
        }
        event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(|path| !self.is_busy(path))
    }

    /// Whether a path is the store's or the audit spool's, which are written all the time.
    fn is_busy(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.home) else { return false };
        let Some(first) = inside.components().next() else { return false };
        let name = first.as_os_str().to_string_lossy();
        let is_database = name.ends_with(".db") || name.ends_with("-wal") || name.ends_with("-shm");
        is_database || name.ends_with("-journal") || name == "audit"
    }

    /// Watches the directories that matter now, and no others.
    fn follow(&mut self) {
        self.find_named_files();
        let Some(notify) = &mut self.notify else { return };
        let mut wanted = BTreeMap::new();
        for directory in directories(&self.home, &self.config_file, &self.named_files) {
            if let Ok(metadata) = std::fs::metadata(&directory)
                && metadata.is_dir()
            {
                wanted.insert(directory, (metadata.dev(), metadata.ino()));
            }
        }
        if wanted == self.directories {
            return;
        }
        for directory in self.directories.keys() {
            if wanted.get(directory) != self.directories.get(directory) {
                // A directory that was deleted has lost its watch by itself.
                let _ = notify.unwatch(directory);
            }
        }
        // Those that could not be watched are tried again with the next poll.
        wanted.retain(|directory, identity| {
            if self.directories.get(directory) == Some(identity) {
                return true;
            }
            let watched = notify.watch(directory, RecursiveMode::NonRecursive);
            watched.inspect_err(|error| debug!("{} is polled only: {error}", directory.display())).is_ok()
        });
        self.directories = wanted;
    }

    /// Reads the list of named files anew when the config file changed.
    fn find_named_files(&mut self) {
        let digest = read::digest(&self.config_file);
        if digest.is_none() || digest == self.named_files_of {
            return;
        }
        self.named_files_of = digest;
        if let Ok(Some(text)) = read::read_text(&self.config_file)
            && let Ok(config) = check_text("", &text, &self.home)
        {
            self.named_files = config.key_files().cloned().collect();
            self.named_files.extend(config.ca_files);
            let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
            self.named_files.extend(tls.flat_map(|files| files.paths()).cloned());
        }
    }

    /// Digests of everything that a reload reads.
    fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        let mut add = |path: PathBuf| {
            let digest = read::digest(&path);
            contents.insert(path, digest);
        };
        add(self.config_file.clone());
        self.named_files.iter().cloned().for_each(&mut add);
        for entry in std::fs::read_dir(self.home.join("providers")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                add(path);
            }
        }
        contents
    }
}

/// The directories in which a change can change what the files hold: of each file, of each symbolic link on the way to
/// it, and the providers' own.
fn directories(home: &Path, config_file: &Path, named_files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::from([home.to_owned(), home.join("providers")]);
    for file in std::iter::once(config_file).chain(named_files.iter().map(PathBuf::as_path)) {
        let mut path = file.to_owned();
        for _ in 0..MAX_LINKS {
            let Some(parent) = path.parent().map(Path::to_owned) else { break };
            directories.insert(parent.clone());
            match std::fs::read_link(&path) {
                Ok(target) => path = parent.join(target),
                Err(_) => break,
            }
        }
        directories.extend(std::fs::canonicalize(file).ok().and_then(|path| path.parent().map(Path::to_owned)));
    }
    directories
}

#[cfg(test)]
mod tests;
