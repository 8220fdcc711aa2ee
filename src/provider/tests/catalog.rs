//! Own files beside the built-in ones.

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// [`ACME`] with aliases.
fn acme(aliases: &str) -> String {
    format!("aliases = [{aliases}]\n{ACME}")
}

fn source_of(catalog: &Catalog, name: &str) -> Option<(CatalogSource, String)> {
    let id = catalog.find(name)?.id.clone();
    let (source, definition) = catalog.iter().find(|(_, definition)| definition.id == id).unwrap();
    Some((source, definition.id.to_string()))
}

#[test]
fn an_absent_directory_gives_the_built_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::load(&directory.path().join("none")).unwrap();
    assert_eq!(catalog.iter().count(), BUILT_IN.len());
}

#[test]
fn own_files_add_and_replace() {
    use CatalogSource::{BuiltIn, Own};
    for (name, file, aliases, looked_for, expected) in [
        ("new id", "acme.toml", "", "ACME", Some((Own, "acme"))),
        ("new alias", "my-acme.toml", "\"acme\"", "acme", Some((Own, "my-acme"))),
        ("underscore", "my_acme.toml", "", "my-acme", Some((Own, "my_acme"))),
        ("same id", "github.toml", "", "github", Some((Own, "github"))),
        ("same id, alias gone", "github.toml", "", "gh", None),
        ("alias is a built-in id", "mine.toml", "\"GitHub\"", "github", Some((Own, "mine"))),
        ("id is a built-in alias", "gmail.toml", "", "gmail", Some((Own, "gmail"))),
        ("others keep theirs", "gmail.toml", "", "google-drive", Some((BuiltIn, "google"))),
        ("untouched", "acme.toml", "", "slack", Some((BuiltIn, "slack"))),
        ("unknown", "acme.toml", "", "nothing", None),
        ("not a provider file", "acme.toml.bak", "", "acme", None),
        ("hidden", ".acme.toml", "", "acme", None),
    ] {
        let directory = directory(&[(file, &acme(aliases))]);
        let catalog = Catalog::load(directory.path()).unwrap();
        let found = source_of(&catalog, looked_for);
        assert_eq!(found, expected.map(|(source, id)| (source, id.to_owned())), "{name}");
        let ids: Vec<&str> = catalog.iter().map(|(_, definition)| definition.id.as_str()).collect();
        assert!(ids.is_sorted(), "{name}");
    }
}

#[test]
fn every_problem_of_every_file_is_told() {
    let directory = directory(&[
        ("a.toml", "nam = \"x\"\n"),
        ("b.toml", &acme("\"shared\"")),
        ("c.toml", &acme("\"x\", \"Shared\"")),
        ("d.toml", "= broken"),
    ]);
    std::fs::write(directory.path().join("e.toml"), [0xff, 0xfe]).unwrap();
    std::fs::create_dir(directory.path().join("f.toml")).unwrap();
    let problems = Catalog::load(directory.path()).unwrap_err();
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for start in [
        "a.toml:1:1 nam: unknown key; did you mean name?",
        "c.toml:1:17 aliases[1]: \"Shared\" is the id or an alias of b.toml, too",
        "d.toml:1:1 ",
        "e.toml:1:1 cannot be read",
        "f.toml:1:1 cannot be read",
    ] {
        let start = format!("{}/{start}", directory.path().display());
        assert!(shown.iter().any(|problem| problem.starts_with(&start)), "{start} is in {shown:#?}");
    }
}

#[test]
fn the_revision_follows_the_bytes() {
    let one = parse_file("acme.toml", ACME).unwrap();
    let again = parse_file("acme.toml", ACME).unwrap();
    let other = parse_file("acme.toml", &format!("{ACME}# a remark\n")).unwrap();
    assert_eq!(one.revision, again.revision);
    assert_ne!(one.revision, other.revision);
    assert_eq!(one.revision.len(), 64);
}
