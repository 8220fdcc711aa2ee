//! Who this process is, as the holder of refresh leases.

use crate::secret::random_bytes;
use crate::store::LeaseOwner;

/// This process. Where the system does not tell (no `/proc`), a random boot id stands for "some other host": such a
/// lease ends by time only.
pub(super) fn this_process() -> LeaseOwner {
    let pid = std::process::id();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let started = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| start_time(&stat));
    match (boot, started) {
        (Some(boot), Some(started)) => LeaseOwner { boot: boot.trim().to_owned(), pid, started },
        _ => LeaseOwner { boot: format!("{:032x}", u128::from_be_bytes(random_bytes())), pid, started: 0 },
    }
}

/// Field 22 of `/proc/PID/stat`. The second field, the program's name in parentheses, may have spaces in it.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{start_time, this_process};

    #[test]
    fn start_time_is_read_past_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 20";
        assert_eq!(start_time(stat), Some(987_654));
        assert_eq!(start_time("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_always_the_same() {
        assert_eq!(this_process().pid, std::process::id());
        if std::path::Path::new("/proc/self/stat").exists() {
            assert_eq!(this_process(), this_process());
        }
    }
}
