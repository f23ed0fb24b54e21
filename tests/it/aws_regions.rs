//! One multi-Region key in two regions: which region answers after an outage, and after a denial.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    kms::Kms,
    proxy::TcpProxy,
    vault::until,
    wrapper::{CENTRAL, WEST},
};

/// A vault with a key that has a replica, and a line to the first region.
async fn two_regions(more: &str) -> (AwsVault, TcpProxy, String) {
    two_regions_within(more, None).await
}

async fn two_regions_within(more: &str, limits: Option<&'static str>) -> (AwsVault, TcpProxy, String) {
    let kms = Kms::shared().await;
    let arn = kms.create_key(CENTRAL, true).await;
    kms.call(CENTRAL, "ReplicateKey", json!({ "KeyId": arn, "ReplicaRegion": WEST })).await;
    let line = TcpProxy::to(kms.endpoint().strip_prefix("http://").unwrap(), true);
    let wrapper = format!("regions = [{CENTRAL:?}, {WEST:?}]\nendpoints = {{ {CENTRAL} = {:?} }}\n{more}", line.url());
    let aws = AwsVault::start(Setup { arn: Some(arn.clone()), wrapper, limits, ..Setup::default() }).await;
    let listed = aws.vault.client("wrapper-admin").get("/v1/wrapper-keys").await.unwrap();
    assert_eq!(listed["items"][0]["regions"], json!([CENTRAL, WEST]));
    (aws, line, arn)
}

fn decrypts(aws: &AwsVault, key: &str, region: &str) -> Vec<Value> {
    let calls = aws.kms_calls(key).into_iter();
    calls.filter(|call| call["action"] == "Decrypt" && call["region"] == region).collect()
}

#[tokio::test]
async fn the_second_region_opens_when_the_first_is_dead() {
    let (aws, line, arn) = two_regions("").await;
    let cold = [aws.key().await, aws.key().await];
    line.cut();
    for key in &cold {
        let began = Instant::now();
        aws.sign(key).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        let there = decrypts(&aws, key, WEST);
        assert_eq!(there.len(), 1);
        assert_eq!(there[0]["key_id"], arn.replace(CENTRAL, WEST), "named by its ARN there");
    }
    let made = aws.key().await;
    assert_eq!(decrypts(&aws, &made, WEST).len(), 1, "keys are made there too");
    until("nothing is amiss", || async { aws.is_ready(200, &[]).await }).await;

    line.mend();
    let back = || async {
        let key = aws.key().await;
        decrypts(&aws, &key, CENTRAL).len() == 1
    };
    until("the first region is used again", back).await;
}

#[tokio::test]
async fn the_second_region_opens_when_the_first_hangs() {
    let (aws, _line, _) = two_regions("").await;
    let cold = aws.key().await;
    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 3000, "region": CENTRAL, "key": aws.arn })).await;
    aws.sign(&cold).await.unwrap();
    assert_eq!(decrypts(&aws, &cold, WEST).len(), 1);
    aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
}

/// As an outage goes: connections are refused, then come through and take seconds, then all is well. A whole call has 30 s.
#[tokio::test]
async fn an_outage_of_the_first_region_costs_an_attempt_each_and_ends() {
    let limits = "attempt_timeout = \"1s\"\ntimeout = \"30s\"\nbreaker_failures = 3\nbreaker_cooldown = \"2s\"";
    let (aws, line, _) = two_regions_within("", Some(limits)).await;
    let cold = [aws.key().await, aws.key().await, aws.key().await, aws.key().await, aws.key().await, aws.key().await];
    line.cut();
    for key in &cold[..2] {
        let began = Instant::now();
        aws.sign(key).await.unwrap();
        // Documented: an attempt longer. A refused connection takes milliseconds; the rest is for a busy machine.
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        assert_eq!(decrypts(&aws, key, WEST).len(), 1);
    }
    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 5000, "region": CENTRAL, "key": aws.arn })).await;
    line.mend();
    for key in &cold[2..5] {
        let began = Instant::now();
        aws.sign(key).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        assert_eq!(decrypts(&aws, key, WEST).len(), 1);
    }
    until("the wrapper key as a whole is well", || async { aws.is_ready(200, &[]).await }).await;

    aws.kms.fault(json!({ "mode": "none", "key": aws.arn })).await;
    let back = || async {
        let key = aws.key().await;
        aws.sign(&key).await.unwrap();
        decrypts(&aws, &key, WEST).is_empty()
    };
    until("all traffic is back in the first region", back).await;
    aws.sign(&cold[5]).await.unwrap();
    assert_eq!((decrypts(&aws, &cold[5], CENTRAL).len(), decrypts(&aws, &cold[5], WEST).len()), (2, 0), "its proof, and its opening");
}

/// The first region is gone for good, and with it the machine: a copy of the database opens where only the other region is configured.
#[tokio::test]
async fn a_copy_of_the_database_opens_in_the_other_region_alone() {
    let (aws, line, arn) = two_regions("").await;
    let key = aws.key().await;
    let copy = aws.vault.path("copy.db");
    let backup = aws.vault.command(&["backup", "copy.db", "--config", "keyvault.toml"]).output().unwrap();
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    line.cut();

    let west = arn.replace(CENTRAL, WEST);
    let wrapper = format!("regions = [{WEST:?}]");
    let mut there = AwsVault::prepare(Setup { arn: Some(west.clone()), wrapper, ..Setup::default() }).await;
    std::fs::copy(&copy, there.vault.path("keyvault.db")).unwrap();
    let drill = there.vault.command(&["verify-backup", "keyvault.db", "--config", "keyvault.toml"]).output().unwrap();
    assert!(drill.status.success(), "{}", String::from_utf8_lossy(&drill.stderr));
    there.vault.serve();
    there.sign(&key).await.unwrap();
    let calls = decrypts(&there, &key, WEST);
    assert!(!calls.is_empty() && calls.iter().all(|call| call["key_id"] == west), "{calls:?}");
    until("it is well there", || async { there.is_ready(200, &[]).await }).await;
    let made = there.key().await;
    there.sign(&made).await.unwrap();
    assert_eq!(decrypts(&there, &made, CENTRAL).len(), 0);
}

#[tokio::test]
async fn a_refusal_is_not_carried_to_another_region_unless_that_is_wanted() {
    for (setting, wanted) in [("", false), ("failover_on_denied = true", true)] {
        let (aws, _line, _) = two_regions(setting).await;
        let cold = aws.key().await;
        aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": aws.arn })).await;
        if wanted {
            aws.sign(&cold).await.unwrap();
        } else {
            let refused = aws.refused(&cold).await;
            assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (502, "wrapper_denied", false));
        }
        assert_eq!(decrypts(&aws, &cold, WEST).len(), usize::from(wanted));
    }
}
