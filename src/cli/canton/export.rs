//! `canton export`: moves the keys of a node out of the vault again, into key-pair files or into the database of the node.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

#[cfg(feature = "postgresql")]
use super::{
    database::{Database, DatabaseArgs, PrivateKeyRow, Tables},
    node_key::purpose_number,
};
use super::{
    node_key::NodeKey,
    report::{Outcome, Report, ReportedKey, missing},
};
use crate::{
    cli::{
        Failure,
        connection::Remote,
        input::{NewFile, Place},
        keys::export::key_pair_file,
        reference::KeyReference,
        value_parsers::words,
    },
    client::{Call, ClientError},
    crypto::{
        SecretBytes,
        canton::{CantonVersion, read_key_pair},
    },
    domain::{KeyId, NodeName, Purpose},
};

/// The options of `canton export`.
#[derive(Debug, Args)]
#[cfg_attr(feature = "postgresql", command(group = clap::ArgGroup::new("target").required(true).args(["out_dir", "database_url"])))]
pub struct ExportNodeArgs {
    /// The keys: ids, beginnings of ids, or names. Default: every signing and encryption key of the node that is not destroyed
    #[arg(value_name = "KEY")]
    ids: Vec<KeyReference>,
    /// The node whose keys are exported
    #[arg(long)]
    node: NodeName,
    /// Write a key-pair file for each key into this folder, which must exist: <id>.key
    #[arg(long, value_name = "DIR")]
    #[cfg_attr(not(feature = "postgresql"), arg(required = true))]
    out_dir: Option<PathBuf>,
    /// The version of Canton that the files are for; a file for 3.3 contains the public key. Default: the newest
    #[arg(long, value_parser = words::<CantonVersion>(), requires = "out_dir")]
    canton_version: Option<CantonVersion>,
    /// The file with the password that encrypts the files; - for standard input
    #[arg(long, value_name = "FILE|-", requires = "out_dir")]
    password_file: Option<Place>,
    #[cfg(feature = "postgresql")]
    #[command(flatten)]
    database: DatabaseArgs,
    /// Show what would be done. Exports nothing
    #[arg(long)]
    dry_run: bool,
}

/// A key of the node. Without the right to see it, only the id is known.
#[derive(Deserialize)]
struct ListedKey {
    id: KeyId,
    node: Option<NodeName>,
    name: Option<String>,
    purpose: Option<Purpose>,
    state: Option<String>,
    exportable: Option<bool>,
}

/// Exports the keys, and prints the report.
pub(super) async fn run(args: &ExportNodeArgs, remote: &Remote) -> Result<(), Failure> {
    let keys = to_export(args, remote).await?;
    #[cfg(feature = "postgresql")]
    if let Some(database) = args.database.connect().await? {
        return into_database(args, keys, database, remote).await;
    }
    let folder = args.out_dir.clone().ok_or_else(|| Failure::Usage("say --out-dir DIR".into()))?;
    let password = args.password_file.as_ref().map(|place| place.read_password("--password-file")).transpose()?;
    let password = password.as_ref().map(|password| password.as_str());
    let mut reported = Vec::with_capacity(keys.len());
    for key in &keys {
        let path = folder.join(format!("{}.key", key.id));
        let line = unread(key, &path.display().to_string());
        let outcome = match refusal(key) {
            Some(reason) => Err(anyhow!(reason).into()),
            None if path.exists() => already_there(&path, key.id, password),
            None if args.dry_run => Ok(Outcome::Planned),
            None => write_file(args, &path, key.id, password, remote).await,
        };
        reported.push(finished(line, outcome)?);
    }
    report(args, reported, Vec::new()).print(remote.format)
}

fn report(args: &ExportNodeArgs, keys: Vec<ReportedKey>, database: Vec<String>) -> Report {
    let (node, missing) = (args.node.to_string(), missing(&keys));
    Report { node, dry_run: args.dry_run, keys, missing, kms_metadata_sql: Vec::new(), database }
}

/// The keys to export, as the vault shows them.
async fn to_export(args: &ExportNodeArgs, remote: &Remote) -> Result<Vec<ListedKey>, Failure> {
    if args.ids.is_empty() {
        return listed(&args.node, remote).await;
    }
    let mut found = Vec::with_capacity(args.ids.len());
    for key in &args.ids {
        let id = key.resolve(&remote.client).await?;
        let shown = match remote.client.get(&format!("/v1/keys/{id}")).await {
            // The role `exporter` alone shows no keys. The export itself is then the first to say what is wrong.
            Err(ClientError::Problem(problem)) if problem.status == 403 => ListedKey::unknown(id),
            shown => ListedKey::read(&shown?)?,
        };
        if let Some(node) = shown.node.as_ref().filter(|node| **node != args.node) {
            return Err(Failure::Usage(format!("the key {id} belongs to the node {node}, not to {}", args.node)));
        }
        found.push(shown);
    }
    Ok(found)
}

/// Every key pair of the node that is not destroyed.
async fn listed(node: &NodeName, remote: &Remote) -> Result<Vec<ListedKey>, Failure> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = Call::get("/v1/keys").query("node", &node.to_string()).query_if("cursor", cursor.as_ref());
        let page = match remote.client.json(page).await {
            Err(error @ ClientError::Problem(_)) => {
                return Err(anyhow!(
                    "{error}\nThe keys of a node are listed for the roles node, key-admin and auditor. Or name the ids of the keys"
                )
                .into());
            }
            page => page?,
        };
        for item in page.get("items").and_then(Value::as_array).into_iter().flatten() {
            let key = ListedKey::read(item)?;
            if key.purpose != Some(Purpose::Symmetric) && key.state.as_deref() != Some("destroyed") {
                found.push(key);
            }
        }
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

