//! The layers: a module imports only from modules that `src/lib.rs` lists above it, and some crates have one home.

use std::path::{Path, PathBuf};

fn source_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn modules() -> Vec<String> {
    let lib = std::fs::read_to_string("src/lib.rs").unwrap();
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// Code lines of a module's files, comments left out, with the place they stand at.
fn lines_of(module: &str) -> Vec<(String, String)> {
    let mut files = vec![PathBuf::from(format!("src/{module}.rs"))];
    files.retain(|file| file.exists());
    let directory = PathBuf::from("src").join(module);
    if directory.is_dir() {
        source_files(&directory, &mut files);
    }
    assert!(!files.is_empty(), "module {module} has no file");
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") {
                lines.push((format!("{}:{}", file.display(), number + 1), line.to_owned()));
            }
        }
    }
    lines
}

/// Every module named after `crate::` in a line, in groups (`crate::{a, b::c}`) too.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        ' ' => {}
                        _ if start => {
                            found.push(word(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

#[test]
fn modules_import_only_from_below() {
    let modules = modules();
    assert!(modules.len() > 15, "src/lib.rs lists the modules");
    let mut broken = Vec::new();
    for (level, module) in modules.iter().enumerate() {
        for (place, line) in lines_of(module) {
            for import in imports(&line) {
                match modules.iter().position(|known| *known == import) {
                    Some(imported) if imported > level => {
                        broken.push(format!(
                            "{place}: {module} imports {import}, which stands above it: {}",
                            line.trim()
                        ));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn crates_have_their_homes() {
    let homes: &[(&str, &[&str])] = &[
        ("pingora_core::", &["listener", "app"]),
        ("hyper::", &["net", "proxy", "admin", "listener", "cli"]),
        ("rcgen::", &["identity", "listener", "cli"]),
        ("sqlx::", &["store"]),
        ("prometheus::", &["telemetry"]),
        ("hickory_resolver::", &["net"]),
        ("idna::", &["types"]),
        ("TcpStream::connect", &["net", "cli"]),
    ];
    let mut broken = Vec::new();
    for module in modules() {
        for (place, line) in lines_of(&module) {
            let is_test = place.contains("/tests") || place.contains("testing.rs") || place.contains("harness.rs");
            for (path, allowed) in homes {
                let used = line
                    .match_indices(path)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"'));
                if used && !is_test && !allowed.contains(&module.as_str()) {
                    broken.push(format!("{place}: {module} uses {path}: {}", line.trim()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn imports_are_found() {
    let cases: &[(&str, &[&str])] = &[
        ("use crate::types::Host;", &["types"]),
        ("use crate::{net::Pool, types::{Host, Target}, store};", &["net", "types", "store"]),
        ("let x: crate::secret::Secret = crate::types::y();", &["secret", "types"]),
    ];
    for (line, expected) in cases {
        assert_eq!(imports(line), *expected, "{line}");
    }
}
