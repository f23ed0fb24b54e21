//! Connections to PostgreSQL: TLS that verifies the name of the server, limits of every wait, and statements that are prepared once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use deadpool_postgres::{ClientWrapper, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::{
    Config, NoTls, Row,
    config::{Host, SslMode},
    types::ToSql,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{StoreError, error::with_causes};
use crate::{
    crypto::read_certificate_file,
    files,
    storage::{Mode, OpenStoreError},
};

/// Options of a PostgreSQL store.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// The file with the URL of the database, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. Readable by the owner only.
    pub url_file: PathBuf,
    /// PEM file of the certificate authority of the server. Required for a database on another host.
    pub ca: Option<PathBuf>,
    /// The purpose of the database, fixed when it is created.
    pub mode: Mode,
    /// Timeout of a commit or a read. Default 5 s.
    pub commit_timeout: Duration,
    /// Maximum number of commits that wait for the writer. Further ones are refused at once. Default 4096.
    pub queue: usize,
    /// Time of one query of the audit log. Default 500 ms.
    pub query_time: Duration,
    /// Connections for reads, besides the one of the writer. Default 6.
    pub readers: usize,
}

impl PostgresConfig {
    /// The defaults for this database.
    pub fn new(url_file: impl Into<PathBuf>, mode: Mode) -> Self {
        Self {
            url_file: url_file.into(),
            ca: None,
            mode,
            commit_timeout: Duration::from_secs(5),
            queue: 4096,
            query_time: Duration::from_millis(500),
            readers: 6,
        }
    }
}

/// A connection.
pub(super) type Db = ClientWrapper;

/// The values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The connections of a store: one for the writer, the others for readers.
pub(super) struct Pools {
    pub(super) writer: Pool,
    pub(super) readers: Pool,
}

/// Makes the pools. It connects nowhere yet.
pub(super) fn pools(config: &PostgresConfig) -> Result<Pools, OpenStoreError> {
    let unusable = |what: String| OpenStoreError::Database(what);
    let io = |source| OpenStoreError::Io { path: config.url_file.clone(), source };
    let text = files::read(&config.url_file, MAX_URL).map_err(io)?;
    let text = std::str::from_utf8(&text).map_err(|_| unusable("the file of the URL is not text".into()))?;
    let mut connection: Config = text.trim().parse().map_err(|error: tokio_postgres::Error| {
        // The text of the error repeats no part of the URL.
        unusable(format!("the URL cannot be read: {}. Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE", with_causes(&error)))
    })?;
    // A wait for a lock ends before its statement, so that the reason is known.
    let (lock, statement) = (config.commit_timeout.as_millis(), config.commit_timeout.saturating_mul(3).as_millis() / 2);
    connection
        .application_name("canton-keyvault")
        .connect_timeout(config.commit_timeout)
        .tcp_user_timeout(config.commit_timeout.saturating_mul(2))
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .options(format!("-c statement_timeout={statement} -c lock_timeout={lock} -c idle_in_transaction_session_timeout=60000"));
    let tls = match &config.ca {
        Some(ca) => {
            connection.ssl_mode(SslMode::Require);
            let pem = files::read(ca, MAX_CA);
            let pem = pem.map_err(|source| OpenStoreError::Io { path: ca.clone(), source })?;
            Some(tls(&pem).map_err(|what| unusable(format!("{}: {what}", ca.display())))?)
        }
        None if is_local(&connection) => None,
        None => {
            return Err(unusable(
                "the database is on another host. Name the certificate authority of its server, so that the connection is encrypted".into(),
            ));
        }
    };
    let pool = |size| {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &tls {
            Some(tls) => Manager::from_config(connection.clone(), tls.clone(), recycling),
            None => Manager::from_config(connection.clone(), NoTls, recycling),
        };
        let limit = Some(config.commit_timeout);
        let timeouts = Timeouts { wait: limit, create: limit, recycle: limit };
        let built = Pool::builder(manager).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        built.map_err(|error| unusable(error.to_string()))
    };
    Ok(Pools { writer: pool(1)?, readers: pool(config.readers.max(1))? })
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

/// Bytes of the file of the URL.
const MAX_URL: u64 = 16 * 1024;
/// Bytes of the file of the certificate authority.
const MAX_CA: u64 = 1024 * 1024;
