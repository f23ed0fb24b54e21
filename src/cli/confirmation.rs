//! The question before a step that cannot be undone. Without a terminal there is no question, and `--yes` is required.

use std::io::{IsTerminal as _, Write as _};

use super::Failure;

/// Asks on the terminal, unless `yes` was given.
///
/// # Errors
/// [`Failure::Usage`] without a terminal; [`Failure::Other`] for every answer but `yes`.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{question} There is no terminal to ask on: add --yes")));
    }
    eprint!("{question} Write yes: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(anyhow::anyhow!("nothing was done, because the answer was not yes").into()) }
}
