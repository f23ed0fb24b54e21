//! The order in which the wraps of a key are tried, and how long a slow or refusing one delays a call.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    aws_vault::{AwsVault, Setup},
    kms::Kms,
    proxy::TcpProxy,
    vault::{problem, until},
    wrapper::{CENTRAL, WEST},
};

#[tokio::test]
async fn a_wrapper_key_that_hangs_costs_one_attempt_and_then_nothing() {
    // A whole call would take 30 s.
    let limits = Some("attempt_timeout = \"1s\"\ntimeout = \"30s\"\nretries = 100\nbreaker_cooldown = \"300ms\"");
    let (aws, two) = Two::new(CENTRAL, Setup { limits, ..Setup::default() }).await;
    let arns = &two.arns;
    let cold = two.keys(&aws, 4).await;
    aws.kms.fault(json!({ "mode": "slow", "delay_ms": 4000, "key": arns[0] })).await;
    let began = Instant::now();
    aws.sign(&cold[0].id).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert_eq!(opened_through(&aws, &cold[0]), [arns[0].clone(), arns[1].clone()], "the active one first");

    for key in &cold[1..3] {
        aws.sign(&key.id).await.unwrap();
        assert_eq!(opened_through(&aws, key), [arns[1].clone()], "the one that fails is passed over");
    }
    assert!(aws.is_ready(200, &["wrapper_unavailable"]).await, "{:?}", aws.readyz().await);

    aws.kms.fault(json!({ "mode": "none", "key": arns[0] })).await;
    until("it is well again", || async { aws.is_ready(200, &[]).await }).await;
    aws.sign(&cold[3].id).await.unwrap();
    assert_eq!(opened_through(&aws, &cold[3]), [arns[0].clone()], "and is used again");
}

/// The active wrapper key is in one region, the standby one in another, and the first region goes away.
#[tokio::test]
async fn a_standby_key_opens_during_a_region_outage_and_not_after_it() {
    let line = TcpProxy::to(Kms::shared().await.endpoint().strip_prefix("http://").unwrap(), true);
    let wrapper = format!("endpoints = {{ {CENTRAL} = {:?} }}", line.url());
    let (aws, two) = Two::new(WEST, Setup { wrapper, ..Setup::default() }).await;
    let cold = two.keys(&aws, 3).await;
    line.cut();
    for key in &cold[..2] {
        let began = Instant::now();
        aws.sign(&key.id).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
        assert_eq!(opened_through(&aws, key), [two.arns[1].clone()]);
    }
    assert!(aws.is_ready(200, &["wrapper_unavailable"]).await, "{:?}", aws.readyz().await);
    assert_eq!(problem(aws.create().await).code, "wrapper_unavailable", "a standby key takes no new keys by itself");
    line.mend();
    until("the region is back", || async { aws.is_ready(200, &[]).await }).await;
    aws.sign(&cold[2].id).await.unwrap();
    assert_eq!(opened_through(&aws, &cold[2]), [two.arns[0].clone()]);
}

#[tokio::test]
async fn a_denial_is_not_failed_over_to_another_wrap_unless_configured() {
    for (setting, wanted) in [("", false), ("failover_on_denied = true", true)] {
        let (aws, two) = Two::new(CENTRAL, Setup { wrapper: setting.into(), ..Setup::default() }).await;
        let arns = &two.arns;
        let cold = two.keys(&aws, 2).await;
        aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": arns[0] })).await;
        // The second one when the fault is known: it is not passed over either.
        for key in &cold {
            if wanted {
                aws.sign(&key.id).await.unwrap();
            } else {
                let refused = aws.refused(&key.id).await;
                assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (502, "wrapper_denied", false));
            }
            let through = opened_through(&aws, key);
            assert_eq!(through.contains(&arns[1]), wanted, "{through:?}");
            until("it is told", || async { aws.is_ready(200, &["wrapper_denied"]).await }).await;
        }
    }
}

#[tokio::test]
async fn an_outage_takes_precedence_over_a_denial_of_another_wrapper_key() {
    let (aws, two) = Two::new(CENTRAL, Setup::default()).await;
    let arns = &two.arns;
    let cold = two.keys(&aws, 1).await.remove(0);
    aws.kms.fault(json!({ "mode": "drop", "key": arns[0] })).await;
    aws.kms.call(CENTRAL, "DisableKey", json!({ "KeyId": arns[1] })).await;
    let refused = aws.refused(&cold.id).await;
    assert_eq!((refused.code.as_str(), refused.retryable), ("wrapper_unavailable", true));
    aws.kms.fault(json!({ "mode": "none", "key": arns[0] })).await;
    until("it opens when the outage is over", || async { aws.sign(&cold.id).await.is_ok() }).await;
}

