//! CPU time and memory of a process, from /proc (Linux; man 5 proc).

use std::{fs, time::Duration};

use crate::cli::Failure;

/// /proc counts CPU time in ticks of 1/100 s on every architecture that this program runs on.
const TICK: Duration = Duration::from_millis(10);

/// The use of a process so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time of all its threads, to 10 ms.
    pub(super) cpu: Duration,
    /// Resident memory, in bytes.
    pub(super) resident_bytes: u64,
}

/// Reads the use of a process; `None` means this one.
pub(super) fn usage(pid: Option<u32>) -> Result<Usage, Failure> {
    let folder = pid.map_or_else(|| "/proc/self".into(), |pid| format!("/proc/{pid}"));
    let read = |name: &str| {
        fs::read_to_string(format!("{folder}/{name}")).map_err(|error| Failure::Usage(format!("--server-pid: {folder}/{name}: {error}")))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    let unreadable = || Failure::Unexpected(format!("{folder} is not as expected"));
    Ok(Usage { cpu: cpu(&stat).ok_or_else(unreadable)?, resident_bytes: resident(&status).ok_or_else(unreadable)? })
}

/// Fields 14 and 15 of `stat`, counted after the name, which may contain any character.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    Some(TICK * ticks)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000000 500";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!((cpu("42 (a"), resident("Name: x")), (None, None));
    }

    #[test]
    fn this_process_uses_memory_and_a_missing_one_is_an_error() {
        assert!(usage(None).unwrap().resident_bytes > 0);
        assert!(usage(Some(u32::MAX)).is_err());
    }
}
