//! The audit log as an auditor reads it: one entry for every call, reads and refusals included, with all required fields and without
//! payloads.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{audit::Entry, cli::pki::principal, domain::Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    known_bytes::hex,
    support::{
        api::{Caller, enroll, id},
        vault::{TestVault, until},
    },
};

struct Cast {
    vault: TestVault,
    node: Caller,
    admin: Caller,
    auditor: Caller,
}

impl Cast {
    fn start() -> Self {
        Self::start_with(|config| config)
    }

    fn start_with(edit: impl FnOnce(String) -> String) -> Self {
        let vault = TestVault::start_with(edit);
        let caller = |who| Caller::new(&vault, who);
        Self { node: caller("participant1"), admin: caller("key-admin"), auditor: caller("auditor"), vault }
    }

    /// The entry of the last call of a kind.
    async fn last(&self, operation: &str) -> Value {
        self.auditor.log(&format!("&operation={operation}")).await.pop().unwrap_or_else(|| panic!("no entry of {operation}"))
    }
}

fn sha256(bytes: &[u8]) -> Value {
    json!(hex(&Sha256::digest(bytes)))
}

#[tokio::test]
async fn a_use_is_recorded_with_its_digest_and_without_its_payload() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let (message, encoded) = (b"an order of a million", STANDARD.encode("an order of a million"));
    let body = json!({ "algorithm": "ed25519", "message": encoded }).to_string();
    let signed = cast.node.send("POST", &format!("/v1/keys/{key}/sign"), &[("traceparent", &parent)], body).await;
    assert_eq!(signed.headers["traceparent"], parent);
    let signature = signed.success()["signature"].clone();
    let entry = cast.last("keys.sign").await;
    let certificate = std::fs::read(cast.vault.path("pki/participant1.pem")).unwrap();
    let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(&certificate).unwrap();
    let certificate: rustls::pki_types::CertificateDer<'_> = certificate;
    for (field, value) in [
        ("principal", json!(principal("participant1"))),
        ("certificate", sha256(&certificate)),
        ("key_id", json!(key)),
        ("node", json!("participant1")),
        ("algorithm", json!("ed25519")),
        ("digest", sha256(message)),
        ("outcome", json!("ok")),
        ("reason", Value::Null),
        ("trace_id", json!(trace)),
        ("request_id", json!(signed.headers["x-request-id"].to_str().unwrap())),
        ("vault", json!("dev")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("policy_revision", cast.node.get("/v1/whoami").await.success()["policy_revision"].clone()),
    ] {
        assert_eq!(entry[field], value, "{field} of {entry}");
    }

    // For a secret, the digest is of its ciphertext: of both sides, and also where it does not open.
    let secret = id(&cast.node.create("participant1", "symmetric", "aes-256").await);
    let sealed = cast.node.post(&format!("/v1/keys/{secret}/encrypt"), &json!({ "plaintext": encoded })).await.success();
    let ciphertext = STANDARD.decode(sealed["ciphertext"].as_str().unwrap()).unwrap();
    assert_eq!(cast.last("keys.encrypt").await["digest"], sha256(&ciphertext));
    let decrypt = |bytes: &[u8]| json!({ "algorithm": "aes-256-gcm", "ciphertext": STANDARD.encode(bytes) });
    let path = format!("/v1/keys/{secret}/decrypt");
    cast.node.post(&path, &decrypt(&ciphertext)).await.success();
    assert_eq!(cast.last("keys.decrypt").await["digest"], sha256(&ciphertext));
    cast.node.post(&path, &decrypt(&ciphertext[1..])).await.refused(422, "decryption_failed");
    let entry = cast.last("keys.decrypt").await;
    assert_eq!((&entry["digest"], &entry["reason"]), (&sha256(&ciphertext[1..]), &json!("decryption_failed")));

    // No digest of what comes in or goes out whole.
    let raw = [0x5c; 32];
    let import = json!({ "node": "participant1", "format": "raw", "material": STANDARD.encode(raw), "exportable": true });
    let imported = id(&cast.admin.post("/v1/keys/import", &import).await.success());
    let export = json!({ "format": "raw" });
    Caller::new(&cast.vault, "exporter").post(&format!("/v1/keys/{imported}/export"), &export).await.success();
    for operation in ["keys.import", "keys.export"] {
        let entry = cast.last(operation).await;
        assert_eq!((&entry["digest"], &entry["key_id"]), (&Value::Null, &json!(imported)), "{entry}");
    }
    let log = serde_json::to_string(&cast.auditor.log("").await).unwrap();
    let payloads =
        [encoded.as_str(), "an order", signature.as_str().unwrap(), sealed["ciphertext"].as_str().unwrap(), &STANDARD.encode(raw)];
    for payload in payloads {
        assert!(!log.contains(payload), "{payload} stands in the log");
    }
    assert!(!log.contains(&hex(&Sha256::digest(raw))), "nor a hash of a key");
}

