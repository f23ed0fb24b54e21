//! Several replicas under load while one is killed every few seconds, a rotation runs, and the database fails over to its standby: what callers saw is
//! what the guarantees allow, no acknowledged answer is without its entry, and every key works afterwards.
//!
//! `KEYVAULT_REPLICA_CYCLES=300 KEYVAULT_REPLICAS=4 cargo test --test it -- replica_history` is the long form.

pub(crate) mod history;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::Entry,
    client::{Connection, Endpoint},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use serde_json::{Value, json};

use crate::{
    kill::number,
    support::{
        api::Caller,
        jobs::{ended, new_wrapper_key, rotate},
        postgres::Postgres,
        vault::{TestVault, until, verify_exported},
    },
};

use self::history::{Call, What, violations};

const CLIENTS: usize = 64;
const KEYS: usize = 8;
/// Who disables and enables, and who freezes and unfreezes.
const ADMINS: [&str; 2] = ["key-admin", "wrapper-admin"];

/// What a client may get while replicas and the database die: a refusal of a documented kind, or no answer.
const REFUSALS: &[&str] =
    &["audit_unavailable", "storage_unavailable", "key_disabled", "frozen", "shutting_down", "conflict", "no_wrapper_key", "too_many"];

/// What all clients share.
struct World {
    /// The address of each replica, if it runs.
    endpoints: Vec<Mutex<Option<Endpoint>>>,
    keys: Vec<String>,
    calls: Mutex<Vec<Call>>,
    refused: Mutex<HashSet<String>>,
    answers: AtomicU64,
    over: AtomicBool,
}

impl World {
    fn note(&self, began: Instant, what: What) {
        self.calls.lock().unwrap().push(Call { began, ended: Instant::now(), what });
    }

    fn endpoint(&self, replica: usize) -> Option<Endpoint> {
        self.endpoints[replica].lock().unwrap().clone()
    }
}

