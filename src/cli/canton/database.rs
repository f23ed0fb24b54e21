//! The PostgreSQL database of a Canton node: the private keys that it stores, and the table of its keys in a KMS. Every change is one
//! transaction.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use tokio_postgres::{Client, Config, NoTls, Transaction, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::node_key::KmsMetadataRow;
use crate::{
    cli::{Failure, input::Place},
    crypto::SecretBytes,
    storage::{self, is_local, with_causes},
};

/// The database of the node.
#[derive(Debug, Args)]
pub(super) struct DatabaseArgs {
    /// The file with the URL of the node's database, postgresql://USER:PASSWORD@HOST:PORT/DATABASE; - for standard input
    #[arg(long = "database-url-file", value_name = "FILE|-")]
    database_url: Option<Place>,
    /// PEM file of the certificate authority of the database server. Required for a database on another host
    #[arg(long = "database-ca", value_name = "FILE", requires = "database_url")]
    database_ca: Option<PathBuf>,
}

/// A connection to the database of a node.
pub(super) struct Database {
    client: Client,
}

/// A row of the private key store.
pub(super) struct PrivateKeyRow {
    /// The fingerprint, as the row states it.
    pub(super) key_id: String,
    /// The KMS key that encrypts `data`. `None`: `data` is not encrypted.
    pub(super) wrapper_key_id: Option<String>,
    /// 0 signing, 1 encryption.
    pub(super) purpose: i16,
    /// The message of the private key.
    pub(super) data: SecretBytes,
    /// The name of the key.
    pub(super) name: Option<String>,
}

/// The tables of a version of Canton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// Canton 3: `common_crypto_private_keys` and `common_kms_metadata_store`.
    V3,
    /// Canton 2: `crypto_private_keys`.
    V2,
}

impl Tables {
    pub(super) const fn private_keys(self) -> &'static str {
        match self {
            Self::V3 => "common_crypto_private_keys",
            Self::V2 => "crypto_private_keys",
        }
    }
}

impl DatabaseArgs {
    /// Connects, if there is a URL.
    pub(super) async fn connect(&self) -> Result<Option<Database>, Failure> {
        let Some(url) = &self.database_url else { return Ok(None) };
        let url = url.read_password("--database-url-file")?;
        let config: Config = url.trim().parse().map_err(|error: tokio_postgres::Error| {
            // The text of the error repeats no part of the URL.
            Failure::Usage(format!(
                "--database-url-file: {}. Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require",
                with_causes(&error)
            ))
        })?;
        Ok(Some(Database { client: connect(&config, self.database_ca.as_deref()).await? }))
    }
}

async fn connect(config: &Config, ca: Option<&Path>) -> Result<Client, Failure> {
    let (client, running) = match ca {
        Some(ca) => {
            let (client, connection) =
                config.clone().ssl_mode(SslMode::Require).connect(tls(ca)?).await.map_err(|error| cannot_connect(&error))?;
            (client, tokio::spawn(connection))
        }
        None if config.get_ssl_mode() == SslMode::Disable || is_local(config) => {
            let (client, connection) = config.connect(NoTls).await.map_err(|error| cannot_connect(&error))?;
            (client, tokio::spawn(connection))
        }
        None => {
            return Err(Failure::Usage(
                "the database is on another host, and private keys must not cross a network unencrypted. \
                 Add --database-ca FILE with the certificate authority of the database server, or sslmode=disable to the URL"
                    .into(),
            ));
        }
    };
    // The connection ends with the client.
    drop(running);
    Ok(client)
}

fn cannot_connect(error: &tokio_postgres::Error) -> Failure {
    anyhow!("cannot connect to the database: {}", with_causes(error)).into()
}

fn tls(ca: &Path) -> Result<MakeRustlsConnect, Failure> {
    let unusable = |what: String| Failure::Usage(format!("--database-ca {}: {what}", ca.display()));
    let pem = Place::File(ca.to_owned()).read("--database-ca")?;
    storage::tls(&pem).map_err(unusable)
}

impl Database {
    /// Which tables the database has.
    pub(super) async fn tables(&self) -> Result<Tables, Failure> {
        for tables in [Tables::V3, Tables::V2] {
            if self.has_table(tables.private_keys()).await? {
                return Ok(tables);
            }
        }
        Err(anyhow!(
            "the database has neither the table common_crypto_private_keys (Canton 3) nor crypto_private_keys (Canton 2). \
             Check the database and the search_path of the URL"
        )
        .into())
    }

    async fn has_table(&self, name: &str) -> Result<bool, Failure> {
        let row = self.client.query_one("SELECT to_regclass($1::text)::text", &[&name]).await.context("reading the catalogue")?;
        Ok(row.get::<_, Option<String>>(0).is_some())
    }

    /// The rows of the private key store, by fingerprint.
    pub(super) async fn private_keys(&self, tables: Tables) -> Result<Vec<PrivateKeyRow>, Failure> {
        let query = format!("SELECT key_id, wrapper_key_id, purpose, data, name FROM {} ORDER BY key_id", tables.private_keys());
        let rows = self.client.query(&query, &[]).await.context("reading the private keys")?;
        let rows = rows.iter().map(|row| {
            let data: Vec<u8> = row.try_get("data")?;
            Ok::<_, tokio_postgres::Error>(PrivateKeyRow {
                key_id: row.try_get("key_id")?,
                wrapper_key_id: row.try_get("wrapper_key_id")?,
                purpose: row.try_get("purpose")?,
                data: data.into(),
                name: row.try_get("name")?,
            })
        });
        Ok(rows.collect::<Result<_, _>>().context("the private key store has other columns than Canton's")?)
    }

