//! Hardening of the process: no core files, no debuggers, and no swap if the system allows it. Reports what is in effect.

use std::{fmt, path::Path};

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

use crate::config::{MemoryConfig, MemoryLock};

/// What is in effect. Shown as one line at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardening {
    /// Whether core dumps and debuggers are blocked.
    pub dumps: Dumps,
    /// Whether memory can be swapped out.
    pub swap: Swap,
}

/// Whether the process can be dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumps {
    /// Not dumpable, core limit 0.
    Off,
    /// `[memory] dumpable = true`.
    AllowedByConfiguration,
}

/// Whether swapping can write key memory to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// All memory is locked.
    Locked,
    /// Not locked, but there is no swap.
    Nowhere(Swapless),
    /// It can be swapped. The reason why memory is not locked.
    Possible(String),
}

/// Why there is no swap although memory is not locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapless {
    /// The machine has no swap.
    Machine,
    /// `memory.swap.max` of the cgroup is 0.
    Cgroup,
}

/// `[memory] lock = "on"`, but memory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// Memory cannot be locked.
    #[error("[memory] lock = \"on\", but {0}")]
    Lock(String),
    /// The system refuses a call that it should always permit.
    #[error("cannot disable core dumps: {0}")]
    Dumps(rustix::io::Errno),
}

/// Hardens this process. Call it before any secret is read.
///
/// # Errors
/// [`HardenError`].
pub fn harden(config: &MemoryConfig) -> Result<Hardening, HardenError> {
    let dumps = if config.dumpable { Dumps::AllowedByConfiguration } else { forbid_dumps().map_err(HardenError::Dumps)? };
    let swap = match config.lock {
        MemoryLock::Off => unlocked("[memory] lock = \"off\"".to_owned()),
        MemoryLock::Auto => lock().unwrap_or_else(unlocked),
        MemoryLock::On => lock().map_err(HardenError::Lock)?,
    };
    Ok(Hardening { dumps, swap })
}

impl fmt::Display for Hardening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.dumps {
            Dumps::Off => "core dumps and debuggers are off; ",
            Dumps::AllowedByConfiguration => "CORE DUMPS AND DEBUGGERS ARE ALLOWED by [memory] dumpable; ",
        })?;
        match &self.swap {
            Swap::Locked => f.write_str("memory is locked, nothing swaps"),
            Swap::Nowhere(Swapless::Machine) => f.write_str("memory is not locked, but this machine has no swap"),
            Swap::Nowhere(Swapless::Cgroup) => f.write_str("memory is not locked, but this cgroup may not swap"),
            Swap::Possible(why) => write!(f, "MEMORY MAY BE SWAPPED TO DISK: {why}"),
        }
    }
}

fn forbid_dumps() -> Result<Dumps, rustix::io::Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(Dumps::Off)
}

/// Locks all memory, present and future, page by page when it is first used, so that unused stacks use no memory.
fn lock() -> Result<Swap, String> {
    let limit = getrlimit(Resource::Memlock).current;
    let unlimited = limit.is_none_or(|bytes| bytes >= AMPLE);
    if !unlimited && !may_lock_all(&read("/proc/self/status"), &read("/proc/self/uid_map")) {
        let have = limit.unwrap_or(0) / 1024;
        return Err(format!(
            "the limit of locked memory is {have} KiB; set LimitMEMLOCK=infinity, or give CAP_IPC_LOCK, or run without swap"
        ));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map(|()| Swap::Locked)
        .map_err(|error| format!("memory cannot be locked ({error}); set LimitMEMLOCK=infinity, or run without swap"))
}

fn unlocked(why: String) -> Swap {
    if machine_is_swapless(&read("/proc/meminfo")) {
        Swap::Nowhere(Swapless::Machine)
    } else if cgroup_is_swapless(&read("/proc/self/cgroup"), |file| std::fs::read_to_string(file).ok()) {
        Swap::Nowhere(Swapless::Cgroup)
    } else {
        Swap::Possible(why)
    }
}

/// Whether `CAP_IPC_LOCK` is effective outside a user namespace. Within one, it does not lift the limit.
fn may_lock_all(status: &str, uid_map: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let initial_namespace = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    effective & (1 << CAP_IPC_LOCK) != 0 && initial_namespace
}

fn machine_is_swapless(meminfo: &str) -> bool {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("SwapTotal:"));
    total.is_some_and(|rest| rest.split_whitespace().next() == Some("0"))
}

/// Whether this cgroup, or one above it, has `memory.swap.max` 0 (cgroup v2).
fn cgroup_is_swapless(cgroups: &str, read: impl Fn(&Path) -> Option<String>) -> bool {
    let Some(own) = cgroups.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let root = Path::new("/sys/fs/cgroup");
    root.join(own)
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .any(|folder| read(&folder.join("memory.swap.max")).is_some_and(|max| max.trim() == "0"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// With `mlockall`, the limit counts address space instead of memory, and allocations beyond it fail. Only an unlimited value is safe.
const AMPLE: u64 = 1 << 40;

/// From linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn core_dumps_are_off_and_the_line_says_so() {
        let before = dumpable_behavior().unwrap();
        let hardening = harden(&MemoryConfig { lock: MemoryLock::Off, dumpable: false }).unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        // Other tests of this process may read its memory.
        set_dumpable_behavior(before).unwrap();
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert!(hardening.to_string().starts_with("core dumps and debuggers are off; "), "{hardening}");
    }

    #[test]
    fn a_warning_is_loud() {
        let text = Hardening { dumps: Dumps::AllowedByConfiguration, swap: Swap::Possible("because".into()) }.to_string();
        assert!(text.contains("ARE ALLOWED") && text.contains("MAY BE SWAPPED TO DISK: because"), "{text}");
    }

    #[test]
    fn the_capability_counts_outside_of_user_namespaces_only() {
        let status = "Name:\tx\nCapEff:\t0000000000004000\n";
        assert!(may_lock_all(status, "         0          0 4294967295\n"));
        assert!(!may_lock_all(status, "         0       1000          1\n"));
        assert!(!may_lock_all("CapEff:\t0000000000000000\n", "0 0 4294967295"));
        assert!(!may_lock_all("", ""));
    }

    #[test]
    fn swap_is_found_out() {
        assert!(machine_is_swapless("MemTotal: 1 kB\nSwapTotal:             0 kB\n"));
        assert!(!machine_is_swapless("SwapTotal:       2097148 kB\n"));
        assert!(!machine_is_swapless(""));
        let max = |folder: &'static str, value: &'static str| {
            move |file: &Path| (file.parent() == Some(Path::new(folder))).then(|| value.to_owned())
        };
        let own = "1:name=systemd:/x\n0::/system.slice/keyvault.service\n";
        assert!(cgroup_is_swapless(own, max("/sys/fs/cgroup/system.slice/keyvault.service", "0\n")));
        assert!(cgroup_is_swapless(own, max("/sys/fs/cgroup/system.slice", "0\n")), "an ancestor binds too");
        assert!(cgroup_is_swapless("0::/\n", max("/sys/fs/cgroup", "0\n")), "as seen in a container");
        assert!(!cgroup_is_swapless(own, max("/sys/fs/cgroup/system.slice", "max\n")));
        assert!(!cgroup_is_swapless("4:memory:/x\n", max("/sys/fs/cgroup", "0\n")));
    }
}
