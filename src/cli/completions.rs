//! `completions` and `man`: what a shell and `man` need to know about the command line, generated from its definition.

use std::{io::Write as _, path::PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

/// The shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_parser = clap::value_parser!(Shell))]
    shell: Shell,
}

/// The folder of the pages.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder, which must exist: `DIR/canton-keyvault.1` and one page for each subcommand
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the script that completes the command line in a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    // clap_complete 4.6 spells a program name with a hyphen in two ways in the script for bash (clap issue 6421). The test of this command
    // completes subcommands.
    let script = String::from_utf8_lossy(&script).replace("canton__subcmd__keyvault", "canton__keyvault");
    Ok(std::io::stdout().lock().write_all(script.as_bytes())?)
}

/// Writes the manual pages.
pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    if !args.folder.is_dir() {
        return Err(Failure::Usage(format!("{}: is not a folder: create it first", args.folder.display())));
    }
    Ok(clap_mangen::generate_to(Cli::command(), &args.folder)?)
}
