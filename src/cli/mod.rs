//! The command line: one enum of commands, a file a command, and one place where a failure becomes an exit code.
//!
//! To add a command: a file with its `clap::Args` and a function that returns `Result<(), Failure>`, one variant of
//! [`Command`], and the arm that the compiler asks for in `Command::run`.

mod audit;
mod bench;
pub mod client;
mod connection;
mod failure;
mod input;
mod keys;
mod output;
#[cfg(feature = "dev-pki")]
pub mod pki;
mod vault;
mod words;
mod wrapper;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use connection::{ConnectionArgs, Format};
pub use failure::Failure;

use connection::Remote;

/// Keeps the private keys of Canton nodes sealed, opens them only into memory, and audits every use.
#[derive(Debug, Parser)]
#[command(name = "canton-keyvault", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 refused or failed, 2 the command line cannot be used, 3 the vault cannot be reached or did not answer.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, import, use, govern and export keys
    Keys(Group<keys::KeysCommand>),
    /// Create, register and look at wrapper keys
    Wrapper(Group<wrapper::WrapperCommand>),
    /// Read the audit log
    Audit(Group<audit::AuditCommand>),
    /// Wipe every open key and refuse every use, until `unfreeze`
    Freeze(Leaf<NoArgs>),
    /// End a freeze
    Unfreeze(Leaf<NoArgs>),
    /// Show whether the vault is well, and if not, why
    Status(Leaf<NoArgs>),
    /// Show who the vault takes you for
    Whoami(Leaf<NoArgs>),
    /// Explain a decision about yourself without performing it
    Authorize(Leaf<vault::AuthorizeArgs>),
    /// Put load on a vault and measure it
    Bench(Leaf<bench::BenchArgs>),
}

/// A command with commands of its own, of a vault.
#[derive(Debug, Args)]
pub struct Group<C: Subcommand> {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: C,
}

/// A command of a vault.
#[derive(Debug, Args)]
pub struct Leaf<A: Args> {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    args: A,
}

/// A command that takes no flags of its own.
#[derive(Debug, Args)]
pub struct NoArgs {}

/// Does what the process's arguments say.
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let format = command.format();
    command.run().map_or_else(|failure| failure.report(format), |()| ExitCode::SUCCESS)
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], which knows its exit code.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Keys(Group { connection, command }) => on(&connection, |remote| keys::run(command, remote)),
            Self::Wrapper(Group { connection, command }) => on(&connection, |remote| wrapper::run(command, remote)),
            Self::Audit(Group { connection, command }) => on(&connection, |remote| audit::run(command, remote)),
            Self::Freeze(Leaf { connection, .. }) => on(&connection, vault::freeze),
            Self::Unfreeze(Leaf { connection, .. }) => on(&connection, vault::unfreeze),
            Self::Status(Leaf { connection, .. }) => on(&connection, vault::status),
            Self::Whoami(Leaf { connection, .. }) => on(&connection, vault::whoami),
            Self::Authorize(Leaf { connection, args }) => on(&connection, |remote| vault::authorize(args, remote)),
            Self::Bench(Leaf { connection, args }) => bench::run(&connection, &args),
        }
    }

    /// How its errors are printed.
    const fn format(&self) -> Format {
        match self {
            Self::Keys(Group { connection, .. }) => connection.output,
            Self::Wrapper(Group { connection, .. }) => connection.output,
            Self::Audit(Group { connection, .. }) => connection.output,
            Self::Freeze(Leaf { connection, .. })
            | Self::Unfreeze(Leaf { connection, .. })
            | Self::Status(Leaf { connection, .. })
            | Self::Whoami(Leaf { connection, .. }) => connection.output,
            Self::Authorize(Leaf { connection, .. }) => connection.output,
            Self::Bench(Leaf { connection, .. }) => connection.output,
        }
    }
}

/// Runs a command of a vault on one thread.
fn on<F: Future<Output = Result<(), Failure>>>(connection: &ConnectionArgs, command: impl FnOnce(Remote) -> F) -> Result<(), Failure> {
    let remote = connection.remote()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command(remote))
}
