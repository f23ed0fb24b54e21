//! The binary with its own folder over real mTLS, for tests from outside.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::Source,
    cli::pki,
    client::{Client, ClientError, ConnectOptions, Problem},
    crypto::SystemRandom,
    domain::{AuditEvent, Timestamp},
    kms::create_key_file,
    storage::{Change, Commit, KeyStore as _, Mode, SqliteConfig, SqliteStore},
};
use serde_json::Value;
use tempfile::TempDir;

use super::postgres::Database;
use crate::storage_fixtures::until_unlocked;

/// How long a start, a stop or a condition may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(2);

/// A vault served by the binary. Killed when dropped.
pub(crate) struct TestVault {
    dir: Arc<TempDir>,
    /// The name of the configuration in the folder.
    config: String,
    environment: Vec<(String, String)>,
    /// A command that runs the binary with its arguments, such as `setpriv …`.
    prefix: Vec<String>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    url: String,
    ops: String,
    log: Arc<Mutex<Vec<Value>>>,
}

impl TestVault {
    /// A vault on the configuration that `dev` makes (local wrapper key, six principals), served as production.
    pub(crate) fn start() -> Self {
        Self::start_with(|config| config)
    }

    /// The same, after `edit` changed the text of `keyvault.toml`.
    pub(crate) fn start_with(edit: impl FnOnce(String) -> String) -> Self {
        let mut vault = Self::prepare(edit);
        vault.serve();
        vault
    }

    /// Everything but the process.
    #[expect(clippy::disallowed_methods, reason = "the binary under test has the real clock")]
    pub(crate) fn prepare(edit: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::ensure_pki(dir.path(), Timestamp::from(std::time::SystemTime::now())).unwrap();
        create_key_file(&dir.path().join("wrapper.key"), &SystemRandom::default()).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let config = edit(pki::dev_config(any, any)).replace("format = \"text\"", "format = \"json\"");
        // No checkpoint comes between the entries that a test looks at.
        let quiet = if config.contains("[audit]") { "" } else { "\n[audit]\ncheckpoint_interval = \"1day\"\n" };
        fs::write(dir.path().join("keyvault.toml"), config + quiet).unwrap();
        Self { dir: Arc::new(dir), config: "keyvault.toml".into(), environment: Vec::new(), prefix: Vec::new(), running: None }
    }

    /// A vault on a database, not started.
    pub(crate) fn on_database(database: &Database) -> Self {
        let storage = format!("[storage.postgresql]\nurl_file = \"{}\"\nca = \"{}\"", database.url_file.display(), database.ca.display());
        Self::prepare(|config| config.replace("[storage]\npath = \"keyvault.db\"", &format!("[storage]\n{storage}")))
    }

