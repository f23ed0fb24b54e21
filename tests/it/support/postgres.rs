//! A real PostgreSQL server (`tests/postgresql/`) with the key tables of a Canton node.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::pki::{Ca, Spec};
use crate::known_bytes::unbase64;

/// The tables of Canton 3 that hold keys, with the columns and types of Canton's migration `V1_1__initial.sql`.
const TABLES: &str = "
    CREATE TABLE common_crypto_private_keys (
        key_id varchar COLLATE \"C\" PRIMARY KEY, wrapper_key_id varchar COLLATE \"C\", purpose smallint NOT NULL, data bytea NOT NULL,
        name varchar COLLATE \"C\");
    CREATE TABLE common_kms_metadata_store (
        fingerprint varchar COLLATE \"C\" NOT NULL, kms_key_id varchar COLLATE \"C\" NOT NULL, purpose smallint NOT NULL,
        key_usage integer ARRAY NULL, PRIMARY KEY (fingerprint));";

/// A running server. It stops when it is dropped, and with the test process, however that ends.
pub(crate) struct Postgres {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Postgres {
    /// A server with an empty database.
    pub(crate) async fn start() -> Self {
        tokio::task::spawn_blocking(Self::spawn).await.unwrap()
    }

    /// A streaming standby of this server. It has every database, and accepts writes once it is promoted.
    pub(crate) async fn standby(&self) -> Self {
        let primary = [self.folder.path().to_str().unwrap().to_owned(), self.port.to_string()];
        tokio::task::spawn_blocking(move || Self::spawn_with(&primary)).await.unwrap()
    }

    /// The port of the server.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    fn spawn() -> Self {
        Self::spawn_with(&[])
    }

    fn spawn_with(primary: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("postgresql");
        ca.issue(Spec::server()).write(folder.path(), "server");
        std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgresql/run.sh");
        let mut child = Command::new(&script)
            .arg(folder.path())
            .arg(port.to_string())
            .args(primary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "PostgreSQL did not start: see above");
        Self { folder, port, child }
    }

    /// The certificate authority of the server.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A file with the URL of the database over TLS.
    pub(crate) fn url_file(&self, query: &str) -> PathBuf {
        let file = self.folder.path().join("url");
        std::fs::write(&file, format!("postgresql://canton:secret@127.0.0.1:{}/canton{query}\n", self.port)).unwrap();
        file
    }

    /// A file with the address of the database over the socket of this machine.
    pub(crate) fn socket_file(&self) -> PathBuf {
        let file = self.folder.path().join("socket");
        std::fs::write(&file, self.socket()).unwrap();
        file
    }

    fn socket(&self) -> String {
        format!("host={} port={} user=canton password=secret dbname=canton", self.folder.path().join("server").display(), self.port)
    }

    /// A client of the database.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.socket(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A new empty database.
    pub(crate) async fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("vault{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.client().await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url_file = self.folder.path().join(format!("{name}.url"));
        std::fs::write(&url_file, format!("postgresql://canton:secret@127.0.0.1:{}/{name}\n", self.port)).unwrap();
        let socket = self.socket().replace("dbname=canton", &format!("dbname={name}"));
        Database { name, url_file, ca: self.ca(), port: self.port, socket }
    }

    /// A client of a database that a primary had.
    pub(crate) async fn client_of(&self, database: &Database) -> Client {
        let socket = self.socket().replace("dbname=canton", &format!("dbname={}", database.name));
        let (client, connection) = tokio_postgres::connect(&socket, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Makes the key tables of a node.
    pub(crate) async fn node(&self, rows: &[&Value]) -> Client {
        let client = self.client().await;
        client.batch_execute(TABLES).await.unwrap();
        for row in rows {
            insert(&client, row, None, &unbase64(row["data_b64"].as_str().unwrap())).await;
        }
        client
    }
}

/// A database of its own for one test.
pub(crate) struct Database {
    pub(crate) name: String,
    /// The file with its URL over TLS.
    pub(crate) url_file: PathBuf,
    /// The certificate authority of the server.
    pub(crate) ca: PathBuf,
    /// The port of the server.
    pub(crate) port: u16,
    socket: String,
}

impl Database {
    /// The same database at another address, `http://HOST:PORT`.
    pub(crate) fn through(&self, address: &str) -> Self {
        let url_file = self.url_file.with_extension("proxy");
        let address = address.strip_prefix("http://").unwrap();
        std::fs::write(&url_file, format!("postgresql://canton:secret@{address}/{}\n", self.name)).unwrap();
        Self { name: self.name.clone(), url_file, ca: self.ca.clone(), port: self.port, socket: self.socket.clone() }
    }

    /// Writes another user to the file of the URL.
    pub(crate) fn write_url(&self, user: &str, password: &str) {
        std::fs::write(&self.url_file, format!("postgresql://{user}:{password}@127.0.0.1:{}/{}\n", self.port, self.name)).unwrap();
    }

    /// The same database, on whichever of the two servers accepts writes.
    pub(crate) fn with_standby(self, standby: &Postgres) -> Self {
        let hosts = format!("127.0.0.1:{},127.0.0.1:{}", self.port, standby.port());
        let url = format!("postgresql://canton:secret@{hosts}/{}?target_session_attrs=read-write\n", self.name);
        std::fs::write(&self.url_file, url).unwrap();
        let url_file = standby.folder.path().join("both.url");
        std::fs::copy(&self.url_file, &url_file).unwrap();
        let ca = standby.folder.path().join("both.pem");
        let pem = |file: &Path| std::fs::read_to_string(file).unwrap();
        std::fs::write(&ca, pem(&self.ca) + &pem(&standby.ca())).unwrap();
        Self { url_file, ca, ..self }
    }

    /// A client of the database.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.socket, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// The server that tests share. Each test has a database of its own. It ends with the test process.
pub(crate) async fn shared_server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    tokio::task::spawn_blocking(|| SERVER.get_or_init(Postgres::spawn)).await.unwrap()
}

/// Inserts a row of `private_key_rows` of `canton-made.json`, with its wrapper key and data.
pub(crate) async fn insert(client: &Client, row: &Value, wrapper: Option<&str>, data: &[u8]) {
    let (id, purpose) = (row["key_id"].as_str().unwrap(), i16::try_from(row["purpose"].as_i64().unwrap()).unwrap());
    client
        .execute(
            "INSERT INTO common_crypto_private_keys VALUES ($1, $2, $3, $4, $5)",
            &[&id, &wrapper, &purpose, &data, &row["row_name"].as_str()],
        )
        .await
        .unwrap();
}

/// Every row of the private key store: id, wrapper key, data, name.
pub(crate) async fn private_keys(client: &Client) -> Vec<(String, Option<String>, Vec<u8>, Option<String>)> {
    let query = "SELECT key_id, wrapper_key_id, data, name FROM common_crypto_private_keys ORDER BY key_id";
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// Every row of the KMS keys: fingerprint, KMS key, purpose, usages.
pub(crate) async fn kms_metadata(client: &Client) -> Vec<(String, String, i16, Option<Vec<i32>>)> {
    let query = "SELECT fingerprint, kms_key_id, purpose, key_usage FROM common_kms_metadata_store ORDER BY fingerprint";
    client.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}
