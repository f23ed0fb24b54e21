//! Syslog over TLS, read with a strict parser.

use crate::support::vault::until;

use super::{check_in_order, new_key, ready, receiver::SyslogServer, sign, stored, until_ready, vault_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_through_lost_connections_and_a_kill() {
    let server = SyslogServer::start().await;
    let path = |name: &str| server.file(name).display().to_string();
    let more = format!("certificate = \"{}\"\nkey = \"{}\"\nhostname = \"vault-1\"\n", path("client.pem"), path("client.key"));
    let mut vault = vault_with(&server.sink("required", &more));
    until_ready(&vault).await;
    let key = new_key(&vault).await;
    for round in 0..30 {
        sign(&vault, &key).await.unwrap();
        if round % 10 == 9 {
            server.end_connections();
        }
        if round == 15 {
            vault.restart();
            until_ready(&vault).await;
        }
    }
    let count = stored(&vault.database()).len();
    until("the newest entry arrives", || async { server.messages().iter().any(|message| message.sequence >= count) }).await;
    let messages = server.messages();
    let newest = check_in_order(messages.iter().map(|message| message.text.as_str()), &stored(&vault.database()), 1);
    assert!(newest >= count);
    for message in &messages {
        assert_eq!((message.hostname.as_str(), message.vault.as_str()), ("vault-1", "dev"));
        let entry: serde_json::Value = serde_json::from_str(&message.text).unwrap();
        assert_eq!(entry["sequence"], message.sequence);
        assert_eq!(message.priority, if entry["outcome"] == "ok" { 110 } else { 108 }, "log audit; informational or warning");
    }
    assert!(server.certified().len() >= 4 && server.certified().iter().all(|certified| *certified));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syslog_server_of_another_ca_gets_nothing() {
    let server = SyslogServer::start().await;
    let vault = vault_with(&server.sink("required", "").replace("/ca.pem", "/other-ca.pem"));
    until("the fault is known", || async { ready(&vault).await.1.to_string().contains("the required audit sink a: TLS failed") }).await;
    assert_eq!(server.messages(), []);
}