#[tokio::test]
async fn every_call_is_one_entry_and_reads_and_refusals_are_calls() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    let other = Caller::new(&cast.vault, "participant2");
    let show = format!("/v1/keys/{key}");
    let before = cast.auditor.log("").await.len();
    cast.node.get("/v1/keys").await.success();
    cast.node.get(&show).await.success();
    cast.node.get("/v1/whoami").await.success();
    cast.node.get("/v1/status").await.success();
    cast.node.step(&key, "enable").await.refused(403, "forbidden");
    cast.node.post("/v1/authorize", &json!({ "operation": "keys.sign", "key_id": key })).await.success();
    cast.node.get("/v1/nothing").await.refused(404, "no_such_route");
    other.get(&show).await.refused(404, "not_found");
    cast.admin.step(&key, "enable").await.refused(409, "invalid_key_state");
    cast.auditor.get("/v1/wrapper-keys/wk-000000000000").await.refused(404, "not_found");
    let log = cast.auditor.log("").await;
    let said: Vec<_> = log[before..].iter().map(|e| ["operation", "outcome", "reason"].map(|f| e[f].as_str().unwrap_or("-"))).collect();
    assert_eq!(
        said,
        [
            ["audit.query", "ok", "-"],
            ["keys.list", "ok", "-"],
            ["keys.show", "ok", "-"],
            ["vault.whoami", "ok", "-"],
            ["vault.status", "ok", "-"],
            ["keys.enable", "denied", "forbidden"],
            ["vault.authorize", "ok", "-"],
            ["vault.no-such-call", "failed", "no_such_route"],
            ["keys.show", "denied", "not_found"],
            ["keys.enable", "failed", "invalid_key_state"],
            ["wrapper-keys.show", "denied", "not_found"],
        ]
    );
    // An auditor of the node sees that a principal of another node tried to use its key.
    let denied = log.iter().find(|entry| entry["principal"] == principal("participant2")).unwrap();
    assert_eq!((&denied["key_id"], &denied["node"]), (&json!(key), &json!("participant1")));
}

#[tokio::test]
async fn leaves_are_hashes_of_entries_and_places_have_no_gaps() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    cast.node.step(&key, "rotate").await.success();
    cast.node.step(&key, "enable").await.refused(403, "forbidden");
    cast.node.sign(&key).await.success();
    let database = cast.vault.database();
    for (index, mut shown) in cast.auditor.log("").await.into_iter().enumerate() {
        assert_eq!(shown["sequence"], index + 1);
        let leaf = shown.as_object_mut().unwrap().remove("leaf").unwrap();
        let entry: Entry = serde_json::from_value(shown).unwrap();
        // RFC 6962 §2.1, written here again.
        let expected = Sha256::new().chain_update([0]).chain_update(entry.encode().unwrap()).finalize();
        assert_eq!(leaf, STANDARD.encode(expected), "{entry:?}");
        let stored: Vec<u8> = database
            .query_row("SELECT entry FROM audit_entries WHERE sequence = ?1", [i64::try_from(entry.sequence).unwrap()], |row| row.get(0))
            .unwrap();
        assert_eq!(stored, entry.encode().unwrap(), "the stored bytes are those that are hashed");
    }
}