/// Sends a request, and gives the status, the request id and the body. `None` if the connection was lost.
async fn send(endpoint: &Endpoint, kept: &mut Option<Connection>, path: &str, body: &Value) -> Option<(u16, String, Value)> {
    let mut connection = match kept.take() {
        Some(connection) if !connection.is_closed() => connection,
        _ => endpoint.connect().await.ok()?,
    };
    connection.ready().await.ok()?;
    let request = Request::post(path).header("host", endpoint.authority()).header("content-type", "application/json");
    let answer = connection.send_request(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await.ok()?;
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await.ok()?.to_bytes();
    *kept = Some(connection);
    let id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    Some((head.status.as_u16(), id, serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Signs again and again, at one replica after another.
async fn sign(world: Arc<World>, client: usize) {
    let (mut turn, mut kept) = (client, None);
    let mut at = usize::MAX;
    while !world.over.load(Ordering::Acquire) {
        turn += 1;
        // A few signatures on each connection.
        let replica = turn / 16 % world.endpoints.len();
        let Some(endpoint) = world.endpoint(replica) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if replica != at {
            (at, kept) = (replica, None);
        }
        let key = &world.keys[turn % KEYS];
        let began = Instant::now();
        let body = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" });
        match send(&endpoint, &mut kept, &format!("/v1/keys/{key}/sign"), &body).await {
            Some((200, request_id, _)) => {
                world.note(began, What::Use { key: key.clone(), request_id });
                world.answers.fetch_add(1, Ordering::Relaxed);
            }
            Some((status, _, body)) => {
                let code = body["code"].as_str().unwrap_or_default();
                world.refused.lock().unwrap().insert(format!("{status} {code}"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Disables, enables, freezes and unfreezes, at one replica after another. A call without an answer is repeated elsewhere until it has one.
async fn change(world: Arc<World>, admins: Arc<[Vec<Mutex<Option<Endpoint>>>; 2]>) {
    let mut turn = 0;
    while !world.over.load(Ordering::Acquire) {
        turn += 1;
        let key = world.keys[turn % 2].clone();
        let steps: [(String, What); 2] = if turn % 4 == 0 {
            [("/v1/freeze".into(), What::Freeze), ("/v1/unfreeze".into(), What::Unfreeze)]
        } else {
            let path = |step: &str| format!("/v1/keys/{key}/{step}");
            [(path("disable"), What::Disable(key.clone())), (path("enable"), What::Enable(key.clone()))]
        };
        for (step, (path, what)) in steps.into_iter().enumerate() {
            let began = Instant::now();
            let mut at = turn;
            loop {
                at += 1;
                let of_role = &admins[usize::from(path.ends_with("freeze"))];
                let endpoint = of_role[at % of_role.len()].lock().unwrap().clone();
                let answer = match &endpoint {
                    Some(endpoint) => send(endpoint, &mut None, &path, &json!({})).await,
                    None => None,
                };
                // A repeated step finds the state that it wants: then its first attempt took effect.
                if answer.as_ref().is_some_and(|(status, ..)| matches!(status, 200 | 409)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            world.note(began, what);
            // Long enough that a replica which does not learn of it is found out.
            tokio::time::sleep(Duration::from_millis(if step == 0 { 1400 } else { 300 })).await;
        }
    }
}

/// The request ids of the entries of all uses that succeeded, in every log.
async fn logged(client: &tokio_postgres::Client) -> HashSet<String> {
    let rows = client.query("SELECT entry FROM audit_entries WHERE operation = 'keys.sign' AND outcome = 'ok'", &[]).await.unwrap();
    rows.iter().filter_map(|row| Entry::decode(row.get(0)).unwrap().request_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_callers_see_of_replicas_that_die_is_what_the_guarantees_allow() {
    let replicas = usize::try_from(number("KEYVAULT_REPLICAS", 2)).unwrap();
    let cycles = number("KEYVAULT_REPLICA_CYCLES", 12);
    let primary = Postgres::start().await;
    let database = primary.database().await;
    let standby = primary.standby().await;
    let client = primary.client().await;
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("the standby confirms", async || {
        client.query_one("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let database = database.with_standby(&standby);
    let mut vaults = vec![TestVault::on_database(&database)];
    vaults[0].limits_that_no_test_reaches();
    vaults[0].serve();
    for number in 1..replicas {
        let mut vault = vaults[0].replica(&format!("replica-{number}"));
        vault.serve();
        vaults.push(vault);
    }
    let admin = Caller::new(&vaults[0], "key-admin");
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        keys.push(admin.signing_key("participant1").await);
    }
    let to = [new_wrapper_key(&vaults[0]).await, crate::support::jobs::active(&vaults[0]).await];
    let endpoint = |vault: &TestVault, principal: &str| Mutex::new(Some(Endpoint::new(&vault.options(principal)).unwrap()));
    let admins = Arc::new(ADMINS.map(|role| vaults.iter().map(|vault| endpoint(vault, role)).collect::<Vec<_>>()));
    let world = Arc::new(World {
        endpoints: vaults.iter().map(|vault| endpoint(vault, "participant1")).collect(),
        keys,
        calls: Mutex::default(),
        refused: Mutex::default(),
        answers: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let mut tasks: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(sign(Arc::clone(&world), number))).collect();
    tasks.push(tokio::spawn(change(Arc::clone(&world), Arc::clone(&admins))));
    let mut primary = Some(primary);
    for cycle in 0..cycles {
        let victim = usize::try_from(cycle).unwrap() % replicas;
        let other = (victim + 1) % replicas;
        if cycle == cycles / 2 {
            drop(primary.take());
            standby.client().await.batch_execute("SELECT pg_promote()").await.unwrap();
        } else if cycle % 3 == 0 {
            // A rotation that the other replicas finish. Another one may run.
            let client = vaults[other].client("wrapper-admin");
            let _ = client.post("/v1/wrapper-keys/rotations", &json!({ "to": to[usize::try_from(cycle / 3).unwrap() % 2] })).await;
        }
        let before = world.answers.load(Ordering::Relaxed);
        *world.endpoints[victim].lock().unwrap() = None;
        admins.iter().for_each(|of_role| *of_role[victim].lock().unwrap() = None);
        vaults[victim].kill();
        // The others go on.
        until("the others sign", async || world.answers.load(Ordering::Relaxed) > before + 50).await;
        tokio::task::block_in_place(|| vaults[victim].serve());
        *world.endpoints[victim].lock().unwrap() = Some(Endpoint::new(&vaults[victim].options("participant1")).unwrap());
        for (role, of_role) in ADMINS.into_iter().zip(&*admins) {
            *of_role[victim].lock().unwrap() = Some(Endpoint::new(&vaults[victim].options(role)).unwrap());
        }
        let before = world.answers.load(Ordering::Relaxed);
        until("all sign", async || world.answers.load(Ordering::Relaxed) > before + 200).await;
    }
    world.over.store(true, Ordering::Release);
    for task in tasks {
        task.await.unwrap();
    }
    let client = standby.client_of(&database).await;
    let calls = world.calls.lock().unwrap().clone();
    let found = violations(&calls, &logged(&client).await);
    assert!(found.is_empty(), "{} violations in {} calls:\n{}", found.len(), calls.len(), found[..found.len().min(20)].join("\n"));
    let refused = world.refused.lock().unwrap().clone();
    let undocumented: Vec<_> = refused.iter().filter(|refusal| !REFUSALS.iter().any(|code| refusal.ends_with(code))).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
    after(&vaults, &world.keys, &to).await;
    println!("{replicas} replicas, {cycles} cycles, {} acknowledged calls, refusals: {refused:?}", calls.len());
}

/// Every key works through every replica, the rotations end, and each log verifies.
async fn after(vaults: &[TestVault], keys: &[String], to: &[String; 2]) {
    let _ = vaults[0].client("wrapper-admin").post("/v1/unfreeze", &json!({})).await;
    let state = vaults[0].client("key-admin");
    for key in keys {
        let _ = state.post(&format!("/v1/keys/{key}/enable"), &json!({})).await;
    }
    let active = crate::support::jobs::active(&vaults[0]).await;
    let next = if to[0] == active { &to[1] } else { &to[0] };
    until("no rotation runs", async || {
        let jobs = vaults[0].client("wrapper-admin").get("/v1/wrapper-keys/rotations").await.unwrap();
        jobs["items"].as_array().unwrap().iter().all(|job| job["state"] != "running")
    })
    .await;
    assert_eq!(ended(&vaults[0], &rotate(&vaults[0], next).await).await["state"], "succeeded");
    for vault in vaults {
        let node = Caller::new(vault, "participant1");
        for key in keys {
            until("the key signs", async || node.sign(key).await.status == 200).await;
        }
        assert_eq!(verify_exported(vault).await, Ok(()));
    }
}
