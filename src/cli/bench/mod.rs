//! stub
use super::{ConnectionArgs, Failure};
use clap::Args;
/// x
#[derive(Debug, Args)]
pub struct BenchArgs {}
pub(super) fn run(_c: &ConnectionArgs, _a: &BenchArgs) -> Result<(), Failure> {
    Ok(())
}
