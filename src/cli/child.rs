//! A child process whose signals and exit code are passed through.

use super::CliError;
use crate::secret::Secret;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tokio::signal::unix::{SignalKind, signal};

/// What to run.
pub(super) struct Job<'a> {
    /// Program and arguments; at least one.
    pub(super) command: &'a [OsString],
    /// Variables to set.
    pub(super) variables: &'a [(String, Secret)],
    /// Variables to take away.
    pub(super) removed: &'a [String],
}

/// Runs the child to its end and gives the exit code by shell convention: its own, 128 + n for signal n, 127 when there
/// is no such program, 126 when it cannot be run.
pub(super) async fn run(job: &Job<'_>) -> Result<u8, CliError> {
    let Some((program, arguments)) = job.command.split_first() else {
        return Err(CliError::Usage("there is no command to run".to_owned()));
    };
    // Before the child starts, so that no signal falls between.
    let listen = |kind| signal(kind).map_err(CliError::io("signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    let mut hangup = listen(SignalKind::hangup())?;

    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    for name in job.removed {
        command.env_remove(name);
    }
    for (name, value) in job.variables {
        // The agent's environment is where its token goes.
        command.env(name, value.expose());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            super::output::say(&format!("nexus: {}: {error}", program.to_string_lossy()));
            return Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        super::process::restore_core_limit(pid);
    }
    let forward = |signal: Signal| {
        if let Some(pid) = pid {
            // A child that has just ended is no error.
            let _ = kill_process(pid, signal);
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => return status.map(exit_code).map_err(CliError::io(program)),
            _ = terminate.recv() => forward(Signal::TERM),
            _ = hangup.recv() => forward(Signal::HUP),
            // The terminal sends these to the whole foreground group: the child has had them.
            _ = interrupt.recv() => if !is_foreground() { forward(Signal::INT) },
            _ = quit.recv() => if !is_foreground() { forward(Signal::QUIT) },
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(255),
        (None, None) => 1,
    }
}

/// Whether this process is in the foreground group of its terminal.
fn is_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    async fn code(command: &[&str]) -> u8 {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let variables = [("NEXUS_TEST_SET".to_owned(), Secret::new("here".to_owned()))];
        run(&Job { command: &command, variables: &variables, removed: &["HOME".to_owned()] }).await.unwrap()
    }

    #[tokio::test]
    async fn exit_codes_are_passed_through() {
        for (name, command, expected) in [
            ("ok", vec!["true"], 0),
            ("own code", vec!["sh", "-c", "exit 37"], 37),
            ("killed", vec!["sh", "-c", "kill -9 $$"], 137),
            ("terminated", vec!["sh", "-c", "kill -15 $$"], 143),
            ("no such program", vec!["/nonexistent/program"], 127),
            ("not executable", vec!["/etc/passwd"], 126),
            ("variables", vec!["sh", "-c", "test \"$NEXUS_TEST_SET\" = here && test -z \"$HOME\""], 0),
        ] {
            assert_eq!(code(&command).await, expected, "{name}");
        }
    }
}
