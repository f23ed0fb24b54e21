//! A double of Cloud KMS, of the token endpoint and of the metadata server of Google, as their documentation describes them.
//!
//! Strict: unknown fields, missing checksums, other scopes and audiences, expired tokens and requests without an id are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt as _,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{
    cloud_double::{Answer, Ask, CloudDouble, Service},
    gcp_federation::{CLOUD_KMS, Federation},
};

pub(crate) const RING: &str = "projects/canton-test/locations/europe-west3/keyRings/canton";
const EMAIL: &str = "vault@canton-test.iam.gserviceaccount.com";

/// The state of the double.
pub(crate) struct Google {
    address: String,
    keys: Mutex<BTreeMap<String, Key>>,
    tokens: Mutex<BTreeMap<String, Instant>>,
    denied: Mutex<BTreeSet<String>>,
    requests: Mutex<Vec<(String, String)>>,
    token_requests: AtomicU32,
    /// Seconds.
    lifetime: AtomicU32,
    public_key: Vec<u8>,
    key_file: Value,
    pub(crate) federation: Federation,
}

struct Key {
    purpose: String,
    versions: Vec<Version>,
    /// Its place in `versions`.
    primary: usize,
}

struct Version {
    state: String,
    secret: [u8; 32],
}

/// A running double.
pub(crate) type GcpKms = CloudDouble<Google>;

