//! Clients under load that record the responses. Each client owns its keys, so that it knows their expected state.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::client::{Call, Client, Problem};
use serde_json::{Value, json};

use crate::support::vault::TestVault;

/// Splitmix64: the same seed throws the same.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// What the clients and the test tell each other.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Set before the kill: from now on a call may get no answer.
    pub(crate) over: AtomicBool,
    /// How many calls the clients have ended.
    pub(crate) answers: AtomicU64,
}

/// The last response to the owner of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Known {
    pub(crate) disabled: bool,
    pub(crate) pending_deletion: bool,
    pub(crate) rotated: bool,
}

impl Known {
    pub(crate) fn state(self) -> &'static str {
        match self {
            Self { pending_deletion: true, .. } => "pending-deletion",
            Self { disabled: true, .. } => "disabled",
            _ => "active",
        }
    }

    fn after(self, step: Step) -> Self {
        match step {
            Step::Sign | Step::Reseal => self,
            Step::Disable => Self { disabled: true, ..self },
            Step::Enable => Self { disabled: false, ..self },
            Step::Rotate => Self { rotated: true, ..self },
            Step::Delete => Self { pending_deletion: true, ..self },
            Step::Cancel => Self { pending_deletion: false, ..self },
        }
    }
}

/// A call on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Sign,
    Disable,
    Enable,
    Rotate,
    Delete,
    Cancel,
    /// Only beside jobs.
    Reseal,
}

/// A key and what must be true of it.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) algorithm: &'static str,
    pub(crate) known: Known,
    /// A call that got no answer: done or not, but wholly.
    pub(crate) maybe: Option<Known>,
    pub(crate) touched: bool,
}

/// One client.
pub(crate) struct Worker {
    pub(crate) node: &'static str,
    dice: Dice,
    pub(crate) keys: HashMap<String, Owned>,
    /// `x-request-id` of every answer since the last look.
    pub(crate) answered: Vec<String>,
    pub(crate) acknowledged: u64,
    pub(crate) cut_off: u64,
    /// Whether it races jobs, under a KMS that fails now and then.
    races_jobs: bool,
    /// Calls that the KMS kept from being done.
    pub(crate) refused: u64,
}

/// Whom a worker speaks as.
pub(crate) struct Clients {
    node: Client,
    admin: Client,
}

impl Clients {
    pub(crate) fn new(vault: &TestVault, node: &str) -> Self {
        Self { node: vault.client(node), admin: vault.client("key-admin") }
    }
}

