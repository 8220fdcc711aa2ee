//! Writing variables in the language of a shell.

use crate::secret::Secret;

/// A language in which variables are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// bash, zsh, sh: `export NAME='value'`.
    #[value(alias = "sh", alias = "zsh")]
    Bash,
    /// fish: `set -gx NAME 'value'`.
    Fish,
    /// PowerShell: `$env:NAME = 'value'`.
    #[value(alias = "powershell")]
    Pwsh,
    /// A file for `docker run --env-file`.
    Docker,
    /// One JSON object.
    Json,
}

/// The text that sets the variables; the names of those that the language cannot carry come second.
pub(super) fn render(shell: Shell, variables: &[(String, Secret)]) -> (Secret, Vec<String>) {
    let mut text = String::new();
    let mut left_out = Vec::new();
    if shell == Shell::Json {
        // Printed on request: the variables are what `nexus env` is for.
        let object: serde_json::Map<String, serde_json::Value> =
            variables.iter().map(|(name, value)| (name.clone(), value.expose().into())).collect();
        text = serde_json::to_string_pretty(&object).expect("an object of strings has a text");
        text.push('\n');
        return (Secret::new(text), left_out);
    }
    for (name, value) in variables {
        let value = value.expose();
        match shell {
            Shell::Bash => text.push_str(&format!("export {name}='{}'\n", value.replace('\'', r"'\''"))),
            Shell::Fish => {
                text.push_str(&format!("set -gx {name} '{}'\n", value.replace('\\', r"\\").replace('\'', r"\'")));
            }
            Shell::Pwsh => text.push_str(&format!("$env:{name} = '{}'\n", pwsh_quote(value))),
            // The file has no quoting: a line is a variable.
            Shell::Docker if value.contains(['\n', '\r']) => left_out.push(name.clone()),
            Shell::Docker => text.push_str(&format!("{name}={value}\n")),
            Shell::Json => unreachable!("handled above"),
        }
    }
    (Secret::new(text), left_out)
}

/// PowerShell takes four typographic quotes for the plain one; each is doubled.
fn pwsh_quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            out.push(c);
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    const HOSTILE: [(&str, &str); 8] = [
        ("plain", "http://x:nxt_abc@127.0.0.1:8470"),
        ("quote", "it's"),
        ("only quotes", "''''"),
        ("command", "$(touch /tmp/no) `id` ${HOME}"),
        ("double quotes and backslashes", r#"a"b\c\'d\"#),
        ("spaces", "  two  words  "),
        ("line break", "a\nb; echo no"),
        ("typographic", "a\u{2019}; echo no"),
    ];

    fn one(value: &str) -> Vec<(String, Secret)> {
        vec![("NEXUS_TEST_VALUE".to_owned(), Secret::new(value.to_owned()))]
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        for (name, value) in HOSTILE {
            let (text, left_out) = render(Shell::Bash, &one(value));
            assert!(left_out.is_empty());
            let script = format!("{}printf %s \"$NEXUS_TEST_VALUE\"", text.expose());
            let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{name}");
        }
    }

    #[test]
    fn quoting_by_language() {
        for (name, shell, value, text) in [
            ("bash", Shell::Bash, "it's", "export NEXUS_TEST_VALUE='it'\\''s'\n"),
            ("fish quote", Shell::Fish, "it's", "set -gx NEXUS_TEST_VALUE 'it\\'s'\n"),
            ("fish backslash", Shell::Fish, "a\\", "set -gx NEXUS_TEST_VALUE 'a\\\\'\n"),
            ("pwsh", Shell::Pwsh, "it's $x", "$env:NEXUS_TEST_VALUE = 'it''s $x'\n"),
            ("pwsh typographic", Shell::Pwsh, "a\u{2019}", "$env:NEXUS_TEST_VALUE = 'a\u{2019}\u{2019}'\n"),
            ("docker", Shell::Docker, "it's \"x\"", "NEXUS_TEST_VALUE=it's \"x\"\n"),
            ("json", Shell::Json, "a\"b", "{\n  \"NEXUS_TEST_VALUE\": \"a\\\"b\"\n}\n"),
        ] {
            assert_eq!(render(shell, &one(value)).0.expose(), text, "{name}");
        }
    }

    #[test]
    fn docker_cannot_carry_line_breaks() {
        let (text, left_out) = render(Shell::Docker, &one("a\nEVIL=1"));
        assert_eq!(text.expose(), "");
        assert_eq!(left_out, ["NEXUS_TEST_VALUE"]);
    }
}
