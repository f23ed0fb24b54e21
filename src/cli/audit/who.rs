//! `audit who`: who was allowed to use a key at a time, and who used it around that time.

use clap::Args;

use crate::cli::{
    Failure,
    connection::Remote,
    value_parsers::{age, time_or_date},
};
use crate::client::Call;
use crate::domain::Timestamp;

/// Which key, and when.
#[derive(Debug, Args)]
pub struct WhoArgs {
    /// The key: its id, the beginning of its id, or its name
    #[arg(long, value_name = "KEY")]
    key_id: String,
    /// The time: RFC 3339, or a date (00:00 UTC)
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    at: Timestamp,
    /// How long before and after that time uses are counted, in whole days
    #[arg(long, value_name = "DURATION", value_parser = age, default_value = "1d")]
    window: String,
}

/// Runs the command.
pub(super) async fn run(args: &WhoArgs, remote: &Remote) -> Result<(), Failure> {
    let WhoArgs { key_id, at, window } = args;
    let call = Call::get("/v1/audit/access").query("key", key_id).query("at", &at.to_string()).query("window", window);
    remote.print(&remote.client.json(call).await?)
}
