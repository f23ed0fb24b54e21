//! Archived entries are removed: the space is bounded, everything that is left is verified, and what was removed is verified with the archive.

use std::process::Output;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::audit::{
    leaf_hash,
    merkle::{Hash, verify_inclusion},
};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{
    api::Caller,
    vault::{TestVault, until},
};

/// Signatures of a call.
const BATCH: usize = 64;

pub(crate) fn vault() -> TestVault {
    let vault = TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\nminimum_retention = \"1s\"\n"));
    let keys = cli(&vault, "auditor", &["audit", "verifier-keys"]);
    // The key is made with the first checkpoint.
    drop(keys);
    vault
}

fn cli(vault: &TestVault, who: &str, arguments: &[&str]) -> Output {
    let options = vault.options(who);
    let mut command = vault.command(arguments);
    command.args(["--url", &options.url]).arg("--ca").arg(&options.ca).arg("--cert").arg(&options.cert).arg("--key").arg(&options.key);
    command.output().unwrap()
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Signs often, which writes as many entries.
pub(crate) async fn sign(vault: &TestVault, key: &str, batches: usize) {
    let node = Caller::new(vault, "participant1");
    let messages: Vec<_> = (0..BATCH).map(|number| json!({ "message": STANDARD.encode(number.to_string()) })).collect();
    for _ in 0..batches {
        node.post(&format!("/v1/keys/{key}/sign-batch"), &json!({ "algorithm": "ed25519", "messages": messages })).await.success();
    }
}

/// Archives what is new. Returns the number of entries that the archive has.
pub(crate) fn archive(vault: &TestVault, file: &str, after: u64) -> u64 {
    ok(&cli(vault, "auditor", &["audit", "export", "--after", &after.to_string(), "--out", file]));
    std::fs::write(vault.path("keys"), ok(&cli(vault, "auditor", &["audit", "verifier-keys"]))).unwrap();
    let verified = verify(vault, &[file]);
    assert_eq!((verified.0, verified.1["first"].as_u64()), (0, Some(after + 1)), "{}", verified.1);
    verified.1["last"].as_u64().unwrap()
}

pub(crate) fn verify(vault: &TestVault, arguments: &[&str]) -> (i32, Value) {
    let output = vault.command(&[&["audit", "verify", "--output", "json", "--verifier-key", "keys"], arguments].concat()).output().unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), document)
}

fn remove(vault: &TestVault, who: &str, files: &[&str]) -> Output {
    cli(vault, who, &[&["audit", "remove", "--output", "json", "--verifier-key", "keys", "--older-than", "0s", "--yes"], files].concat())
}

/// Removes what the archive has, as soon as all of it is old enough.
pub(crate) async fn removed(vault: &TestVault, files: &[&str], archived: u64) -> u64 {
    // The newest 256 entries stay, and so do the others of their block.
    let whole = (archived - 256 + 1) / 1024 * 1024 - 1;
    let mut through = 0;
    until("the removal", || {
        let output = remove(vault, "wrapper-admin", files);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("nothing_to_remove"), "{said}");
        if output.status.success() {
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            through = document["removed_through"].as_u64().unwrap();
        }
        let done = through >= whole;
        async move { done }
    })
    .await;
    through
}

pub(crate) async fn space_is_freed(vault: &TestVault, through: u64) {
    let position = || -> u64 {
        let position: i64 = vault.database().query_row("SELECT removal_position FROM meta", [], |row| row.get(0)).unwrap();
        position.cast_unsigned()
    };
    until("the removed entries", || async { position() >= through }).await;
}

/// A number as a report writes it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (thousands, rest) = digits.split_at(digits.len().saturating_sub(3));
    if thousands.is_empty() { rest.to_owned() } else { format!("{thousands},{rest}") }
}

fn count(db: &Connection, condition: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM audit_entries WHERE {condition}");
    db.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
}

