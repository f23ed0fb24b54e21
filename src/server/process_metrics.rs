//! The metrics of the process, from `/proc/self`, under the names that Prometheus clients use. What cannot be read keeps its value.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use crate::domain::Timestamp;

/// Sets the gauges that do not change while the process runs.
#[expect(clippy::cast_precision_loss, reason = "a gauge; exact for 285 million years")]
pub(super) fn started(at: Timestamp) {
    metrics::gauge!("keyvault_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!("process_start_time_seconds").set(at.seconds() as f64);
}

/// Reads the others. They take some microseconds, and some more for each open file.
#[expect(clippy::cast_precision_loss, reason = "gauges do not need the precision")]
pub(super) fn read() {
    let cpu = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    metrics::counter!("process_cpu_seconds_total").absolute(u64::try_from(cpu).unwrap_or_default());
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (field, gauge, unit) in [
            ("VmRSS:", "process_resident_memory_bytes", 1024),
            ("VmSwap:", "process_swapped_bytes", 1024),
            ("Threads:", "process_threads", 1),
        ] {
            if let Some(number) = field_of(&status, field) {
                metrics::gauge!(gauge).set(number.saturating_mul(unit) as f64);
            }
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(files.count() as f64);
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        metrics::gauge!("process_max_fds").set(limit as f64);
    }
}

/// The number of a line such as `VmRSS:     1234 kB`.
fn field_of(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_status_are_numbers() {
        let status = "Name:\tcanton-keyvault\nVmRSS:\t   29412 kB\nThreads:\t7\n";
        assert_eq!(field_of(status, "VmRSS:"), Some(29412));
        assert_eq!(field_of(status, "Threads:"), Some(7));
        assert_eq!(field_of(status, "VmSwap:"), None);
    }
}
