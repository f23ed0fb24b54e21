//! Makes each connection with what the file of the URL says now, so that a new password or token needs no restart.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Connect;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls, Socket, config::SslMode, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresConfig, connect::is_local, error::with_causes};
use crate::{
    files,
    storage::{LEASE_SECONDS, OpenStoreError},
};

/// The server looks whether this machine is still there. Without that, it would keep the session of a lost machine, and with it the lock of its instance,
/// for two hours.
const FIND_LOST_CLIENTS: &str = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";
/// The idle time of readers, whose transactions block nobody.
const IDLE: Duration = Duration::from_mins(1);
/// The least idle time of the writer. A busy machine can delay a process for seconds between two statements.
const LEAST_IDLE: Duration = Duration::from_secs(LEASE_SECONDS as u64);
/// Bytes of the file of the URL.
const MAX_URL: u64 = 16 * 1024;
/// Bytes of the file of the certificate authority.
const MAX_CA: u64 = 1024 * 1024;

/// What it takes to connect.
#[derive(Clone)]
pub(super) struct Connector {
    options: Arc<PostgresConfig>,
    tls: Option<MakeRustlsConnect>,
    /// The settings at the start, for when the file cannot be read later.
    first: Config,
    /// How long a session may do nothing in an open transaction before the server ends it.
    idle: Duration,
}

impl Connector {
    /// Reads the files. It connects nowhere yet.
    ///
    /// # Errors
    /// What is wrong with the URL or the certificates.
    pub(super) fn new(options: &PostgresConfig) -> Result<Self, OpenStoreError> {
        let first = settings(options, IDLE)?;
        let tls = match &options.ca {
            Some(ca) => {
                let pem = files::read(ca, MAX_CA).map_err(|source| OpenStoreError::Io { path: ca.clone(), source })?;
                let tls = super::connect::tls(&pem);
                Some(tls.map_err(|what| OpenStoreError::Database(format!("{}: {what}", ca.display())))?)
            }
            None => None,
        };
        Ok(Self { options: Arc::new(options.clone()), tls, first, idle: IDLE })
    }

    /// The same for the writer. Its transactions hold the lock that every state change of every process waits for. If this process is paused within one,
    /// the server ends the session when the leases of this process end too.
    pub(super) fn for_writer(&self) -> Self {
        let idle = self.options.commit_timeout.saturating_mul(2).max(LEAST_IDLE);
        Self { idle, ..self.clone() }
    }

    /// The settings of the file as it is now.
    pub(super) fn settings(&self) -> Config {
        settings(&self.options, self.idle).unwrap_or_else(|error| {
            tracing::warn!(%error, "the settings of the last start are used for a connection to PostgreSQL");
            self.first.clone()
        })
    }

    /// As [`Connector::settings`], without blocking the threads of the runtime: the file can be on a network.
    pub(super) async fn current(&self) -> Config {
        let connector = self.clone();
        tokio::task::spawn_blocking(move || connector.settings()).await.unwrap_or_else(|_| self.first.clone())
    }

    /// How the connection is encrypted. `None`: it is not, because it is to this machine.
    pub(super) fn tls(&self) -> Option<MakeRustlsConnect> {
        self.tls.clone()
    }
}

fn settings(options: &PostgresConfig, idle: Duration) -> Result<Config, OpenStoreError> {
    let unusable = |what: String| OpenStoreError::Database(what);
    let io = |source| OpenStoreError::Io { path: options.url_file.clone(), source };
    let text = files::read(&options.url_file, MAX_URL).map_err(io)?;
    let text = std::str::from_utf8(&text).map_err(|_| unusable("the file of the URL is not text".into()))?;
    let mut settings: Config = text.trim().parse().map_err(|error: Error| {
        // The text of the error repeats no part of the URL.
        unusable(format!("the URL cannot be read: {}. Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE", with_causes(&error)))
    })?;
    if options.ca.is_some() {
        settings.ssl_mode(SslMode::Require);
    } else if !is_local(&settings) {
        let what = "the database is on another host. Name the certificate authority of its server, so that the connection is encrypted";
        return Err(unusable(what.into()));
    }
    // A wait for a lock ends before its statement, so that the reason is known.
    let timeout = options.commit_timeout;
    let (lock, statement, idle) = (timeout.as_millis(), timeout.saturating_mul(3).as_millis() / 2, idle.as_millis());
    settings
        .application_name("canton-keyvault")
        .connect_timeout(timeout)
        .tcp_user_timeout(timeout.saturating_mul(2))
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .options(format!(
            "-c statement_timeout={statement} -c lock_timeout={lock} -c idle_in_transaction_session_timeout={idle} {FIND_LOST_CLIENTS}"
        ));
    Ok(settings)
}

impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async move {
            let settings = self.current().await;
            match self.tls() {
                Some(tls) => start(&settings, tls).await,
                None => start(&settings, NoTls).await,
            }
        })
    }
}

async fn start<T>(settings: &Config, tls: T) -> Result<(Client, JoinHandle<()>), Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = settings.connect(tls).await?;
    let running = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = with_causes(&error), "a connection to PostgreSQL ended");
        }
    });
    Ok((client, running))
}
