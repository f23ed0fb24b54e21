//! Exports of the audit log over the real binary: complete, verifiable, resumable, one entry each, and bounded for slow readers.

use std::process::Output;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    audit::{
        Checkpoint, SignedNote, leaf_hash,
        merkle::{Frontier, Hash, verify_inclusion},
    },
    cli::pki::principal,
    client::{Call, Lines},
};
use serde_json::{Value, json};

use crate::{
    log_queries::long_log,
    support::{
        api::{Caller, enroll},
        vault::{TestVault, problem, until},
    },
};

/// A part of an export: its lines by kind.
#[derive(Debug, Default)]
struct Part {
    header: Value,
    entries: Vec<String>,
    proofs: Vec<Vec<Hash>>,
    /// Earlier checkpoints, each with the number of entries before it.
    checkpoints: Vec<(u64, Value)>,
    end: Value,
}

impl Part {
    fn checkpoint(&self) -> Checkpoint {
        let note = SignedNote::parse(self.header["checkpoint"].as_str().unwrap().as_bytes()).unwrap();
        Checkpoint::parse(note.text()).unwrap()
    }

    fn sequences(&self) -> Vec<u64> {
        self.entries.iter().map(|line| json_of(line)["sequence"].as_u64().unwrap()).collect()
    }
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

fn hashes(value: &Value) -> Vec<Hash> {
    let hash = |text: &Value| STANDARD.decode(text.as_str().unwrap()).unwrap().try_into().unwrap();
    value.as_array().unwrap().iter().map(hash).collect()
}

/// The parts of a file or stream.
fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for line in text.lines() {
        if line.starts_with("{\"export\":1,") {
            parts.push(Part { header: json_of(line), ..Part::default() });
            continue;
        }
        let part = parts.last_mut().expect("an export begins with a header");
        assert_eq!(part.end, Value::Null, "something follows the end");
        match line {
            _ if line.starts_with("{\"v\":") => part.entries.push(line.to_owned()),
            _ if line.starts_with("{\"proof\":") => part.proofs.push(hashes(&json_of(line)["proof"])),
            _ if line.starts_with("{\"checkpoint\":") => part.checkpoints.push((part.entries.len() as u64, json_of(line))),
            _ => part.end = json_of(line)["end"].clone(),
        }
    }
    parts
}

async fn export(caller: &Caller, query: &str) -> Part {
    let reply = caller.get(&format!("/v1/audit/export{query}")).await;
    assert_eq!((reply.status, reply.headers["content-type"].to_str().unwrap()), (200, "application/x-ndjson"), "{}", reply.text);
    let mut parts = parts(&reply.text);
    assert_eq!(parts.len(), 1, "{}", reply.text);
    parts.remove(0)
}

/// The root of the tree that the subtrees of the header and the entries make.
fn root(part: &Part) -> Hash {
    let mut left = hashes(&part.header["frontier"]);
    let after = part.header["after"].as_u64().unwrap();
    for (size, line) in (after..).zip(&part.entries) {
        let (mut hash, mut rest) = (leaf_hash(line.as_bytes()), size);
        while rest & 1 == 1 {
            hash = canton_keyvault::audit::merkle::node_hash(&left.pop().unwrap(), &hash);
            rest >>= 1;
        }
        left.push(hash);
    }
    let mut roots = left.into_iter().rev();
    let last = roots.next().unwrap();
    roots.fold(last, |right, left| canton_keyvault::audit::merkle::node_hash(&left, &right))
}