impl Worker {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let node = if number.is_multiple_of(2) { "participant1" } else { "participant2" };
        let dice = Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        Self { node, dice, keys: HashMap::new(), answered: Vec::new(), acknowledged: 0, cut_off: 0, races_jobs: false, refused: 0 }
    }

    /// One that races jobs.
    pub(crate) fn beside_jobs(seed: u64, number: u64) -> Self {
        Self { races_jobs: true, ..Self::new(seed, number) }
    }

    /// Creates its first keys.
    pub(crate) async fn begin(&mut self, clients: &Clients, keys: usize) {
        while self.keys.len() < keys {
            self.create(clients).await.unwrap();
        }
    }

    /// Calls until the vault does not answer any more, which it must not do before it is over.
    pub(crate) async fn work(&mut self, clients: &Clients, load: &Load) {
        loop {
            let pick = self.dice.below(10);
            let went_on = if self.keys.len() < 2 || pick == 0 { self.create(clients).await } else { self.step(clients).await };
            if let Err(why) = went_on {
                assert!(load.over.load(Ordering::Acquire), "the vault did not answer before it was killed: {why}");
                return;
            }
            load.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn create(&mut self, clients: &Clients) -> Result<(), String> {
        let specs =
            [("ec-curve25519", "ed25519"), ("ec-p256", "ecdsa-sha256"), ("ec-p384", "ecdsa-sha384"), ("ec-secp256k1", "ecdsa-sha256")];
        let (spec, algorithm) = specs[usize::try_from(self.dice.below(4)).unwrap()];
        if self.races_jobs && self.dice.below(3) == 0 {
            return self.import(clients).await;
        }
        let new = json!({ "node": self.node, "purpose": "signing", "spec": spec });
        let key = self.call(&clients.node, Call::post("/v1/keys").json(&new).unwrap()).await?;
        if let Some(key) = key {
            self.own(&key, algorithm);
        }
        Ok(())
    }

    /// An Ed25519 key that was made elsewhere.
    async fn import(&mut self, clients: &Clients) -> Result<(), String> {
        let private = std::array::from_fn::<u64, 4, _>(|_| self.dice.below(u64::MAX)).map(u64::to_be_bytes).concat();
        // RFC 8410, section 7: version 0, the algorithm, and the 32 bytes in an octet string of their own.
        let pkcs8 = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20], private.as_slice()].concat();
        let import = json!({ "node": self.node, "format": "pkcs8", "material": STANDARD.encode(pkcs8) });
        if let Some(key) = self.call(&clients.admin, Call::post("/v1/keys/import").json(&import).unwrap()).await? {
            self.own(&key, "ed25519");
        }
        Ok(())
    }

    async fn step(&mut self, clients: &Clients) -> Result<(), String> {
        let mut ids: Vec<&String> = self.keys.keys().collect();
        ids.sort();
        let id = ids[usize::try_from(self.dice.below(ids.len() as u64)).unwrap()].clone();
        let (known, algorithm) = (self.keys[&id].known, self.keys[&id].algorithm);
        let dice = self.dice.below(12);
        let step = match known {
            Known { pending_deletion: true, .. } => Step::Cancel,
            Known { disabled: true, .. } if dice == 0 => Step::Delete,
            Known { disabled: true, .. } => Step::Enable,
            Known { rotated: false, .. } if dice == 0 => Step::Rotate,
            _ if dice == 1 => Step::Delete,
            _ if dice < 5 => Step::Disable,
            _ if dice < 7 && self.races_jobs => Step::Reseal,
            _ => Step::Sign,
        };
        let path = format!("/v1/keys/{id}");
        let (client, call) = match step {
            Step::Sign => (&clients.node, Call::post(&format!("{path}/sign")).json(&sign(algorithm)).unwrap()),
            Step::Disable => (&clients.admin, Call::post(&format!("{path}/disable"))),
            Step::Enable => (&clients.admin, Call::post(&format!("{path}/enable"))),
            Step::Rotate => (&clients.node, Call::post(&format!("{path}/rotate"))),
            Step::Delete => (&clients.node, Call::delete(&path)),
            Step::Cancel => (&clients.admin, Call::post(&format!("{path}/cancel-deletion"))),
            Step::Reseal => (&clients.admin, Call::post(&format!("{path}/reseal"))),
        };
        let after = known.after(step);
        let owned = self.keys.get_mut(&id).unwrap();
        (owned.maybe, owned.touched) = (Some(after), true);
        let answer = self.call(client, call).await?;
        let owned = self.keys.get_mut(&id).unwrap();
        owned.maybe = None;
        let Some(answer) = answer else { return Ok(()) };
        owned.known = after;
        match step {
            Step::Sign | Step::Reseal => {}
            Step::Rotate => {
                assert_eq!(answer["predecessor"], id);
                self.own(&answer, algorithm);
            }
            Step::Disable | Step::Enable | Step::Delete | Step::Cancel => {
                assert_eq!((&answer["state"], &answer["recorded"]), (&json!(after.state()), &Value::Null));
            }
        }
        Ok(())
    }

    fn own(&mut self, key: &Value, algorithm: &'static str) {
        let id = key["id"].as_str().unwrap().to_owned();
        self.keys.insert(id, Owned { algorithm, known: Known::default(), maybe: None, touched: true });
    }

    /// An answer is success, or `None` for what the KMS kept from being done; anything but an answer is the end.
    async fn call(&mut self, client: &Client, call: Call) -> Result<Option<Value>, String> {
        let answer = client.send(call).await.map_err(|error| {
            self.cut_off += 1;
            error.to_string()
        })?;
        self.answered.push(answer.headers["x-request-id"].to_str().unwrap().to_owned());
        self.acknowledged += 1;
        let code = Problem::decode(answer.status.as_u16(), &answer.body).map_or_else(String::new, |problem| problem.code);
        if self.races_jobs && matches!(code.as_str(), "wrapper_unavailable" | "wrapper_denied" | "conflict") {
            self.refused += 1;
            return Ok(None);
        }
        assert!(answer.status.is_success(), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        Ok(Some(serde_json::from_slice(&answer.body).unwrap()))
    }
}

pub(crate) fn sign(algorithm: &str) -> Value {
    json!({ "algorithm": algorithm, "message": STANDARD.encode("message") })
}
