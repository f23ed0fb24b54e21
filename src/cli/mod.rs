//! The command line: one enum of commands, one file per command, and one place where a failure becomes an exit code.
//!
//! To add a command: a file with its `clap::Args` and a function that returns `Result<(), Failure>`, one variant of
//! [`Command`], and the arm that the compiler asks for in `Command::run`.

mod admin;
mod audit;
mod backup;
mod bench;
mod canton;
mod check;
mod completions;
mod confirmation;
mod connection;
#[cfg(feature = "dev-pki")]
mod dev;
mod failure;
mod html;
mod input;
mod instance;
mod job;
mod keys;
mod output;
#[cfg(feature = "dev-pki")]
pub mod pki;
mod profile;
mod progress;
mod reference;
mod serve;
mod steps;
#[cfg(feature = "postgresql")]
mod store;
mod table;
mod ui;
mod value_parsers;
mod verify_backup;
mod wrapper;

use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use self::connection::{ConnectionArgs, Format};
pub use self::failure::Failure;

use self::connection::Remote;

/// Keeps the private keys of Canton nodes sealed, opens them only into memory, and audits every use.
#[derive(Debug, Parser)]
#[command(name = "canton-keyvault", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 the command line cannot be used, 3 the vault cannot be reached or did not answer, 4 the audit log is not the one that was signed, 130 Ctrl-C.";

/// The subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a vault for development, with everything it needs created in one folder
    #[cfg(feature = "dev-pki")]
    Dev(dev::DevArgs),
    /// Serve a vault with the given configuration
    Serve(serve::ServeArgs),
    /// Check configuration, certificates, storage and KMS permissions
    Check(check::CheckArgs),
    /// Copy the store to a new file, while the vault serves requests
    Backup(backup::BackupArgs),
    /// Open every key of a backup to verify it. Nothing is imported
    #[command(alias = "drill")]
    VerifyBackup(verify_backup::VerifyBackupArgs),
    /// Move the store of a vault between SQLite and PostgreSQL
    #[cfg(feature = "postgresql")]
    Store(store::StoreArgs),
    /// Create, import, use, disable, re-seal, delete and export keys
    Keys(Group<keys::KeysCommand>),
    /// Create, register, rotate, retire and show wrapper keys
    Wrapper(Group<wrapper::WrapperCommand>),
    /// Configure Canton nodes, move their keys in and out, show and sign their topology transactions
    Canton(Group<canton::CantonCommand>),
    /// Read and verify the audit log
    Audit(Group<audit::AuditCommand>),
    /// Wipe every open key and refuse every use, until `unfreeze`
    Freeze(SingleCommand<NoArgs>),
    /// End a freeze
    Unfreeze(SingleCommand<NoArgs>),
    /// Show the status of the vault and its faults
    Status(SingleCommand<NoArgs>),
    /// Show the principal that the vault sees
    Whoami(SingleCommand<NoArgs>),
    /// Explain an authorization decision without performing the operation
    Authorize(SingleCommand<admin::AuthorizeArgs>),
    /// Serve pages about the vault for a browser on this machine, with your certificate
    Ui(SingleCommand<ui::UiArgs>),
    /// Put load on a vault and measure it
    Bench(SingleCommand<bench::BenchArgs>),
    /// Print a script that completes the command line in a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages of all commands into a folder
    Man(completions::ManArgs),
}

/// A command with subcommands that call a vault.
#[derive(Debug, Args)]
pub struct Group<C: Subcommand> {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: C,
}

/// A command that calls a vault.
#[derive(Debug, Args)]
pub struct SingleCommand<A: Args> {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    args: A,
}

/// A command without options of its own.
#[derive(Debug, Args)]
pub struct NoArgs {}

/// Runs the command of the process arguments.
pub fn run() -> ExitCode {
    let command = match parse() {
        Ok(cli) => cli.command,
        Err((failure, format)) => return failure.report(format),
    };
    let format = command.format();
    command.run().map_or_else(|failure| failure.report(format), |()| ExitCode::SUCCESS)
}

