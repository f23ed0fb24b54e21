//! The log as C2SP tlog-tiles: hashes and entries give the root of the checkpoint, only auditors of the whole vault read them, and the reads are one entry.

use canton_keyvault::{
    audit::{
        Checkpoint, SignedNote, leaf_hash,
        merkle::{Frontier, Hash},
    },
    client::{Call, Client},
};
use serde_json::json;

use crate::support::{api::Caller, vault::TestVault};

async fn read(client: &Client, resource: &str) -> Vec<u8> {
    client.success(Call::get(&format!("/v1/audit/tlog/{resource}"))).await.unwrap().body.to_vec()
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    assert_eq!(bytes.len() % 32, 0);
    bytes.chunks(32).map(|hash| hash.try_into().unwrap()).collect()
}

/// The entries of a bundle.
fn entries(mut bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        all.push(entry.to_vec());
        bundle = rest;
    }
    all
}

fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.append(*leaf, |_| {});
    }
    frontier.root()
}

#[tokio::test]
async fn the_tiles_give_the_root_of_the_checkpoint_and_are_one_entry() {
    let vault = TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\n"));
    let (caller, client) = (Caller::new(&vault, "auditor"), vault.client("auditor"));
    caller.get("/v1/audit/tlog/checkpoint").await.refused(404, "not_found");
    for _ in 0..300 {
        caller.get("/v1/audit/entries?limit=1").await.success();
    }
    let size = caller.post("/v1/audit/checkpoints", &json!({})).await.success()["size"].as_u64().unwrap();
    let served = caller.get("/v1/audit/tlog/checkpoint").await;
    assert_eq!(served.headers["content-type"], "text/plain; charset=utf-8");
    let note = SignedNote::parse(served.text.as_bytes()).unwrap();
    let keys = caller.get("/v1/audit/verifier-keys").await.success();
    note.verify(&keys["items"][0]["verifier_key"].as_str().unwrap().parse().unwrap()).unwrap();
    let checkpoint = Checkpoint::parse(note.text()).unwrap();
    assert_eq!(checkpoint.size, size);

    let width = size - 256;
    let mut leaves = hashes(&read(&client, "tile/0/000").await);
    leaves.extend(hashes(&read(&client, &format!("tile/0/001.p/{width}")).await));
    assert_eq!((leaves.len() as u64, root(&leaves)), (size, checkpoint.root));
    assert_eq!(hashes(&read(&client, "tile/1/000.p/1").await), [root(&leaves[..256])]);
    let mut bundles = entries(&read(&client, "tile/entries/000").await);
    bundles.extend(entries(&read(&client, &format!("tile/entries/001.p/{width}")).await));
    assert_eq!(bundles.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>(), leaves);

    for (missing, status, code) in [
        ("tile/0/001", 404, "not_found"),
        ("tile/0/002.p/1", 404, "not_found"),
        ("tile/1/000.p/2", 404, "not_found"),
        ("tile/8/000.p/1", 404, "not_found"),
        ("tile/63/000.p/1", 404, "not_found"),
        ("tile/entries/x999/x999/x999/x999/999", 404, "not_found"),
        ("tile/0/0", 400, "invalid_request"),
        ("nothing", 400, "invalid_request"),
    ] {
        caller.get(&format!("/v1/audit/tlog/{missing}")).await.refused(status, code);
    }
    let log = caller.log("&operation=audit.read-tiles&outcome=ok").await;
    // A second one only if the reads took longer than a minute.
    assert!(matches!(log.len(), 1 | 2), "{log:#?}");
    let all = caller.log("&operation=audit.read-tiles").await;
    assert!(all.len() >= log.len() + 9, "a refusal has its own entry: {all:#?}");
}

#[tokio::test]
async fn only_an_auditor_of_the_whole_vault_reads_tiles() {
    let vault = TestVault::start_with(|config| {
        let (before, after) = config.split_once("role = \"auditor\"\nnodes = [\"*\"]").unwrap();
        format!("{before}role = \"auditor\"\nnodes = [\"participant1\"]{after}")
    });
    let some = Caller::new(&vault, "auditor");
    some.get("/v1/audit/entries").await.success();
    for principal in ["participant1", "key-admin", "wrapper-admin", "exporter", "auditor"] {
        let caller = Caller::new(&vault, principal);
        for resource in ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"] {
            caller.get(&format!("/v1/audit/tlog/{resource}")).await.refused(403, "forbidden");
        }
    }
}