impl GcpKms {
    pub(crate) fn new() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
        let double = Self::start(|address, _| Google {
            address: address.to_owned(),
            keys: Mutex::default(),
            tokens: Mutex::default(),
            denied: Mutex::default(),
            requests: Mutex::default(),
            token_requests: AtomicU32::new(0),
            lifetime: AtomicU32::new(3600),
            public_key: pair.public_key().as_ref().to_vec(),
            key_file: json!({
                "type": "service_account", "project_id": "canton-test", "client_email": EMAIL, "private_key_id": "0123456789",
                "private_key": pem, "token_uri": format!("{address}/token"),
            }),
            federation: Federation::new(),
        });
        double.write_key_file(&json!({}));
        double
    }

    /// Writes the key file of the service account, with changes.
    pub(crate) fn write_key_file(&self, change: &Value) {
        let mut file = self.service().key_file.clone();
        file.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        canton_keyvault::files::replace(&self.file("account.json"), file.to_string().as_bytes()).unwrap();
    }

    /// Writes a configuration of workload identity federation over the key file, as Kubernetes mounts one: everybody may read it.
    pub(crate) fn write_external_account(&self, source: &Value, impersonates: bool) {
        let (path, file) = (self.file("account.json"), Federation::file(&self.address(), source, impersonates));
        canton_keyvault::files::replace(&path, file.to_string().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// The options of `[wrapper.gcp_kms]`, with the key file of the service account.
    pub(crate) fn section(&self) -> String {
        format!("{}\ncredentials_file = '{}'", self.section_of_a_machine(), self.file("account.json").display())
    }

    /// The same, for a machine with a metadata server.
    pub(crate) fn section_of_a_machine(&self) -> String {
        format!("ca = '{}'\nendpoint = '{}'\nmetadata = '{}'", self.file("ca.pem").display(), self.address(), self.plain_address())
    }
}

impl Google {
    /// Makes a key of one's own and gives its resource name.
    pub(crate) fn create_key(&self) -> String {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{RING}/cryptoKeys/key-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        self.add(&name, "ENCRYPT_DECRYPT");
        name
    }

    pub(crate) fn add(&self, name: &str, purpose: &str) {
        let key = Key { purpose: purpose.to_owned(), versions: vec![version(1)], primary: 0 };
        locked(&self.keys).insert(name.to_owned(), key);
    }

    /// Makes another version the primary one, as a rotation does.
    pub(crate) fn rotate(&self, name: &str) {
        let mut keys = locked(&self.keys);
        let key = keys.get_mut(name).unwrap();
        key.versions.push(version(u8::try_from(key.versions.len()).unwrap() + 1));
        key.primary = key.versions.len() - 1;
    }

    /// Changes the state of a version, numbered from 1.
    pub(crate) fn set_state(&self, name: &str, version: usize, state: &str) {
        state.clone_into(&mut locked(&self.keys).get_mut(name).unwrap().versions[version - 1].state);
    }

    /// Takes a permission from the service account, or gives it back.
    pub(crate) fn deny(&self, permission: &str, denied: bool) {
        let mut all = locked(&self.denied);
        if denied {
            all.insert(permission.to_owned())
        } else {
            all.remove(permission)
        };
    }

    /// The ids of the requests so far to a path that contains `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<String> {
        locked(&self.requests).iter().filter(|(path, _)| path.contains(part)).map(|(_, id)| id.clone()).collect()
    }

    /// How many tokens were given.
    pub(crate) fn token_requests(&self) -> u32 {
        self.token_requests.load(Ordering::SeqCst)
    }

    /// How long tokens live from now on.
    pub(crate) fn set_lifetime(&self, seconds: u32) {
        self.lifetime.store(seconds, Ordering::SeqCst);
    }

    /// Ends all tokens.
    pub(crate) fn revoke_tokens(&self) {
        locked(&self.tokens).clear();
    }

    /// A token for Cloud KMS, and its lifetime in seconds.
    fn issue(&self) -> (String, u32) {
        let (number, lifetime) = (self.token_requests.fetch_add(1, Ordering::SeqCst), self.lifetime.load(Ordering::SeqCst));
        let token = format!("ya29.double-{number}");
        locked(&self.tokens).insert(token.clone(), Instant::now() + Duration::from_secs(lifetime.into()));
        (token, lifetime)
    }

    fn token(&self) -> Answer {
        let (token, lifetime) = self.issue();
        Answer(200, json!({ "access_token": token, "expires_in": lifetime, "token_type": "Bearer" }))
    }

    fn token_for_an_assertion(&self, ask: &Ask) -> Answer {
        let refused = |code: &str| Answer(400, json!({ "error": code, "error_description": "as documented" }));
        let form = ask.form();
        if form.get("grant_type").map(String::as_str) != Some("urn:ietf:params:oauth:grant-type:jwt-bearer") {
            return refused("unsupported_grant_type");
        }
        let jwt = &form["assertion"];
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let (header, claims) = (read(header), read(claims));
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let (from, to) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
        let fits = header == json!({ "alg": "RS256", "typ": "JWT", "kid": "0123456789" })
            && public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok()
            && claims["iss"] == EMAIL
            && claims["aud"] == format!("{}/token", self.address)
            && claims["scope"] == CLOUD_KMS
            && (now - 300..=now + 300).contains(&from)
            && to - from <= 3600;
        if fits { self.token() } else { refused("invalid_grant") }
    }

    /// A request to Cloud KMS itself.
    fn call(&self, ask: &Ask) -> Answer {
        let token = ask.header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
        if locked(&self.tokens).get(&token).is_none_or(|ends| *ends < Instant::now()) {
            return error(401, "UNAUTHENTICATED");
        }
        let id = ask.header("x-goog-request-reason");
        if !id.starts_with("canton-keyvault-") || !ask.tls {
            return error(400, "INVALID_ARGUMENT");
        }
        locked(&self.requests).push((ask.path.clone(), id.to_owned()));
        let Some(path) = ask.path.strip_prefix("/v1/") else { return error(404, "NOT_FOUND") };
        match (ask.method.as_str(), path.rsplit_once(':')) {
            ("POST", Some((name, "encrypt"))) => self.encrypt(name, ask),
            ("POST", Some((name, "decrypt"))) => self.decrypt(name, ask),
            ("POST", None) => self.create(path, ask),
            ("GET", None) => self.get(path),
            _ => error(404, "NOT_FOUND"),
        }
    }

    fn encrypt(&self, name: &str, ask: &Ask) -> Answer {
        static NONCE: AtomicU32 = AtomicU32::new(1);
        if let Some(denied) = self.denied("cloudkms.cryptoKeyVersions.useToEncrypt") {
            return denied;
        }
        let keys = locked(&self.keys);
        let (name, number) =
            name.split_once("/cryptoKeyVersions/").map_or((name, None), |(name, number)| (name, number.parse::<usize>().ok()));
        let Some(key) = keys.get(name) else { return error(404, "NOT_FOUND") };
        let number = number.unwrap_or(key.primary + 1);
        let Some(version) = key.versions.get(number - 1) else { return error(404, "NOT_FOUND") };
        if key.purpose != "ENCRYPT_DECRYPT" || version.state != "ENABLED" {
            return error(400, "FAILED_PRECONDITION");
        }
        let Some([plaintext, aad, plaintext_sum, aad_sum]) =
            ask.texts(["plaintext", "additionalAuthenticatedData", "plaintextCrc32c", "additionalAuthenticatedDataCrc32c"])
        else {
            return error(400, "INVALID_ARGUMENT");
        };
        let (plaintext, aad) = (STANDARD.decode(plaintext).unwrap(), STANDARD.decode(aad).unwrap());
        if crc32c(&plaintext) != plaintext_sum || crc32c(&aad) != aad_sum {
            return error(400, "INVALID_ARGUMENT");
        }
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&NONCE.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let sealed = cipher(version).encrypt(&nonce.into(), Payload { msg: &plaintext, aad: &aad }).unwrap();
        let ciphertext = [&[u8::try_from(number).unwrap()], nonce.as_slice(), &sealed].concat();
        Answer(
            200,
            json!({
                "name": format!("{name}/cryptoKeyVersions/{number}"),
                "ciphertext": STANDARD.encode(&ciphertext),
                "ciphertextCrc32c": crc32c(&ciphertext),
                "verifiedPlaintextCrc32c": true,
                "verifiedAdditionalAuthenticatedDataCrc32c": true,
                "protectionLevel": "HSM",
            }),
        )
    }

    fn decrypt(&self, name: &str, ask: &Ask) -> Answer {
        if let Some(denied) = self.denied("cloudkms.cryptoKeyVersions.useToDecrypt") {
            return denied;
        }
        let keys = locked(&self.keys);
        let Some(key) = keys.get(name) else { return error(404, "NOT_FOUND") };
        let Some([ciphertext, aad, ciphertext_sum, aad_sum]) =
            ask.texts(["ciphertext", "additionalAuthenticatedData", "ciphertextCrc32c", "additionalAuthenticatedDataCrc32c"])
        else {
            return error(400, "INVALID_ARGUMENT");
        };
        let (ciphertext, aad) = (STANDARD.decode(ciphertext).unwrap(), STANDARD.decode(aad).unwrap());
        if crc32c(&ciphertext) != ciphertext_sum || crc32c(&aad) != aad_sum || ciphertext.len() < 13 {
            return error(400, "INVALID_ARGUMENT");
        }
        let number = usize::from(ciphertext[0]);
        let Some(version) = number.checked_sub(1).and_then(|place| key.versions.get(place)) else { return error(400, "INVALID_ARGUMENT") };
        if version.state != "ENABLED" {
            return error(400, "FAILED_PRECONDITION");
        }
        let nonce: [u8; 12] = ciphertext[1..13].try_into().unwrap();
        let Ok(plaintext) = cipher(version).decrypt(&nonce.into(), Payload { msg: &ciphertext[13..], aad: &aad }) else {
            return error(400, "INVALID_ARGUMENT");
        };
        let primary = number == key.primary + 1;
        let body = json!({
            "plaintext": STANDARD.encode(&plaintext), "plaintextCrc32c": crc32c(&plaintext), "usedPrimary": primary, "protectionLevel": "HSM",
        });
        Answer(200, body)
    }

    fn get(&self, name: &str) -> Answer {
        let permission = if name.contains("/cryptoKeyVersions/") { "cloudkms.cryptoKeyVersions.get" } else { "cloudkms.cryptoKeys.get" };
        if let Some(denied) = self.denied(permission) {
            return denied;
        }
        let keys = locked(&self.keys);
        let (key_name, number) = name.split_once("/cryptoKeyVersions/").unwrap_or((name, ""));
        let Some(key) = keys.get(key_name) else { return error(404, "NOT_FOUND") };
        let shown = |place: usize| {
            json!({
                "name": format!("{key_name}/cryptoKeyVersions/{}", place + 1), "state": key.versions[place].state, "protectionLevel": "HSM",
                "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "createTime": "2026-09-01T00:00:00Z",
            })
        };
        match number.parse::<usize>() {
            Ok(number) if (1..=key.versions.len()).contains(&number) => Answer(200, shown(number - 1)),
            Ok(_) => error(404, "NOT_FOUND"),
            Err(_) => Answer(
                200,
                json!({
                    "name": key_name, "purpose": key.purpose, "createTime": "2026-08-01T00:00:00Z", "destroyScheduledDuration": "2592000s",
                    "versionTemplate": { "protectionLevel": "HSM", "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION" },
                    "primary": shown(key.primary),
                }),
            ),
        }
    }

    fn create(&self, path: &str, ask: &Ask) -> Answer {
        if let Some(denied) = self.denied("cloudkms.cryptoKeys.create") {
            return denied;
        }
        let (Some(ring), Some(id)) = (path.strip_suffix("/cryptoKeys"), ask.query.strip_prefix("cryptoKeyId=")) else {
            return error(404, "NOT_FOUND");
        };
        let asked: Value = serde_json::from_slice(&ask.body).unwrap();
        let expected = json!({
            "purpose": "ENCRYPT_DECRYPT", "destroyScheduledDuration": "2592000s",
            "versionTemplate": { "protectionLevel": "HSM", "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION" },
        });
        if asked != expected || ring != RING {
            return error(400, "INVALID_ARGUMENT");
        }
        let name = format!("{path}/{id}");
        self.add(&name, "ENCRYPT_DECRYPT");
        self.get(&name)
    }

    fn denied(&self, permission: &str) -> Option<Answer> {
        locked(&self.denied).contains(permission).then(|| error(403, "PERMISSION_DENIED"))
    }
}

