//! Reading the root key from where the config says: a file, an environment variable, or a command's output.

use super::handover::handed;
use super::{Config, RootKeyForm, RootKeySource};
use crate::secret::{KeyError, RootKey, Secret};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tracing::warn;
use zeroize::Zeroizing;

/// Why the root key could not be read. Holds no part of it.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    /// The file could not be used, or what was read is not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The environment variable is not set.
    #[error("environment variable {variable} for the root key is not set; set it, or change store.root_key")]
    VariableMissing {
        /// Its name.
        variable: String,
    },
    /// The command did not start, or its output could not be read.
    #[error("root key command {program} could not be run: {source}")]
    CommandIo {
        /// The program; arguments are not shown.
        program: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The command failed.
    #[error("root key command {program} failed ({status}); run it by hand to see why")]
    CommandFailed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The command took too long and was ended.
    #[error("root key command {program} did not end within {limit:?}")]
    CommandTimeout {
        /// The program.
        program: String,
        /// The limit.
        limit: Duration,
    },
}

/// How long the command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// No form of a key is longer; more output is cut and then refused as not a key.
const MAX_OUTPUT: usize = 4096;

/// Reads the root key of this install. Blocks for as long as the command runs, 10 s at most; the command's working
/// directory is `home`.
///
/// # Errors
/// See [`RootKeyError`].
pub fn read_root_key(config: &Config, home: &Path, install_id: &str) -> Result<RootKey, RootKeyError> {
    let (text, origin) = match &config.root_key {
        RootKeySource::File(path) => {
            let path = home.join(path);
            return Ok(match config.root_key_form {
                RootKeyForm::Key => RootKey::load(&path)?,
                RootKeyForm::Passphrase => RootKey::load_passphrase(&path, install_id)?,
            });
        }
        RootKeySource::Env(variable) => (from_variable(variable)?, format!("variable {variable}")),
        RootKeySource::Command(words) => {
            let program = words.first().map_or("", String::as_str);
            (from_command(words, home, COMMAND_LIMIT)?, format!("output of {program}"))
        }
    };
    Ok(match config.root_key_form {
        RootKeyForm::Key => RootKey::parse(&text, &origin)?,
        RootKeyForm::Passphrase => RootKey::from_passphrase(&text, install_id, &origin)?,
    })
}

/// Where the next key of a key file is made: the same name with `.next`.
#[must_use]
pub fn next_key_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

/// Reads the root key that a rotation goes to: `store.next_root_key`, else the file beside the present key's. `None` when
/// there is neither.
///
/// # Errors
/// See [`RootKeyError`].
pub fn read_next_root_key(config: &Config, home: &Path, install_id: &str) -> Result<Option<RootKey>, RootKeyError> {
    let (root_key, root_key_form) = match (&config.next_root_key, config.key_file()) {
        (Some(source), _) => (source.clone(), config.next_root_key_form),
        (None, Some(path)) => {
            let next = next_key_file(&home.join(path));
            match next.try_exists() {
                Ok(false) => return Ok(None),
                _ => (RootKeySource::File(next), RootKeyForm::Key),
            }
        }
        (None, None) => return Ok(None),
    };
    read_root_key(&Config { root_key, root_key_form, ..config.clone() }, home, install_id).map(Some)
}

/// The variable's text; what is not UTF-8 is neither a key nor a passphrase and comes out empty, which is refused.
fn from_variable(variable: &str) -> Result<Secret, RootKeyError> {
    let text = match (handed(variable), std::env::var(variable)) {
        (Some(text), _) => text,
        (None, Ok(text)) => Secret::new(text),
        (None, Err(std::env::VarError::NotPresent)) => {
            return Err(RootKeyError::VariableMissing { variable: variable.to_owned() });
        }
        (None, Err(std::env::VarError::NotUnicode(_))) => Secret::new(String::new()),
    };
    warn!(
        variable,
        "the root key comes from environment variable {variable}, which whatever started this program has as well, and \
         which was in /proc until the program had started anew without it; a file or a command is safer"
    );
    Ok(text)
}

fn from_command(words: &[String], home: &Path, limit: Duration) -> Result<Secret, RootKeyError> {
    let program = words.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command.args(words.iter().skip(1)).current_dir(home);
    run_command(command, program, limit)
}

fn run_command(mut command: Command, program: &str, limit: Duration) -> Result<Secret, RootKeyError> {
    let program = program.to_owned();
    let io_error = |source| RootKeyError::CommandIo { program: program.clone(), source };
    let deadline = Instant::now() + limit;
    // In a process group of its own, to be ended as a whole.
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(io_error)?;
    drop(command);
    let outcome = read_output(&mut child, deadline);
    let status = match outcome {
        Ok(_) => wait_until(&mut child, deadline),
        Err(_) => Ok(None),
    };
    if !matches!(status, Ok(Some(_))) {
        // With all that it started. It may have ended by itself meanwhile, which is as good.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = child.kill();
        let _ = child.wait();
    }
    let output = match outcome {
        Ok(output) => output.map_err(io_error)?,
        Err(mpsc::RecvTimeoutError::Timeout) => return Err(RootKeyError::CommandTimeout { program, limit }),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            return Err(io_error(std::io::Error::other("its output could not be read")));
        }
    };
    match status.map_err(io_error)? {
        Some(status) if status.success() => {}
        Some(status) => return Err(RootKeyError::CommandFailed { program, status }),
        None => return Err(RootKeyError::CommandTimeout { program, limit }),
    }
    Ok(output)
}

