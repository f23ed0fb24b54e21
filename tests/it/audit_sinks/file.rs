//! The file and standard output: every entry as it is stored, after kill -9 too.

use std::fs;

use crate::support::vault::{TestVault, until};

use super::{check_in_order, metric, new_key, newest_of, read, ready, sequence, sign, stored, until_ready, vault_with};

const FILE: &str =
    "\n[[audit.sinks]]\nname = \"a\"\nmode = \"best-effort\"\nkind = \"file\"\npath = \"sink/audit.ndjson\"\nfrom = \"beginning\"\n";

fn prepared(sections: &str) -> TestVault {
    let vault = TestVault::prepare(|config| config + sections);
    fs::create_dir(vault.path("sink")).unwrap();
    vault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_gets_every_entry_in_order_through_kills() {
    let mut vault = prepared(FILE);
    vault.serve();
    let file = vault.path("sink/audit.ndjson");
    let key = new_key(&vault).await;
    for round in 0..4 {
        for _ in 0..25 {
            sign(&vault, &key).await.unwrap();
        }
        if round == 2 {
            // In the middle of sending, or after it.
            until("some entries arrive", || async { !read(&file).is_empty() }).await;
        }
        vault.restart();
    }
    sign(&vault, &key).await.unwrap();
    let count = stored(&vault.database()).len();
    until("the newest entry arrives", || async { read(&file).lines().last().is_some_and(|line| sequence(line) >= count) }).await;
    let text = read(&file);
    assert!(check_in_order(text.lines(), &stored(&vault.database()), 1) >= count);
    assert_eq!(text.lines().filter(|line| line.contains("\"keys.sign\"")).collect::<std::collections::BTreeSet<_>>().len(), 101);
    let start = newest_of(&vault, "audit.start-sink").unwrap();
    assert!(start["reason"].as_str().unwrap().starts_with("continues after entry "), "{start}");
    assert_eq!((&start["subject"], &start["principal"]), (&"a".into(), &"system".into()));

    // At its end, the vault sends the entry of its stop.
    assert!(vault.terminate());
    assert!(read(&file).lines().last().unwrap().contains("\"vault.stop\""));
    let before = read(&file).len();
    vault.serve();
    until("the start arrives", || async { read(&file).len() > before }).await;
    let text = read(&file);
    let newest: Vec<usize> = text[before..].lines().map(sequence).collect();
    assert_eq!(newest[0], sequence(text[..before].lines().last().unwrap()) + 1, "nothing is there twice after an orderly stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_sink_begins_with_the_next_entry() {
    let mut vault = prepared("");
    vault.serve();
    new_key(&vault).await;
    vault.kill();
    let config = vault.path("keyvault.toml");
    fs::write(&config, read(&config) + &FILE.replace("from = \"beginning\"\n", "")).unwrap();
    let before = stored(&vault.database()).len();
    vault.serve();
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    let (file, count) = (vault.path("sink/audit.ndjson"), stored(&vault.database()).len());
    until("the newest entry arrives", || async { read(&file).lines().last().is_some_and(|line| sequence(line) >= count) }).await;
    let text = read(&file);
    let first = sequence(text.lines().next().unwrap());
    assert!(first > before, "{first}");
    check_in_order(text.lines(), &stored(&vault.database()), first);
    assert!(text.lines().any(|line| line.contains(&format!("begins after entry {}", first - 1))), "the log says where: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_another_log_is_not_used() {
    let mut vault = prepared(FILE);
    vault.serve();
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    assert!(vault.terminate());
    let file = vault.path("sink/audit.ndjson");
    fs::remove_file(&file).unwrap();
    for edit in ["UPDATE audit_sinks SET sequence = 900", "UPDATE audit_sinks SET sequence = 3, leaf = zeroblob(32)"] {
        vault.database().execute_batch(edit).unwrap();
        vault.serve();
        let count = stored(&vault.database()).len();
        until("the whole log arrives", || async { read(&file).lines().last().is_some_and(|line| sequence(line) >= count) }).await;
        assert!(check_in_order(read(&file).lines(), &stored(&vault.database()), 1) >= count);
        let start = newest_of(&vault, "audit.start-sink").unwrap();
        assert!(start["reason"].as_str().unwrap().contains("does not belong to the log"), "{start}");
        assert!(vault.log().iter().any(|line| line.to_string().contains("cursor of an audit sink does not belong to the log")));
        assert!(vault.terminate());
        fs::remove_file(&file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_missing_is_a_fault_and_heals() {
    let vault = vault_with(FILE);
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    until("the fault is known", || async { ready(&vault).await.1.to_string().contains("the best-effort audit sink a: cannot be written") })
        .await;
    let (status, document) = ready(&vault).await;
    assert_eq!((status, &document["degraded"]), (200, &true.into()), "{document}");
    assert!(!document.to_string().contains("ndjson"), "no path: {document}");
    assert_eq!(metric(&vault, "keyvault_audit_sink_up").await, Some(0.0));
    fs::create_dir(vault.path("sink")).unwrap();
    until("it heals", || async { !ready(&vault).await.1.to_string().contains("audit sink") }).await;
    until("the metric follows", || async { metric(&vault, "keyvault_audit_sink_up").await == Some(1.0) }).await;
    assert!(metric(&vault, "keyvault_audit_sink_failures_total").await.unwrap() >= 1.0);
    check_in_order(read(&vault.path("sink/audit.ndjson")).lines(), &stored(&vault.database()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_output_gets_the_entries_as_lines() {
    let mut vault = TestVault::prepare(|config| {
        config + "\n[[audit.sinks]]\nname = \"a\"\nmode = \"required\"\nkind = \"stdout\"\nfrom = \"beginning\"\n"
    });
    vault.run_by(&["sh", "-c", "exec \"$0\" \"$@\" >> stdout.ndjson"]);
    vault.serve();
    until_ready(&vault).await;
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    // Required: the answer was released after its entry arrived.
    let text = read(&vault.path("stdout.ndjson"));
    assert!(text.lines().any(|line| line.contains("\"keys.sign\"")), "{text}");
    check_in_order(text.lines(), &stored(&vault.database()), 1);
}

#[test]
fn a_wrong_option_is_named_at_the_start() {
    let reason = |sections: &str| TestVault::prepare(|config| config + sections).refuses_to_serve();
    let wrong = reason(&FILE.replace("from =", "rotate_bytes = 1\nfrom ="));
    assert!(wrong.contains("[[audit.sinks]] a: rotate_bytes: is below 65536; give a number of bytes"), "{wrong}");
    let wrong = reason(&FILE.replace("path = ", "file = "));
    assert!(wrong.contains("[[audit.sinks]] a: unknown field `file`"), "{wrong}");
    let wrong = reason("\n[audit]\nsink_wait = \"1h\"\n");
    assert!(wrong.contains("[audit] sink_wait: is not between 10ms and 1m"), "{wrong}");
}

#[test]
fn check_tries_every_sink_and_sends_nothing() {
    let lines = |vault: &TestVault| -> Vec<(String, String)> {
        let output = vault.command(&["check", "--output", "json", "--config"]).arg(vault.path("keyvault.toml")).output().unwrap();
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let of_sinks = lines.iter().filter(|line| line["check"] == "audit sink");
        of_sinks.map(|line| (line["status"].as_str().unwrap().to_owned(), line["detail"].as_str().unwrap().to_owned())).collect()
    };
    let unreachable = "\n[[audit.sinks]]\nname = \"b\"\nmode = \"required\"\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n";
    let vault = prepared(&format!("{FILE}{unreachable}"));
    let found = lines(&vault);
    assert!(found[0].0 == "ok" && found[0].1.starts_with("a: ") && found[0].1.ends_with("sink/audit.ndjson can be written"), "{found:?}");
    assert!(found[1].0 == "fail" && found[1].1.starts_with("b: 127.0.0.1:1 cannot be reached"), "{found:?}");
    assert!(!vault.path("sink/audit.ndjson").exists());
    fs::remove_dir(vault.path("sink")).unwrap();
    assert_eq!(lines(&vault)[0].0, "fail");
    assert_eq!(lines(&prepared("")), []);
}