#[tokio::test]
async fn an_export_is_the_whole_log_in_its_bytes_and_one_entry() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let key = node.signing_key("participant1").await;
    let earlier = auditor.post("/v1/audit/checkpoints", &json!({})).await.success();
    for _ in 0..300 {
        node.sign(&key).await.success();
    }
    let part = export(&auditor, "").await;
    let after = earlier["size"].as_u64().unwrap();
    assert_eq!(part.checkpoints, [(after, json!({ "checkpoint": earlier["note"] }))], "it stands after the last entry that it covers");
    let checkpoint = part.checkpoint();
    assert_eq!(part.header["origin"], checkpoint.origin);
    assert_eq!((&part.header["after"], &part.header["frontier"], &part.header["filter"]), (&json!(0), &json!([]), &Value::Null));
    assert_eq!(part.sequences(), (1..=checkpoint.size).collect::<Vec<_>>());
    assert!(part.proofs.is_empty() && checkpoint.size > 300);
    assert_eq!(part.end, json!({ "last": checkpoint.size, "entries": checkpoint.size }));
    let mut tree = Frontier::default();
    part.entries.iter().for_each(|line| tree.append(leaf_hash(line.as_bytes()), |_| {}));
    assert_eq!(tree.root(), checkpoint.root);
    let stored: Vec<Vec<u8>> = {
        let database = vault.database();
        let mut sql = database.prepare("SELECT entry FROM audit_entries ORDER BY sequence").unwrap();
        sql.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert!(part.entries.iter().zip(&stored).all(|(line, stored)| line.as_bytes() == stored));
    assert_eq!(auditor.log("&operation=audit.export").await.len(), 1);

    // From any place, the rest of the tree is the same.
    for after in [0, 1, 2, 3, 255, 256, 300] {
        let rest = export(&auditor, &format!("?after={after}")).await;
        assert_eq!(root(&rest), rest.checkpoint().root, "after {after}");
        assert_eq!(rest.sequences().first(), Some(&(after + 1)));
    }
    let newest = export(&auditor, "").await.checkpoint().size;
    auditor.get(&format!("/v1/audit/export?after={}", newest + 1000)).await.refused(400, "invalid_request");
    auditor.get("/v1/audit/export?limit=5").await.refused(400, "invalid_request");
    node.get("/v1/audit/export").await.refused(403, "forbidden");
}

