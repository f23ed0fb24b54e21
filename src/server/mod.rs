//! The server process: it assembles the parts into a running vault, reloads trust and grants, hardens the process and exports metrics.

pub mod checks;
mod free_disk;
pub mod hardening;
pub(crate) mod high_water_mark;
pub mod limits;
pub(crate) mod log;
pub mod metrics;
mod process_metrics;
pub mod reload;
pub mod run;
mod service_manager;
pub mod status_metrics;
pub(crate) mod store;
mod witnesses;
