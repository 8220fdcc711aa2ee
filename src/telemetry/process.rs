//! What the kernel says of this process, read when the metrics are asked for.

/// Ticks in a second of `/proc/PID/stat`: the kernel's ABI says 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time so far, in user and kernel mode.
pub(super) fn cpu_seconds() -> Option<f64> {
    parse_cpu_seconds(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

pub(super) fn resident_bytes() -> Option<u64> {
    parse_resident_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

pub(super) fn open_descriptors() -> Option<u64> {
    // One of them is the listing itself.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    // The command's name is in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok().map(f64::from);
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn parse_resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 100 200 300";
        assert_eq!(parse_cpu_seconds(stat), Some(2.0));
        assert_eq!(parse_cpu_seconds("42 (a"), None);
        assert_eq!(parse_resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(parse_resident_bytes("Name:\tx\n"), None);
        assert!(cpu_seconds().is_some() && resident_bytes() > Some(0) && open_descriptors() > Some(2));
    }
}
