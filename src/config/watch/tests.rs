#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// Far more than any of this takes, so that a busy machine fails nothing.
const PATIENCE: Duration = Duration::from_secs(60);

type Notices = tokio::sync::mpsc::Receiver<()>;

async fn notice(notices: &mut Notices) {
    tokio::time::timeout(PATIENCE, notices.recv()).await.expect("a notice comes").expect("the watch lives");
}

fn watched() -> (TempDir, PathBuf, Notices) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("nexus.toml");
    let notices = watch_files(home.path().to_owned(), file.clone());
    (home, file, notices)
}

#[tokio::test]
async fn files_that_appear_change_and_go_are_told() {
    let (home, file, mut notices) = watched();
    notice(&mut notices).await;
    std::fs::write(&file, "# one").unwrap();
    notice(&mut notices).await;
    std::fs::write(&file, "# two").unwrap();
    notice(&mut notices).await;
    std::fs::remove_file(&file).unwrap();
    notice(&mut notices).await;

    std::fs::create_dir(home.path().join("providers")).unwrap();
    let provider = home.path().join("providers/own.toml");
    std::fs::write(&provider, "a").unwrap();
    notice(&mut notices).await;
    std::fs::write(&provider, "b").unwrap();
    notice(&mut notices).await;

    // The same path, but another directory.
    std::fs::remove_dir_all(home.path().join("providers")).unwrap();
    notice(&mut notices).await;
    std::fs::create_dir(home.path().join("providers")).unwrap();
    std::fs::write(&provider, "c").unwrap();
    notice(&mut notices).await;
}

#[tokio::test]
async fn ca_files_are_watched_once_the_config_names_them() {
    let (home, file, mut notices) = watched();
    notice(&mut notices).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let ca = elsewhere.path().join("ca.pem");
    std::fs::write(&file, format!("[upstream]\nca_files = [{:?}]\n", ca.display().to_string())).unwrap();
    notice(&mut notices).await;
    std::fs::write(&ca, "one").unwrap();
    notice(&mut notices).await;
    std::fs::write(&ca, "two").unwrap();
    notice(&mut notices).await;
    drop(home);
}

#[tokio::test]
async fn the_store_and_reading_are_no_change() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("nexus.toml");
    std::fs::write(&file, "").unwrap();
    let watch = Watch::new(home.path().to_owned(), file.clone());
    let event = |kind, path: &str| Ok(notify::Event::new(kind).add_path(home.path().join(path)));
    let modify = EventKind::Modify(notify::event::ModifyKind::Any);
    for path in ["nexus.db", "nexus.db-wal", "nexus.db-shm", "audit/node-0/x"] {
        assert!(!watch.concerns(&event(modify, path)), "{path}");
    }
    for path in ["nexus.toml", "..data", "providers", "providers/x.toml"] {
        assert!(watch.concerns(&event(modify, path)), "{path}");
        assert!(!watch.concerns(&event(EventKind::Access(AccessKind::Open(AccessMode::Any)), path)), "{path}");
    }
    let overflow = notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    assert!(watch.concerns(&Ok(overflow)));
}

#[tokio::test]
async fn contents_are_polled_where_nothing_is_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("nexus.toml");
    let mut watch = Watch::new(home.path().to_owned(), file.clone());
    watch.notify = None;
    let (sender, mut notices) = tokio::sync::mpsc::channel(1);
    let thread = std::thread::spawn(move || watch.run(&sender));
    notice(&mut notices).await;
    for text in ["one", "two"] {
        std::fs::write(&file, text).unwrap();
        notice(&mut notices).await;
    }
    drop(notices);
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
}

/// A mounted ConfigMap: `nexus.toml -> ..data/nexus.toml`, `..data -> ..N`, swapped by a rename.
fn swap(mount: &Path, version: usize) {
    let directory = mount.join(format!("..{version}"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("nexus.toml"), text_of(version)).unwrap();
    symlink(format!("..{version}"), mount.join("..data_tmp")).unwrap();
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if version > 0 {
        std::fs::remove_dir_all(mount.join(format!("..{}", version - 1))).unwrap();
    }
}

fn text_of(version: usize) -> String {
    format!("[limits]\ntunnels_per_agent = {}\n", version + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_symlink_swaps_the_last_version_is_loaded() {
    let home = tempfile::tempdir().unwrap();
    let mount = tempfile::tempdir().unwrap();
    let file = mount.path().join("nexus.toml");
    swap(mount.path(), 0);
    symlink("..data/nexus.toml", &file).unwrap();
    let store =
        crate::store::SqliteStore::open(&home.path().join("nexus.db"), &crate::secret::RootKey::from_bytes(&[1; 32]))
            .await
            .unwrap();
    let (path, store) = (home.path().to_owned(), std::sync::Arc::new(store));
    let loader = super::super::Loader::start(path.clone(), Some(file.clone()), store, Vec::new()).await.unwrap();
    let mut notices = watch_files(path, file);
    let mut version = 0;
    for round in 0..10 {
        for _ in 0..5 {
            version += 1;
            swap(mount.path(), version);
            // Rounds differ in whether swaps fall into one quiet time or into several.
            tokio::time::sleep(Duration::from_millis(round * 30)).await;
        }
        while loader.snapshot().config.limits.tunnels_per_agent != version + 1 {
            notice(&mut notices).await;
            loader.reload_files().await.unwrap();
        }
    }
    assert_eq!(version, 50);
}

#[tokio::test]
async fn many_small_writes_end_with_the_whole_file() {
    let (_home, file, mut notices) = watched();
    notice(&mut notices).await;
    let text = text_of(7);
    let writer = tokio::task::spawn_blocking({
        let (file, text) = (file.clone(), text.clone());
        move || {
            use std::io::Write;
            let mut file = std::fs::File::create(file).unwrap();
            for byte in text.bytes() {
                file.write_all(&[byte]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    // Whoever reads on notices alone ends with the last version.
    loop {
        notice(&mut notices).await;
        if std::fs::read_to_string(&file).unwrap() == text {
            break;
        }
    }
    writer.await.unwrap();
}
