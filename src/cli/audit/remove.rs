//! `audit remove`: removes entries from the database of a vault that an archive has. The archive is verified before.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use serde_json::json;

use crate::{
    audit::verify::Verified,
    cli::{Failure, confirmation::confirm, connection::Remote, input},
    server::run::clock,
};

use super::{
    keys::{VerifierKeyArgs, not_verified},
    verify::verify_files,
};

/// What to remove, and the archive that has it.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The archive: exports without a filter, in their order
    #[arg(value_name = "FILE", required = true)]
    archive: Vec<input::Place>,
    #[command(flatten)]
    keys: VerifierKeyArgs,
    /// Remove entries that are older than this, such as 180d. Younger ones than `[audit] minimum_retention` stay in any case
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Duration,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(super) async fn run(args: &RemoveArgs, remote: &Remote) -> Result<(), Failure> {
    let verified = verify_files(&args.archive, &args.keys.keys()?, &[])?.map_err(|finding| not_verified(&finding, "the archive: "))?;
    let Verified { complete, first, covered, root, last, .. } = verified;
    if !complete || last != covered {
        return Err(Failure::Usage("the archive has a filter, and so not all entries: use exports without one".into()));
    }
    let before = clock()().minus(args.older_than);
    let question = format!("The archive has the entries {first} to {last}. Remove those before {before} from the database of the vault?");
    confirm(&question, args.yes)?;
    let body = json!({ "first": first, "size": covered, "root": BASE64_STANDARD.encode(root), "before": before });
    remote.print(&remote.client.post("/v1/audit/removals", &body).await?)
}
