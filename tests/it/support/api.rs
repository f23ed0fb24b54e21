//! The API for tests: any method, any bytes, any response, and keys created in one line.

use std::time::Duration;

use canton_keyvault::client::{Connection, Endpoint};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::vault::TestVault;

/// One principal on one connection, which is replaced when the vault closes it.
pub(crate) struct Caller {
    endpoint: Endpoint,
    connection: Mutex<Option<Connection>>,
}

/// The response, with any status.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The status, and the code of a problem document, or nothing.
    pub(crate) fn outcome(&self) -> (u16, String) {
        let code = if self.status < 400 { Value::Null } else { self.json()["code"].clone() };
        (self.status, code.as_str().unwrap_or_default().to_owned())
    }

    /// The JSON of a success.
    pub(crate) fn success(&self) -> Value {
        assert!(self.status < 300, "{self:?}");
        self.json()
    }

    /// Asserts a refusal by status and code.
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.outcome(), (status, code.to_owned()), "{}", self.text);
        self.json()
    }
}

impl Caller {
    /// One of `dev`'s principals, or one that was [`enroll`]ed.
    pub(crate) fn new(vault: &TestVault, principal: &str) -> Self {
        Self { endpoint: Endpoint::new(&vault.options(principal)).unwrap(), connection: Mutex::default() }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.endpoint.connect().await.unwrap(),
        };
        if connection.ready().await.is_err() {
            connection = self.endpoint.connect().await.unwrap();
        }
        let mut request = Request::builder().method(method).uri(target).header("host", self.endpoint.authority());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = connection.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        *kept = Some(connection);
        Reply { status: head.status.as_u16(), headers: head.headers, text }
    }

    /// Sends a request over a connection of its own, and drops the connection after `patience`. `true` if the answer came before.
    pub(crate) async fn send_and_drop(&self, method: &str, target: &str, body: &Value, patience: Duration) -> bool {
        let mut connection = self.endpoint.connect().await.unwrap();
        connection.ready().await.unwrap();
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(target).header("host", self.endpoint.authority());
        let request = request.header("content-type", "application/json").body(Full::new(body)).unwrap();
        tokio::time::timeout(patience, connection.send_request(request)).await.is_ok()
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], "").await
    }

    pub(crate) async fn delete(&self, target: &str) -> Reply {
        self.send("DELETE", target, &[], "").await
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Reply {
        self.send("POST", target, &[("content-type", "application/json")], body.to_string()).await
    }

    /// `POST` with an `Idempotency-Key`.
    pub(crate) async fn once(&self, target: &str, key: &str, body: &Value) -> Reply {
        self.send("POST", target, &[("idempotency-key", key)], body.to_string()).await
    }

    /// A step of a key's life: `enable`, `disable`, …
    pub(crate) async fn step(&self, id: &str, step: &str) -> Reply {
        self.send("POST", &format!("/v1/keys/{id}/{step}"), &[], "").await
    }

    /// Creates a key of `node` and gives it.
    pub(crate) async fn create(&self, node: &str, purpose: &str, spec: &str) -> Value {
        self.post("/v1/keys", &json!({ "node": node, "purpose": purpose, "spec": spec })).await.success()
    }

    /// Creates an Ed25519 signing key and gives its id.
    pub(crate) async fn signing_key(&self, node: &str) -> String {
        id(&self.create(node, "signing", "ec-curve25519").await)
    }

    /// Signs `hello` with an Ed25519 key.
    pub(crate) async fn sign(&self, id: &str) -> Reply {
        self.post(&format!("/v1/keys/{id}/sign"), &json!({ "algorithm": "ed25519", "message": "aGVsbG8=" })).await
    }

    /// The whole log, oldest first, for an auditor; `query` begins with `&` or is empty.
    pub(crate) async fn log(&self, query: &str) -> Vec<Value> {
        let (mut entries, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/audit/entries?limit=1000{query}{cursor}")).await.success();
            entries.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return entries,
            }
        }
    }
}

/// The id of a key as answered.
pub(crate) fn id(key: &Value) -> String {
    key["id"].as_str().unwrap_or_else(|| panic!("no key: {key}")).to_owned()
}

/// Issues a client certificate for a principal that nothing is granted to.
pub(crate) fn enroll(vault: &TestVault, name: &str) {
    enroll_as(vault, name, &canton_keyvault::cli::pki::principal(name));
}

/// Issues a client certificate with this URI in the files of `name`.
pub(crate) fn enroll_as(vault: &TestVault, name: &str, uri: &str) {
    let read = |file: &str| std::fs::read_to_string(vault.path(file)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("pki/ca.pem"), KeyPair::from_pem(&read("pki/ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(vault.path(&format!("pki/{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(vault.path(&format!("pki/{name}.key")), key.serialize_pem()).unwrap();
}

/// A vault that writes one entry for each refusal, and whose limits no test reaches.
pub(crate) fn without_limits() -> TestVault {
    let limits = "[limits]\nrefusals_per_second = 1000000\ncreations_per_minute = 100000\ncache_misses_per_second = 100000\n\n[log]";
    TestVault::start_with(|config| config.replace("[log]", limits))
}