impl ListedKey {
    fn read(key: &Value) -> Result<Self, Failure> {
        Self::deserialize(key).map_err(|_| Failure::Unexpected("the answer of the vault is not a key".into()))
    }

    const fn unknown(id: KeyId) -> Self {
        Self { id, node: None, name: None, purpose: None, state: None, exportable: None }
    }
}

/// Why the key cannot be exported. What is not known does not refuse it: then the vault decides.
fn refusal(key: &ListedKey) -> Option<&'static str> {
    match (key.state.as_deref(), key.purpose, key.exportable) {
        (Some("destroyed"), ..) => Some("the key is destroyed"),
        (_, Some(Purpose::Symmetric), _) => Some("a symmetric key is no key of a Canton node. `keys export --format raw` exports it"),
        (_, _, Some(false)) => Some("the key is not exportable. A key is exportable only if it was created or imported so"),
        (Some("disabled"), ..) => Some("the key is disabled. Enable it first"),
        (Some("quarantined"), ..) => Some("the key is quarantined. Its entries in the log say why"),
        (Some("pending-deletion"), ..) => Some("the deletion of the key is scheduled. Cancel it first"),
        _ => None,
    }
}

/// The line of a key whose private part was not read.
fn unread(key: &ListedKey, place: &str) -> ReportedKey {
    let line = ReportedKey::unreadable(place, Some(key.id.to_string()), key.name.clone(), String::new());
    ReportedKey { purpose: key.purpose, reason: None, ..line }
}

/// The line with its outcome. A failure that the next keys would have too ends the command.
fn finished(line: ReportedKey, outcome: Result<Outcome, Failure>) -> Result<ReportedKey, Failure> {
    match outcome {
        Ok(outcome) => Ok(ReportedKey { outcome, ..line }),
        Err(Failure::Client(error)) if !matches!(error, ClientError::Problem(_)) => Err(error.into()),
        Err(failure) => Ok(line.failed(failure.to_string())),
    }
}

/// Whether the existing file holds this key.
fn already_there(path: &Path, id: KeyId, password: Option<&str>) -> Result<Outcome, Failure> {
    let bytes = Place::File(path.to_owned()).read("--out-dir")?;
    let password = password.map(|password| SecretBytes::copy_of(password.as_bytes()));
    let found = read_key_pair(&SecretBytes::copy_of(&bytes), password.as_ref()).and_then(NodeKey::new);
    match found {
        Ok(key) if KeyId::Pair(key.id) == id => Ok(Outcome::Present),
        Ok(_) => Err(anyhow!("the file exists and holds another key").into()),
        Err(error) => Err(anyhow!("the file exists: {error}").into()),
    }
}

async fn write_file(args: &ExportNodeArgs, path: &Path, id: KeyId, password: Option<&str>, remote: &Remote) -> Result<Outcome, Failure> {
    // The file is created first, so that nothing leaves the vault that cannot be stored.
    let file = NewFile::create(&Place::File(path.to_owned()))?;
    file.finish(&key_pair_file(id, args.canton_version, password, remote).await?)?;
    Ok(Outcome::Done)
}

#[cfg(feature = "postgresql")]
async fn into_database(args: &ExportNodeArgs, keys: Vec<ListedKey>, mut database: Database, remote: &Remote) -> Result<(), Failure> {
    if database.tables().await? != Tables::V3 {
        return Err(Failure::Usage("the database is of Canton 2. Export files with --out-dir".into()));
    }
    let place = format!("table {}", Tables::V3.private_keys());
    let (mut reported, mut rows) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
    for key in &keys {
        let outcome = match refusal(key) {
            Some(reason) => Err(anyhow!(reason).into()),
            None if args.dry_run => Ok(Outcome::Planned),
            None => row(key, remote).await.map(|row| {
                rows.push(row);
                Outcome::Done
            }),
        };
        reported.push(finished(unread(key, &place), outcome)?);
    }
    if args.dry_run || reported.iter().any(|key| key.outcome == Outcome::Failed) {
        return report(args, reported, vec!["the database was not changed".into()]).print(remote.format);
    }
    let inserted = database.move_in(&rows).await?;
    let changed = format!("inserted {inserted} private keys, not encrypted, and removed their rows of common_kms_metadata_store");
    report(args, reported, vec![changed]).print(remote.format)
}

/// The row of the private key store.
#[cfg(feature = "postgresql")]
async fn row(key: &ListedKey, remote: &Remote) -> Result<PrivateKeyRow, Failure> {
    let file = key_pair_file(key.id, None, None, remote).await?;
    let pair = read_key_pair(&SecretBytes::copy_of(&file), None).and_then(NodeKey::new).map_err(|error| anyhow!(error))?;
    Ok(PrivateKeyRow {
        key_id: pair.id.to_string(),
        wrapper_key_id: None,
        purpose: purpose_number(pair.purpose()),
        data: pair.row().map_err(|error| anyhow!(error))?,
        name: key.name.clone(),
    })
}
