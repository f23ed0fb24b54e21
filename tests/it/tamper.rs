//! An edited database: every edited row is refused for use, quarantined, and reported in the log.

mod cases;
mod foreign_rows;
mod state_chain;
mod table;
