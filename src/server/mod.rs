//! The server process: it assembles the parts into a running vault, reloads trust and grants, hardens the process and exports metrics.

mod free_disk;
pub mod hardening;
pub mod metrics;
pub mod reload;
pub mod run;
