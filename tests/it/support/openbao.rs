//! A real OpenBao server (`tests/openbao/`): started once per test process, administered with its root token; its audit log is readable.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::TlsConnector;

use super::pki::{Ca, Spec, client, dns};

/// A running server. Ends with the test process, or when dropped.
pub(crate) struct Openbao {
    folder: TempDir,
    port: u16,
    plain: u16,
    tls: Arc<ClientConfig>,
    ca: Ca,
    root: String,
    unseal_key: String,
    /// The server's process; `script` is the one that ends it when its standard input, which is ours, closes.
    process: rustix::process::Pid,
    script: Child,
}

impl Openbao {
    /// The server that tests of one process share. Take keys, policies and tokens of your own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Openbao> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A server of one's own, to be sealed and stopped.
    pub(crate) async fn start() -> Self {
        let mut server = tokio::task::spawn_blocking(Self::spawn).await.unwrap();
        server.initialise().await;
        server
    }

    fn spawn() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("openbao");
        ca.issue(Spec::server()).write(folder.path(), "server");
        ca.issue(Spec::client(vec![dns("vault.example.org")])).write(folder.path(), "vault");
        std::fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let free = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, plain] = free.map(|listener| listener.local_addr().unwrap().port());
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openbao");
        let config = std::fs::read_to_string(tests.join("server.hcl")).unwrap().replace("PORT", &port.to_string());
        let config = config.replace("PLAIN", &plain.to_string());
        std::fs::write(folder.path().join("server.hcl"), config).unwrap();
        let run = tests.join("run.sh");
        let mut script = Command::new(&run)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", run.display()));
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let process = line.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        let process = process.unwrap_or_else(|| panic!("OpenBao did not start: see above"));
        let tls = client(&ca, None, b"http/1.1", &[&rustls::version::TLS13]);
        Self { folder, port, plain, tls, ca, root: String::new(), unseal_key: String::new(), process, script }
    }

    async fn initialise(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "{}", std::fs::read_to_string(self.file("server.log")).unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let made = self.call("POST", "sys/init", json!({ "secret_shares": 1, "secret_threshold": 1 })).await;
        self.root = made["root_token"].as_str().unwrap().into();
        self.unseal_key = made["keys_base64"][0].as_str().unwrap().into();
        self.unseal().await;
        self.call("POST", "sys/mounts/transit", json!({ "type": "transit" })).await;
        self.call("POST", "sys/auth/cert", json!({ "type": "cert" })).await;
    }

    /// `https://127.0.0.1:…`
    pub(crate) fn address(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// `http://127.0.0.1:…`, the same without TLS.
    pub(crate) fn plain_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.plain)
    }

    /// `127.0.0.1:…`
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The root token.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// A file of the server's folder: `ca.pem`, and `vault.pem` and `vault.key` for one who logs in.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What issued its certificate, and believes those of clients.
    pub(crate) fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The URL of a transit key.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}/transit/keys/{name}", self.address())
    }

    /// Makes a key of one's own and gives its name; `options` on top of `type`.
    pub(crate) async fn create_key(&self, options: Value) -> String {
        let name = unique("key");
        self.create_key_named(&name, options).await;
        name
    }

    /// Makes a key of this name.
    pub(crate) async fn create_key_named(&self, name: &str, options: Value) {
        let mut body = json!({ "type": "aes256-gcm96" });
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        self.call("POST", &format!("transit/keys/{name}"), body).await;
    }

    /// Deletes a key for good.
    pub(crate) async fn delete_key(&self, name: &str) {
        self.call("POST", &format!("transit/keys/{name}/config"), json!({ "deletion_allowed": true })).await;
        self.call("DELETE", &format!("transit/keys/{name}"), json!({})).await;
    }

    /// Makes a policy that allows these operations on all transit keys, as deploy/openbao/ has them, and gives its name.
    pub(crate) async fn policy(&self, operations: &[&str]) -> String {
        let name = unique("policy");
        self.set_policy(&name, operations).await;
        name
    }

    /// Changes a policy.
    pub(crate) async fn set_policy(&self, name: &str, operations: &[&str]) {
        let path = |operation: &&str| {
            let capability = if *operation == "keys" { "read" } else { "update" };
            format!("path \"transit/{operation}/*\" {{ capabilities = [\"{capability}\"] }}\n")
        };
        let text: String = operations.iter().map(path).collect();
        self.call("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
    }

    /// A new token; `options` of `auth/token/create`.
    pub(crate) async fn token(&self, options: Value) -> String {
        self.call("POST", "auth/token/create", options).await["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// A file with a token that has the least rights.
    pub(crate) async fn token_file(&self) -> tempfile::NamedTempFile {
        let policy = self.policy(&LEAST).await;
        write_token(&self.token(json!({ "policies": [policy], "period": "1h" })).await)
    }

    pub(crate) async fn revoke(&self, token: &str) {
        self.call("POST", "auth/token/revoke", json!({ "token": token })).await;
    }

    pub(crate) async fn seal(&self) {
        self.call("PUT", "sys/seal", json!({})).await;
    }

    pub(crate) async fn unseal(&self) {
        self.call("PUT", "sys/unseal", json!({ "key": self.unseal_key })).await;
    }

    /// Stops it in its tracks: connections stay open, and nothing is answered.
    pub(crate) fn suspend(&self) {
        rustix::process::kill_process(self.process, rustix::process::Signal::STOP).unwrap();
        // Its threads stop when they come by, which a busy machine puts off.
        let tasks = format!("/proc/{}/task", self.process.as_raw_nonzero().get());
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        while !std::fs::read_dir(&tasks).unwrap().all(|task| stopped(task.unwrap())) {
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        rustix::process::kill_process(self.process, rustix::process::Signal::CONT).unwrap();
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        // Its standard input closes, and it kills the server.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }

    /// The requests so far to this path: from the server's own log.
    pub(crate) fn requests(&self, path: &str) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.file("requests.log")).unwrap();
        let all = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|entry| entry["type"] == "request" && entry["request"]["path"] == path)
            .map(|mut entry| entry["request"].take())
            .collect()
    }

    /// Calls the API with the root token, and panics if it is refused.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    async fn try_call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header("host", self.authority())
            .header("x-vault-token", &self.root)
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

impl Drop for Openbao {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The operations that the vault needs.
pub(crate) const LEAST: [&str; 3] = ["encrypt", "decrypt", "keys"];

/// A private file that holds a token.
pub(crate) fn write_token(token: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token).unwrap();
    file
}

/// How the configuration names it.
pub(crate) fn token_line(file: &Path) -> String {
    format!("token_file = '{}'", file.display())
}

fn unique(what: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

const PATIENCE: Duration = Duration::from_mins(1);
