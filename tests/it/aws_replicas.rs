//! Creation of a replica of a wrapper key: the checks before it, the waiting, and the repeated call, which continues.

use canton_keyvault::client::ClientError;
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    kms::Kms,
    proxy::TcpProxy,
    vault::{problem, until},
    wrapper::{CENTRAL, WEST},
};

/// Where only the tests of this file have keys: faults may be for the region as a whole.
const NORTH: &str = "eu-north-1";
const LIMITS: &str = "attempt_timeout = \"1500ms\"\ntimeout = \"4s\"\nretries = 1\nbreaker_cooldown = \"300ms\"\nreplica_timeout = \"3s\"";

/// A vault with a multi-Region key that has no replica yet; gives the id of the wrapper key.
async fn one_region(more: &str, limits: Option<&'static str>) -> (AwsVault, String) {
    let arn = Kms::shared().await.create_key(CENTRAL, true).await;
    let wrapper = format!("regions = [{CENTRAL:?}, {WEST:?}, {NORTH:?}]\n{more}");
    let aws = AwsVault::start(Setup { arn: Some(arn), wrapper, limits, ..Setup::default() }).await;
    let listed = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    assert_eq!(listed["items"][0]["regions"], json!([CENTRAL]));
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    (aws, id)
}

async fn replicate(aws: &AwsVault, principal: &str, id: &str, region: &str) -> Result<Value, ClientError> {
    aws.vault.client(principal).post(&format!("/v1/wrapper-keys/{id}/replicas"), &json!({ "region": region })).await
}

/// The calls of `ReplicateKey` for this vault's key.
fn made(aws: &AwsVault) -> Vec<Value> {
    let id = aws.arn.rsplit('/').next().unwrap();
    aws.kms.log(id).into_iter().filter(|call| call["action"] == "ReplicateKey").collect()
}

#[tokio::test]
async fn a_replica_is_made_from_the_primary_and_serves() {
    let line = TcpProxy::to(Kms::shared().await.endpoint().strip_prefix("http://").unwrap(), true);
    let (aws, id) = one_region(&format!("may_create = true\nendpoints = {{ {CENTRAL} = {:?} }}", line.url()), None).await;
    let key = aws.key().await;
    let shown = replicate(&aws, "wrapper-admin", &id, WEST).await.unwrap();
    assert_eq!((&shown["id"], &shown["regions"], &shown["state"]), (&json!(id), &json!([CENTRAL, WEST]), &json!("active")));
    let [call] = made(&aws).try_into().unwrap();
    assert_eq!((&call["region"], &call["key_id"]), (&json!(CENTRAL), &json!(aws.arn)));
    let entries = aws.entries("wrapper-keys.replicate", None).await;
    let told: Vec<_> = entries.iter().map(|entry| (entry["outcome"].as_str().unwrap(), entry["subject"].clone())).collect();
    let subject = json!(format!("{id} in {WEST}"));
    assert_eq!(told, [("intent", subject.clone()), ("ok", subject)]);

    let ids = entries[1]["kms_request_ids"].as_array().unwrap();
    assert!(
        ids.contains(&call["request_id"]) && ids.len() > 3,
        "CloudTrail has the same, with the questions before and the canary after: {ids:?}"
    );

    line.cut();
    aws.sign(&key).await.unwrap();
    let through: Vec<_> = aws.kms_calls(&key).iter().filter(|call| call["region"] == WEST).map(|call| call["action"].clone()).collect();
    assert_eq!(through, [json!("Decrypt")], "without a restart");
    line.mend();
}

#[tokio::test]
async fn a_replica_counts_once_it_works_and_a_repeated_call_takes_what_exists() {
    let (aws, id) = one_region("may_create = true", Some(LIMITS)).await;
    let arn = aws.arn.replace(CENTRAL, WEST);
    for mode in ["missing", "creating"] {
        aws.kms.fault(json!({ "mode": mode, "key": arn })).await;
        let refused = problem(replicate(&aws, "wrapper-admin", &id, WEST).await);
        assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (503, "wrapper_unavailable", true), "{mode}");
        assert!(refused.detail.contains("repeat the call") && refused.detail.contains(WEST), "{}", refused.detail);
        let shown = aws.vault.client("auditor").get(&format!("/v1/wrapper-keys/{id}")).await.unwrap();
        assert_eq!(shown["regions"], json!([CENTRAL]), "what does not work does not count");
        aws.kms.fault(json!({ "mode": "none", "key": arn })).await;
    }
    aws.kms.fault(json!({ "mode": "denied", "only": "Decrypt", "key": arn })).await;
    let refused = problem(replicate(&aws, "wrapper-admin", &id, WEST).await);
    assert_eq!((refused.code.as_str(), refused.retryable), ("wrapper_denied", false), "its policy keeps the vault out");
    aws.kms.fault(json!({ "mode": "none", "key": arn })).await;

    aws.kms.fault(json!({ "mode": "creating", "only": "Decrypt", "key": arn, "count": 2 })).await;
    for _ in 0..2 {
        let shown = replicate(&aws, "wrapper-admin", &id, WEST).await.unwrap();
        assert_eq!(shown["regions"], json!([CENTRAL, WEST]));
    }
    assert_eq!(made(&aws).len(), 1, "the first call made it, the others found it");
    let outcomes: Vec<_> = aws.entries("wrapper-keys.replicate", None).await.iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["intent", "failed", "intent", "failed", "intent", "failed", "intent", "ok", "intent", "ok"]);
    until("nothing is amiss", || async { aws.is_ready(200, &[]).await }).await;
}

