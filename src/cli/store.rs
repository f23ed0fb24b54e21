//! `store copy`: moves a stopped vault's store between SQLite and PostgreSQL. The copy is compared with the source before a vault can open it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    domain::Hex,
    files::{self, MAX_FILE},
    storage::{CopiedStore, LogEnd, Mode, PostgresConfig, StorePlace, copy_store},
};

use super::{Failure, Format};

/// Move the store of a vault between SQLite and PostgreSQL
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

/// The subcommand.
#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Copy the store of a stopped vault to an empty place, and compare the two
    Copy(CopyArgs),
}

/// Copy the store of a stopped vault to an empty place, and compare the two.
///
/// A SQLite store is named by its file, which may be a backup. A PostgreSQL store is named by the configuration of its vault, or by a TOML file with the
/// options of `[storage.postgresql]` alone. The URL of the database with its password is in the file `url_file`, never on the command line.
#[derive(Debug, Args)]
struct CopyArgs {
    /// The store to read
    #[arg(long, value_name = "sqlite:FILE|postgres:FILE")]
    from: StoreName,
    /// The new store: a file that does not exist, or an empty database
    #[arg(long, value_name = "sqlite:FILE|postgres:FILE")]
    to: StoreName,
    /// The instance whose log a vault over the new SQLite file continues, if several instances have one
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl StoreArgs {
    /// The output format.
    pub(super) const fn format(&self) -> Format {
        let StoreCommand::Copy(args) = &self.command;
        args.output
    }
}

/// A store on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StoreName {
    /// The database file.
    Sqlite(PathBuf),
    /// The file with the options of a connection.
    Postgres(PathBuf),
}

impl FromStr for StoreName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("postgres" | "postgresql", url)) if url.starts_with("//") => Err(
                "a URL has a password, which every process of this machine could read here. Write the URL to a file, name it as url_file in a TOML \
                 file, and give postgres:FILE with that TOML file"
                    .into(),
            ),
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::Sqlite(file.into())),
            Some(("postgres" | "postgresql", file)) if !file.is_empty() => Ok(Self::Postgres(file.into())),
            _ => Err("write sqlite:FILE or postgres:FILE".into()),
        }
    }
}

impl StoreName {
    fn place(self) -> Result<StorePlace, Failure> {
        match self {
            Self::Sqlite(file) => Ok(StorePlace::Sqlite(file)),
            Self::Postgres(file) => Ok(StorePlace::Postgres(Box::new(connection(&file)?))),
        }
    }
}

/// Reads the options of a connection.
fn connection(file: &Path) -> Result<PostgresConfig, Failure> {
    let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("{}: {what}", file.display()));
    let bytes = files::read(file, MAX_FILE).map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| wrong(&error))?;
    let mut options: toml::Table = toml::from_str(text).map_err(|error| wrong(&error))?;
    if let Some(storage) = options.remove("storage") {
        let postgresql = storage.get("postgresql").and_then(toml::Value::as_table).cloned();
        options = postgresql.ok_or_else(|| wrong(&"it has no section [storage.postgresql]"))?;
    }
    let mut config: PostgresConfig = options.try_into().map_err(|error| wrong(&error))?;
    if let Some((option, problem)) = config.problem() {
        return Err(wrong(&format_args!("{option} {problem}")));
    }
    // The copy keeps the mode of the source.
    config.mode = Mode::Production;
    config.resolve(file.parent().unwrap_or_else(|| Path::new("")));
    Ok(config)
}

pub(super) fn run(args: StoreArgs) -> Result<(), Failure> {
    let StoreCommand::Copy(CopyArgs { from, to, instance, output }) = args.command;
    let (from, to) = (from.place()?, to.place()?);
    super::run_on_one_thread(async {
        let copied = copy_store(&from, &to, instance.as_deref()).await.map_err(anyhow::Error::from)?;
        print(&copied, output)
    })
}

fn print(copied: &CopiedStore, output: Format) -> Result<(), Failure> {
    let CopiedStore { vault, rows, logs, chain } = copied;
    let mut out = std::io::stdout().lock();
    match output {
        Format::Text => {
            writeln!(out, "copied and compared: the store of the vault {vault}, with {} state changes", chain.revision)?;
            for (table, rows) in rows {
                writeln!(out, "  {table:<18} {rows:>10} rows")?;
            }
            for (instance, LogEnd { entries, root }) in logs {
                writeln!(out, "  the log {vault}/{instance}: {entries} entries, root {}", STANDARD.encode(root))?;
            }
            writeln!(out, "Configure the vault for the new store. Never start it on the old one again: the log would have two histories.")?;
        }
        Format::Json => {
            let rows: Map<String, Value> = rows.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
            let log = |(instance, LogEnd { entries, root }): &(String, LogEnd)| json!({ "instance": instance, "entries": entries, "root": STANDARD.encode(root) });
            let logs: Vec<Value> = logs.iter().map(log).collect();
            let chain = json!({ "revision": chain.revision, "head": Hex(&chain.head).to_string() });
            writeln!(out, "{}", json!({ "vault": vault, "rows": rows, "logs": logs, "chain": chain }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_in_a_file_of_its_own_or_in_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        for text in ["url_file = \"u\"", "[vault]\nid = \"v\"\n[storage.postgresql]\nurl_file = \"u\""] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(connection(&file).unwrap().url_file, folder.path().join("u"), "{text}");
        }
        for (text, said) in [
            ("[storage]\npath = \"keyvault.db\"", "[storage.postgresql]"),
            ("url_file = \"u\"\npassword = \"x\"", "unknown field"),
            ("url_file = \"u\"\nreaders = 0", "readers is not between"),
        ] {
            std::fs::write(&file, text).unwrap();
            let refused = connection(&file).unwrap_err().to_string();
            assert!(refused.contains(said) && refused.contains("f.toml"), "{refused}");
        }
    }

    #[test]
    fn a_store_is_a_file_and_never_a_url() {
        assert_eq!("sqlite:/var/lib/a.db".parse(), Ok(StoreName::Sqlite("/var/lib/a.db".into())));
        assert_eq!("postgres:connection.toml".parse(), Ok(StoreName::Postgres("connection.toml".into())));
        assert_eq!("postgresql:c:d".parse(), Ok(StoreName::Postgres("c:d".into())));
        for url in ["postgres://u:secret@h/d", "postgresql://u:secret@h/d"] {
            let refused = url.parse::<StoreName>().unwrap_err();
            assert!(refused.contains("url_file") && !refused.contains("secret"), "{refused}");
        }
        for wrong in ["", "a.db", "sqlite:", "mysql:f"] {
            assert!(wrong.parse::<StoreName>().is_err(), "{wrong}");
        }
    }
}