#[tokio::test]
async fn a_broken_wrap_is_set_aside_and_the_next_one_opens() {
    let (aws, two) = Two::new(CENTRAL, Setup::default()).await;
    let arns = &two.arns;
    let cold = two.keys(&aws, 1).await.remove(0);
    let breaking = "UPDATE wraps SET wrapped = (SELECT canary FROM wrapper_keys WHERE id = ?2) WHERE key = ?1 AND wrapper_key = ?2";
    assert_eq!(aws.vault.database().execute(breaking, [&cold.id, &two.ids[0]]).unwrap(), 1);
    aws.sign(&cold.id).await.unwrap();
    assert_eq!(opened_through(&aws, &cold), [arns[0].clone(), arns[1].clone()]);
    let wraps = "SELECT wrapper_key FROM wraps WHERE key = ?1 AND quarantined";
    let quarantined: String = aws.vault.database().query_row(wraps, [&cold.id], |row| row.get(0)).unwrap();
    assert_eq!((quarantined, aws.state(&cold.id).await), (two.ids[0].clone(), json!("active")));
    assert!(aws.is_ready(200, &[]).await, "{:?}", aws.readyz().await);
}

#[tokio::test]
async fn the_configuration_says_which_is_opened_through_first() {
    let (mut aws, two) = Two::new(CENTRAL, Setup::default()).await;
    let arns = &two.arns;
    let cold = two.keys(&aws, 1).await.remove(0);
    let path = aws.vault.path("keyvault.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    for (prefer, expected) in [(json!([arns[1]]), 1), (json!([arns[0], "123456789012"]), 0), (json!([]), 0)] {
        let preferring = config.replace("[wrapper.limits]", &format!("prefer = {prefer}\n[wrapper.limits]"));
        std::fs::write(&path, preferring).unwrap();
        aws.vault.restart();
        let before = asked(&aws, &cold).len();
        aws.sign(&cold.id).await.unwrap();
        assert_eq!(asked(&aws, &cold)[before..], [arns[expected].clone()], "{prefer}");
    }
}

// --- helpers ---

/// An active and a standby wrapper key.
struct Two {
    ids: [String; 2],
    arns: [String; 2],
}

impl Two {
    async fn new(region: &str, setup: Setup) -> (AwsVault, Self) {
        let aws = AwsVault::start(setup).await;
        let standby = aws.kms.create_key(region, false).await;
        let (admin, new) = (aws.vault.client("wrapper-admin"), json!({ "provider": "aws-kms", "reference": standby }));
        let added = admin.create("/v1/wrapper-keys", &new).await.unwrap();
        let first = admin.get("/v1/wrapper-keys").await.unwrap()["items"][0]["id"].as_str().unwrap().to_owned();
        let two = Self { ids: [first, added["id"].as_str().unwrap().to_owned()], arns: [aws.arn.clone(), standby] };
        (aws, two)
    }

    /// New keys that are not cached and have a wrap under both wrapper keys.
    async fn keys(&self, aws: &AwsVault, count: usize) -> Vec<Cold> {
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(aws.key().await);
        }
        let client = aws.vault.client("participant1");
        let mut filled = Vec::new();
        for id in keys {
            until("the standby wrapper key is filled", || async {
                let wraps = client.get(&format!("/v1/keys/{id}")).await.unwrap()["wraps"].clone();
                self.ids.iter().all(|wrapper| wraps.as_array().unwrap().iter().any(|wrap| wrap["wrapper_key"] == *wrapper))
            })
            .await;
            let before = aws.count(&id, "Decrypt");
            filled.push(Cold { id, before });
        }
        filled
    }
}

/// A key that was not opened yet.
struct Cold {
    id: String,
    /// How often KMS unwrapped its data key so far, to prove its wraps.
    before: usize,
}

/// The wrapper keys that were asked to open a key since it was filled, each once, in order.
fn opened_through(aws: &AwsVault, key: &Cold) -> Vec<String> {
    let mut through = asked(aws, key);
    through.dedup();
    through
}

/// The same, call by call.
fn asked(aws: &AwsVault, key: &Cold) -> Vec<String> {
    let decrypts = aws.kms_calls(&key.id).into_iter().filter(|call| call["action"] == "Decrypt");
    decrypts.skip(key.before).map(|call| call["key_id"].as_str().unwrap().to_owned()).collect()
}