impl Service for Google {
    fn answer(&self, ask: &Ask) -> Answer {
        if let Some(answer) = self.federation.answer(ask, || self.issue()) {
            return answer;
        }
        match ask.path.as_str() {
            "/token" => self.token_for_an_assertion(ask),
            "/computeMetadata/v1/instance/service-accounts/default/token" if ask.header("metadata-flavor") == "Google" => self.token(),
            path if path.starts_with("/computeMetadata/") => Answer(403, json!({ "error": "forbidden" })),
            _ => self.call(ask),
        }
    }
}

/// The body of an error of Google.
pub(crate) fn error_body(status: u16, code: &str) -> Value {
    json!({ "error": { "code": status, "message": "as documented", "status": code } })
}

fn error(status: u16, code: &str) -> Answer {
    Answer(status, error_body(status, code))
}

fn version(number: u8) -> Version {
    static SEED: AtomicU32 = AtomicU32::new(1);
    let mut secret = [number; 32];
    secret[..4].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Version { state: "ENABLED".to_owned(), secret }
}

fn cipher(version: &Version) -> Aes256Gcm {
    Aes256Gcm::new(&version.secret.into())
}

/// CRC-32C bit by bit, independent of the crate that the vault uses.
fn crc32c(bytes: &[u8]) -> String {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    (!sum).to_string()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