    /// Inserts the rows of KMS keys that are missing, and removes the private keys `remove`, in one transaction. Returns how many rows were
    /// inserted.
    ///
    /// # Errors
    /// A fingerprint that already has another KMS key, or a private key that changed since it was read. Then nothing changes.
    pub(super) async fn move_out(&mut self, rows: &[KmsMetadataRow], remove: &[PrivateKeyRow]) -> Result<usize, Failure> {
        let transaction = self.client.transaction().await.context("starting a transaction")?;
        let mut inserted = 0;
        for row in rows {
            inserted += usize::from(insert_metadata(&transaction, row).await?);
        }
        for row in remove {
            let removed = transaction
                .execute("DELETE FROM common_crypto_private_keys WHERE key_id = $1 AND data = $2", &[&row.key_id, &row.data.expose()])
                .await
                .context("removing a private key")?;
            if removed != 1 {
                return Err(anyhow!(
                    "the private key {} was changed meanwhile. Nothing was changed. Stop the node and try again",
                    row.key_id
                )
                .into());
            }
        }
        transaction.commit().await.context("the outcome of the transaction is not known. Run the command again")?;
        Ok(inserted)
    }

    /// Inserts private keys, and removes their rows of KMS keys, in one transaction. Returns how many rows were inserted. Rows that exist with
    /// the same data stay.
    ///
    /// # Errors
    /// A fingerprint that has other data. Then nothing changes.
    pub(super) async fn move_in(&mut self, rows: &[PrivateKeyRow]) -> Result<usize, Failure> {
        let transaction = self.client.transaction().await.context("starting a transaction")?;
        let mut inserted = 0;
        for row in rows {
            inserted += usize::from(insert_private_key(&transaction, row).await?);
            transaction
                .execute("DELETE FROM common_kms_metadata_store WHERE fingerprint = $1 AND kms_key_id = $1", &[&row.key_id])
                .await
                .context("removing a row of common_kms_metadata_store")?;
        }
        transaction.commit().await.context("the outcome of the transaction is not known. Run the command again")?;
        Ok(inserted)
    }
}

/// Inserts the row unless it exists. The key id in the KMS is the fingerprint.
async fn insert_metadata(transaction: &Transaction<'_>, row: &KmsMetadataRow) -> anyhow::Result<bool> {
    let KmsMetadataRow { fingerprint, purpose, key_usage } = row;
    let found = transaction
        .query_opt("SELECT kms_key_id, purpose, key_usage FROM common_kms_metadata_store WHERE fingerprint = $1", &[fingerprint])
        .await
        .context("reading common_kms_metadata_store")?;
    if let Some(found) = found {
        let kms_key_id: String = found.try_get(0)?;
        if (kms_key_id.as_str(), found.try_get(1)?, found.try_get(2)?) == (fingerprint.as_str(), *purpose, key_usage.clone()) {
            return Ok(false);
        }
        bail!("common_kms_metadata_store has another row for {fingerprint}, with the KMS key {kms_key_id}. Nothing was changed");
    }
    let insert = "INSERT INTO common_kms_metadata_store (fingerprint, kms_key_id, purpose, key_usage) VALUES ($1, $1, $2, $3)";
    transaction.execute(insert, &[fingerprint, purpose, key_usage]).await.context("writing common_kms_metadata_store")?;
    Ok(true)
}

async fn insert_private_key(transaction: &Transaction<'_>, row: &PrivateKeyRow) -> anyhow::Result<bool> {
    let PrivateKeyRow { key_id, wrapper_key_id: _, purpose, data, name } = row;
    let found = transaction
        .query_opt("SELECT wrapper_key_id, data FROM common_crypto_private_keys WHERE key_id = $1", &[key_id])
        .await
        .context("reading common_crypto_private_keys")?;
    if let Some(found) = found {
        let (wrapper, stored): (Option<String>, Vec<u8>) = (found.try_get(0)?, found.try_get(1)?);
        if wrapper.is_none() && SecretBytes::from(stored).same(data) {
            return Ok(false);
        }
        bail!("common_crypto_private_keys has another row for {key_id}. Nothing was changed");
    }
    let insert = "INSERT INTO common_crypto_private_keys (key_id, wrapper_key_id, purpose, data, name) VALUES ($1, NULL, $2, $3, $4)";
    transaction.execute(insert, &[key_id, purpose, &data.expose(), name]).await.context("writing common_crypto_private_keys")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_of_this_machine_needs_no_tls() {
        for (url, local) in [
            ("postgresql://u:p@localhost/d", true),
            ("postgresql://u@127.0.0.1:5433/d", true),
            ("postgresql://u@[::1]/d", true),
            ("host=/var/run/postgresql user=u", true),
            ("postgresql://u@db.example.org/d", false),
            ("postgresql://u@localhost,db.example.org/d", false),
            ("host=localhost hostaddr=10.0.0.1 user=u", false),
        ] {
            assert_eq!(is_local(&url.parse().unwrap()), local, "{url}");
        }
    }
}
