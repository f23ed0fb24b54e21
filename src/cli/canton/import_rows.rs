//! The part of `canton import` that reads the database of a node: rows in clear, or encrypted under a key of AWS KMS.

use clap::Args;

use super::{
    database::{Database, DatabaseArgs, PrivateKeyRow, Tables},
    import::{Found, ImportNodeArgs, import_all},
    node_key::{KmsMetadataRow, NodeKey},
    report::Outcome,
};
use crate::{
    cli::{Failure, confirmation::confirm, connection::Remote},
    crypto::{SecretBytes, canton::read_private_key_row},
    domain::Purpose,
};

/// The database, how to decrypt its rows, and what to change in it.
#[derive(Debug, Args)]
pub(super) struct RowArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The region of the AWS KMS keys that encrypt the rows. Default: the region of the key ARN, otherwise `AWS_REGION`
    #[cfg(feature = "aws-kms")]
    #[arg(long, value_name = "REGION", requires = "database_url")]
    aws_region: Option<String>,
    /// The URL of AWS KMS, if it is not the public one
    #[cfg(feature = "aws-kms")]
    #[arg(long, value_name = "URL", requires = "database_url")]
    aws_endpoint: Option<crate::kms::EndpointUrl>,
    /// Write the rows of `common_kms_metadata_store` into the database. Otherwise they are printed as SQL
    #[arg(long, requires = "database_url")]
    write_metadata: bool,
    /// Remove the imported private keys from the database, in the transaction that writes the rows. Back up the vault first
    #[arg(long, requires = "write_metadata")]
    remove_private_keys: bool,
    /// Remove without a question
    #[arg(long)]
    yes: bool,
}

impl RowArgs {
    /// Connects to the database, if there is a URL.
    pub(super) async fn connect(&self) -> Result<Option<Database>, Failure> {
        self.database.connect().await
    }
}

/// Imports the keys of the database, writes the rows of KMS keys if that was requested, and prints the report.
pub(super) async fn run(args: &ImportNodeArgs, source: &RowArgs, mut database: Database, remote: &Remote) -> Result<(), Failure> {
    let tables = database.tables().await?;
    if tables == Tables::V2 && source.write_metadata {
        return Err(Failure::Usage("--write-metadata needs the tables of Canton 3, and this database is of Canton 2".into()));
    }
    let private_keys = database.private_keys(tables).await?;
    let found = read_rows(source, tables, &private_keys).await;
    let (mut report, rows) = import_all(args, found, remote).await?;
    let failed = report.keys.iter().any(|key| key.outcome == Outcome::Failed);
    if tables == Tables::V2 {
        report.database.push("the tables are those of Canton 2: write these rows into the database of the node of Canton 3:".into());
    } else if !source.write_metadata {
        report.database.push("run these statements in the database while the node is stopped, or repeat with --write-metadata:".into());
    } else if failed {
        report.database.push("the database was not changed, because keys failed".into());
    } else if args.dry_run {
        report.database.push("these statements would be executed:".into());
    } else {
        let to_remove = if source.remove_private_keys { private_keys } else { Vec::new() };
        if !to_remove.is_empty() {
            confirm("Remove the private keys from the database? The vault is then the only place that has them.", source.yes)?;
        }
        let inserted = database.move_out(&rows, &to_remove).await?;
        report
            .database
            .push(format!("inserted {inserted} rows into common_kms_metadata_store; it has the rows of all {} keys", rows.len()));
        report.database.push(format!("removed {} private keys from {}", to_remove.len(), tables.private_keys()));
        return report.print(remote.format);
    }
    report.kms_metadata_sql = rows.iter().map(KmsMetadataRow::sql).collect();
    report.print(remote.format)
}

/// Decrypts and reads the rows.
#[cfg_attr(not(feature = "aws-kms"), allow(clippy::unused_async, reason = "only AWS KMS is asked"))]
async fn read_rows(source: &RowArgs, tables: Tables, rows: &[PrivateKeyRow]) -> Vec<Found> {
    let mut found = Vec::with_capacity(rows.len());
    #[cfg(feature = "aws-kms")]
    let decryption = if rows.iter().any(|row| row.wrapper_key_id.is_some()) {
        Some(crate::kms::CantonStoreDecryption::new(source.aws_region.clone(), source.aws_endpoint.clone()).await)
    } else {
        None
    };
    #[cfg(not(feature = "aws-kms"))]
    let _ = source;
    for row in rows {
        let data = match &row.wrapper_key_id {
            None => Ok(SecretBytes::copy_of(row.data.expose())),
            #[cfg(feature = "aws-kms")]
            Some(wrapper) => match &decryption {
                Some(decryption) => decryption.decrypt(wrapper, row.data.expose()).await.map_err(|error| error.to_string()),
                None => Err("no connection to AWS KMS".to_owned()),
            },
            #[cfg(not(feature = "aws-kms"))]
            Some(wrapper) => Err(format!("it is encrypted under {wrapper}, and this binary has no AWS KMS")),
        };
        let key = data.and_then(|data| read_row(row, &data));
        let place = format!("table {}", tables.private_keys());
        found.push(Found { place, id: Some(row.key_id.clone()), name: row.name.clone(), key });
    }
    found
}

fn read_row(row: &PrivateKeyRow, data: &SecretBytes) -> Result<NodeKey, String> {
    let purpose = match row.purpose {
        0 => Purpose::Signing,
        1 => Purpose::Encryption,
        other => return Err(format!("the purpose {other} is not known. Canton has 0 for signing and 1 for encryption")),
    };
    let key = read_private_key_row(data, purpose).and_then(NodeKey::new).map_err(|error| error.to_string())?;
    if key.id.to_string() == row.key_id { Ok(key) } else { Err(format!("the row holds the key {}, not the one that it names", key.id)) }
}
