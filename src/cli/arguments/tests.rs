#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use clap::CommandFactory;

fn parse(line: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("nexus").chain(line.iter().copied()))
}

#[test]
fn the_definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn lines_of_the_contract_parse() {
    for line in [
        vec!["init"],
        vec!["--home", "/x", "init"],
        vec!["up", "--listen", "127.0.0.1:0"],
        vec!["up", "--listen", "127.0.0.1:1", "--listen", "[::1]:1", "--ready-fd", "3"],
        vec!["register", "github", "--stdin"],
        vec!["register", "jira", "--set", "site=acme", "--set", "user=me", "--stdin-json", "--name", "work"],
        vec!["register", "github", "--from-env", "TOKEN", "--replace", "--base-url", "https://ghe.example"],
        vec!["register", "google", "--app", "google", "--stdin-json"],
        vec!["register", "custom", "--name", "a", "--base-url", "https://a.test/v1", "--stdin"],
        vec![
            "register",
            "custom",
            "--name",
            "a",
            "--base-url",
            "http://a.test",
            "--allow-http",
            "--oauth",
            "refresh_token",
            "--token-url",
            "https://a.test/token",
            "--token-auth",
            "basic",
            "--scope",
            "a b",
            "--stdin-json",
        ],
        vec![
            "register",
            "custom",
            "--name",
            "a",
            "--base-url",
            "https://a.test",
            "--oauth",
            "client_credentials",
            "--token-url",
            "https://a.test/token",
            "--stdin-json",
        ],
        vec!["connection", "list", "-o", "json"],
        vec!["-o", "json", "connection", "show", "a"],
        vec!["connection", "set", "a", "--stdin"],
        vec!["connection", "test", "a"],
        vec!["connection", "disable", "a"],
        vec!["connection", "enable", "a"],
        vec!["connection", "delete", "a"],
        vec!["list", "--output", "json"],
        vec!["test", "a"],
        vec!["app", "set", "google", "--client-id", "x", "--stdin", "--redirect-uri", "https://a.test/cb"],
        vec!["app", "list"],
        vec!["app", "delete", "google"],
        vec!["token", "create", "--name", "ci", "--use", "a,b", "--expires", "90d"],
        vec!["token", "create", "--name", "ci", "--use", "a", "--methods", "GET,HEAD", "-o", "json"],
        vec!["token", "list", "--tenant", "t", "--namespace", "n"],
        vec!["token", "create", "--name", "ci", "--use", "a", "--hosts", "api.github.com,*.x.test"],
        vec!["token", "create", "--name", "ci", "--use", "a", "--scopes", "use,mint", "--expires", "never"],
        vec!["tenant", "create", "acme"],
        vec!["tenant", "list"],
        vec!["tenant", "delete", "acme", "--yes"],
        vec!["namespace", "list", "--tenant", "acme"],
        vec!["namespace", "delete", "prod", "--yes"],
        vec!["connection", "purge", "--all"],
        vec!["connection", "purge", "--older-than", "30d"],
        vec!["token", "rotate", "tok_0190", "--grace", "5m"],
        vec!["token", "revoke", "tok_0190"],
        vec!["run", "--", "claude"],
        vec!["run", "--use", "a,b", "--", "curl", "-o", "x", "--home", "y"],
        vec!["env", "--shell", "fish"],
        vec!["env", "--token-stdin", "--address", "nexus:8470"],
        vec!["ca", "path"],
        vec!["ca", "show"],
        vec!["ca", "export"],
        vec!["provider", "list"],
        vec!["provider", "show", "github"],
        vec!["provider", "check", "x.toml"],
        vec!["provider", "new"],
        vec!["doctor"],
        vec!["audit", "tail", "-n", "5", "-f"],
        vec!["audit", "query", "--since", "1h", "--agent", "a", "--connection", "c", "--host", "h", "--status", "4xx"],
        vec!["config", "check"],
        vec!["config", "check", "nexus.toml"],
    ] {
        if let Err(error) = parse(&line) {
            panic!("{line:?}: {error}");
        }
    }
}

#[test]
fn mistakes_are_usage_errors() {
    for (name, line) in [
        ("nothing", vec![]),
        ("unknown command", vec!["serve"]),
        ("unknown flag", vec!["init", "--force"]),
        ("no command to run", vec!["run", "--"]),
        ("a secret on the command line", vec!["register", "github", "--token", "ghp_x"]),
        ("two secret inputs", vec!["register", "github", "--stdin", "--stdin-json"]),
        ("stdin and variable", vec!["connection", "set", "a", "--stdin", "--from-env", "X"]),
        ("OAuth without token URL", vec!["register", "custom", "--oauth", "refresh_token"]),
        ("unknown grant", vec!["register", "custom", "--oauth", "password", "--token-url", "https://a.test/t"]),
        ("token without connections", vec!["token", "create", "--name", "a"]),
        ("bad duration", vec!["token", "create", "--name", "a", "--use", "b", "--expires", "soon"]),
        ("no time at all", vec!["token", "create", "--name", "a", "--use", "b", "--expires", "0s"]),
        ("bad method", vec!["token", "create", "--name", "a", "--use", "b", "--methods", "G T"]),
        ("bad host", vec!["token", "create", "--name", "a", "--use", "b", "--hosts", "a/b"]),
        ("bad scope", vec!["token", "create", "--name", "a", "--use", "b", "--scopes", "admin"]),
        ("both kinds of purge", vec!["connection", "purge", "--all", "--older-than", "1d"]),
        ("bad tenant", vec!["list", "--tenant", "a/b"]),
        ("bad name", vec!["register", "github", "--name", "a b"]),
        ("name like a token", vec!["register", "github", "--name", "nxt_abc"]),
        ("bad address", vec!["up", "--listen", "localhost"]),
        ("bad format", vec!["list", "-o", "yaml"]),
        ("bad status", vec!["audit", "query", "--status", "40"]),
        ("token twice", vec!["env", "--token-stdin", "--from-env", "X"]),
        ("token and connections", vec!["env", "--token-stdin", "--use", "a"]),
    ] {
        let error = parse(&line).expect_err(name);
        assert_eq!(error.exit_code(), 2, "{name}");
    }
}

#[test]
fn a_commands_own_flags_are_left_to_it() {
    let arguments = parse(&["run", "--use", "a", "curl", "-o", "json", "--use", "b"]).unwrap();
    assert_eq!(arguments.global.output, super::super::Format::Table);
    let shown = format!("{:?}", arguments.command);
    assert!(shown.contains(r#"connections: ["a"]"#), "{shown}");
    assert!(shown.contains(r#"["curl", "-o", "json", "--use", "b"]"#), "{shown}");
}

#[test]
fn every_command_has_help() {
    fn walk(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for argument in command.get_arguments().filter(|a| !matches!(a.get_id().as_str(), "help" | "version")) {
            assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Arguments::command());
}
