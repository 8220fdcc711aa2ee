#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::collections::HashMap;

fn files(truststore: Option<&str>) -> Files {
    Files {
        bundle: "/h/ca/bundle.pem".into(),
        extra: "/h/ca/ca.pem".into(),
        certs: "/h/ca/certs".into(),
        wgetrc: "/h/ca/wgetrc".into(),
        php: "/h/ca/php".into(),
        truststore: truststore.map(PathBuf::from),
    }
}

fn with(pairs: &[(&str, &str)], truststore: Option<&str>) -> HashMap<String, String> {
    let environment: HashMap<String, OsString> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let token = Secret::new("nxt_value".to_owned());
    variables("http://127.0.0.1:8470", &token, &files(truststore), &|name| environment.get(name).cloned())
        .into_iter()
        .map(|(name, value)| (name, value.expose().to_owned()))
        .collect()
}

#[test]
fn every_client_finds_its_variables() {
    let set = with(&[], Some("/h/ca/truststore.p12"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(set[name], "http://x:nxt_value@127.0.0.1:8470", "{name}");
    }
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] {
        assert_eq!(set[name], "/h/ca/bundle.pem", "{name}");
    }
    for name in ["NODE_EXTRA_CA_CERTS", "DENO_CERT"] {
        assert_eq!(set[name], "/h/ca/ca.pem", "{name}");
    }
    assert_eq!(set["NODE_USE_ENV_PROXY"], "1");
    assert_eq!(set["SSL_CERT_DIR"], "/h/ca/certs:/etc/ssl/certs");
    assert_eq!(set["WGETRC"], "/h/ca/wgetrc");
    assert_eq!(set["PHP_INI_SCAN_DIR"], ":/h/ca/php");
    assert_eq!(set["NO_PROXY"], "localhost,127.0.0.1,::1");
    assert_eq!(set["no_proxy"], set["NO_PROXY"]);
    assert!(set["JAVA_TOOL_OPTIONS"].contains("-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8470"));
    assert!(set["JAVA_TOOL_OPTIONS"].contains("-Djavax.net.ssl.trustStore=/h/ca/truststore.p12"));
    assert!(!set["JAVA_TOOL_OPTIONS"].contains("nxt_"), "Java cannot use the token, so it does not get it");
}

#[test]
fn what_a_variable_holds_already_is_kept() {
    let set = with(
        &[
            ("NO_PROXY", "internal.example, localhost"),
            ("no_proxy", "other.example"),
            ("PHP_INI_SCAN_DIR", "/etc/php"),
            ("SSL_CERT_DIR", "/own/certs"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
        ],
        None,
    );
    assert_eq!(set["NO_PROXY"], "internal.example,localhost,other.example,127.0.0.1,::1");
    assert_eq!(set["PHP_INI_SCAN_DIR"], "/etc/php:/h/ca/php");
    assert_eq!(set["SSL_CERT_DIR"], "/h/ca/certs:/own/certs");
    assert!(set["JAVA_TOOL_OPTIONS"].starts_with("-Xmx1g -Dhttp.proxyHost="));
    assert!(!set["JAVA_TOOL_OPTIONS"].contains("trustStore"));
}

#[test]
fn a_run_within_a_run_does_not_pile_up() {
    let first = with(&[("JAVA_TOOL_OPTIONS", "-Xmx1g")], None);
    let pairs: Vec<(&str, &str)> = first.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(with(&pairs, None), first);
}

#[test]
fn java_paths_with_spaces_are_quoted() {
    let set = with(&[], Some("/my home/truststore.p12"));
    assert!(set["JAVA_TOOL_OPTIONS"].contains(" \"-Djavax.net.ssl.trustStore=/my home/truststore.p12\" "));
}

#[test]
fn listeners_on_all_addresses_are_reached_by_loopback() {
    for (listen, reached) in [
        ("0.0.0.0:8470", "127.0.0.1:8470"),
        ("[::]:8470", "[::1]:8470"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("10.0.0.1:1", "10.0.0.1:1"),
    ] {
        assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
    }
}

#[test]
fn files_are_replaced_whole_and_keep_their_mode() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wgetrc");
    for text in ["one", "two", "two"] {
        write_file(&path, text, 0o600).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_bundle_has_each_root_once_and_the_ca_last() {
    let ca = pem(b"not a real certificate, but PEM all the same");
    let bundle = system_bundle(&ca);
    assert!(bundle.ends_with(&ca));
    assert_eq!(bundle.matches(&ca).count(), 1);
}

#[test]
fn clear_text_on_loopback_goes_before_tls() {
    let rows: [(&str, &[&str], Option<&str>); 5] = [
        ("none", &[], None),
        ("loopback", &["https://p.test:1", "http://10.0.0.1:2", "http://127.0.0.1:3"], Some("http://127.0.0.1:3")),
        ("tls", &["http://10.0.0.1:2", "https://p.test:1"], Some("https://p.test:1")),
        ("clear text alone", &["http://10.0.0.1:2"], Some("http://10.0.0.1:2")),
        ("v6", &["https://p.test:1", "http://[::1]:3"], Some("http://[::1]:3")),
    ];
    for (name, urls, expected) in rows {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        assert_eq!(best(urls).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_tls_proxy_is_no_proxy_for_java() {
    let token = Secret::new("nxt_value".to_owned());
    let set: HashMap<String, String> = variables("https://p.test:8472", &token, &files(None), &|_| None)
        .into_iter()
        .map(|(name, value)| (name, value.expose().to_owned()))
        .collect();
    assert_eq!(set["HTTPS_PROXY"], "https://x:nxt_value@p.test:8472");
    assert!(!set["JAVA_TOOL_OPTIONS"].contains("proxyHost"), "Java speaks to proxies in clear text");
}
