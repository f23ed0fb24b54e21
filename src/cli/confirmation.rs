//! The question before a step that cannot be undone. Without a terminal there is no question, and `--yes` is required.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use serde_json::Value;

use super::{
    Failure,
    connection::{Format, Remote},
    output::print_to,
};

/// Options of a step that cannot be undone.
#[derive(Debug, Args)]
pub(super) struct StepArgs {
    /// Show what would happen, and whether the vault would refuse it. Nothing is changed
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl StepArgs {
    /// Whether to take the step. `plan` makes the checks and says what would happen: it is printed in a dry run, and before the question.
    ///
    /// # Errors
    /// [`Failure::Usage`] without a terminal, unless an option decides; why the step would be refused; and as [`confirm`].
    pub(super) async fn decide(
        &self,
        remote: &Remote,
        question: &str,
        plan: impl Future<Output = Result<Value, Failure>>,
    ) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if self.dry_run {
            remote.print(&plan.await?)?;
            return Ok(false);
        }
        need_terminal(question)?;
        print_to(&mut std::io::stderr().lock(), Format::Text, &plan.await?)?;
        confirm(question, false)?;
        Ok(true)
    }
}

/// Asks on the terminal, unless `yes` was given.
///
/// # Errors
/// [`Failure::Usage`] without a terminal; [`Failure::Other`] for every answer but `yes`.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    need_terminal(question)?;
    eprint!("{question} Write yes: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(anyhow::anyhow!("nothing was done, because the answer was not yes").into()) }
}

fn need_terminal(question: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::Usage(format!("{question} There is no terminal to ask on: add --yes")))
}
