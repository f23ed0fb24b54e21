//! Connections to PostgreSQL: TLS that verifies the name of the server, limits of every wait, and statements that are prepared once.

use std::sync::Arc;

use deadpool_postgres::{ClientWrapper, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::{Config, Row, config::Host, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresConfig, StoreError, connector::Connector};
use crate::{crypto::read_certificate_file, storage::OpenStoreError};

/// A connection.
pub(super) type Db = ClientWrapper;

/// The values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The connections of a store: one for the writer, the others for readers.
pub(super) struct Pools {
    pub(super) writer: Pool,
    pub(super) readers: Pool,
    /// For the connection on which changes by other processes are announced.
    pub(super) connector: Connector,
}

/// Makes the pools. It connects nowhere yet.
pub(super) fn pools(config: &PostgresConfig) -> Result<Pools, OpenStoreError> {
    let unusable = |what: String| OpenStoreError::Database(what);
    let connector = Connector::new(config)?;
    let pool = |size, connector: Connector| {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(connector.settings(), connector, recycling);
        let limit = Some(config.commit_timeout);
        let timeouts = Timeouts { wait: limit, create: limit, recycle: limit };
        let built = Pool::builder(manager).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        built.map_err(|error| unusable(error.to_string()))
    };
    let (writer, readers) = (pool(1, connector.for_writer())?, pool(config.readers.max(1), connector.clone())?);
    Ok(Pools { writer, readers, connector })
}

/// TLS to a server whose certificate names its host and is of one of these authorities.
///
/// # Errors
/// What is wrong with the certificates.
pub(crate) fn tls(pem: &[u8]) -> Result<MakeRustlsConnect, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificate_file(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Whether every host is a socket of this machine.
pub(crate) fn is_local(config: &Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
        Host::Unix(_) => true,
    });
    hosts && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

/// The rows of a query.
pub(super) async fn rows(db: &Db, sql: &str, values: Values<'_>) -> Result<Vec<Row>, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, values).await?)
}

/// The row of a query, if there is one.
pub(super) async fn optional(db: &Db, sql: &str, values: Values<'_>) -> Result<Option<Row>, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, values).await?)
}

/// The one number of a query.
pub(super) async fn number(db: &Db, sql: &str, values: Values<'_>) -> Result<u64, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    super::error::unsigned(db.query_one(&statement, values).await?.try_get(0)?)
}

/// Whether a query has a row.
pub(super) async fn exists(db: &Db, sql: &str, values: Values<'_>) -> Result<bool, StoreError> {
    Ok(!rows(db, sql, values).await?.is_empty())
}

/// Executes a statement. Returns the number of rows that it changed.
pub(super) async fn execute(db: &Db, sql: &str, values: Values<'_>) -> Result<u64, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, values).await?)
}

/// Executes a statement that must change exactly one row.
pub(super) async fn execute_one(db: &Db, sql: &str, values: Values<'_>) -> Result<(), StoreError> {
    match execute(db, sql, values).await? {
        1 => Ok(()),
        changed => {
            Err(StoreError::Failed(format!("a statement changed {changed} rows instead of one: check the structure of the database")))
        }
    }
}