/// The arguments of the process, with the defaults of the profile that they name. A mistake in them ends the process.
///
/// # Errors
/// The profile cannot be used.
fn parse() -> Result<Cli, (Failure, Format)> {
    let matches = Cli::command().get_matches();
    let matches = match profile::chosen(&matches) {
        Ok(None) => matches,
        Ok(Some(defaults)) => profile::with_defaults(Cli::command(), &defaults).get_matches(),
        Err(failure) => return Err((failure, profile::format(&matches))),
    };
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Failure`], which knows its exit code.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "dev-pki")]
            Self::Dev(args) => dev::run(&args),
            Self::Serve(args) => serve::run(&args),
            Self::Check(args) => check::run(&args),
            Self::Backup(args) => backup::backup(&args),
            Self::VerifyBackup(args) => verify_backup::verify_backup(&args),
            #[cfg(feature = "postgresql")]
            Self::Store(args) => store::run(args),
            Self::Keys(Group { connection, command }) => on(&connection, |remote| keys::run(command, remote)),
            Self::Wrapper(Group { connection, command }) => on(&connection, |remote| wrapper::run(command, remote)),
            Self::Canton(Group { connection, command }) => run_on_one_thread(canton::run(command, connection)),
            Self::Audit(Group { connection, command }) => run_on_one_thread(audit::run(command, connection)),
            Self::Freeze(SingleCommand { connection, .. }) => on(&connection, admin::freeze),
            Self::Unfreeze(SingleCommand { connection, .. }) => on(&connection, admin::unfreeze),
            Self::Status(SingleCommand { connection, .. }) => on(&connection, admin::status),
            Self::Whoami(SingleCommand { connection, .. }) => on(&connection, admin::whoami),
            Self::Authorize(SingleCommand { connection, args }) => on(&connection, |remote| admin::authorize(args, remote)),
            Self::Ui(SingleCommand { connection, args }) => on(&connection, |remote| ui::run(args, remote)),
            Self::Bench(SingleCommand { connection, args }) => bench::run(&connection, &args),
            Self::Completions(args) => completions::completions(&args),
            Self::Man(args) => completions::man(&args),
        }
    }

    /// The output format of its errors.
    const fn format(&self) -> Format {
        match self {
            #[cfg(feature = "dev-pki")]
            Self::Dev(_) => Format::Text,
            Self::Serve(_) | Self::Completions(_) | Self::Man(_) => Format::Text,
            Self::Check(args) => args.output,
            Self::Backup(args) => args.output,
            Self::VerifyBackup(args) => args.output,
            #[cfg(feature = "postgresql")]
            Self::Store(args) => args.format(),
            Self::Keys(Group { connection, .. })
            | Self::Wrapper(Group { connection, .. })
            | Self::Canton(Group { connection, .. })
            | Self::Audit(Group { connection, .. })
            | Self::Freeze(SingleCommand { connection, .. })
            | Self::Unfreeze(SingleCommand { connection, .. })
            | Self::Status(SingleCommand { connection, .. })
            | Self::Whoami(SingleCommand { connection, .. })
            | Self::Authorize(SingleCommand { connection, .. })
            | Self::Ui(SingleCommand { connection, .. })
            | Self::Bench(SingleCommand { connection, .. }) => connection.output,
        }
    }
}

/// Runs a command that calls a vault on one thread.
fn on<F: Future<Output = Result<(), Failure>>>(connection: &ConnectionArgs, command: impl FnOnce(Remote) -> F) -> Result<(), Failure> {
    run_on_one_thread(command(connection.remote()?))
}

/// Runs a command on one thread.
fn run_on_one_thread<F: Future<Output = Result<(), Failure>>>(command: F) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    const ID: &str = "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809";

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        let words = std::iter::once("canton-keyvault").chain(line.split_whitespace());
        Cli::try_parse_from(words.map(|word| if word == "ID" { ID } else { word })).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// A global option is an argument of every command below it: one with the same name replaces it silently.
    #[test]
    fn no_argument_of_a_command_has_the_name_of_a_global_one() {
        fn look(command: &clap::Command, global: &[&clap::Id], place: &str) {
            let own = || command.get_arguments().filter(|argument| !argument.is_global_set()).map(clap::Arg::get_id);
            let twice: Vec<_> = own().filter(|id| global.contains(id)).collect();
            assert!(twice.is_empty(), "{place} {}: {twice:?}", command.get_name());
            let further = command.get_arguments().filter(|argument| argument.is_global_set()).map(clap::Arg::get_id);
            let global: Vec<&clap::Id> = global.iter().copied().chain(further).collect();
            assert!(own().all(|id| !global.contains(&id)), "{place} {}", command.get_name());
            command.get_subcommands().for_each(|inner| look(inner, &global, &format!("{place} {}", command.get_name())));
        }
        look(&Cli::command(), &[], "");
    }

    #[test]
    fn every_command_is_understood() {
        for line in [
            "store copy --from sqlite:keyvault.db --to postgres:connection.toml --output json",
            "keys create --node n --purpose signing --spec ec-curve25519 --usage namespace,protocol --class permanent --name x --exportable",
            "keys import --node n --format canton-key-pair --material-file - --password-file p",
            "keys list --node n --purpose encryption --state pending-deletion --limit 5 --cursor c",
            "keys show ID --public-key",
            "keys sign ID --algorithm ed25519 --message-text x --out -",
            "keys decrypt ID --algorithm rsa-oaep-sha256 --ciphertext-base64 AA== --out f",
            "keys encrypt sym-00112233445566778899aabbccddeeff --plaintext-file -",
            "keys export ID --format pkcs8 --out f",
            "canton import --node n --exportable --dry-run --password-file p a.key b.key",
            "canton export --node n --out-dir d --canton-version 3.3 ID",
            "keys enable ID",
            "keys disable ID",
            "keys rotate ID",
            "keys supersede ID",
            "keys supersede ID --dry-run",
            "keys delete ID --days 7 --yes",
            "keys cancel-deletion ID",
            "keys reseal ID",
            "keys show orders",
            "keys sign 1220a63d079a --algorithm ed25519 --message-text x",
            "keys verify orders ID",
            "keys verify --all --node n --wide",
            "keys list --name orders --since 7d",
            "keys list --since 2026-01-31 --profile p --profiles f --output table",
            "wrapper show wk-0011",
            "completions bash",
            "completions zsh",
            "completions fish",
            "man d",
            "keys reseal-job start --wait",
            "keys reseal-job show --wait",
            "keys reseal-job abort job-001122334455",
            "keys restrict-signing ID --topology-only --mappings namespace-delegation,owner-to-key-mapping",
            "keys restrict-signing ID --lift",
            "canton config --node n --kind mediator --canton-name m --vault https://v:1 --vault https://w:1 --schemes p256-rsa --env",
            "canton config --node n --trust-collection-file c --cert-chain-file c --private-key-file k --env-file --driver-jar /d.jar",
            "canton config --node n --kind sequencer --splice --driver-secret d --tls-secret t",
            "canton show root.prep other.prep --offline",
            "canton sign-topology ID root.prep --cert-out root.cert --yes",
            "wrapper create --provider aws-kms --multi-region --regions eu-west-1,eu-central-1",
            "wrapper register --provider aws-kms --reference arn:aws:kms:eu-west-1:1:key/x",
            "wrapper list",
            "wrapper show wk-001122334455",
            "wrapper posture",
            "wrapper posture wk-001122334455",
            "wrapper rotation start --to wk-001122334455 --wait",
            "wrapper rotation show",
            "wrapper rotation show job-001122334455 --wait",
            "wrapper rotation abort",
            "wrapper rotation abort job-001122334455",
            "wrapper retire wk-001122334455 --yes",
            "wrapper retire wk-001122334455 --dry-run",
            "wrapper replicate wk-001122334455 --region eu-central-1",
            "audit query --key-id ID --operation keys.sign --outcome denied --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z",
            "audit verify log.ndjson --verifier-key f --verifier-key g --checkpoint c --output json",
            "audit verify --database keyvault.db --verifier-key f",
            "audit checkpoint --new",
            "audit verifier-keys",
            "audit prove --sequence 7 --size 9",
            "audit prove --from 7",
            "audit watch --state s --verifier-key f --interval 30s --max-age 5m --webhook http://127.0.0.1:9/x --once",
            "audit query --key-id orders --since 1d --job job-001122334455 --wrapper-key wk-001122334455 --request-id r --trace-id t --newest",
            "audit export --out f --format ndjson --resume --from 2026-01-01 --to 2026-02-01",
            "audit export --format ocsf",
            "audit summary --by key,day --from 2026-01-01 --recount",
            "audit who --key-id orders --at 2026-01-31 --window 12h",
            "freeze",
            "unfreeze",
            "status --output json",
            "whoami",
            "authorize --operation keys.sign --key-id ID --principal dns:x",
            "ui --listen 127.0.0.1:0 --allow-actions",
            "bench --node n --rate 1000.5 --duration 500ms --warmup 0s --connections 4 --threads 2 --server-pid 1",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn connection_options_are_accepted_before_and_after_the_subcommand() {
        for line in ["keys --url https://v:1 --output json list", "keys list --output json --url https://v:1"] {
            let Ok(Cli { command: Command::Keys(group) }) = parse(line) else { panic!("{line}") };
            assert_eq!((group.connection.urls.as_slice(), group.connection.output), (["https://v:1".to_owned()].as_slice(), Format::Json));
        }
    }

    #[test]
    fn invalid_values_are_refused() {
        use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument, UnknownArgument, ValueValidation};
        for (line, kind) in [
            ("keys sign ID --algorithm ed25519", MissingRequiredArgument),
            ("keys sign ID --algorithm ed25519 --message-text a --message-hex 00", ArgumentConflict),
            ("keys sign ID --algorithm md5 --message-text a", InvalidValue),
            ("keys show", MissingRequiredArgument),
            ("wrapper show wk-001", ValueValidation),
            ("keys create --node a/b --purpose signing --spec ec-p256", ValueValidation),
            ("keys import --node n --format raw --material AA==", UnknownArgument),
            ("keys import --node n --format raw --material-file f --password x", UnknownArgument),
            ("keys decrypt ID --algorithm rsa-oaep-sha256 --ciphertext-hex 00", MissingRequiredArgument),
            ("keys encrypt ID --plaintext-text x", UnknownArgument),
            ("keys export ID --format pkcs8", MissingRequiredArgument),
            ("keys delete ID --days 6", ValueValidation),
            ("keys delete ID --yes --dry-run", ArgumentConflict),
            ("keys restrict-signing ID", MissingRequiredArgument),
            ("keys restrict-signing ID --topology-only --lift", ArgumentConflict),
            ("keys restrict-signing ID --topology-only --mappings none", InvalidValue),
            ("canton config --kind participant", MissingRequiredArgument),
            ("canton config --node a/b", ValueValidation),
            ("canton config --node n --canton-name a.b", ValueValidation),
            ("canton config --node n --vault http://v:1", ValueValidation),
            ("canton config --node n --splice --env", ArgumentConflict),
            ("canton config --node n --splice --canton-name m", ArgumentConflict),
            ("keys list --limit 0", ValueValidation),
            ("keys list --since yesterday", ValueValidation),
            ("keys verify", MissingRequiredArgument),
            ("keys verify ID --all", ArgumentConflict),
            ("keys verify ID --node n", ArgumentConflict),
            ("completions tcsh", InvalidValue),
            ("keys reseal", MissingRequiredArgument),
            ("keys reseal ID --wait", UnknownArgument),
            ("wrapper rotation start --wait", MissingRequiredArgument),
            ("wrapper rotation start --to alias/x", ValueValidation),
            ("wrapper rotation show wk-001122334455", ValueValidation),
            ("wrapper replicate wk-001122334455", MissingRequiredArgument),
            ("audit query --from yesterday", ValueValidation),
            ("audit verify log.ndjson", MissingRequiredArgument),
            ("audit verify --verifier-key f", MissingRequiredArgument),
            ("audit verify log.ndjson --database d --verifier-key f", ArgumentConflict),
            ("audit prove --sequence 7 --from 7", ArgumentConflict),
            ("audit prove", MissingRequiredArgument),
            ("audit query --since always", ValueValidation),
            ("audit query --certificate ab", ValueValidation),
            ("audit export --resume", MissingRequiredArgument),
            ("audit summary", MissingRequiredArgument),
            ("audit summary --by colour", InvalidValue),
            ("audit summary --by day --from 2026-01-01T00:00:00Z", ValueValidation),
            ("audit who --key-id orders", MissingRequiredArgument),
            ("authorize --operation keys.sign --key-id ID --node n", ArgumentConflict),
            ("bench --rate 0", ValueValidation),
            ("bench --keys 2", MissingRequiredArgument),
            ("bench --key-id ID --node n", ArgumentConflict),
        ] {
            assert_eq!(parse(line).err(), Some(kind), "{line}");
        }
    }
}
