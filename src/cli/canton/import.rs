//! `canton import`: moves the private keys of a Canton node into the vault, from key-pair files or from the database of the node. Nothing
//! is written to a disk, and a repetition changes nothing.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

#[cfg(feature = "postgresql")]
use super::import_rows::{self, RowArgs};
use super::{
    node_key::{KmsMetadataRow, NodeKey, name},
    report::{Outcome, Report, ReportedKey, missing},
};
use crate::{
    cli::{
        Failure,
        connection::Remote,
        input::{Place, base64_secret},
    },
    client::{Call, ClientError},
    crypto::{SecretBytes, canton::read_key_pair},
    domain::{Class, KeyName, NodeName, Usage},
};

/// The options of `canton import`.
#[derive(Debug, Args)]
#[cfg_attr(feature = "postgresql", command(group = clap::ArgGroup::new("source").required(true).args(["files", "database_url"])))]
pub struct ImportNodeArgs {
    /// Key-pair files as `keys.secret.download` of Canton writes them
    #[arg(value_name = "FILE")]
    #[cfg_attr(not(feature = "postgresql"), arg(required = true))]
    files: Vec<PathBuf>,
    /// The node that the keys belong to in the vault
    #[arg(long)]
    node: NodeName,
    /// The file with the password of the key-pair files; - for standard input
    #[arg(long, value_name = "FILE|-", requires = "files")]
    password_file: Option<Place>,
    #[cfg(feature = "postgresql")]
    #[command(flatten)]
    rows: RowArgs,
    /// An exporter may export the keys, so that `canton export` can move them back. This can never be changed, and only a key-admin may set it
    #[arg(long)]
    exportable: bool,
    /// Import keys again that were destroyed in the vault, also for another node. Without this, a destroyed key is reported as failed
    #[arg(long)]
    replace_destroyed: bool,
    /// Read everything and show what would be done. Changes neither the vault nor the database
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// A private key that was found.
pub(super) struct Found {
    /// Where it was found.
    pub(super) place: String,
    /// The id that the database states.
    pub(super) id: Option<String>,
    /// Its name in Canton.
    pub(super) name: Option<String>,
    /// The key, or why it cannot be read.
    pub(super) key: Result<NodeKey, String>,
}

#[derive(Serialize)]
struct ImportBody<'a> {
    node: &'a NodeName,
    format: &'static str,
    material: &'a str,
    name: &'a KeyName,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exportable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replace_destroyed: bool,
}

/// Imports the keys, and prints the report.
pub(super) async fn run(args: &ImportNodeArgs, remote: &Remote) -> Result<(), Failure> {
    #[cfg(feature = "postgresql")]
    if let Some(database) = args.rows.connect().await? {
        return import_rows::run(args, &args.rows, database, remote).await;
    }
    let (mut report, rows) = import_all(args, files(args)?, remote).await?;
    report.database.push("run these statements in the database of the node while the node is stopped:".into());
    report.kms_metadata_sql = rows.iter().map(KmsMetadataRow::sql).collect();
    report.print(remote.format)
}

/// The keys of the files.
fn files(args: &ImportNodeArgs) -> Result<Vec<Found>, Failure> {
    let password = args.password_file.as_ref().map(|place| place.read_password("--password-file")).transpose()?;
    let password = password.map(|password| SecretBytes::copy_of(password.as_bytes()));
    let found = args.files.iter().map(|file| {
        let bytes = Place::File(file.clone()).read("FILE")?;
        let pair = read_key_pair(&SecretBytes::copy_of(&bytes), password.as_ref());
        let key = pair.and_then(NodeKey::new).map_err(|error| error.to_string());
        Ok(Found { place: file.display().to_string(), id: None, name: None, key })
    });
    found.collect()
}

/// Imports each key, or shows what would be done. Returns the rows of the keys that the vault has or would have.
pub(super) async fn import_all(
    args: &ImportNodeArgs,
    found: Vec<Found>,
    remote: &Remote,
) -> Result<(Report, Vec<KmsMetadataRow>), Failure> {
    let (mut keys, mut rows) = (Vec::new(), Vec::new());
    for Found { place, id, name: own_name, key } in found {
        let key = match key {
            Ok(key) => key,
            Err(reason) => {
                keys.push(ReportedKey::unreadable(&place, id, own_name, reason));
                continue;
            }
        };
        let name = name(own_name.as_deref(), &args.node, key.purpose(), key.usages())?;
        let reported = ReportedKey::of(&place, &key, &name.to_string(), Outcome::Planned);
        let outcome = if args.dry_run { planned(args, &key, remote).await } else { import(args, &key, &name, remote).await };
        keys.push(match outcome {
            Ok(outcome) => {
                rows.push(KmsMetadataRow::of(&key).map_err(|error| anyhow!(error))?);
                ReportedKey { outcome, ..reported }
            }
            // The vault answers nothing or refuses everybody: the next keys would fail in the same way.
            Err(Failure::Client(error)) if !matches!(error, ClientError::Problem(_)) => return Err(error.into()),
            Err(failure) => reported.failed(failure.to_string()),
        });
    }
    let (node, missing) = (args.node.to_string(), missing(&keys));
    Ok((Report { node, dry_run: args.dry_run, keys, missing, kms_metadata_sql: Vec::new(), database: Vec::new() }, rows))
}

