//! The binary with its wrapper key in the KMS double, and queries to both.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::client::{ClientError, Problem};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    kms::Kms,
    vault::{TestVault, problem},
    wrapper::{ACCOUNT, CENTRAL},
};

/// A vault whose first wrapper key is a KMS key of its own.
pub(crate) struct AwsVault {
    pub(crate) vault: TestVault,
    pub(crate) kms: &'static Kms,
    /// The ARN of the wrapper key.
    pub(crate) arn: String,
}

/// How an [`AwsVault`] differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup {
    /// The wrapper key, if it exists already.
    pub(crate) arn: Option<String>,
    /// What `[wrapper] reference` says, if not the ARN.
    pub(crate) reference: Option<String>,
    /// Where KMS is, if not at the double.
    pub(crate) endpoint: Option<String>,
    /// More patterns under `[wrapper] allowed`.
    pub(crate) allowed: Vec<String>,
    /// More lines of `[wrapper]`.
    pub(crate) wrapper: String,
    /// What `[wrapper.limits]` says, if not that calls end soon.
    pub(crate) limits: Option<&'static str>,
    /// More sections.
    pub(crate) sections: String,
}

impl AwsVault {
    pub(crate) async fn start(setup: Setup) -> Self {
        let mut this = Self::prepare(setup).await;
        this.vault.serve();
        this
    }

    /// Everything but the process.
    pub(crate) async fn prepare(setup: Setup) -> Self {
        let kms = Kms::shared().await;
        let Setup { arn, reference, endpoint, mut allowed, wrapper, limits, sections } = setup;
        allowed.push(ACCOUNT.to_owned());
        let arn = match arn {
            Some(arn) => arn,
            None => kms.create_key(CENTRAL, false).await,
        };
        let (reference, endpoint) = (reference.unwrap_or_else(|| arn.clone()), endpoint.unwrap_or_else(|| kms.endpoint()));
        let limits = limits.unwrap_or("attempt_timeout = \"1500ms\"\ntimeout = \"4s\"\nretries = 1\nbreaker_cooldown = \"300ms\"");
        let section = format!(
            "[wrapper]\nprovider = \"aws-kms\"\nreference = {reference:?}\nendpoint = {endpoint:?}\nallowed = {allowed:?}\n{wrapper}\n\
             [wrapper.limits]\n{limits}\n{sections}\n"
        );
        let mut vault = TestVault::prepare(|config| {
            let (before, rest) = config.split_once("[wrapper]").unwrap();
            let (_, after) = rest.split_once("[log]").unwrap();
            format!("{before}{section}\n[log]{after}")
        });
        for (name, value) in [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", CENTRAL)] {
            vault.env(name, value);
        }
        Self { vault, kms, arn }
    }

    /// Creates an Ed25519 key of `participant1`; it is not in memory then.
    pub(crate) async fn create(&self) -> Result<Value, ClientError> {
        let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "usage": ["protocol", "namespace"] });
        self.vault.client("participant1").create("/v1/keys", &new).await
    }

    /// Creates a key and gives its id.
    pub(crate) async fn key(&self) -> String {
        self.create().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Signs with a key of `participant1`.
    pub(crate) async fn sign(&self, id: &str) -> Result<Value, ClientError> {
        let ask = json!({ "algorithm": "ed25519", "message": STANDARD.encode("hello") });
        self.vault.client("participant1").post(&format!("/v1/keys/{id}/sign"), &ask).await
    }

    /// The problem of a signature that must be refused.
    pub(crate) async fn refused(&self, id: &str) -> Problem {
        problem(self.sign(id).await)
    }

    /// The state of a key, as its node sees it.
    pub(crate) async fn state(&self, id: &str) -> Value {
        self.vault.client("participant1").get(&format!("/v1/keys/{id}")).await.unwrap()["state"].clone()
    }

    /// The audit entries of an operation, and of a key if one is named.
    pub(crate) async fn entries(&self, operation: &str, key: Option<&str>) -> Vec<Value> {
        let key = key.map_or_else(String::new, |key| format!("&key_id={key}"));
        let path = format!("/v1/audit/entries?limit=1000&operation={operation}{key}");
        self.vault.client("auditor").get(&path).await.unwrap()["items"].as_array().unwrap().clone()
    }

    /// What KMS was asked with this key's context: the wraps and unwraps of its data key.
    pub(crate) fn kms_calls(&self, id: &str) -> Vec<Value> {
        let mut calls = self.kms.log("key/");
        calls.retain(|call| call["context"]["key_id"] == id);
        calls
    }

    /// How many of them were of one action.
    pub(crate) fn count(&self, id: &str, action: &str) -> usize {
        self.kms_calls(id).iter().filter(|call| call["action"] == action).count()
    }

    /// `/readyz`: its status, and what it says.
    pub(crate) async fn readyz(&self) -> (u16, Value) {
        let (status, body) = ops(&self.vault, "/readyz").await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Whether `/readyz` answers `status` and names exactly these codes.
    pub(crate) async fn is_ready(&self, status: u16, codes: &[&str]) -> bool {
        let (found, body) = self.readyz().await;
        let reasons: Vec<_> = body["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect();
        (found, reasons.as_slice(), body["degraded"].as_bool()) == (status, codes, Some(!codes.is_empty()))
    }

    /// Whether a line of the log holds all of these words.
    pub(crate) fn logged(&self, words: &[&str]) -> bool {
        self.vault.log().iter().any(|line| words.iter().all(|word| line.to_string().contains(word)))
    }
}

/// The reasons of `/readyz`, which may be asked as often as a test wants.
pub(crate) async fn reasons(vault: &TestVault) -> Value {
    let ready: Value = serde_json::from_str(&ops(vault, "/readyz").await.1).unwrap();
    ready["reasons"].clone()
}

/// `GET` of the operations listener, over plain HTTP.
pub(crate) async fn ops(vault: &TestVault, path: &str) -> (u16, String) {
    let authority = vault.ops_url().strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", authority).body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