/// The command of docs/operations.md, on entries whose texts have characters that encoders write in several ways.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_command_recomputes_the_hash_of_every_entry() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, after) = guide.split_once("<!-- tests/it/audit_query.rs runs the next block -->\n```sh\n").unwrap();
    let (block, _) = after.split_once("```").unwrap();
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    cast.node.sign(&key).await.success();
    cast.node.send("GET", "/v1/whoami", &[("user-agent", r#"a "quoted" \ </script> ~ agent"#)], "").await.success();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_canton-keyvault")).parent().unwrap();
    let run = |script: &str| {
        let mut command = std::process::Command::new("bash");
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        command.args(["-euo", "pipefail", "-c", script]).env("PATH", path).current_dir(cast.vault.folder());
        let file = |name: &str| cast.vault.path("pki").join(name);
        command.env("KEYVAULT_URL", cast.vault.url()).env("KEYVAULT_CA", file("ca.pem"));
        let output = command.env("KEYVAULT_CERT", file("auditor.pem")).env("KEYVAULT_KEY", file("auditor.key")).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let (good, said) = run(block);
    assert!(good && said.ends_with(" entries have their hash\n"), "{said}");
    assert!(said.split(' ').next().unwrap().parse::<u32>().unwrap() > 3, "{said}");
    // The command sees a difference.
    let (_, check) = block.split_once('\n').unwrap();
    let (good, said) = run(&format!("sed -i 's/\"operation\":\"keys.sign\"/\"operation\":\"keys.show\"/' entries.json\n{check}"));
    assert!(!good && said.contains("does not have its hash"), "{said}");
}

/// Each entry is sent in its stored bytes, and what is after a number can be read when there is nothing yet, and later.
#[tokio::test]
async fn a_reader_continues_after_the_last_entry_that_it_has() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    let reply = cast.auditor.get("/v1/audit/entries").await;
    let last = reply.success()["items"].as_array().unwrap().last().unwrap()["sequence"].as_u64().unwrap();
    let database = cast.vault.database();
    let stored: Vec<u8> = database
        .query_row("SELECT entry FROM audit_entries WHERE sequence = ?1", [i64::try_from(last).unwrap()], |row| row.get(0))
        .unwrap();
    let stored = String::from_utf8(stored).unwrap();
    assert!(reply.text.contains(stored.strip_suffix('}').unwrap()), "{}", reply.text);

    cast.node.sign(&key).await.success();
    let after = |number: u64, rest: &'static str| {
        let auditor = &cast.auditor;
        async move { auditor.get(&format!("/v1/audit/entries?after={number}&outcome=ok{rest}")).await.success() }
    };
    let numbers =
        |page: &Value| -> Vec<u64> { page["items"].as_array().unwrap().iter().map(|e| e["sequence"].as_u64().unwrap()).collect() };
    // The query above, and the signature.
    let page = after(last, "&limit=1").await;
    assert_eq!(numbers(&page), [last + 1]);
    // A cursor goes further; `after` may stay in the query.
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = cast.auditor.get(&format!("/v1/audit/entries?after={last}&limit=1&cursor={cursor}")).await.success();
    assert_eq!(numbers(&next), [last + 2]);
    assert_eq!(next["items"][0]["operation"], "keys.sign");
    assert_eq!(numbers(&after(1 << 40, "").await), [0; 0]);
    for bad in ["-1", "x", "", "4611686018427387904"] {
        let detail = cast.auditor.get(&format!("/v1/audit/entries?after={bad}")).await.refused(400, "invalid_request")["detail"].clone();
        assert!(detail.as_str().unwrap().contains("after: supply"), "{bad}: {detail}");
    }
}

/// Whether an entry is one that was asked for.
type Test<'a> = Box<dyn Fn(&Value) -> bool + 'a>;

#[tokio::test]
async fn filters_and_pages_give_exactly_what_was_asked_for() {
    let cast = Cast::start();
    let (key, other) = (cast.node.signing_key("participant1").await, cast.node.signing_key("participant1").await);
    for _ in 0..5 {
        cast.node.sign(&key).await.success();
        cast.node.sign(&other).await.success();
    }
    cast.admin.signing_key("participant2").await;
    cast.node.step(&key, "enable").await.refused(403, "forbidden");
    let who = principal("participant1").replace(':', "%3A").replace('/', "%2F");
    let whole = cast.auditor.log("").await;
    let (middle, end) = (whole[whole.len() / 2]["at"].clone(), whole[whole.len() - 1]["sequence"].as_u64().unwrap());
    let (at, middle) = (|text: &Value| Timestamp::parse(text.as_str().unwrap()).unwrap(), &middle);
    let is = |field: &'static str, value: &str| -> Test<'_> {
        let value = json!(value);
        Box::new(move |entry| entry[field] == value)
    };
    let from = middle.as_str().unwrap();
    for (query, keeps) in [
        (format!("&key_id={key}"), is("key_id", &key)),
        ("&node=participant2".into(), is("node", "participant2")),
        (format!("&principal={who}"), is("principal", &principal("participant1"))),
        ("&operation=keys.sign".into(), is("operation", "keys.sign")),
        ("&outcome=denied".into(), is("outcome", "denied")),
        (format!("&from={from}"), Box::new(|entry: &Value| at(&entry["at"]) >= at(middle)) as Test<'_>),
        (format!("&to={from}"), Box::new(|entry: &Value| at(&entry["at"]) < at(middle))),
        (
            format!("&key_id={key}&operation=keys.sign&outcome=ok&from={from}"),
            Box::new(|entry: &Value| entry["key_id"] == key && entry["operation"] == "keys.sign" && at(&entry["at"]) >= at(middle)),
        ),
        (format!("&key_id=1220{}", "0".repeat(64)), Box::new(|_: &Value| false)),
    ] {
        let wanted: Vec<&Value> = whole.iter().filter(|entry| keeps(entry)).collect();
        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = cast.auditor.get(&format!("/v1/audit/entries?limit=2{query}{cursor}")).await.success();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            paged.extend(items.iter().filter(|entry| entry["sequence"].as_u64().unwrap() <= end).cloned());
            match page["next_cursor"].as_str() {
                // The log grows by each look at it: what came later is not waited for.
                Some(next) if items.iter().all(|entry| entry["sequence"].as_u64().unwrap() <= end) => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        assert_eq!(paged.iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    assert!(whole.iter().filter(|entry| entry["operation"] == "keys.sign").count() == 10);
}

#[tokio::test]
async fn entries_are_found_by_what_a_reviewer_has() {
    let cast = Cast::start();
    let named = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "orders 2026" });
    let key = id(&cast.admin.post("/v1/keys", &named).await.success());
    let twin = json!({ "node": "participant2", "purpose": "signing", "spec": "ec-curve25519", "name": "orders 2027" });
    let other = id(&cast.admin.post("/v1/keys", &twin).await.success());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({ "algorithm": "ed25519", "message": "aGVsbG8=" }).to_string();
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let signed = cast.node.send("POST", &format!("/v1/keys/{key}/sign"), &[("traceparent", &parent)], body).await;
    signed.success();
    let request = signed.headers["x-request-id"].to_str().unwrap();
    let entry = cast.last("keys.sign").await;
    let digest = entry["certificate"].as_str().unwrap();
    let colons = digest.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap().to_uppercase()).collect::<Vec<_>>().join("%3A");
    let found = |query: String| {
        let auditor = &cast.auditor;
        async move { auditor.log(&query).await }
    };
    for query in [format!("&request_id={request}"), format!("&trace_id={trace}"), format!("&certificate={digest}&operation=keys.sign")] {
        assert_eq!(found(query.clone()).await, std::slice::from_ref(&entry), "{query}");
    }
    assert_eq!(found(format!("&certificate={digest}")).await, found(format!("&certificate={colons}")).await);
    assert!(found(format!("&certificate={}", "0".repeat(64))).await.is_empty());
    let wrapper = cast.auditor.get("/v1/wrapper-keys").await.success()["items"][0]["id"].as_str().unwrap().to_owned();
    let about = found(format!("&wrapper_key={wrapper}")).await;
    assert!(about.iter().any(|entry| entry["operation"] == "wrapper-keys.bootstrap"), "{about:?}");

    // A key by its name, by the beginning of its id, and by the whole id.
    let by_id = found(format!("&key_id={key}")).await;
    assert_eq!(by_id.len(), 2);
    for text in ["orders%202026", &key[..20], &key] {
        assert_eq!(found(format!("&key={text}")).await, by_id, "{text}");
    }
    for unclear in ["orders", "1220", "%25"] {
        let problem = cast.auditor.get(&format!("/v1/audit/entries?key={unclear}")).await.refused(400, "invalid_request");
        assert!(problem["detail"].as_str().unwrap().starts_with("key: "), "{problem}");
    }
    cast.auditor.get(&format!("/v1/audit/entries?key={key}&key_id={other}")).await.refused(400, "invalid_request");

    // Times as people write them.
    let day = &entry["at"].as_str().unwrap()[..10];
    assert!(found(format!("&from={day}&operation=keys.sign")).await.contains(&entry));
    assert!(!found(format!("&to={day}&operation=keys.sign")).await.contains(&entry));
    assert!(found("&since=1h&operation=keys.sign".into()).await.contains(&entry));
    assert!(found("&since=0s&operation=keys.sign".into()).await.is_empty());
    for (parameter, bad) in
        [("from", "yesterday"), ("since", "long"), ("certificate", "ab"), ("order", "up"), ("job", "7"), ("wrapper_key", "wk")]
    {
        let problem = cast.auditor.get(&format!("/v1/audit/entries?{parameter}={bad}")).await.refused(400, "invalid_request");
        assert!(problem["detail"].as_str().unwrap().contains(&format!("{parameter}: ").replace("from: ", "from, to: ")), "{problem}");
    }

    // Newest first, over pages.
    let oldest = found(String::new()).await;
    let last = oldest.last().unwrap()["sequence"].as_u64().unwrap();
    let (mut newest, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cast.auditor.get(&format!("/v1/audit/entries?order=newest&limit=3{cursor}")).await.success();
        newest.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    newest.retain(|entry| entry["sequence"].as_u64().unwrap() <= last);
    newest.reverse();
    assert_eq!(newest, oldest);
}

#[tokio::test]
async fn an_auditor_of_one_node_sees_the_entries_of_that_node() {
    let grant = |name: &str| format!("\n[[grants]]\nprincipal = \"{}\"\nrole = \"auditor\"\nnodes = [\"participant1\"]\n", principal(name));
    let cast = Cast::start_with(|config| config + &grant("local-auditor"));
    enroll(&cast.vault, "local-auditor");
    let local = Caller::new(&cast.vault, "local-auditor");
    let ours = cast.node.signing_key("participant1").await;
    let theirs = cast.admin.signing_key("participant2").await;
    Caller::new(&cast.vault, "participant2").sign(&ours).await.refused(404, "not_found");
    cast.admin.get("/v1/status").await.success();
    let seen = local.log("").await;
    assert!(seen.iter().all(|entry| entry["node"] == "participant1"), "{seen:?}");
    let words: Vec<&str> = seen.iter().map(|entry| entry["operation"].as_str().unwrap()).collect();
    assert_eq!(words, ["keys.create", "keys.sign"]);
    assert_eq!(seen[1]["reason"], "not_found");
    assert!(local.log("&node=participant2").await.is_empty() && local.log(&format!("&key_id={theirs}")).await.is_empty());
    local.get(&format!("/v1/keys/{theirs}")).await.refused(404, "not_found");
    local.get("/v1/wrapper-keys").await.refused(403, "forbidden");
    let about = json!({ "operation": "keys.sign", "principal": principal("participant1") });
    local.post("/v1/authorize", &about).await.refused(403, "forbidden");
}

#[tokio::test]
async fn a_flood_of_refusals_becomes_counted_entries_and_loses_none() {
    let cast = Cast::start_with(|config| config.replace("[log]", "[limits]\nrefusals_per_second = 5\n\n[log]"));
    let key = cast.node.signing_key("participant1").await;
    let flood = 300;
    for _ in 0..flood {
        cast.node.step(&key, "enable").await.refused(403, "forbidden");
    }
    let query = "&operation=keys.enable&outcome=denied";
    let stands_for = |entries: &[Value]| entries.iter().map(|entry| entry["count"].as_u64().unwrap_or(1)).sum::<u64>();
    until("every refusal is in the log", || async { stands_for(&cast.auditor.log(query).await) == flood }).await;
    let entries = cast.auditor.log(query).await;
    assert!(entries.len() < 200, "{} entries", entries.len());
    let counted: Vec<&Value> = entries.iter().filter(|entry| !entry["count"].is_null()).collect();
    assert!(!counted.is_empty());
    for entry in counted {
        assert_eq!((&entry["principal"], &entry["reason"]), (&json!(principal("participant1")), &json!("forbidden")));
        assert_eq!((&entry["key_id"], &entry["request_id"]), (&Value::Null, &Value::Null), "what differs is left out");
    }
    // Others' refusals, and answers, are written one by one all the while.
    Caller::new(&cast.vault, "participant2").sign(&key).await.refused(404, "not_found");
    assert!(cast.last("keys.sign").await["request_id"].is_string());
}
