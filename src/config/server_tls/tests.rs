#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use rcgen::{CertificateParams, KeyPair};

struct Files {
    home: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { home: tempfile::tempdir().unwrap() };
        files.write(&["proxy.test", "*.proxy.test", "127.0.0.1", "::1"]);
        files
    }

    fn write(&self, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn tls(&self) -> TlsFiles {
        TlsFiles { cert: self.path("cert.pem"), key: self.path("key.pem"), client_ca: None }
    }

    fn problems(&self, files: &TlsFiles) -> Vec<FileOf> {
        problems(files, self.home.path()).iter().map(|problem| problem.file).collect()
    }

    fn load(&self, previous: &Arc<ListenersTls>) -> Result<Arc<ListenersTls>, TlsError> {
        let listener = ListenerConfig { tls: Some(self.tls()), ..ListenerConfig::plain(([127, 0, 0, 1], 1).into()) };
        let plain = ListenerConfig::plain(([127, 0, 0, 1], 2).into());
        ListenersTls::load(&[plain, listener], self.home.path(), "install", previous)
    }
}

#[test]
fn every_problem_is_found() {
    use FileOf::{Certificate, ClientCa, Key};
    let files = Files::new();
    assert_eq!(files.problems(&files.tls()), []);
    let missing = files.path("missing.pem");
    let rows = [
        (
            "both missing",
            TlsFiles { cert: missing.clone(), key: missing.clone(), client_ca: None },
            vec![Certificate, Key],
        ),
        ("key missing", TlsFiles { key: missing.clone(), ..files.tls() }, vec![Key]),
        (
            "swapped",
            TlsFiles { cert: files.path("key.pem"), key: files.path("cert.pem"), client_ca: None },
            vec![Certificate, Key],
        ),
        ("no CA", TlsFiles { client_ca: Some(missing), ..files.tls() }, vec![ClientCa]),
        ("CA without one", TlsFiles { client_ca: Some(files.path("key.pem")), ..files.tls() }, vec![ClientCa]),
        ("CA", TlsFiles { client_ca: Some(files.path("cert.pem")), ..files.tls() }, vec![]),
    ];
    for (name, tls, expected) in rows {
        assert_eq!(files.problems(&tls), expected, "{name}");
    }
}

#[test]
fn what_did_not_change_is_kept_and_what_did_is_whole() {
    let files = Files::new();
    let first = files.load(&Arc::default()).unwrap();
    assert!(first.of(0).is_none() && first.of(1).is_some() && first.of(2).is_none());
    assert!(Arc::ptr_eq(&files.load(&first).unwrap(), &first));
    let old_key = std::fs::read(files.path("key.pem")).unwrap();
    files.write(&["other.test"]);
    let second = files.load(&first).unwrap();
    assert!(!Arc::ptr_eq(&second, &first));
    std::fs::write(files.path("key.pem"), old_key).unwrap();
    assert_eq!(files.load(&second).unwrap_err().file, FileOf::Key);
}

#[test]
fn without_tls_nothing_ever_changes() {
    let files = Files::new();
    let plain = [ListenerConfig::plain(([127, 0, 0, 1], 2).into())];
    let first = ListenersTls::load(&plain, files.home.path(), "install", &Arc::default()).unwrap();
    let second = ListenersTls::load(&plain, files.home.path(), "install", &first).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "a reload of files finds no change");
}

#[test]
fn the_settings_are_strict() {
    let files = Files::new();
    let loaded = files.load(&Arc::default()).unwrap();
    let config = &loaded.of(1).unwrap().config;
    assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert_eq!(config.max_early_data_size, 0, "early data can be replayed");
}

#[test]
fn a_server_is_told_by_what_its_certificate_has() {
    let files = Files::new();
    let host = |address: &str| files.load(&Arc::default()).unwrap().of(1).unwrap().host(address.parse().unwrap());
    assert_eq!(host("127.0.0.1"), "127.0.0.1");
    assert_eq!(host("::1"), "[::1]");
    assert_eq!(host("10.0.0.1"), "proxy.test");
    files.write(&["*.proxy.test"]);
    assert_eq!(host("10.0.0.1"), "10.0.0.1", "a pattern is no name");
}