#[tokio::test]
async fn two_replicas_at_once_both_count() {
    let (aws, id) = one_region("may_create = true", None).await;
    let (west, north) = tokio::join!(replicate(&aws, "wrapper-admin", &id, WEST), replicate(&aws, "wrapper-admin", &id, NORTH));
    west.unwrap();
    north.unwrap();
    let shown = aws.vault.client("auditor").get(&format!("/v1/wrapper-keys/{id}")).await.unwrap();
    let regions: std::collections::BTreeSet<_> =
        shown["regions"].as_array().unwrap().iter().map(|region| region.as_str().unwrap()).collect();
    assert_eq!(regions, [CENTRAL, NORTH, WEST].into());
}

#[tokio::test]
async fn a_replica_that_cannot_be_created_is_refused_before_any_call() {
    let (aws, id) = one_region("", None).await;
    let refused = problem(replicate(&aws, "wrapper-admin", &id, WEST).await);
    assert_eq!((refused.status, refused.code.as_str()), (422, "invalid_attributes"));
    assert!(refused.detail.contains("may_create"), "{}", refused.detail);
    assert!(made(&aws).is_empty());

    let (aws, id) = one_region("may_create = true", None).await;
    for principal in ["participant1", "key-admin", "auditor", "exporter"] {
        assert_eq!(problem(replicate(&aws, principal, &id, WEST).await).code, "forbidden", "{principal}");
    }
    for region in ["us-east-1", "evil.example/", "", CENTRAL.to_uppercase().as_str()] {
        let refused = problem(replicate(&aws, "wrapper-admin", &id, region).await);
        assert_eq!((refused.status, refused.code.as_str()), (422, "invalid_attributes"), "{region}: {}", refused.detail);
    }
    assert_eq!(problem(replicate(&aws, "wrapper-admin", "wk-000000000000", WEST).await).code, "not_found");
    let single = aws.kms.create_key(CENTRAL, false).await;
    let new = json!({ "provider": "aws-kms", "reference": single });
    let single = aws.vault.client("wrapper-admin").create("/v1/wrapper-keys", &new).await.unwrap();
    let refused = problem(replicate(&aws, "wrapper-admin", single["id"].as_str().unwrap(), WEST).await);
    assert!(refused.code == "invalid_attributes" && refused.detail.contains("multi-Region"), "{}", refused.detail);
    assert!(made(&aws).is_empty());
    let outcomes = aws.entries("wrapper-keys.replicate", None).await;
    assert!(outcomes.iter().all(|entry| entry["outcome"] != "intent"), "{outcomes:?}");
}

#[tokio::test]
async fn a_key_that_is_created_in_several_regions_is_registered_once_it_works_in_all() {
    let (aws, _) = one_region("may_create = true", Some(LIMITS)).await;
    let create = json!({ "provider": "aws-kms", "create": true, "multi_region": true, "regions": [CENTRAL, NORTH] });
    let client = aws.vault.client("wrapper-admin");
    // Matched by region, because the id of the key is not known yet. Another test in this region waits as well.
    aws.kms.fault(json!({ "mode": "creating", "only": "Decrypt", "region": NORTH, "count": 1 })).await;
    let made = client.create("/v1/wrapper-keys", &create).await.unwrap();
    assert_eq!(made["regions"], json!([CENTRAL, NORTH]));
    let there = made["reference"].as_str().unwrap().replace(CENTRAL, NORTH);
    let opened = aws.kms.log(&there).iter().filter(|call| call["action"] == "Decrypt" && call["fault"].is_null()).count();
    assert!(opened >= 1, "it opened the canary there before it was registered");
}
