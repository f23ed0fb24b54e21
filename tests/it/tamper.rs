//! Whoever edits the database gets nothing out of it: what was edited is refused for use, set aside, and in the log.

mod cases;
mod strangers;
mod table;