#[tokio::test]
async fn removed_entries_are_verified_by_their_hashes_and_with_the_archive() {
    let mut vault = vault();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    sign(&vault, &key, 40).await;
    let archived = archive(&vault, "one.ndjson", 0);
    for (who, code) in [("auditor", "forbidden"), ("participant1", "forbidden")] {
        let refused = remove(&vault, who, &["one.ndjson"]);
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(code), "{who}");
    }
    let through = removed(&vault, &["one.ndjson"], archived).await;
    assert_eq!((through + 1) % 1024, 0, "whole blocks");
    assert!(through > 1024 && through < archived, "{through} of {archived}");
    space_is_freed(&vault, through).await;
    assert_eq!(count(&vault.database(), "entry = x'' AND state_revision IS NOT NULL"), 0, "a state change was removed");
    assert!(count(&vault.database(), "entry = x''") > through - 10);

    // What is left is verified, in the database and with the archive.
    let auditor = Caller::new(&vault, "auditor");
    let (code, verified) = verify(&vault, &["--database", "keyvault.db"]);
    assert_eq!((code, verified["verified"].as_bool(), verified["removed_through"].as_u64()), (0, Some(true), Some(through)), "{verified}");
    let gone = auditor.get("/v1/audit/export").await;
    assert_eq!(gone.outcome(), (410, "entries_removed".into()));
    assert!(gone.text.contains(&format!("after entry {through}")), "{}", gone.text);
    archive(&vault, "two.ndjson", archived);
    let (code, whole) = verify(&vault, &["one.ndjson", "two.ndjson"]);
    assert_eq!((code, whole["first"].as_u64(), whole["complete"].as_bool()), (0, Some(1), Some(true)), "{whole}");
    assert!(whole["last"].as_u64().unwrap() > archived);
    let (code, gap) = verify(&vault, &["two.ndjson", "one.ndjson"]);
    assert_eq!((code, gap["code"].as_str()), (4, Some("duplicate_entry")), "{gap}");

    // Proofs of removed entries stay valid; their bytes are in the archive.
    let text = std::fs::read_to_string(vault.path("one.ndjson")).unwrap();
    let line = text.lines().find(|line| line.starts_with("{\"v\":4,\"sequence\":100,")).unwrap();
    let proven = auditor.get("/v1/audit/proofs/inclusion?sequence=100").await.success();
    let hash = |value: &Value| -> Hash { STANDARD.decode(value.as_str().unwrap()).unwrap().try_into().unwrap() };
    let proof: Vec<Hash> = proven["proof"].as_array().unwrap().iter().map(hash).collect();
    let size = proven["size"].as_u64().unwrap();
    assert!(verify_inclusion(&proof, 99, leaf_hash(line.as_bytes()), size, &hash(&proven["root"])));
    assert_eq!(auditor.get("/v1/audit/tlog/tile/entries/000").await.outcome(), (410, "entries_removed".into()));

    // Queries find what is left, and totals count everything.
    let first = auditor.log(&format!("&operation=keys.create&key_id={key}")).await;
    assert_eq!(first.len(), 1, "a state change stays");
    let output = cli(&vault, "auditor", &["audit", "query", "--operation", "keys.create"]);
    let note = format!("the entries up to {through} were archived and removed");
    assert!(ok(&output).contains("keys.create") && String::from_utf8_lossy(&output.stderr).contains(&note), "{output:?}");
    let page = cli(&vault, "auditor", &["audit", "query", "--limit", "1", "--wide"]);
    assert!(ok(&page).contains("wrapper-keys.bootstrap") && String::from_utf8_lossy(&page.stderr).contains(&note), "{page:?}");
    let rest = cli(&vault, "auditor", &["audit", "query"]);
    let begins = ok(&rest).lines().nth(1).is_some_and(|line| line.starts_with(&format!("{} ", through + 1)));
    assert!(begins && String::from_utf8_lossy(&rest.stderr).contains("those after it follow"), "{:?}", rest.stderr);
    let report = cli(&vault, "auditor", &["audit", "report", "--from", "2026-01-01", "--out", "report.html", "--verifier-key", "keys"]);
    assert!(report.status.success(), "{report:?}");
    let report = std::fs::read_to_string(vault.path("report.html")).unwrap();
    assert!(report.contains(&format!("Anything about the entries 1 to {}", grouped(through))), "the report says what it did not read");
    let signed = auditor.get("/v1/audit/summary?by=operation&operation=keys.sign").await.success();
    assert_eq!(signed["items"][0]["calls"].as_u64(), Some(40 * BATCH as u64), "{signed}");
    let entries = auditor.log("&operation=audit.remove-entries&outcome=ok").await;
    let newest = entries.last().unwrap();
    assert_eq!((newest["removed_through"].as_u64(), newest["digest"].as_str().map(str::len)), (Some(through), Some(64)), "{newest}");

    // An archive without its beginning, or of another log, removes nothing.
    let refused = remove(&vault, "wrapper-admin", &["two.ndjson"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the archive lacks the entries"), "{refused:?}");
    let admin = Caller::new(&vault, "wrapper-admin");
    for (body, said) in [
        (json!({ "first": 1, "size": archived, "root": STANDARD.encode([7; 32]) }), "the archive has other entries than this log"),
        (json!({ "first": 1, "size": archived + 10_000, "root": STANDARD.encode([7; 32]) }), "the newest checkpoint of this log covers"),
        (json!({ "first": 1, "size": archived, "root": "QQ==" }), "not the base64 of 32 bytes"),
    ] {
        let reply = admin.post("/v1/audit/removals", &body).await;
        assert!(reply.status == 400 && reply.text.contains(said), "{}", reply.text);
    }

    // A start and further work.
    assert!(vault.terminate());
    vault.serve();
    Caller::new(&vault, "participant1").sign(&key).await.success();
}

#[tokio::test]
async fn entries_that_are_too_young_stay() {
    let vault = TestVault::start();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    sign(&vault, &key, 20).await;
    archive(&vault, "one.ndjson", 0);
    let refused = remove(&vault, "wrapper-admin", &["one.ndjson"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("nothing_to_remove") && said.contains("no whole block"), "{said}");

    // An edited time, with its hash, does not make the block older: the tree has the entry as it was written.
    let db = vault.database();
    let bytes: Vec<u8> = db.query_row("SELECT entry FROM audit_entries WHERE sequence = 1023", [], |row| row.get(0)).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let older = text.replacen("\"at\":\"20", "\"at\":\"10", 1);
    assert_ne!(older, text);
    let edit = "UPDATE audit_entries SET entry = ?1, leaf = ?2 WHERE sequence = 1023";
    assert_eq!(db.execute(edit, (older.as_bytes(), leaf_hash(older.as_bytes()))).unwrap(), 1);
    let refused = remove(&vault, "wrapper-admin", &["one.ndjson"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("entry 1023 of the log is not the one of the archive"), "{said}");
}

#[tokio::test]
async fn a_removal_that_the_log_does_not_state_is_detected() {
    let mut vault = vault();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    sign(&vault, &key, 40).await;
    let archived = archive(&vault, "one.ndjson", 0);
    let through = removed(&vault, &["one.ndjson"], archived).await;
    space_is_freed(&vault, through).await;
    archive(&vault, "two.ndjson", through);
    vault.terminate();
    std::fs::copy(vault.path("keyvault.db"), vault.path("good.db")).unwrap();
    let removed = "entry = x''";
    let last_use = through + 5;
    let created: i64 =
        vault.database().query_row("SELECT sequence FROM audit_log WHERE operation = 'keys.create'", [], |row| row.get(0)).unwrap();
    for (change, place, code) in [
        (format!("UPDATE audit_entries SET {removed} WHERE sequence = {last_use}"), Some(last_use), "removed_entry"),
        (format!("UPDATE audit_entries SET {removed} WHERE sequence = {created}"), None, "broken_state_chain"),
        (format!("UPDATE audit_entries SET leaf = zeroblob(32) WHERE sequence = {}", through - 5), None, ""),
        (format!("DELETE FROM audit_entries WHERE sequence = {}", through - 5), Some(through - 5), "missing_entry"),
    ] {
        std::fs::copy(vault.path("good.db"), vault.path("keyvault.db")).unwrap();
        assert_eq!(vault.database().execute(&change, []).unwrap(), 1);
        let (exit, found) = verify(&vault, &["--database", "keyvault.db"]);
        assert_eq!(exit, 4, "{change}: {found}");
        assert!(code.is_empty() || found["code"] == code, "{change}: {found}");
        assert!(place.is_none() || found["first_bad_entry"]["from"].as_u64() == place, "{change}: {found}");
    }

    // An operator who accepts such a store accepts its removals too.
    std::fs::copy(vault.path("good.db"), vault.path("keyvault.db")).unwrap();
    let change = format!("UPDATE audit_entries SET {removed} WHERE sequence IN ({created}, {last_use})");
    assert_eq!(vault.database().execute(&change, []).unwrap(), 2);
    let refused = vault.refuses_to_serve();
    assert!(refused.contains("--accept-state"), "{refused}");
    vault.serve_with(&["--accept-state"]);
    let gone = Caller::new(&vault, "auditor").get("/v1/audit/export").await;
    assert!(gone.status == 410 && gone.text.contains(&format!("up to {last_use} ")), "{}", gone.text);
    archive(&vault, "three.ndjson", last_use);
    vault.terminate();
    let (exit, found) = verify(&vault, &["--database", "keyvault.db"]);
    assert_eq!((exit, found["removed_through"].as_u64()), (0, Some(last_use)), "{found}");
}

#[tokio::test]
async fn a_sink_delays_a_removal_and_a_new_one_learns_of_the_gap() {
    let sink =
        |name: &str, kind: &str| format!("\n[[audit.sinks]]\nname = \"{name}\"\nmode = \"best-effort\"\nfrom = \"beginning\"\n{kind}\n");
    let dead = sink("dead", "kind = \"http\"\nurl = \"http://127.0.0.1:1/\"");
    let mut vault =
        TestVault::start_with(|config| format!("{config}\n[audit]\ncheckpoint_interval = \"1day\"\nminimum_retention = \"1s\"\n{dead}"));
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    sign(&vault, &key, 40).await;
    let archived = archive(&vault, "one.ndjson", 0);
    let refused = remove(&vault, "wrapper-admin", &["one.ndjson"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("nothing_to_remove") && said.contains("the audit sink dead"), "{said}");

    // Without the dead sink.
    let edit = |vault: &TestVault, from: &str, to: &str| {
        let config = std::fs::read_to_string(vault.path("keyvault.toml")).unwrap();
        assert!(config.contains(from));
        std::fs::write(vault.path("keyvault.toml"), config.replace(from, to)).unwrap();
    };
    edit(&vault, &dead, "");
    vault.restart();
    let through = removed(&vault, &["one.ndjson"], archived).await;
    space_is_freed(&vault, through).await;
    edit(
        &vault,
        "minimum_retention = \"1s\"\n",
        &format!("minimum_retention = \"1s\"\n{}", sink("file", "kind = \"file\"\npath = \"log\"")),
    );
    vault.restart();
    let sequences = || -> Vec<u64> {
        let text = std::fs::read_to_string(vault.path("log")).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.map(|entry| entry["sequence"].as_u64().unwrap()).collect()
    };
    until("the sink has what is left", || async { sequences().len() > 100 }).await;
    assert_eq!(sequences()[0], through + 1);
    let gap = Caller::new(&vault, "auditor").log("&operation=audit.sink-gap").await;
    assert_eq!((gap.len(), gap[0]["subject"].as_str()), (1, Some("file")), "{gap:?}");
    assert!(gap[0]["reason"].as_str().unwrap().contains(&format!("entries 1 to {through} were not sent")), "{gap:?}");
}

#[tokio::test]
async fn a_removal_goes_on_after_a_crash() {
    let mut vault = vault();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    sign(&vault, &key, 60).await;
    let archived = archive(&vault, "one.ndjson", 0);
    let through = removed(&vault, &["one.ndjson"], archived).await;
    vault.restart();
    for _ in 0..3 {
        // Somewhere in the middle, or before the first step.
        sign(&vault, &key, 1).await;
        vault.restart();
    }
    space_is_freed(&vault, through).await;
    let (code, verified) = verify(&vault, &["--database", "keyvault.db"]);
    assert_eq!((code, verified["removed_through"].as_u64()), (0, Some(through)), "{verified}");
}

#[tokio::test]
async fn a_store_under_constant_load_stays_bounded() {
    const BATCHES: usize = 40;
    let vault = vault();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    let (mut archived, mut files, mut pages) = (0, Vec::new(), Vec::new());
    for cycle in 0..6 {
        sign(&vault, &key, BATCHES).await;
        let file = format!("{cycle}.ndjson");
        archived = archive(&vault, &file, archived);
        files.push(file);
        let archive: Vec<&str> = files.iter().map(String::as_str).collect();
        let through = removed(&vault, &archive, archived).await;
        space_is_freed(&vault, through).await;
        let db = vault.database();
        let number = |pragma: &str| -> i64 { db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap() };
        pages.push((number("page_count"), number("page_count") - number("freelist_count")));
    }
    // Two cycles fill whole blocks, so that as much is left of the newest one.
    let written = i64::try_from(2 * BATCHES * BATCH).unwrap();
    let [file, used] = [pages[5].0 - pages[3].0, pages[5].1 - pages[3].1].map(|pages| pages * 4096 / written);
    println!("pages of the file, and used ones, after each cycle: {pages:?}; bytes that stay of each archived entry: {used}");
    assert!(file < 200 && used < 200, "of each entry the file keeps {file} bytes, {used} of them used: {pages:?}");
    let archive: Vec<&str> = files.iter().map(String::as_str).collect();
    let (code, whole) = verify(&vault, &archive);
    assert_eq!((code, whole["first"].as_u64(), whole["last"].as_u64()), (0, Some(1), Some(archived)), "{whole}");
    assert_eq!(verify(&vault, &["--database", "keyvault.db"]).0, 0);
}
