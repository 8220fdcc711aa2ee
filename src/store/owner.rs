//! Who holds a refresh lease, and whether that process still lives.

use super::LeaseOwner;
use std::fs;

impl LeaseOwner {
    /// This process.
    ///
    /// `boot` has the process id namespace after the boot id: containers on one host share the boot id, but the process
    /// ids of one mean nothing in the other. Without `/proc` it is empty and the lease ends by its time alone.
    #[must_use]
    pub fn current() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Self {
            boot: format!("{} {}", boot.trim(), namespace.display()).trim().to_owned(),
            pid,
            started: running_since(pid).unwrap_or_default(),
        }
    }

    /// Whether the owner is certainly gone, as seen by `observer`, which is this process. When it cannot be known (another
    /// container, no `/proc`), the answer is no.
    pub(super) fn is_dead(&self, observer: &Self) -> bool {
        let (boot, namespace) = split(&self.boot);
        let (here, namespace_here) = split(&observer.boot);
        if boot.is_empty() || here.is_empty() {
            return false;
        }
        if boot != here {
            return true;
        }
        namespace == namespace_here
            && fs::exists("/proc/self/stat").unwrap_or(false)
            && running_since(self.pid) != Some(self.started)
    }
}

fn split(boot: &str) -> (&str, &str) {
    boot.split_once(' ').unwrap_or((boot, ""))
}

/// The start time of a process in clock ticks since the boot; `None` when there is none, or only its exit status.
fn running_since(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself have spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // The state was field 3; the start time is field 22.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn this_process_lives() {
        let owner = LeaseOwner::current();
        assert_eq!(owner, LeaseOwner::current());
        assert!(owner.started > 0);
        assert_eq!(split(&owner.boot).0.len(), 36, "{}", owner.boot);
        assert!(!owner.is_dead(&owner));
    }

    #[test]
    fn a_killed_process_is_dead_before_and_after_it_is_reaped() {
        let here = LeaseOwner::current();
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let owner =
            LeaseOwner { pid: child.id(), started: running_since(child.id()).unwrap(), boot: here.boot.clone() };
        assert!(!owner.is_dead(&here));
        child.kill().unwrap();
        while !owner.is_dead(&here) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(owner.is_dead(&here));
    }

    #[test]
    fn what_cannot_be_known_is_not_dead() {
        let here = LeaseOwner { boot: "boot pid:[1]".to_owned(), ..LeaseOwner::current() };
        let owner = |boot: &str, started| LeaseOwner { boot: boot.to_owned(), pid: here.pid, started };
        let rows = [
            ("the same", owner("boot pid:[1]", here.started), false),
            ("process id used again", owner("boot pid:[1]", here.started + 1), true),
            ("another boot", owner("other pid:[1]", here.started), true),
            ("another container", owner("boot pid:[2]", here.started + 1), false),
            ("no boot id", owner("", here.started + 1), false),
        ];
        for (name, owner, dead) in rows {
            assert_eq!(owner.is_dead(&here), dead, "{name}");
        }
        let plain = LeaseOwner { boot: "boot".to_owned(), ..here.clone() };
        assert!(!plain.is_dead(&plain));
    }
}
