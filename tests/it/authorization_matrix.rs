//! The authorization matrix: every operation of the route table, by every role, on own and foreign nodes, in every state of a key.
//! The permitted cells are written here by hand: everything else is denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    domain::{AuditEvent, KeyId, Operation, Principal, StateChange, Timestamp},
    storage::{Change, KeyUpdate},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    api::{Caller, enroll, id, without_limits},
    vault::TestVault,
};

/// `nobody` is a principal with a valid certificate and no grant.
const PRINCIPALS: [&str; 7] = ["participant1", "participant2", "key-admin", "wrapper-admin", "auditor", "exporter", "nobody"];
const NODES: [&str; 2] = ["participant1", "participant2"];
const STATES: [&str; 6] = ["active", "superseded", "disabled", "quarantined", "pending-deletion", "destroyed"];

/// A call about one key: who may make it (`node`: the key's own), and how it ends in each of [`STATES`].
struct KeyCall {
    operation: &'static str,
    /// The purpose of the keys that it is tried on.
    purpose: &'static str,
    allowed: &'static [&'static str],
    changes: bool,
    ends: [(u16, &'static str); 6],
}

const OK: (u16, &str) = (200, "");
const SUPERSEDED: (u16, &str) = (409, "key_superseded");
const DISABLED: (u16, &str) = (409, "key_disabled");
const QUARANTINED: (u16, &str) = (409, "key_quarantined");
const PENDING: (u16, &str) = (409, "key_pending_deletion");
const DESTROYED: (u16, &str) = (409, "key_destroyed");
const NOT_IMPORTED: (u16, &str) = (409, "not_imported");
const NO_STEP: (u16, &str) = (409, "invalid_key_state");
const MAKES_NEW: [(u16, &str); 6] = [OK, SUPERSEDED, DISABLED, QUARANTINED, PENDING, DESTROYED];
const READS_OLD: [(u16, &str); 6] = [OK, OK, DISABLED, QUARANTINED, PENDING, DESTROYED];

const fn uses(operation: &'static str, purpose: &'static str, allowed: &'static [&'static str], ends: [(u16, &'static str); 6]) -> KeyCall {
    KeyCall { operation, purpose, allowed, changes: false, ends }
}

const fn step(operation: &'static str, allowed: &'static [&'static str], ends: [(u16, &'static str); 6]) -> KeyCall {
    KeyCall { operation, purpose: "signing", allowed, changes: true, ends }
}

const KEY_CALLS: &[KeyCall] = &[
    uses("keys.show", "signing", &["node", "key-admin", "auditor"], [OK; 6]),
    uses("keys.sign", "signing", &["node"], MAKES_NEW),
    uses("keys.sign-batch", "signing", &["node"], MAKES_NEW),
    uses("keys.sign-topology", "signing", &["node"], MAKES_NEW),
    uses("keys.encrypt", "symmetric", &["node"], MAKES_NEW),
    uses("keys.decrypt", "symmetric", &["node"], READS_OLD),
    uses("keys.export", "signing", &["exporter"], READS_OLD),
    uses("keys.verify", "signing", &["node", "key-admin"], [OK, OK, OK, OK, OK, DESTROYED]),
    step("keys.enable", &["key-admin"], [NO_STEP, NO_STEP, OK, OK, NO_STEP, NO_STEP]),
    step("keys.disable", &["key-admin"], [OK, OK, NO_STEP, OK, NO_STEP, NO_STEP]),
    step("keys.rotate", &["node"], [(201, ""), SUPERSEDED, DISABLED, QUARANTINED, PENDING, DESTROYED]),
    step("keys.supersede", &["key-admin"], [OK, NO_STEP, NO_STEP, NO_STEP, NO_STEP, NO_STEP]),
    step("keys.restrict-signing", &["key-admin"], [OK, NO_STEP, NO_STEP, NO_STEP, NO_STEP, NO_STEP]),
    step("keys.delete", &["node", "key-admin"], [OK, OK, OK, OK, NO_STEP, NO_STEP]),
    step("keys.rename", &["key-admin"], [OK, OK, OK, OK, OK, DESTROYED]),
    // The keys of this test were generated. `corrections` withdraws imported ones.
    uses("keys.withdraw", "signing", &["key-admin"], [NOT_IMPORTED; 6]),
    step("keys.reseal", &["key-admin"], [OK, OK, OK, QUARANTINED, OK, DESTROYED]),
    step("keys.cancel-deletion", &["key-admin"], [NO_STEP, NO_STEP, NO_STEP, NO_STEP, OK, NO_STEP]),
];

/// The roles that may see the keys of a node. All others get 404.
const SEES_KEYS: &[&str] = &["node", "key-admin", "auditor", "exporter"];

/// A call without a key: all roles that are not listed get 403.
struct OtherCall {
    operation: &'static str,
    body: Value,
    /// The value of `{id}`.
    id: String,
    allowed: &'static [&'static str],
    ends: (u16, &'static str),
}

fn other_calls(wrapper_key: &str) -> Vec<OtherCall> {
    let call = |operation, body, allowed, ends| OtherCall { operation, body, id: wrapper_key.to_owned(), allowed, ends };
    let new =
        |node: &str, exportable: bool| json!({ "node": node, "purpose": "signing", "spec": "ec-curve25519", "exportable": exportable });
    let import = |node: &str| json!({ "node": node, "format": "raw", "material": STANDARD.encode([9; 32]) });
    let no_job =
        |operation, allowed| OtherCall { operation, body: Value::Null, id: "job-000000000000".into(), allowed, ends: (404, "not_found") };
    let everybody: &[&str] = &PRINCIPALS;
    let about =
        |who: &str| json!({ "operation": "keys.sign", "node": "participant1", "principal": format!("spiffe://dev.keyvault/{who}") });
    vec![
        call("keys.create", new("participant1", false), &["participant1", "key-admin"], (201, "")),
        call("keys.create", new("participant2", false), &["participant2", "key-admin"], (201, "")),
        call("keys.create", new("participant1", true), &["key-admin"], (201, "")),
        call("keys.create", new("participant3", false), &["key-admin"], (422, "unknown_node")),
        call("keys.import", import("participant1"), &["key-admin"], (201, "")),
        call("keys.import", import("participant2"), &["key-admin"], (201, "")),
        call("keys.import", import("participant3"), &["key-admin"], (422, "unknown_node")),
        call("keys.list", Value::Null, &["participant1", "participant2", "key-admin", "auditor"], OK),
        call("wrapper-keys.list", Value::Null, &["wrapper-admin", "auditor"], OK),
        call("wrapper-keys.show", Value::Null, &["wrapper-admin", "auditor"], OK),
        OtherCall {
            id: "wk-000000000000".into(),
            ..call("wrapper-keys.show", Value::Null, &["wrapper-admin", "auditor"], (404, "not_found"))
        },
        call("wrapper-keys.show-posture", Value::Null, &["wrapper-admin", "auditor"], OK),
        OtherCall {
            id: "wk-000000000000".into(),
            ..call("wrapper-keys.show-posture", Value::Null, &["wrapper-admin", "auditor"], (404, "not_found"))
        },
        call("wrapper-keys.add", json!({ "provider": "local", "create": true }), &["wrapper-admin"], (201, "")),
        // The wrapper key of this vault is a file, which has no replicas.
        call("wrapper-keys.replicate", json!({ "region": "eu-west-1" }), &["wrapper-admin"], (422, "invalid_attributes")),
        call("wrapper-keys.rename", json!({ "name": "central" }), &["wrapper-admin"], OK),
        call("wrapper-keys.retire", Value::Null, &["wrapper-admin"], (409, "invalid_wrapper_key_state")),
        call("rotations.start", json!({ "to": wrapper_key }), &["wrapper-admin"], (409, "invalid_wrapper_key_state")),
        call("rotations.start", json!({ "to": "wk-000000000000" }), &["wrapper-admin"], (404, "not_found")),
        call("rotations.list", Value::Null, &["wrapper-admin", "auditor"], OK),
        no_job("rotations.show", &["wrapper-admin", "auditor"]),
        no_job("rotations.abort", &["wrapper-admin"]),
        call("reseals.list", Value::Null, &["key-admin", "auditor"], OK),
        no_job("reseals.show", &["key-admin", "auditor"]),
        no_job("reseals.abort", &["key-admin"]),
        call("reseals.start", Value::Null, &["key-admin"], (202, "")),
        call("audit.query", Value::Null, &["auditor"], OK),
        call("audit.show-checkpoint", Value::Null, &["auditor"], (404, "not_found")),
        call("audit.make-checkpoint", Value::Null, &["auditor"], OK),
        call("audit.show-checkpoint", Value::Null, &["auditor"], OK),
        call("audit.list-verifier-keys", Value::Null, &["wrapper-admin", "auditor"], OK),
        call("audit.rotate-checkpoint-key", Value::Null, &["wrapper-admin"], (201, "")),
        call(
            "audit.remove-entries",
            json!({ "first": 1, "size": 1, "root": STANDARD.encode([0; 32]) }),
            &["wrapper-admin"],
            (400, "invalid_request"),
        ),
        call("audit.prove-inclusion", Value::Null, &["auditor"], OK),
        call("audit.prove-consistency", Value::Null, &["auditor"], OK),
        OtherCall { id: "checkpoint".into(), ..call("audit.read-tiles", Value::Null, &["auditor"], OK) },
        call("audit.export", Value::Null, &["auditor"], OK),
        call("audit.summary", Value::Null, &["auditor"], OK),
        call("audit.show-access", Value::Null, &["auditor"], (400, "invalid_request")),
        call("topology.decode", body("keys.sign-topology", &Held { id: String::new(), ciphertext: None }), everybody, OK),
        call("vault.whoami", Value::Null, everybody, OK),
        call("vault.status", Value::Null, everybody, OK),
        call("vault.authorize", json!({ "operation": "keys.sign", "node": "participant1" }), everybody, OK),
        call("vault.authorize", about("nobody"), &["auditor", "nobody"], OK),
        call("vault.authorize", about("participant1"), &["auditor", "participant1"], OK),
        // Last, since what follows a freeze is refused.
        call("vault.freeze", Value::Null, &["key-admin", "wrapper-admin"], OK),
        call("vault.unfreeze", Value::Null, &["wrapper-admin"], OK),
    ]
}

/// The parameters of calls that need some.
const QUERIES: &[(&str, &str)] = &[
    ("audit.prove-inclusion", "?sequence=1"),
    ("audit.prove-consistency", "?from=1"),
    ("audit.summary", "?by=day"),
    ("audit.show-access", "?key=none&at=2026-01-01"),
];

/// The role that a principal has towards a node.
fn role(who: &'static str, node: &str) -> &'static str {
    if who == node { "node" } else { who }
}

fn expected(call: &KeyCall, who: &'static str, node: &str, state: usize) -> (u16, &'static str) {
    let role = role(who, node);
    match (SEES_KEYS.contains(&role), call.allowed.contains(&role)) {
        (false, _) => (404, "not_found"),
        (true, false) => (403, "forbidden"),
        (true, true) => call.ends[state],
    }
}

/// Keys in every state, with their ciphertexts, and the routes by operation.
struct World {
    vault: TestVault,
    routes: BTreeMap<String, (String, String)>,
    /// By purpose, node and state.
    keys: BTreeMap<(&'static str, &'static str, &'static str), Vec<Held>>,
}

#[derive(Clone)]
struct Held {
    id: String,
    ciphertext: Option<String>,
}

const UNKNOWN: [(&str, &str); 2] = [
    ("signing", "12200000000000000000000000000000000000000000000000000000000000000000"),
    ("symmetric", "sym-00000000000000000000000000000000"),
];

impl World {
    async fn make() -> Self {
        let vault = without_limits();
        enroll(&vault, "nobody");
        let document = Caller::new(&vault, "nobody").get("/openapi.json").await.success();
        let mut world = Self { vault, routes: routes(&document), keys: BTreeMap::new() };
        // One key of each kind and state to look at, and one more for each call that changes one.
        for (purpose, spec) in [("signing", "ec-curve25519"), ("symmetric", "aes-256")] {
            for node in NODES {
                for (index, state) in STATES.into_iter().enumerate() {
                    let changing = KEY_CALLS
                        .iter()
                        .filter(|call| call.changes && call.purpose == purpose)
                        .flat_map(|call| PRINCIPALS.iter().filter(move |who| expected(call, who, node, index).0 < 300));
                    for _ in 0..=changing.count() {
                        let key = world.key(node, purpose, spec, state).await;
                        world.keys.entry((purpose, node, state)).or_default().push(key);
                    }
                }
            }
        }
        world.reach_the_other_states().await;
        world
    }

    async fn key(&self, node: &'static str, purpose: &str, spec: &str, state: &str) -> Held {
        let admin = Caller::new(&self.vault, "key-admin");
        let id =
            id(&admin.post("/v1/keys", &json!({ "node": node, "purpose": purpose, "spec": spec, "exportable": true })).await.success());
        let ciphertext = if purpose == "symmetric" {
            let made = Caller::new(&self.vault, node).post(&format!("/v1/keys/{id}/encrypt"), &json!({ "plaintext": "aGVsbG8=" })).await;
            made.success()["ciphertext"].as_str().map(str::to_owned)
        } else {
            None
        };
        match state {
            "superseded" => drop(admin.step(&id, "supersede").await.success()),
            "disabled" => drop(admin.step(&id, "disable").await.success()),
            "pending-deletion" | "destroyed" => drop(admin.delete(&format!("/v1/keys/{id}?days=7")).await.success()),
            _ => {}
        }
        Held { id, ciphertext }
    }

    /// Quarantined and destroyed: by what is not the API, while the vault is down.
    async fn reach_the_other_states(&mut self) {
        self.vault.kill();
        let database = self.vault.database();
        let all = |state: &'static str| self.keys.iter().filter(move |((_, _, of), _)| *of == state).flat_map(|(_, keys)| keys.clone());
        let (quarantined, destroyed): (Vec<Held>, Vec<Held>) = (all("quarantined").collect(), all("destroyed").collect());
        for key in &quarantined {
            assert_eq!(database.execute("UPDATE keys SET row_tag = zeroblob(32) WHERE id = ?1", [&key.id]).unwrap(), 1);
        }
        // Their deletion is due: nothing but a state change in the log brings it forward.
        for key in &destroyed {
            let row = "SELECT revision, lifecycle FROM keys WHERE id = ?1";
            let (revision, lifecycle): (u32, String) = database.query_row(row, [&key.id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let id: KeyId = key.id.parse().unwrap();
            let to = StateChange {
                revision: u64::from(revision) + 1,
                lifecycle: lifecycle.parse().unwrap(),
                successor: None,
                delete_at: Some(Timestamp::from_micros(1)),
            };
            let event = AuditEvent {
                key: Some(id),
                change: Some(to),
                ..AuditEvent::new(Timestamp::from_micros(1), Principal::system(), Operation::DeleteKey, "p".into())
            };
            let update = KeyUpdate { key: id, if_revision: u64::from(revision), to, row_tag: None, reinstate_wrap: None };
            self.vault.commit_offline(Change::UpdateKey(update), event).await;
        }
        drop(database);
        self.vault.serve();
        for ((_, node, state), keys) in &self.keys {
            let caller = Caller::new(&self.vault, node);
            for key in keys {
                if *state == "quarantined" {
                    caller.sign(&key.id).await.refused(409, "key_quarantined");
                }
                let shown = || async { caller.get(&format!("/v1/keys/{}", key.id)).await.success()["state"] == *state };
                crate::support::vault::until(state, shown).await;
            }
        }
    }

    fn target(&self, operation: &str, id: &str) -> (&str, String) {
        let (method, path) = &self.routes[operation];
        let query = QUERIES.iter().find(|(of, _)| *of == operation).map_or("", |(_, query)| query);
        (method, path.replace("{id}", id) + query)
    }
}

/// Method and path of every operation of the document.
fn routes(document: &Value) -> BTreeMap<String, (String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let item = item.as_object().unwrap().clone();
        item.into_iter()
            .map(move |(method, operation)| (operation["operationId"].as_str().unwrap().to_owned(), (method.to_uppercase(), path.clone())))
    };
    paths.flat_map(of).collect()
}

fn body(operation: &str, key: &Held) -> Value {
    match operation {
        "keys.sign" => json!({ "algorithm": "ed25519", "message": "aGVsbG8=" }),
        "keys.sign-batch" => json!({ "algorithm": "ed25519", "messages": [{ "message": "aGVsbG8=" }, { "message": "" }] }),
        "keys.encrypt" => json!({ "plaintext": "aGVsbG8=" }),
        "keys.decrypt" => json!({ "algorithm": "aes-256-gcm", "ciphertext": key.ciphertext.as_deref().unwrap_or("aGVsbG8=") }),
        "keys.export" => json!({ "format": "pkcs8" }),
        "keys.sign-topology" => json!({ "transaction": crate::canton_made::text(&crate::canton_made::items("topology")[0], "prep_b64") }),
        "keys.rename" => json!({ "name": "renamed" }),
        "keys.restrict-signing" => json!({ "topology_only": true }),
        _ => Value::Null,
    }
}

/// What one principal found: how many cells, which were wrong, and the 404 documents without what must differ.
#[derive(Default)]
struct Found {
    cells: usize,
    wrong: Vec<String>,
    refused_404: BTreeSet<String>,
}

impl Found {
    /// `authorize` says beforehand what will happen, by the gate and by the key's state.
    async fn ask_whether(&mut self, caller: &Caller, what: &str, call: &KeyCall, id: &str, want: (u16, &str)) {
        let told = caller.post("/v1/authorize", &json!({ "operation": call.operation, "key_id": id })).await.success();
        let by_gate = matches!(want.0, 403 | 404);
        if told["permitted_by_policy"] != !by_gate || told["code"].as_str().unwrap_or_default() != want.1 {
            self.wrong.push(format!("{what}: expected {want:?}, authorize said {told}"));
        }
    }

    async fn ask(&mut self, caller: &Caller, cell: &str, (method, target): (&str, String), body: &Value, id: &str, want: (u16, &str)) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = caller.send(method, &target, &[], body).await;
        self.cells += 1;
        let (status, code) = reply.outcome();
        if (status, code.as_str()) != want {
            self.wrong.push(format!("{cell}: expected {want:?}, got {}", reply.text));
        }
        if status == 404 && !id.is_empty() {
            let request = reply.json()["request_id"].as_str().unwrap().to_owned();
            self.refused_404.insert(reply.text.replace(&request, "REQUEST").replace(id, "KEY"));
        }
    }
}

/// All cells about keys of one principal. Calls that change a key take a key that no other cell uses.
async fn ask_as(world: Arc<World>, who: &'static str) -> Found {
    let (caller, mut found) = (Caller::new(&world.vault, who), Found::default());
    for call in KEY_CALLS {
        for node in NODES {
            for (index, state) in STATES.into_iter().enumerate() {
                let (keys, want) = (&world.keys[&(call.purpose, node, state)], expected(call, who, node, index));
                let own = KEY_CALLS
                    .iter()
                    .filter(|call| call.changes && call.purpose == "signing")
                    .flat_map(|call| PRINCIPALS.iter().map(move |who| (call.operation, *who, expected(call, who, node, index).0)))
                    .filter(|(_, _, status)| *status < 300)
                    .position(|(operation, by, _)| (operation, by) == (call.operation, who));
                let key = &keys[own.map_or(0, |place| place + 1)];
                let cell = format!("{who} {} a {state} key of {node}", call.operation);
                found.ask_whether(&caller, &cell, call, &key.id, want).await;
                found.ask(&caller, &cell, world.target(call.operation, &key.id), &body(call.operation, key), &key.id, want).await;
            }
        }
        let (_, unknown) = UNKNOWN.iter().find(|(purpose, _)| *purpose == call.purpose).unwrap();
        let (cell, key) = (format!("{who} {} an unknown key", call.operation), Held { id: (*unknown).into(), ciphertext: None });
        found.ask(&caller, &cell, world.target(call.operation, unknown), &body(call.operation, &key), unknown, (404, "not_found")).await;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_matrix_is_as_the_design_says() {
    let world = Arc::new(World::make().await);
    let wrapper = Caller::new(&world.vault, "auditor").get("/v1/wrapper-keys").await.success();
    let others = other_calls(wrapper["items"][0]["id"].as_str().unwrap());
    let known: BTreeSet<&str> = KEY_CALLS.iter().map(|call| call.operation).chain(others.iter().map(|call| call.operation)).collect();
    let documented: BTreeSet<&str> = world.routes.keys().map(String::as_str).collect();
    assert_eq!(documented, known, "every route is in the table of this test, and the other way round");

    let mut asked = JoinSet::new();
    for who in PRINCIPALS {
        asked.spawn(ask_as(Arc::clone(&world), who));
    }
    let mut all = asked.join_all().await.into_iter().fold(Found::default(), |mut all, found| {
        all.cells += found.cells;
        all.wrong.extend(found.wrong);
        all.refused_404.extend(found.refused_404);
        all
    });
    assert_eq!(all.refused_404.len(), 1, "a foreign key answers exactly like an unknown one: {:#?}", all.refused_404);

    for call in &others {
        for who in PRINCIPALS {
            let want = if call.allowed.contains(&who) { call.ends } else { (403, "forbidden") };
            let cell = format!("{who} {} {}", call.operation, call.body);
            let caller = Caller::new(&world.vault, who);
            all.ask(&caller, &cell, world.target(call.operation, &call.id), &call.body, "", want).await;
        }
    }
    assert!(all.wrong.is_empty(), "{} of {} cells are wrong:\n{}", all.wrong.len(), all.cells, all.wrong.join("\n"));
    assert_eq!(all.cells, PRINCIPALS.len() * (KEY_CALLS.len() * (NODES.len() * STATES.len() + 1) + others.len()));
}

/// A list contains only what its caller may see, with any filter.
#[tokio::test]
async fn lists_show_nothing_of_foreign_nodes() {
    let vault = TestVault::start();
    let mut ids = BTreeMap::new();
    for node in NODES {
        ids.insert(node, Caller::new(&vault, node).signing_key(node).await);
    }
    for (who, sees) in [("participant1", vec!["participant1"]), ("participant2", vec!["participant2"]), ("key-admin", NODES.to_vec())] {
        let caller = Caller::new(&vault, who);
        let listed = caller.get("/v1/keys").await.success();
        let listed: Vec<String> = listed["items"].as_array().unwrap().iter().map(id).collect();
        assert_eq!(listed, sees.iter().map(|node| ids[node].clone()).collect::<Vec<_>>(), "{who}");
        for node in NODES {
            let count = caller.get(&format!("/v1/keys?node={node}")).await.success()["items"].as_array().unwrap().len();
            assert_eq!(count, usize::from(sees.contains(&node)), "{who} asks for {node}");
        }
    }
}