#[tokio::test]
async fn what_is_left_out_is_said_and_what_is_there_is_proven() {
    let grant = format!("\n[[grants]]\nprincipal = \"{}\"\nrole = \"auditor\"\nnodes = [\"participant1\"]\n", principal("local-auditor"));
    let vault = TestVault::start_with(|config| config + &grant);
    enroll(&vault, "local-auditor");
    let (node, auditor, local) =
        (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"), Caller::new(&vault, "local-auditor"));
    let key = node.signing_key("participant1").await;
    Caller::new(&vault, "participant2").signing_key("participant2").await;
    for _ in 0..5 {
        node.sign(&key).await.success();
        auditor.get("/v1/status").await.success();
    }
    let signed = export(&auditor, &format!("?operation=keys.sign&key_id={key}")).await;
    assert_eq!(signed.header["filter"], json!({ "operation": "keys.sign", "key_id": key }));
    assert_eq!((signed.entries.len(), &signed.end["entries"]), (5, &json!(5)));
    let ours = export(&local, "").await;
    assert_eq!(ours.header["filter"], json!({ "nodes": ["participant1"] }));
    assert!(ours.entries.iter().all(|line| json_of(line)["node"] == "participant1"), "{ours:?}");
    assert_eq!(ours.entries.len(), 6);
    for part in [&signed, &ours] {
        let Checkpoint { size, root, .. } = part.checkpoint();
        assert_eq!(part.end["last"], size);
        assert_eq!(part.proofs.len(), part.entries.len());
        for ((line, proof), sequence) in part.entries.iter().zip(&part.proofs).zip(part.sequences()) {
            assert!(verify_inclusion(proof, sequence - 1, leaf_hash(line.as_bytes()), size, &root), "{line}");
        }
    }
    let nothing = export(&auditor, "?outcome=intent").await;
    assert_eq!((nothing.entries.len(), &nothing.end["entries"]), (0, &json!(0)));
}

async fn lines_of(vault: &TestVault, principal: &str) -> Lines {
    vault.client(principal).lines(Call::get("/v1/audit/export")).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_one_place_and_nothing_else() {
    let vault = long_log().await;
    let mut slow = lines_of(&vault, "auditor").await;
    assert!(slow.next().await.unwrap().unwrap().starts_with(b"{\"export\":1"));
    let second = vault.client("auditor").lines(Call::get("/v1/audit/export")).await;
    assert_eq!(problem(second.map(drop)).code, "too_many_requests");
    // Other calls of the same principal, and changes, go on.
    let (auditor, node) = (Caller::new(&vault, "auditor"), Caller::new(&vault, "participant1"));
    auditor.get("/v1/audit/entries?limit=1").await.success();
    let key = node.signing_key("participant1").await;
    node.sign(&key).await.success();
    // No snapshot is held: the write-ahead log can be written into the database as a whole.
    let database = vault.database();
    let truncate = || database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    until("no snapshot is held", || std::future::ready(truncate().is_ok_and(|found| found == (0, 0)))).await;
    // It gets the whole export, to the checkpoint of its start.
    let (mut entries, mut end) = (0, Value::Null);
    while let Some(line) = slow.next().await.unwrap() {
        match serde_json::from_slice::<Value>(line).unwrap() {
            last if last["end"].is_object() => end = last["end"].clone(),
            _ => entries += 1,
        }
    }
    assert_eq!(end["entries"], entries);
    assert!(entries >= 20_000);
    until("the place is free", || async { auditor.get("/v1/audit/export?after=20000").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_when_its_reader_loses_the_grant() {
    let vault = long_log().await;
    let mut reader = lines_of(&vault, "auditor").await;
    reader.next().await.unwrap().unwrap();
    let config = std::fs::read_to_string(vault.path("keyvault.toml")).unwrap();
    std::fs::write(vault.path("keyvault.toml"), config.replace("role = \"auditor\"", "role = \"exporter\"")).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(vault.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let auditor = Caller::new(&vault, "auditor");
    until("the grant is gone", || async { auditor.get("/v1/audit/entries").await.status == 403 }).await;
    let (mut lines, mut ended) = (0, false);
    let broken = loop {
        match reader.next().await {
            Ok(Some(line)) => (lines, ended) = (lines + 1, ended | line.starts_with(b"{\"end\"")),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken && !ended && lines < 20_000, "{lines} lines, broken: {broken}, ended: {ended}");
}

// The command line

fn run(vault: &TestVault, arguments: &str) -> Output {
    let words: Vec<&str> = arguments.split(' ').collect();
    let mut command = vault.command(&words);
    let file = |name: &str| vault.path("pki").join(name);
    command.env("KEYVAULT_URL", vault.url()).env("KEYVAULT_CA", file("ca.pem"));
    command.env("KEYVAULT_CERT", file("auditor.pem")).env("KEYVAULT_KEY", file("auditor.key")).output().unwrap()
}

fn done(vault: &TestVault, arguments: &str) -> String {
    let output = run(vault, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_continued_after_its_last_complete_entry() {
    let vault = TestVault::start();
    let (node, auditor) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "auditor"));
    let key = node.signing_key("participant1").await;
    for _ in 0..20 {
        node.sign(&key).await.success();
    }
    for (file, filter) in [("all.ndjson", ""), ("some.ndjson", " --operation keys.sign")] {
        let read = || std::fs::read_to_string(vault.path(file)).unwrap();
        done(&vault, &format!("audit export --out {file}{filter}"));
        let whole = read();
        assert!(parts(&whole)[0].end["entries"].as_u64().unwrap() >= 20);
        // As after a lost connection, in the middle of a line.
        let cut = whole.char_indices().filter(|(_, c)| *c == '\n').nth(12).unwrap().0 + 20;
        std::fs::write(vault.path(file), &whole[..cut]).unwrap();
        node.sign(&key).await.success();
        done(&vault, &format!("audit export --out {file} --resume{filter}"));
        let resumed = read();
        let parts = parts(&resumed);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[1].header["after"], *parts[0].sequences().last().unwrap());
        let sequences: Vec<u64> = parts.iter().flat_map(Part::sequences).collect();
        let expected = export(&auditor, &format!("?{}", filter.trim().replace("--operation ", "operation="))).await.sequences();
        assert_eq!(sequences, expected[..sequences.len()], "{file}");
        assert!(sequences.len() > parts[0].entries.len());
        if filter.is_empty() {
            assert_eq!(root(&parts[1]), parts[1].checkpoint().root);
        }
        // A complete file is continued too, and only by the same export.
        node.sign(&key).await.success();
        done(&vault, &format!("audit export --out {file} --resume{filter}"));
        assert_eq!(self::parts(&read()).len(), 3);
        let before = read();
        let other = run(&vault, &format!("audit export --out {file} --resume --outcome denied"));
        assert_eq!(other.status.code(), Some(2), "{}", String::from_utf8_lossy(&other.stderr));
        assert_eq!(read(), before, "a refused export changes nothing");
        assert_eq!(run(&vault, &format!("audit export --out {file}")).status.code(), Some(2), "an existing file is not replaced");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_events_have_every_entry() {
    let vault = TestVault::start();
    let node = Caller::new(&vault, "participant1");
    let key = node.signing_key("participant1").await;
    node.send("GET", "/v1/whoami", &[("user-agent", "=HYPERLINK(\"x\"), a")], "").await.success();
    node.step(&key, "enable").await.refused(403, "forbidden");
    let csv = done(&vault, "audit export --format csv");
    let rows: Vec<&str> = csv.split("\r\n").filter(|row| !row.is_empty()).collect();
    assert!(rows[0].starts_with("sequence,at,vault,instance,version,principal,"), "{csv}");
    assert!(csv.contains("\"'=HYPERLINK(\"\"x\"\"), a\""), "{csv}");
    assert!(rows.iter().any(|row| row.contains(",keys.enable,denied,forbidden,") && row.contains(&key)), "{csv}");
    let events: Vec<Value> = done(&vault, "audit export --format ocsf").lines().map(json_of).collect();
    assert_eq!(events.len(), rows.len(), "one more entry, the first export, and no head");
    for (number, event) in (1..).zip(&events) {
        assert_eq!((&event["class_uid"], &event["metadata"]["sequence"]), (&json!(6003), &json!(number)));
        let raw = event["raw_data"].as_str().unwrap();
        assert_eq!(event["metadata"]["uid"], STANDARD.encode(leaf_hash(raw.as_bytes())));
    }
    let denied = events.iter().find(|event| event["api"]["operation"] == "keys.enable").unwrap();
    assert_eq!(
        (&denied["status"], &denied["status_detail"], &denied["activity_name"]),
        (&json!("Failure"), &json!("forbidden"), &json!("Update"))
    );
}

/// One command is one entry, however many entries it lists.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_many_entries_writes_one() {
    let vault = long_log().await;
    let auditor = Caller::new(&vault, "auditor");
    let listed: Value = serde_json::from_str(&done(&vault, "audit query --principal dns:odd --output json")).unwrap();
    let items = listed["items"].as_array().unwrap();
    assert_eq!((items.len(), &listed["next_cursor"]), (10_000, &Value::Null));
    let first = auditor.get("/v1/audit/entries?principal=dns:odd&limit=1").await.success();
    assert_eq!(items[0], first["items"][0], "also with its hash");
    assert_eq!(auditor.log("&operation=audit.export").await.len(), 1);
    // The part up to a limit, and the next one.
    let first: Value = serde_json::from_str(&done(&vault, "audit query --principal dns:odd --limit 1500 --output json")).unwrap();
    assert_eq!(first["items"].as_array().unwrap()[..], items[..1500]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = done(&vault, &format!("audit query --principal dns:odd --limit 1500 --cursor {cursor} --output json"));
    assert_eq!(json_of(&next)["items"].as_array().unwrap()[..], items[1500..3000]);
    let newest = json_of(&done(&vault, "audit query --principal dns:odd --newest --output json"));
    let newest: Vec<&Value> = newest["items"].as_array().unwrap().iter().collect();
    assert_eq!(newest, items.iter().rev().take(100).collect::<Vec<_>>());
}
