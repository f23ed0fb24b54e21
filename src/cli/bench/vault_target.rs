//! A Canton Key Vault under load.

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    BenchArgs, BenchOperation, ciphertext,
    target::{BenchTarget, CodeOf, Workload},
};
use crate::{
    cli::Failure,
    client::{Call, Client, Endpoints, Problem},
    domain::{Algorithm, KeySpec, Purpose},
};

/// A Canton Key Vault.
pub(super) struct VaultTarget {
    authority: String,
    client: Client,
}

impl VaultTarget {
    /// The vault at `endpoints`.
    pub(super) fn new(endpoints: Endpoints, timeout: Duration) -> Self {
        Self { authority: endpoints.preferred().authority().to_owned(), client: Client::of(endpoints, timeout) }
    }
}

impl BenchTarget for VaultTarget {
    async fn prepare(&self, args: &BenchArgs) -> Result<Workload, Failure> {
        let algorithm = args.algorithm.unwrap_or(match args.operation {
            BenchOperation::Sign | BenchOperation::Connect | BenchOperation::Cold => Algorithm::Ed25519,
            BenchOperation::Decrypt => Algorithm::EciesP256,
            BenchOperation::Encrypt => Algorithm::Aes256Gcm,
        });
        let keys = self.keys(args, algorithm).await?;
        let message = vec![0xA5; args.message_bytes as usize];
        let mut requests = Vec::with_capacity(keys.len());
        for key in &keys {
            requests.push(self.call((args.operation, args.batch), algorithm, key, &message).await?.request(&self.authority)?);
        }
        let mut attributes = Map::new();
        attributes.insert("algorithm".into(), json!(algorithm));
        attributes.insert("keys".into(), json!(keys.len()));
        if let Some(node) = &args.node {
            attributes.insert("keys_created_on".into(), json!(node));
        }
        if let [key] = keys.as_slice() {
            attributes.insert("key_id".into(), json!(key.id));
        }
        Ok(Workload { requests, attributes })
    }

    fn code_of(&self) -> CodeOf {
        |status: StatusCode, body: &[u8]| {
            Problem::decode(status.as_u16(), body).map_or_else(|| format!("http_{}", status.as_u16()), |problem| problem.code)
        }
    }
}

/// The known attributes of a key under load.
struct BenchKey {
    id: String,
    /// SPKI DER, if known.
    public_key: Option<Vec<u8>>,
}

impl BenchKey {
    fn of(key: &Value) -> Result<Self, Failure> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let id = text("id").ok_or_else(|| Failure::Unexpected("the answer has no key id".into()))?.to_owned();
        let public_key = text("public_key").and_then(|base64| STANDARD.decode(base64).ok());
        Ok(Self { id, public_key })
    }
}

impl VaultTarget {
    async fn keys(&self, args: &BenchArgs, algorithm: Algorithm) -> Result<Vec<BenchKey>, Failure> {
        if args.operation == BenchOperation::Cold && args.key_ids_file.is_none() {
            return Err(Failure::Usage("cold uses keys that were made before: say --key-ids-file".into()));
        }
        let mut keys = Vec::new();
        if let Some(node) = &args.node {
            let (purpose, spec) = key_for(algorithm);
            let body = json!({ "node": node, "purpose": purpose, "spec": args.spec.unwrap_or(spec), "name": "bench" });
            for _ in 0..args.keys {
                keys.push(BenchKey::of(&self.client.create("/v1/keys", &body).await?)?);
            }
        } else {
            for id in self.known_ids(args).await? {
                // A key is read only if its public key is needed, because reading it adds an audit entry.
                let needed = args.operation == BenchOperation::Decrypt && algorithm != Algorithm::Aes256Gcm;
                let key = if needed { self.client.get(&format!("/v1/keys/{id}")).await? } else { json!({ "id": id }) };
                keys.push(BenchKey::of(&key)?);
            }
        }
        if keys.is_empty() {
            return Err(Failure::Usage("say which key: --key-id ID, --key-ids-file FILE, or --node NODE to create some".into()));
        }
        Ok(keys)
    }

    async fn known_ids(&self, args: &BenchArgs) -> Result<Vec<String>, Failure> {
        match (&args.key_ids_file, &args.key_id) {
            (Some(path), _) => ids_in_file(path),
            (None, Some(key)) => Ok(vec![key.resolve(&self.client).await?.to_string()]),
            (None, None) => Ok(Vec::new()),
        }
    }

    async fn call(
        &self,
        (operation, batch): (BenchOperation, u32),
        algorithm: Algorithm,
        key: &BenchKey,
        message: &[u8],
    ) -> Result<Call, Failure> {
        let path = |verb: &str| format!("/v1/keys/{}/{verb}", key.id);
        Ok(match operation {
            BenchOperation::Sign if batch > 1 => {
                let messages = vec![json!({ "message": STANDARD.encode(message) }); batch as usize];
                Call::post(&path("sign-batch")).json(&json!({ "algorithm": algorithm, "messages": messages }))?
            }
            BenchOperation::Sign | BenchOperation::Connect | BenchOperation::Cold => {
                Call::post(&path("sign")).json(&json!({ "algorithm": algorithm, "message": STANDARD.encode(message) }))?
            }
            BenchOperation::Encrypt => {
                Call::post(&path("encrypt")).json(&json!({ "algorithm": algorithm, "plaintext": STANDARD.encode(message) }))?
            }
            BenchOperation::Decrypt => {
                let ciphertext = if algorithm == Algorithm::Aes256Gcm {
                    let body = json!({ "algorithm": algorithm, "plaintext": STANDARD.encode(message) });
                    let answer = self.client.post(&path("encrypt"), &body).await?;
                    let text = answer.get("ciphertext").and_then(Value::as_str);
                    text.ok_or_else(|| Failure::Unexpected("the answer has no ciphertext".into()))?.to_owned()
                } else {
                    let public_key = key.public_key.as_deref().ok_or_else(|| Failure::Unexpected("the key has no public key".into()))?;
                    STANDARD.encode(ciphertext::encrypt(algorithm, public_key, message)?)
                };
                Call::post(&path("decrypt")).json(&json!({ "algorithm": algorithm, "ciphertext": ciphertext }))?
            }
        })
    }
}

fn ids_in_file(path: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |what: String| Failure::Usage(format!("--key-ids-file {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.parse::<crate::domain::KeyId>().map(|id| id.to_string()).map_err(|error| wrong(error.to_string()))).collect()
}

/// The key that an algorithm needs.
const fn key_for(algorithm: Algorithm) -> (Purpose, KeySpec) {
    match algorithm {
        Algorithm::Ed25519 => (Purpose::Signing, KeySpec::EcCurve25519),
        Algorithm::EcdsaSha256 => (Purpose::Signing, KeySpec::EcP256),
        Algorithm::EcdsaSha384 => (Purpose::Signing, KeySpec::EcP384),
        Algorithm::EciesP256 => (Purpose::Encryption, KeySpec::EcP256),
        Algorithm::RsaOaepSha256 => (Purpose::Encryption, KeySpec::Rsa2048),
        Algorithm::Aes256Gcm => (Purpose::Symmetric, KeySpec::Aes256),
    }
}