type Output = std::io::Result<Secret>;

/// Reads standard output to its end on a thread of its own, so that a silent command cannot hold the caller.
fn read_output(child: &mut Child, deadline: Instant) -> Result<Output, mpsc::RecvTimeoutError> {
    let Some(stdout) = child.stdout.take() else { return Err(mpsc::RecvTimeoutError::Disconnected) };
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = sender.send(read_capped(stdout));
    });
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
}

fn read_capped(stdout: impl Read) -> Output {
    // The whole capacity at once: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT + 1));
    let mut rest = stdout.take(MAX_OUTPUT as u64);
    let mut chunk = Zeroizing::new([0; 512]);
    loop {
        match rest.read(&mut chunk[..]) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Bytes that are not UTF-8 are not a key either; an empty text says so.
    Ok(Secret::new(String::from_utf8(std::mem::take(&mut *bytes)).unwrap_or_else(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        String::new()
    })))
}

fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            ended => return Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const INSTALL: &str = "0123456789abcdef0123456789abcdef";

    fn run(script: &str, limit: Duration) -> Result<RootKey, RootKeyError> {
        let words = ["sh", "-c", script].map(str::to_owned);
        let text = from_command(&words, &std::env::temp_dir(), limit)?;
        Ok(RootKey::parse(&text, "output of sh")?)
    }

    #[test]
    fn a_command_prints_the_key() {
        assert!(run("printf '%064d\\n' 7", COMMAND_LIMIT).is_ok());
    }

    #[test]
    fn a_command_that_fails_is_told_without_its_output() {
        type Expected = fn(&RootKeyError) -> bool;
        let cases: [(&str, &str, Expected); 5] = [
            ("fails", "printf '%064d' 7; exit 3", |e| matches!(e, RootKeyError::CommandFailed { .. })),
            ("not a key", "echo hunter2", |e| matches!(e, RootKeyError::Key(KeyError::Form { .. }))),
            ("not text", "printf '\\377'", |e| matches!(e, RootKeyError::Key(KeyError::Form { .. }))),
            ("endless", "yes", |e| matches!(e, RootKeyError::CommandFailed { .. } | RootKeyError::Key(_))),
            ("nothing", "true", |e| matches!(e, RootKeyError::Key(KeyError::Form { .. }))),
        ];
        for (name, script, expected) in cases {
            let error = run(script, COMMAND_LIMIT).err().unwrap();
            assert!(expected(&error), "{name}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{name}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        for script in ["sleep 60", "printf x; exec >&-; exec sleep 60", "sleep 60 & printf x"] {
            let error = run(script, Duration::from_millis(200)).err().unwrap();
            assert!(matches!(error, RootKeyError::CommandTimeout { .. }), "{script}: {error:?}");
        }
    }

    #[test]
    fn what_a_command_started_is_ended_with_it() {
        // The reader's end of the pipe closes only when nobody holds the other one.
        let (mut alive, held) = std::io::pipe().unwrap();
        let words = ["sh", "-c", "sleep 60 & sleep 60"].map(str::to_owned);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stderr(held);
        let error = run_command(command, "sh", Duration::from_millis(200)).err().unwrap();
        assert!(matches!(error, RootKeyError::CommandTimeout { .. }), "{error:?}");
        assert_eq!(alive.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn an_absent_program_or_variable_is_named() {
        let words = ["/nonexistent/program".to_owned()];
        let error = from_command(&words, Path::new("/"), COMMAND_LIMIT).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/program"), "{error}");
        let error = from_variable("NEXUS_TEST_ABSENT_VARIABLE").err().unwrap();
        assert!(error.to_string().contains("NEXUS_TEST_ABSENT_VARIABLE"), "{error}");
    }

    #[test]
    fn a_key_file_is_read_relative_to_the_home() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("root.key");
        std::fs::write(&path, "07".repeat(32)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read_root_key(&Config::default(), home.path(), INSTALL).is_ok());
    }

    #[test]
    fn a_passphrase_may_come_from_each_source() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("passphrase");
        std::fs::write(&path, "correct horse battery\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let words = ["sh", "-c", "cat passphrase"].map(str::to_owned);
        let read = |root_key, install| {
            let config = Config { root_key, root_key_form: RootKeyForm::Passphrase, ..Config::default() };
            let key = read_root_key(&config, home.path(), install).unwrap();
            crate::secret::Keyring::new(&key, install).key_id()
        };
        let from_file = read(RootKeySource::File("passphrase".into()), INSTALL);
        assert_eq!(from_file, read(RootKeySource::Command(words.into()), INSTALL));
        assert_ne!(from_file, read(RootKeySource::File("passphrase".into()), "another install"));
        let short = RootKeySource::Command(["echo", "hunter2"].map(str::to_owned).into());
        let config = Config { root_key: short, root_key_form: RootKeyForm::Passphrase, ..Config::default() };
        let error = read_root_key(&config, home.path(), INSTALL).unwrap_err().to_string();
        assert!(error.contains("output of echo") && !error.contains("hunter2"), "{error}");
    }
}
