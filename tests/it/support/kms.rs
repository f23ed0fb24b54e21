//! A double of AWS KMS (`tests/kms/`): started once per test process; it can be told to fail, and records its calls.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::OnceCell};

/// A running double. Ends with the test process, or when dropped.
pub(crate) struct Kms {
    address: String,
    log: tempfile::NamedTempFile,
    trail: tempfile::NamedTempFile,
    /// Its standard input is ours, and it ends when that closes: no double outlives a test process, however that ends.
    child: Child,
}

impl Kms {
    /// The double that tests of one process share. Narrow faults to a key of your own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kms> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A double of one's own: a Python process, which takes some seconds.
    pub(crate) async fn start() -> Self {
        tokio::task::spawn_blocking(Self::spawn).await.unwrap()
    }

    fn spawn() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kms/run.sh");
        let [log, trail] = [(), ()].map(|()| tempfile::NamedTempFile::new().unwrap());
        let mut child = Command::new(&script)
            .arg("--log")
            .arg(log.path())
            .arg("--cloudtrail")
            .arg(trail.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("http://")
            .unwrap_or_else(|| {
                panic!("the KMS double did not start: it needs python3 with venv and pip (apt install python3-venv); see above")
            })
            .to_owned();
        Self { address, log, trail, child }
    }

    /// `http://127.0.0.1:…`, for `[wrapper] endpoint`. Every region is there.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a symmetric key and gives its ARN.
    pub(crate) async fn create_key(&self, region: &str, multi_region: bool) -> String {
        self.create(region, json!({ "MultiRegion": multi_region })).await
    }

    /// Creates a key by the parameters of `CreateKey` and gives its ARN.
    pub(crate) async fn create(&self, region: &str, parameters: Value) -> String {
        let made = self.call(region, "CreateKey", parameters).await;
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }

    /// Calls an action of KMS without a client library, as an administrator, and panics if it is refused.
    pub(crate) async fn call(&self, region: &str, action: &str, parameters: Value) -> Value {
        self.call_as("admin", region, action, parameters).await
    }

    /// The same as the user with this access key.
    pub(crate) async fn call_as(&self, access_key: &str, region: &str, action: &str, parameters: Value) -> Value {
        let credential =
            format!("AWS4-HMAC-SHA256 Credential={access_key}/20260101/{region}/kms/aws4_request, SignedHeaders=host, Signature=0");
        let request = http::Request::post("/")
            .header("host", &self.address)
            .header("authorization", credential)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{action}"));
        let body = self.send(request, parameters).await;
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() }
    }

    /// Adds or takes away a fault, as `tests/kms/server.py` documents.
    pub(crate) async fn fault(&self, fault: Value) {
        self.send(http::Request::post("/_fault").header("host", &self.address), fault).await;
    }

    /// What a source of credentials answers from now on, as `tests/kms/credential_sources.py` documents.
    pub(crate) async fn source(&self, source: Value) {
        self.send(http::Request::post("/_sources").header("host", &self.address), source).await;
    }

    /// The requests so far to a source of credentials.
    pub(crate) fn source_log(&self, name: &str) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.log.path()).unwrap();
        let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|entry| entry["source"] == name).collect()
    }

    /// The records of CloudTrail so far that name one of these keys, by the end of their ARNs.
    pub(crate) fn records(&self, keys: &[&str]) -> Vec<Value> {
        let ids: Vec<&str> = keys.iter().map(|key| key.rsplit('/').next().unwrap()).collect();
        let lines = std::fs::read_to_string(self.trail.path()).unwrap();
        let ours = lines.lines().filter(|line| ids.iter().any(|id| line.contains(id)));
        ours.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The requests so far that name this key, as `tests/kms/server.py` documents them.
    pub(crate) fn log(&self, key: &str) -> Vec<Value> {
        let lines = std::fs::read_to_string(self.log.path()).unwrap();
        let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let names = |entry: &Value, field: &str| entry[field].as_str().is_some_and(|id| id.contains(key));
        all.filter(|entry| ["key_id", "source_key_id", "destination_key_id"].iter().any(|field| names(entry, field))).collect()
    }

    async fn send(&self, request: http::request::Builder, body: Value) -> Bytes {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        body
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
