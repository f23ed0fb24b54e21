//! A PostgreSQL server with durable commits, and what it costs.

use std::{
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio_postgres::NoTls;

use crate::load::cpu_time;

/// A running server with one empty database. It ends with this value.
pub(crate) struct Database {
    process: Child,
    postmaster: u32,
    /// The connection string, over the socket of this machine.
    pub(crate) url: String,
}

impl Database {
    /// Starts a server in the folder `home`, with the certificate of the vault in `pki`.
    pub(crate) fn start(home: &Path, pki: &Path) -> anyhow::Result<Self> {
        for file in ["server.pem", "server.key"] {
            std::fs::copy(pki.join(file), home.join(file))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut process = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgresql/run.sh"))
            .arg(home)
            .arg(port.to_string())
            .env("POSTGRESQL_FSYNC", "on")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no standard output")?).read_line(&mut line)?;
        anyhow::ensure!(line == "ready\n", "PostgreSQL did not start");
        let pid = std::fs::read_to_string(home.join("server/data/postmaster.pid"))?;
        let postmaster = pid.lines().next().context("no process id")?.trim().parse()?;
        let url = format!("host={} port={port} user=canton password=secret dbname=canton", home.join("server").display());
        Ok(Self { process, postmaster, url })
    }

    /// Writes the URL to a file, as `[storage.postgresql] url_file` reads it.
    pub(crate) fn write_url(&self, file: &Path) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        Ok(file.write_all(self.url.as_bytes())?)
    }

    /// The CPU time of all processes of the server so far.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let mut sum = cpu_time(self.postmaster)?;
        for process in std::fs::read_dir("/proc")? {
            let Some(pid) = process?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process can end meanwhile.
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
            if parent == Some(self.postmaster) {
                sum += cpu_time(pid).unwrap_or_default();
            }
        }
        Ok(sum)
    }

    /// Commits a second of one row of `bytes` each, by as many connections: the bound of a program that commits each call by itself.
    pub(crate) async fn commit_rate(&self, connections: u32, bytes: usize, time: Duration) -> anyhow::Result<f64> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE IF NOT EXISTS commit_rate (id bigserial PRIMARY KEY, data bytea NOT NULL)").await?;
        let end = Instant::now() + time;
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let url = self.url.clone();
                tokio::spawn(async move {
                    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                    tokio::spawn(connection);
                    let insert = client.prepare("INSERT INTO commit_rate (data) VALUES ($1)").await?;
                    let data = vec![7_u8; bytes];
                    let mut commits = 0_u32;
                    while Instant::now() < end {
                        client.execute(&insert, &[&data]).await?;
                        commits += 1;
                    }
                    anyhow::Ok(commits)
                })
            })
            .collect();
        let mut commits = 0.0;
        for task in tasks {
            commits += f64::from(task.await??);
        }
        client.batch_execute("DROP TABLE commit_rate").await?;
        Ok(commits / time.as_secs_f64())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