    /// Adds limits that no test reaches to the configuration.
    pub(crate) fn limits_that_no_test_reaches(&self) {
        let limits = "\n[limits]\ncreations_per_minute = 1000000\ncache_misses_per_second = 1000000\nrefusals_per_second = 1000000\ninformation_per_second = 1000000\n";
        let config = self.path(&self.config);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + limits).unwrap();
    }

    /// A further replica of a vault on a database, not started. It shares the folder, with the files of certificates and wrapper keys.
    pub(crate) fn replica(&self, instance: &str) -> Self {
        let text = fs::read_to_string(self.path("keyvault.toml")).unwrap();
        let config = format!("{instance}.toml");
        fs::write(self.path(&config), text.replace("id = \"dev\"", &format!("id = \"dev\"\ninstance = \"{instance}\""))).unwrap();
        Self { dir: Arc::clone(&self.dir), config, environment: self.environment.clone(), prefix: self.prefix.clone(), running: None }
    }

    /// Sets an environment variable of the process, for the next start.
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// Takes an environment variable away, for the next start.
    pub(crate) fn without_env(&mut self, name: &str) {
        self.environment.retain(|(set, _)| set != name);
    }

    /// Runs the binary from now on by this command, which gets it with its arguments.
    pub(crate) fn run_by(&mut self, prefix: &[&str]) {
        self.prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// The same with more arguments of `serve`.
    pub(crate) fn serve_with(&mut self, more: &[&str]) {
        let mut serve = self.command(&["serve", "--config"]);
        let mut child = serve.arg(self.path(&self.config)).args(more).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                lines.lock().unwrap().push(line);
            }
        });
        let began = Instant::now();
        loop {
            let listening = log.lock().unwrap().iter().find(|line: &&Value| line["message"] == "listening").cloned();
            if let Some(line) = listening {
                let (url, ops) =
                    (format!("https://{}", line["api"].as_str().unwrap()), format!("http://{}", line["ops"].as_str().unwrap()));
                self.running = Some(Running { child, url, ops, log });
                return;
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("serve ended with {status}: {:#?}", log.lock().unwrap());
            }
            assert!(began.elapsed() < PATIENCE, "serve does not listen: {:#?}", log.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A `canton-keyvault` command with this vault's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_canton-keyvault").to_owned();
        let mut words = self.prefix.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).envs(self.environment.iter().cloned()).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs `serve` where it must refuse to start, and gives the reason in its last log line.
    pub(crate) fn refuses_to_serve(&self) -> String {
        let mut serve = self.command(&["serve", "--config"]);
        let mut child = serve.arg(self.path(&self.config)).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let printed = thread::spawn(move || {
            let mut printed = String::new();
            stderr.read_to_string(&mut printed).unwrap();
            printed
        });
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if began.elapsed() > PATIENCE => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let printed = printed.join().unwrap();
        assert!(status.is_some_and(|status| !status.success()), "serve did not refuse: {status:?}: {printed}");
        let last: Value = printed.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{printed}"));
        last["cause"].as_str().unwrap_or_else(|| panic!("{printed}")).to_owned()
    }

    /// Commits to the store of a vault that does not run.
    pub(crate) async fn commit_offline(&self, change: Change, event: AuditEvent) {
        let source = Source { vault: "dev".into(), instance: "main".into(), version: "test".into() };
        let config = SqliteConfig::new(self.path("keyvault.db"), Mode::Production);
        let now = event.at;
        let store =
            until_unlocked(|| SqliteStore::open(config.clone(), source.clone(), &"dev".parse().unwrap(), &SystemRandom::default(), now));
        store.commit(Commit::change(change, event)).await.unwrap();
        store.close().await;
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for the end; `true` if it ended well.
    pub(crate) fn terminate(&mut self) -> bool {
        let mut running = self.running.take().unwrap();
        let pid = rustix::process::Pid::from_child(&running.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        running.child.wait().unwrap().success()
    }

    /// kill -9, and start again on the same folder.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.serve();
    }

    /// Pauses the process, as a machine does that has no time for it.
    pub(crate) fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.running().child), signal).unwrap();
    }

    /// Changes the text of the configuration, for the next start.
    pub(crate) fn configure(&self, edit: impl FnOnce(String) -> String) {
        let config = self.path(&self.config);
        fs::write(&config, edit(fs::read_to_string(&config).unwrap())).unwrap();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the vault is not running")
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// `https://127.0.0.1:…` of the API.
    pub(crate) fn url(&self) -> &str {
        &self.running().url
    }

    /// `http://127.0.0.1:…` of the operations listener (it speaks TLS on the same port).
    pub(crate) fn ops_url(&self) -> &str {
        &self.running().ops
    }

    /// The log lines so far, as JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.running().log.lock().unwrap().clone()
    }

    /// A file of the vault's folder: `keyvault.db`, `pki/ca.pem`, …
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// What it takes to connect as one of `dev`'s principals.
    pub(crate) fn options(&self, principal: &str) -> ConnectOptions {
        let pem = |kind: &str| self.path(&format!("pki/{principal}.{kind}"));
        ConnectOptions { url: self.url().to_owned(), ca: self.path("pki/ca.pem"), cert: pem("pem"), key: pem("key") }
    }

    /// A client as one of `dev`'s principals; it keeps one connection.
    pub(crate) fn client(&self, principal: &str) -> Client {
        Client::new(&self.options(principal)).unwrap()
    }

    /// The database of the vault, opened beside it.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.path("keyvault.db")).unwrap();
        db.execute_batch(LOG_VIEW).unwrap();
        db
    }

    /// Waits until the complete blocks of the log have their digests.
    pub(crate) async fn digested(&self) {
        let left = "SELECT (SELECT max(sequence) + 1 FROM audit_entries) / 1024 - (SELECT count(*) FROM audit_digests)";
        let db = self.database();
        while db.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// The folder, kept as long as this handle lives.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for TestVault {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Exports the log of a running vault, and verifies the export up to a new checkpoint.
pub(crate) async fn verify_exported(vault: &TestVault) -> Result<(), String> {
    let auditor = vault.client("auditor");
    auditor.post("/v1/audit/checkpoints", &serde_json::json!({})).await.map_err(|error| error.to_string())?;
    let keys = auditor.get("/v1/audit/verifier-keys").await.map_err(|error| error.to_string())?;
    let (key, log) = (format!("{}.verifier-key", vault.config), format!("{}.ndjson", vault.config));
    fs::write(vault.path(&key), keys["items"][0]["verifier_key"].as_str().unwrap()).unwrap();
    let _ = fs::remove_file(vault.path(&log));
    let options = vault.options("auditor");
    let mut export = vault.command(&["audit", "export", "--out", &log, "--url", &options.url]);
    export.arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    for mut command in [export, vault.command(&["audit", "verify", &log, "--verifier-key", &key])] {
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(())
}

/// The problem document of a refused call.
pub(crate) fn problem<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Problem {
    match result {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("expected a problem document, got {other:?}"),
    }
}

/// Waits until a condition holds, looking often; fails after [`PATIENCE`].
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The log with fields of its entries as columns, for this connection.
const LOG_VIEW: &str = "CREATE TEMP VIEW audit_log AS SELECT sequence, entry, leaf, state_revision, changed_key,
    entry ->> '$.operation' AS operation, entry ->> '$.key_id' AS key_id, entry ->> '$.subject' AS subject, entry ->> '$.reason' AS reason
    FROM audit_entries WHERE entry <> x'' AND json_valid(entry)";
