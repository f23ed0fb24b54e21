//! A double of Azure Key Vault, Managed HSM, Microsoft Entra ID and the metadata server of Azure, as their documentation describes them.
//!
//! Strict: unknown fields, other API versions, scopes and audiences, expired tokens and requests without a correlation id are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::cloud_double::{Answer, Ask, CloudDouble, Service};

/// The host of the vault in references and identities. Connections go to the double.
pub(crate) const VAULT: &str = "canton-test.vault.azure.net";
/// The same, of the Managed HSM.
pub(crate) const HSM: &str = "canton-test.managedhsm.azure.net";
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "66666666-7777-8888-9999-000000000000";
const SECRET: &str = "client~secret+of/the=vault";
const FEDERATED: &str = "eyJhbGciOiJSUzI1NiJ9.e30.double";

/// The state of the double. It is a vault or a Managed HSM.
pub(crate) struct Azure {
    host: &'static str,
    keys: Mutex<BTreeMap<String, Vec<Version>>>,
    tokens: Mutex<BTreeMap<String, Instant>>,
    denied: Mutex<BTreeSet<String>>,
    requests: Mutex<Vec<(String, String)>>,
    token_requests: AtomicU32,
}

/// A version of a key; the last one is the current one.
struct Version {
    id: String,
    enabled: bool,
    kty: &'static str,
    secret: [u8; 32],
}

/// A running double.
pub(crate) type AzureKeyVault = CloudDouble<Azure>;

impl AzureKeyVault {
    /// A vault ([`VAULT`]) or a Managed HSM ([`HSM`]).
    pub(crate) fn new(host: &'static str) -> Self {
        let double = Self::start(|_, _| Azure {
            host,
            keys: Mutex::default(),
            tokens: Mutex::default(),
            denied: Mutex::default(),
            requests: Mutex::default(),
            token_requests: AtomicU32::new(0),
        });
        double.write("secret", SECRET);
        double.write("token", FEDERATED);
        double
    }

    /// Writes a file with a secret.
    pub(crate) fn write(&self, name: &str, text: &str) {
        canton_keyvault::files::replace(&self.file(name), text.as_bytes()).unwrap();
    }

    /// The options of `[[wrapper.azure_key_vault]]`, with a client secret.
    pub(crate) fn section(&self) -> String {
        self.section_with(&format!("tenant = '{TENANT}'\nclient_id = '{CLIENT}'\nclient_secret_file = '{}'", self.file("secret").display()))
    }

    /// The same, with a federated token.
    pub(crate) fn section_federated(&self) -> String {
        self.section_with(&format!(
            "tenant = '{TENANT}'\nclient_id = '{CLIENT}'\nfederated_token_file = '{}'",
            self.file("token").display()
        ))
    }

    /// The same, with the managed identity of the machine.
    pub(crate) fn section_managed(&self) -> String {
        self.section_with("")
    }

    fn section_with(&self, login: &str) -> String {
        let (host, address, ca) = (self.service().host, self.address(), self.file("ca.pem"));
        let plain = self.plain_address();
        format!(
            "vault = 'https://{host}'\nendpoint = '{address}'\nlogin = '{address}'\nmetadata = '{plain}'\nca = '{}'\n{login}",
            ca.display()
        )
    }
}

impl Azure {
    /// Makes a key of one's own, of the best kind that the vault has, and gives its address.
    pub(crate) fn create_key(&self) -> String {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("key-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        self.add(&name, if self.host == HSM { "oct-HSM" } else { "RSA-HSM" });
        format!("https://{}/keys/{name}", self.host)
    }

    /// Makes a version of a key of this kind the current one.
    pub(crate) fn add(&self, name: &str, kty: &'static str) {
        static SEED: AtomicU32 = AtomicU32::new(1);
        let seed = SEED.fetch_add(1, Ordering::Relaxed);
        let mut secret = [7; 32];
        secret[..4].copy_from_slice(&seed.to_be_bytes());
        let version = Version { id: format!("{seed:032x}"), enabled: true, kty, secret };
        locked(&self.keys).entry(name.to_owned()).or_default().push(version);
    }

    /// Makes another version the current one, as a rotation does.
    pub(crate) fn rotate(&self, reference: &str) {
        let kty = locked(&self.keys)[name_in(reference)][0].kty;
        self.add(name_in(reference), kty);
    }

    /// Enables or disables a version, numbered from 1.
    pub(crate) fn set_enabled(&self, reference: &str, version: usize, enabled: bool) {
        locked(&self.keys).get_mut(name_in(reference)).unwrap()[version - 1].enabled = enabled;
    }

    /// Deletes a key.
    pub(crate) fn delete(&self, reference: &str) {
        locked(&self.keys).remove(name_in(reference));
    }

    /// Takes a permission from the application, or gives it back.
    pub(crate) fn deny(&self, permission: &str, denied: bool) {
        let mut all = locked(&self.denied);
        if denied {
            all.insert(permission.to_owned())
        } else {
            all.remove(permission)
        };
    }

    /// The correlation ids of the requests so far to a path that contains `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<String> {
        locked(&self.requests).iter().filter(|(path, _)| path.contains(part)).map(|(_, id)| id.clone()).collect()
    }

