//! The commands of docs/canton.md, executed in their order: attach, rotate, the ceremony of an offline root key, the log.

use std::{fs, path::Path, process::Command};

use canton_keyvault::topology::TopologyTransaction;
use serde_json::{Value, json};

use crate::{
    canton_made::{items, text as field},
    known_bytes::{unbase64, unhex},
    support::{
        api::{Caller, id},
        vault::TestVault,
    },
};

/// Starts each block that is executed. The marker of the first one explains the others.
const MARKER: &str = "<!-- tests/it/canton_guide.rs runs the";

/// The blocks after a marker, without the indentation of a list.
fn blocks() -> Vec<String> {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/canton.md")).unwrap();
    let block = |after: &str| {
        let (fence, rest) = after.split_once("```sh\n").unwrap();
        assert_eq!(fence.trim().lines().count(), 1, "the block follows its marker: {fence}");
        let (block, _) = rest.split_once("```").unwrap();
        block.lines().flat_map(|line| [line.trim_start(), "\n"]).collect()
    };
    guide.split(MARKER).skip(1).map(block).collect()
}

/// Runs a script in the folder of the vault, with the binary on the path, and returns what it prints.
fn run(vault: &TestVault, script: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_canton-keyvault")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", script]).env("PATH", path).current_dir(vault.folder()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}{err}");
    out.into_owned()
}

/// A prepared transaction that Canton made, with the root key of the ceremony instead of Canton's. All lengths stay.
fn prepared_for(name: &str, root: &str, root_der: &[u8]) -> Vec<u8> {
    let pair = items("key_pairs").iter().find(|pair| pair["name"] == "signing/ec-curve25519/namespace/0").unwrap();
    let item = items("topology").iter().find(|item| field(item, "name") == name).unwrap();
    let replaced = replace(&unbase64(field(item, "prep_b64")), field(pair, "fingerprint").as_bytes(), root.as_bytes());
    replace(&replaced, &unhex(field(pair, "spki_hex")), root_der)
}

fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    match bytes.windows(old.len()).position(|window| window == old) {
        Some(at) => [&bytes[..at], new, &replace(&bytes[at + old.len()..], old, new)].concat(),
        None => bytes.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_guide_do_what_it_says() {
    let blocks = blocks();
    let [setup, attached, rotate, supersede, prepare, ceremony, log] = blocks.as_slice() else { panic!("{blocks:#?}") };
    let vault = TestVault::start_with(|config| {
        let nodes = r#"nodes = ["participant1", "participant2"]"#;
        assert!(config.contains(nodes) && config.contains(r#"nodes = ["participant2"]"#), "{config}");
        config
            .replace(nodes, r#"nodes = ["participant1", "participant1-root"]"#)
            .replace(r#"nodes = ["participant2"]"#, r#"nodes = ["participant1-root"]"#)
    });
    for kind in ["pem", "key"] {
        fs::copy(vault.path(&format!("pki/participant2.{kind}")), vault.path(&format!("pki/ceremony.{kind}"))).unwrap();
    }
    assert!(setup.contains("https://vault.example.org:8443"));
    let setup = setup.replace("https://vault.example.org:8443", vault.url());

    // What Canton does at the first start, and what is seen of it.
    let node = Caller::new(&vault, "participant1");
    let create = |name: &'static str| json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": name });
    id(&node.post("/v1/keys", &create("participant1-namespace")).await.success());
    let old = id(&node.post("/v1/keys", &create("participant1-signing")).await.success());
    node.post(&format!("/v1/keys/{old}/sign"), &json!({ "algorithm": "ed25519", "message": "aGVsbG8=" })).await.success();
    let seen = run(&vault, &format!("{setup}{attached}"));
    assert!(seen.contains("participant1-namespace") && seen.contains("permanent") && seen.contains("keys.create"), "{seen}");

    let seen = run(&vault, &format!("{setup}OLD={old}\n{rotate}test $NEW != $OLD\n{supersede}"));
    assert!(seen.contains("successor") && seen.contains("superseded"), "{seen}");

    let root =
        run(&vault, &format!("{setup}{prepare}printf 'ROOT=%s' $ROOT > root.id\nprintf '\\n%s' $ROOT")).lines().last().unwrap().to_owned();
    let root_der = fs::read(vault.path("root.der")).unwrap();
    for (file, name) in [("root", "root-delegation-ec-curve25519/0"), ("intermediate", "intermediate-all-but-delegations/0")] {
        fs::write(vault.path(&format!("{file}.prep")), prepared_for(name, &root, &root_der)).unwrap();
    }
    let seen = run(&vault, &format!("{setup}. ./root.id\n{ceremony}"));
    for file in ["root", "intermediate"] {
        let prepared = fs::read(vault.path(&format!("{file}.prep"))).unwrap();
        let transaction = TopologyTransaction::decode(&prepared).unwrap();
        let hash = transaction.hash().to_string();
        assert!(seen.contains(&format!("Hash to sign: {hash}")), "{seen}");
        let entry = seen.lines().find(|line| line.contains("\"subject\"") && line.contains(&hash));
        assert!(entry.is_some_and(|entry| entry.contains("add-replace namespace-delegation")), "the log says what was signed: {seen}");
        let signed = fs::read(vault.path(&format!("{file}.cert"))).unwrap();
        assert!(signed.windows(prepared.len()).any(|window| window == prepared), "the certificate contains the transaction");
    }
    // The running node cannot use the root key, and nobody can now.
    node.get(&format!("/v1/keys/{root}")).await.refused(404, "not_found");
    let state = Caller::new(&vault, "key-admin").get(&format!("/v1/keys/{root}")).await.success();
    assert_eq!((&state["state"], &state["topology_only"], &state["class"]), (&json!("disabled"), &json!(true), &json!("permanent")));

    let entries: Value = serde_json::from_str(&run(&vault, &format!("{setup}{log}"))).unwrap();
    assert_eq!(entries["items"][0]["key_id"], json!(old), "{entries}");
}
