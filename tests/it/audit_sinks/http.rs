//! HTTP: lines and OTLP logs over TLS, tokens, certificates, and sinks that hang.

use serde_json::{Value, json};

use crate::support::vault::until;

use super::{
    check_in_order, metric, new_key, newest_of, ready,
    receiver::{Behaviour, Receiver},
    sequence, sign, stored, until_ready, vault_with,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_arrive_in_order_with_certificate_and_token_through_a_kill_and_refusals() {
    let receiver = Receiver::start().await;
    receiver.require("Bearer first");
    std::fs::write(receiver.file("token"), "first\n").unwrap();
    let path = |name: &str| receiver.file(name).display().to_string();
    let more = format!("certificate = \"{}\"\nkey = \"{}\"\ntoken_file = \"{}\"\n", path("client.pem"), path("client.key"), path("token"));
    let mut vault = vault_with(&receiver.sink("best-effort", &more));
    let key = new_key(&vault).await;
    for _ in 0..20 {
        sign(&vault, &key).await.unwrap();
    }
    vault.restart();
    receiver.set(Behaviour::Refuse(503));
    for _ in 0..20 {
        sign(&vault, &key).await.unwrap();
    }
    until("the refusal is known", || async { ready(&vault).await.1.to_string().contains("its server does not confirm entries") }).await;
    assert!(vault.log().iter().any(|line| line.to_string().contains("does not confirm the entries: 503 Service Unavailable not today")));
    receiver.set(Behaviour::Accept);
    // The token changes while the vault runs.
    receiver.require("Bearer second, much longer");
    std::fs::write(receiver.file("token"), "second, much longer").unwrap();
    sign(&vault, &key).await.unwrap();
    let count = stored(&vault.database()).len();
    until("the newest entry arrives", || async { receiver.lines().last().is_some_and(|line| sequence(line) >= count) }).await;
    let requests = receiver.received();
    assert!(requests.iter().all(|request| request.certified && request.path == "/in?x=1"));
    assert!(requests.iter().all(|request| request.headers["content-type"] == "application/x-ndjson"
        && request.headers["host"].to_str().unwrap().starts_with("localhost:")));
    check_in_order(receiver.lines().iter().map(String::as_str), &stored(&vault.database()), 1);
    let log = vault.log().iter().map(Value::to_string).collect::<String>();
    assert!(!log.contains("Bearer") && !log.contains("much longer"), "the token is in no log line");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otlp_records_have_the_stored_entries() {
    let receiver = Receiver::start().await;
    receiver.set(Behaviour::Reject);
    let vault = vault_with(&receiver.sink("best-effort", "format = \"otlp\"\n"));
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    until("the rejection is known", || async {
        vault.log().iter().any(|line| line.to_string().contains("1 records were rejected: too long"))
    })
    .await;
    receiver.set(Behaviour::Accept);
    let bodies = || -> Vec<String> {
        let requests = receiver.received().into_iter().map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
        requests
            .flat_map(|body| body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().clone())
            .map(|record| {
                let entry = record["body"]["stringValue"].as_str().unwrap().to_owned();
                assert_eq!(record["attributes"][0]["value"]["intValue"], json!(sequence(&entry).to_string()));
                entry
            })
            .collect()
    };
    let count = stored(&vault.database()).len();
    until("the newest entry arrives", || async { bodies().last().is_some_and(|entry| sequence(entry) >= count) }).await;
    check_in_order(bodies().iter().map(String::as_str), &stored(&vault.database()), 1);
    let request = &receiver.received()[0];
    assert_eq!(request.headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let attributes = body["resourceLogs"][0]["resource"]["attributes"].to_string();
    assert!(attributes.contains("canton-keyvault") && attributes.contains("\"dev\""), "{attributes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_ca_gets_nothing() {
    let receiver = Receiver::start().await;
    let sink = receiver.sink("required", "").replace("/ca.pem", "/other-ca.pem");
    let vault = vault_with(&sink);
    until("the fault is known", || async { ready(&vault).await.1.to_string().contains("the required audit sink a: TLS failed") }).await;
    assert!(vault.log().iter().any(|line| line.to_string().contains("check ca, and the name in the certificate of the server")));
    assert_eq!(receiver.seen(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_best_effort_sink_that_hangs_delays_nothing_and_its_gap_is_recorded() {
    let receiver = Receiver::start().await;
    let vault = vault_with(&receiver.sink("best-effort", "timeout = \"1s\"\nmax_lag = 100\n"));
    until_ready(&vault).await;
    let key = new_key(&vault).await;
    sign(&vault, &key).await.unwrap();
    let count = stored(&vault.database()).len();
    until("it works", || async { receiver.lines().last().is_some_and(|line| sequence(line) >= count) }).await;
    receiver.set(Behaviour::Hang);
    let before = receiver.lines().len();
    // If a call waited for the sink, none of these would get an answer.
    for _ in 0..150 {
        sign(&vault, &key).await.unwrap();
    }
    assert_eq!(receiver.lines().len(), before, "the sink confirmed nothing meanwhile");
    assert_eq!(ready(&vault).await.0, 200);
    until("the gap is recorded", || async { newest_of(&vault, "audit.sink-gap").is_some() }).await;
    let gap = newest_of(&vault, "audit.sink-gap").unwrap();
    let reason = gap["reason"].as_str().unwrap();
    let numbers: Vec<usize> = reason.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert_eq!((&gap["subject"], &gap["outcome"], numbers[2]), (&json!("a"), &json!("failed"), 100), "{gap}");
    assert_eq!(
        reason,
        format!("entries {} to {} were not sent: the sink was more than max_lag (100) entries behind", numbers[0], numbers[1])
    );
    until("the gap is counted", || async { metric(&vault, "keyvault_audit_sink_gaps_total").await == Some(1.0) }).await;
    assert_eq!(
        metric(&vault, "keyvault_audit_sink_skipped_total").await,
        Some(f64::from(u32::try_from(numbers[1] - numbers[0] + 1).unwrap()))
    );

    receiver.set(Behaviour::Accept);
    sign(&vault, &key).await.unwrap();
    let count = stored(&vault.database()).len();
    until("it goes on", || async { receiver.lines().last().is_some_and(|line| sequence(line) >= count) }).await;
    let lines = receiver.lines();
    let (sent, later) = lines.split_at(before);
    check_in_order(sent.iter().map(String::as_str), &stored(&vault.database()), 1);
    check_in_order(later.iter().map(String::as_str), &stored(&vault.database()), numbers[1] + 1);
    assert!(sequence(&later[0]) == numbers[1] + 1 && later.iter().any(|line| line.contains("audit.sink-gap")), "it learns of its gap");
}