    fn audience(&self) -> String {
        format!("https://{}", self.host.split_once('.').unwrap().1)
    }

    fn token(&self, as_text: bool) -> Answer {
        let number = self.token_requests.fetch_add(1, Ordering::SeqCst);
        let token = format!("eyJ0.double-{number}");
        locked(&self.tokens).insert(token.clone(), Instant::now() + Duration::from_hours(1));
        let lifetime = if as_text { json!("3599") } else { json!(3599) };
        Answer(200, json!({ "access_token": token, "expires_in": lifetime, "token_type": "Bearer" }))
    }

    fn log_in(&self, ask: &Ask) -> Answer {
        let refused = |code: &str| Answer(401, json!({ "error": code, "error_description": "AADSTS7000215: as documented" }));
        let form = ask.form();
        let text = |name: &str| form.get(name).map_or("", String::as_str);
        let common = text("client_id") == CLIENT
            && text("scope") == format!("{}/.default", self.audience())
            && text("grant_type") == "client_credentials";
        let by_secret = text("client_secret") == SECRET && form.len() == 4;
        let federated = text("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            && text("client_assertion") == FEDERATED
            && form.len() == 5;
        if ask.tls && common && (by_secret || federated) { self.token(false) } else { refused("invalid_client") }
    }

    fn managed_identity(&self, ask: &Ask) -> Answer {
        let resource = format!("resource={}", self.audience().replace(':', "%3A").replace('/', "%2F"));
        if ask.header("metadata") == "true" && ask.query == format!("api-version=2018-02-01&{resource}") {
            self.token(true)
        } else {
            Answer(400, json!({ "error": "invalid_request" }))
        }
    }

    /// A request to the vault itself.
    fn call(&self, ask: &Ask) -> Answer {
        let token = ask.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
        if locked(&self.tokens).get(&token).is_none_or(|ends| *ends < Instant::now()) {
            return error(401, "Unauthorized", None);
        }
        let id = ask.header("x-ms-client-request-id");
        if ask.query != "api-version=7.4" || id.len() != 36 || !ask.tls {
            return error(400, "BadParameter", None);
        }
        locked(&self.requests).push((ask.path.clone(), id.to_owned()));
        let parts: Vec<&str> = ask.path.trim_start_matches('/').split('/').collect();
        match (ask.method.as_str(), parts.as_slice()) {
            ("GET", ["keys", name]) => self.get(name),
            ("POST", ["keys", name, "create"]) => self.create(name, ask),
            ("POST", ["keys", name, version, operation]) => self.operate(name, version, operation, ask),
            _ => error(404, "KeyNotFound", None),
        }
    }

    fn get(&self, name: &str) -> Answer {
        if let Some(denied) = self.denied("keys/get") {
            return denied;
        }
        let keys = locked(&self.keys);
        let Some(version) = keys.get(name).and_then(|versions| versions.last()) else { return error(404, "KeyNotFound", None) };
        let operations = if version.kty == "oct-HSM" { ["encrypt", "decrypt"] } else { ["wrapKey", "unwrapKey"] };
        let body = json!({
            "key": { "kid": self.kid(name, &version.id), "kty": version.kty, "key_ops": operations },
            "attributes": {
                "enabled": version.enabled, "created": 1_790_000_000, "updated": 1_790_000_000, "recoveryLevel": "Recoverable",
                "recoverableDays": 90, "exportable": false,
            },
        });
        Answer(200, body)
    }

    fn create(&self, name: &str, ask: &Ask) -> Answer {
        if let Some(denied) = self.denied("keys/create") {
            return denied;
        }
        let asked: Value = serde_json::from_slice(&ask.body).unwrap();
        let (kty, expected) = if self.host == HSM {
            ("oct-HSM", json!({ "kty": "oct-HSM", "key_size": 256, "key_ops": ["encrypt", "decrypt"] }))
        } else {
            ("RSA-HSM", json!({ "kty": "RSA-HSM", "key_size": 3072, "key_ops": ["wrapKey", "unwrapKey"] }))
        };
        if asked != expected {
            return error(400, "BadParameter", None);
        }
        self.add(name, kty);
        self.get(name)
    }

    fn operate(&self, name: &str, version: &str, operation: &str, ask: &Ask) -> Answer {
        let permission = match operation {
            "encrypt" => "keys/encrypt",
            "decrypt" => "keys/decrypt",
            "wrapkey" => "keys/wrapKey",
            "unwrapkey" => "keys/unwrapKey",
            _ => return error(404, "KeyNotFound", None),
        };
        if let Some(denied) = self.denied(permission) {
            return denied;
        }
        let keys = locked(&self.keys);
        let Some(found) = keys.get(name).and_then(|versions| versions.iter().find(|found| found.id == version)) else {
            return error(404, "KeyNotFound", None);
        };
        // Azure still wraps and encrypts with a disabled RSA key, because its public part is enough.
        if !(found.enabled || operation == "wrapkey" && found.kty.starts_with("RSA")) {
            return error(403, "Forbidden", Some("KeyDisabled"));
        }
        let done = match (operation, found.kty) {
            ("encrypt", "oct-HSM") => encrypt(found, ask),
            ("decrypt", "oct-HSM") => decrypt(found, ask),
            ("wrapkey", "RSA" | "RSA-HSM") => wrap(found, ask),
            ("unwrapkey", "RSA" | "RSA-HSM") => unwrap(found, ask),
            _ => None,
        };
        let Some(mut done) = done else { return error(400, "BadParameter", None) };
        done["kid"] = json!(self.kid(name, version));
        Answer(200, done)
    }

    fn kid(&self, name: &str, version: &str) -> String {
        format!("https://{}/keys/{name}/{version}", self.host)
    }

    fn denied(&self, permission: &str) -> Option<Answer> {
        locked(&self.denied).contains(permission).then(|| error(403, "Forbidden", Some("ForbiddenByRbac")))
    }
}

impl Service for Azure {
    fn answer(&self, ask: &Ask) -> Answer {
        match ask.path.as_str() {
            path if path == format!("/{TENANT}/oauth2/v2.0/token") => self.log_in(ask),
            "/metadata/identity/oauth2/token" => self.managed_identity(ask),
            _ => self.call(ask),
        }
    }
}

fn encrypt(version: &Version, ask: &Ask) -> Option<Value> {
    static IV: AtomicU32 = AtomicU32::new(1);
    let [alg, value, aad] = ask.texts(["alg", "value", "aad"])?;
    let mut iv = [0; 12];
    iv[..4].copy_from_slice(&IV.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let (value, aad) = (decoded(&value)?, decoded(&aad)?);
    let mut sealed = Aes256Gcm::new(&version.secret.into()).encrypt(&iv.into(), Payload { msg: &value, aad: &aad }).ok()?;
    let tag = sealed.split_off(sealed.len() - 16);
    (alg == "A256GCM").then(|| json!({ "value": encoded(&sealed), "iv": encoded(&iv), "tag": encoded(&tag), "aad": encoded(&aad) }))
}

fn decrypt(version: &Version, ask: &Ask) -> Option<Value> {
    let [alg, value, aad, iv, tag] = ask.texts(["alg", "value", "aad", "iv", "tag"])?;
    let iv: [u8; 12] = decoded(&iv)?.try_into().ok()?;
    let (sealed, aad) = ([decoded(&value)?, decoded(&tag)?].concat(), decoded(&aad)?);
    let opened = Aes256Gcm::new(&version.secret.into()).decrypt(&iv.into(), Payload { msg: &sealed, aad: &aad }).ok()?;
    (alg == "A256GCM").then(|| json!({ "value": encoded(&opened) }))
}

/// All versions have one RSA key pair, and their number in front of the plaintext: making a pair takes a second in a test.
fn wrap(version: &Version, ask: &Ask) -> Option<Value> {
    let [alg, value] = ask.texts(["alg", "value"])?;
    let public = OaepPublicEncryptingKey::new(rsa().public_key()).unwrap();
    let plaintext = [version.secret[..4].to_vec(), decoded(&value)?].concat();
    let mut sealed = vec![0; public.ciphertext_size()];
    let sealed = public.encrypt(&OAEP_SHA256_MGF1SHA256, &plaintext, &mut sealed, None).ok()?;
    (alg == "RSA-OAEP-256").then(|| json!({ "value": encoded(sealed) }))
}

fn unwrap(version: &Version, ask: &Ask) -> Option<Value> {
    let [alg, value] = ask.texts(["alg", "value"])?;
    let private = OaepPrivateDecryptingKey::new(rsa().clone()).unwrap();
    let mut opened = vec![0; private.min_output_size()];
    let opened = private.decrypt(&OAEP_SHA256_MGF1SHA256, &decoded(&value)?, &mut opened, None).ok()?;
    let value = opened.strip_prefix(&version.secret[..4])?;
    (alg == "RSA-OAEP-256").then(|| json!({ "value": encoded(value) }))
}

fn rsa() -> &'static PrivateDecryptingKey {
    static PAIR: OnceLock<PrivateDecryptingKey> = OnceLock::new();
    PAIR.get_or_init(|| PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap())
}

/// The body of an error of Azure.
pub(crate) fn error_body(code: &str, inner: Option<&str>) -> Value {
    match inner {
        Some(inner) => json!({ "error": { "code": code, "message": "as documented", "innererror": { "code": inner } } }),
        None => json!({ "error": { "code": code, "message": "as documented" } }),
    }
}

fn error(status: u16, code: &str, inner: Option<&str>) -> Answer {
    Answer(status, error_body(code, inner))
}

fn name_in(reference: &str) -> &str {
    reference.rsplit_once('/').unwrap().1
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