/// Imports one key.
async fn import(args: &ImportNodeArgs, key: &NodeKey, name: &KeyName, remote: &Remote) -> Result<Outcome, Failure> {
    let file = key.file().map_err(|error| anyhow!(error))?;
    let material = base64_secret(file.expose());
    let ImportNodeArgs { node, exportable, replace_destroyed, .. } = args;
    let (exportable, replace_destroyed) = (*exportable, *replace_destroyed);
    let body = ImportBody { node, format: "canton-key-pair", material: &material, name, exportable, replace_destroyed };
    let answer = match remote.client.success(Call::post("/v1/keys/import").json(&body)?.idempotent()?).await {
        Err(ClientError::Problem(problem)) if problem.code == "key_destroyed" => return Err(destroyed()),
        // Somebody may have renamed the key since an earlier import. The name is not the operator's wish, so that it does not matter here.
        Err(ClientError::Problem(problem)) if problem.code == "key_exists" => {
            match remote.client.get(&format!("/v1/keys/{}", key.id)).await {
                Ok(stored) => return check_stored(args, &stored, key).map(|()| Outcome::Present),
                Err(_) => return Err(ClientError::Problem(problem).into()),
            }
        }
        answer => answer?,
    };
    let stored: Value = answer.parse()?;
    check_stored(args, &stored, key)?;
    Ok(if answer.status == http::StatusCode::CREATED { Outcome::Done } else { Outcome::Present })
}

/// What an import would do.
async fn planned(args: &ImportNodeArgs, key: &NodeKey, remote: &Remote) -> Result<Outcome, Failure> {
    let stored = match remote.client.get(&format!("/v1/keys/{}", key.id)).await {
        Err(ClientError::Problem(problem)) if problem.status == 404 => return Ok(Outcome::Planned),
        answer => answer?,
    };
    if args.replace_destroyed && stored.get("state") == Some(&json!("destroyed")) {
        return Ok(Outcome::Planned);
    }
    check_stored(args, &stored, key).map(|()| Outcome::Present)
}

/// Whether the vault has the key as this import makes it, ready for use.
fn check_stored(args: &ImportNodeArgs, stored: &Value, key: &NodeKey) -> Result<(), Failure> {
    let text = |field: &str| stored.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("id") != key.id.to_string() {
        return Err(Failure::Unexpected(format!("the vault answers with the key {}, not {}", text("id"), key.id)));
    }
    if text("state") == "destroyed" {
        return Err(destroyed());
    }
    let class = if key.usages().contains(Usage::Namespace) { Class::Permanent } else { Class::LongTerm };
    let expected = [
        ("node", json!(args.node)),
        ("purpose", json!(key.purpose())),
        ("usage", json!(key.usages())),
        ("class", json!(class)),
        ("exportable", json!(args.exportable)),
    ];
    let unequal = expected.iter().find(|(field, expected)| stored.get(*field) != Some(expected));
    if let Some((field, expected)) = unequal {
        let found = stored.get(*field).unwrap_or(&Value::Null);
        return Err(anyhow!(
            "the vault has this key with another value of `{field}`: {found} instead of {expected}. If that is an error and the key was never \
             used, withdraw it (`keys withdraw {}`); when it is destroyed, import it again with --replace-destroyed",
            key.id
        )
        .into());
    }
    let first = match text("state") {
        "active" => return Ok(()),
        "disabled" => "enable it first",
        "pending-deletion" => "cancel its deletion first",
        "superseded" => "it never signs again",
        "quarantined" => "its entries in the log say why",
        _ => "it cannot be used",
    };
    Err(anyhow!("the vault has this key in the state `{}`: {first}", text("state")).into())
}

fn destroyed() -> Failure {
    anyhow!("the vault had this key, and it was destroyed there. To import it again, repeat with --replace-destroyed").into()
}
