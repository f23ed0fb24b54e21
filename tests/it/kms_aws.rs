//! AWS KMS in particular: states, outages, regions, aliases. The double is in `tests/kms/`.

use std::time::{Duration, Instant};

use aws_credential_types::{
    credential_fn::provide_credentials_fn,
    provider::{SharedCredentialsProvider, error::CredentialsError},
};
use canton_keyvault::{
    domain::{ProviderKind, WrapperKey},
    kms::{CreateOptions, CredentialFault, Denial, Description, Outage, Providers, Unwrapped, Wrapped, WrapperError},
};
use serde_json::json;

use crate::support::{
    kms::Kms,
    wrapper::{ACCOUNT, Aws, CENTRAL, WEST, aws, config, context, data_key, providers_on, random},
};

#[tokio::test]
async fn every_kms_call_names_the_key_and_the_context() {
    let kms = Kms::shared().await;
    let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    wrapper.unwrap(&bytes, &context("participant1")).await.unwrap();
    let mut log: Vec<_> = kms.log(&key.reference).into_iter().filter(|entry| entry["action"] != "DescribeKey").collect();
    for entry in &mut log {
        assert!(entry.as_object_mut().unwrap().remove("request_id").is_some());
    }
    let expected = |action: &str| {
        json!({ "action": action, "key_id": key.reference, "region": CENTRAL, "fault": null, "access_key": "AKIATEST",
                "context": { "keyvault:vault": "test", "keyvault:node": "participant1" } })
    };
    assert_eq!(log, [expected("Encrypt"), expected("Decrypt")]);
}

#[tokio::test]
async fn a_key_that_aws_refuses_is_denied_at_once_and_works_again_when_it_may() {
    let kms = Kms::shared().await;
    let mut cases = Vec::new();
    for (action, parameters, denial) in
        [("DisableKey", json!({}), Denial::Disabled), ("ScheduleKeyDeletion", json!({ "PendingWindowInDays": 7 }), Denial::InvalidState)]
    {
        let aws = Aws::new(kms, &[CENTRAL], "").await;
        let mut parameters = parameters;
        parameters["KeyId"] = json!(aws.key.reference);
        kms.call(CENTRAL, action, parameters).await;
        cases.push((aws, denial));
    }
    for (denial, only) in [(Denial::AccessDenied, "Encrypt"), (Denial::AccessDenied, "Decrypt")] {
        let aws = Aws::new(kms, &[CENTRAL], "").await;
        kms.fault(json!({ "mode": "denied", "only": only, "key": aws.key.reference })).await;
        cases.push((aws, denial));
    }
    for (Aws { wrapper, key, .. }, expected) in cases {
        let outcomes = [
            wrapper.wrap(&data_key(), &context("participant1")).await.err(),
            wrapper.unwrap(&blob_of(&key), &context("participant1")).await.err(),
        ];
        let denied: Vec<_> = outcomes
            .into_iter()
            .flatten()
            .filter_map(|error| match error {
                WrapperError::Denied { denial, request_id, .. } => Some((denial, request_id.is_some())),
                _ => None,
            })
            .collect();
        assert!(!denied.is_empty() && denied.iter().all(|found| *found == (expected, true)), "{denied:?}");
        if expected == Denial::AccessDenied {
            kms.fault(json!({ "mode": "none", "key": key.reference })).await;
        } else {
            assert!(!wrapper.describe().await.unwrap().usable);
            kms.call(CENTRAL, "CancelKeyDeletion", json!({ "KeyId": key.reference })).await;
            kms.call(CENTRAL, "EnableKey", json!({ "KeyId": key.reference })).await;
        }
        eventually("the key works again", || async { wrapper.wrap(&data_key(), &context("participant1")).await.is_ok() }).await;
    }
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_denied() {
    let kms = Kms::shared().await;
    let Aws { providers, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    let gone = "aws:aws:123456789012:00000000-0000-0000-0000-000000000000";
    let arn = format!("arn:aws:kms:{CENTRAL}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000");
    let gone = WrapperKey { identity: gone.to_owned(), reference: arn.clone(), ..key };
    let wrapper = providers.connect(&gone).await.unwrap();
    for error in [
        wrapper.wrap(&data_key(), &context("participant1")).await.err(),
        wrapper.describe().await.err(),
        providers.resolve(ProviderKind::AwsKms, &arn, &[]).await.err(),
        providers.resolve(ProviderKind::AwsKms, "alias/nothing", &[]).await.err(),
    ] {
        assert!(matches!(error, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_second() {
    let kms = Kms::shared().await;
    let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    kms.fault(json!({ "mode": "denied", "only": "Encrypt", "key": key.reference })).await;
    let begin = Instant::now();
    for _ in 0..200 {
        assert!(wrapper.wrap(&data_key(), &context("participant1")).await.is_err());
    }
    let calls = |action| kms.log(&key.reference).iter().filter(|entry| entry["action"] == action).count() as u64;
    assert!(calls("Encrypt") <= 1 + begin.elapsed().as_secs(), "{}", calls("Encrypt"));
    // IAM may refuse one context and allow another.
    let before = calls("Encrypt");
    assert!(wrapper.wrap(&data_key(), &context("participant2")).await.is_err());
    assert_eq!(calls("Encrypt"), before + 1);
}

#[tokio::test]
async fn an_outage_is_retried_in_bounds_and_then_unavailable() {
    let kms = Kms::shared().await;
    for (fault, expected) in [
        (json!({ "mode": "throttle" }), Outage::Throttled),
        (json!({ "mode": "internal" }), Outage::ServerError),
        (json!({ "mode": "unavailable" }), Outage::ServerError),
        (json!({ "mode": "drop" }), Outage::Unreachable),
        (json!({ "mode": "slow", "delay_ms": 60_000 }), Outage::TimedOut),
    ] {
        let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
        let mut fault = fault;
        fault["key"] = json!(key.reference);
        kms.fault(fault.clone()).await;
        let begin = Instant::now();
        let error = wrapper.wrap(&data_key(), &context("participant1")).await.err().unwrap();
        assert!(matches!(&error, WrapperError::Unavailable { outage, .. } if *outage == expected), "{fault}: {error:?}");
        // The limit of a call is 5 s. The rest is for a busy machine, and far less than the delay.
        assert!(begin.elapsed() < Duration::from_secs(40), "{fault}: {:?}", begin.elapsed());
        let tried = kms.log(&key.reference).iter().filter(|entry| entry["action"] == "Encrypt").count();
        assert_eq!(tried, 3, "{fault}: once, and two retries");
    }
}

#[tokio::test]
async fn a_fault_that_passes_is_not_seen() {
    let kms = Kms::shared().await;
    for mode in ["throttle", "internal", "drop"] {
        let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
        kms.fault(json!({ "mode": mode, "key": key.reference, "count": 2 })).await;
        wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_not_from_kms_is_a_misconfiguration() {
    let kms = Kms::shared().await;
    let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    kms.fault(json!({ "mode": "garbage", "key": key.reference })).await;
    let error = wrapper.wrap(&data_key(), &context("participant1")).await.err();
    assert!(matches!(error, Some(WrapperError::Misconfigured { .. })), "{error:?}");
}

#[tokio::test]
async fn a_dead_endpoint_is_unavailable_though_connecting_needs_no_kms() {
    let Aws { key, .. } = Aws::new(Kms::shared().await, &[CENTRAL], "").await;
    let providers = aws(&format!("reference = {:?}\nendpoint = {:?}", key.reference, nobody_listens().await));
    let begin = Instant::now();
    let error = providers.connect(&key).await.unwrap().describe().await.err();
    assert!(matches!(error, Some(WrapperError::Unavailable { outage: Outage::Unreachable, .. })), "{error:?}");
    // Nobody listens, which is known at once. A call that waited would take its whole 5 s.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn missing_credentials_are_a_denial_and_slow_ones_an_outage() {
    type Failure = fn() -> CredentialsError;
    type Verdict = fn(&WrapperError) -> bool;
    let Aws { key, .. } = Aws::new(Kms::shared().await, &[CENTRAL], "").await;
    let cases: [(Failure, Verdict); 3] = [
        (CredentialsError::not_loaded_no_source, |error| {
            matches!(error, WrapperError::Denied { denial: Denial::Credentials(CredentialFault::Missing), .. })
        }),
        (
            || CredentialsError::provider_error("s3cret refused"),
            |error| matches!(error, WrapperError::Denied { denial: Denial::Credentials(_), .. }) && !error.to_string().contains("s3cret"),
        ),
        (
            || CredentialsError::provider_timed_out(Duration::from_secs(1)),
            |error| matches!(error, WrapperError::Unavailable { outage: Outage::CredentialsUnavailable, .. }),
        ),
    ];
    for (failure, expected) in cases {
        let credentials = SharedCredentialsProvider::new(provide_credentials_fn(move || async move { Err(failure()) }));
        let providers = Providers::new(config(&format!("provider = 'aws-kms'\nreference = {:?}", key.reference)), random()).unwrap();
        let error = providers.with_aws_credentials(credentials).connect(&key).await.unwrap().describe().await.err().unwrap();
        assert!(expected(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_second_region_serves_when_the_first_is_down() {
    let kms = Kms::shared().await;
    for mode in ["drop", "internal", "throttle", "slow"] {
        let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL, WEST], "").await;
        let Wrapped { bytes, receipt } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert_eq!(receipt.region.as_deref(), Some(CENTRAL));
        kms.fault(json!({ "mode": mode, "delay_ms": 3000, "region": CENTRAL, "key": key_id(&key) })).await;
        let Unwrapped { data_key: opened, receipt } = wrapper.unwrap(&bytes, &context("participant1")).await.unwrap();
        assert_eq!((opened.expose(), receipt.region.as_deref()), (data_key().expose(), Some(WEST)), "{mode}");
    }
}

#[tokio::test]
async fn a_denial_is_not_failed_over_unless_configured() {
    let kms = Kms::shared().await;
    for (setting, expected) in [("", false), ("failover_on_denied = true", true)] {
        let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL, WEST], setting).await;
        let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        kms.call(CENTRAL, "DisableKey", json!({ "KeyId": key.reference })).await;
        let answer = wrapper.unwrap(&bytes, &context("participant1")).await;
        match (answer, expected) {
            (Ok(Unwrapped { receipt, .. }), true) => assert_eq!(receipt.region.as_deref(), Some(WEST)),
            (Err(WrapperError::Denied { denial: Denial::Disabled, .. }), false) => {}
            (answer, _) => panic!("{setting}: {:?}", answer.err()),
        }
        let west = kms.log(key_id(&key)).iter().filter(|entry| entry["region"] == WEST && entry["action"] == "Decrypt").count();
        assert_eq!(west, usize::from(expected));
    }
}

#[tokio::test]
async fn the_breaker_opens_and_recovers() {
    let kms = Kms::shared().await;
    let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    kms.fault(json!({ "mode": "internal", "key": key.reference })).await;
    // Three attempts a call, and it opens after three. On a busy machine its pause may be over when the next call comes, which is a probe.
    eventually("an open breaker sends nothing", || async {
        let before = kms.log(&key.reference).len();
        let error = wrapper.wrap(&data_key(), &context("participant1")).await.err();
        let not_tried = matches!(error, Some(WrapperError::Unavailable { outage: Outage::NotTried, .. }));
        assert!(error.is_some());
        not_tried && kms.log(&key.reference).len() == before
    })
    .await;
    kms.fault(json!({ "mode": "none", "key": key.reference })).await;
    eventually("the breaker closes", || async { wrapper.wrap(&data_key(), &context("participant1")).await.is_ok() }).await;
}

#[tokio::test]
async fn a_database_restored_elsewhere_opens_in_the_region_of_its_configuration() {
    let kms = Kms::shared().await;
    let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    kms.call(CENTRAL, "ReplicateKey", json!({ "KeyId": key_id(&key), "ReplicaRegion": WEST })).await;
    let elsewhere =
        aws(&format!("reference = {:?}\nendpoint = {:?}\nregions = [{WEST:?}]\nallowed = [{ACCOUNT:?}]", key.reference, kms.endpoint()));
    let unwrapped = elsewhere.connect(&key).await.unwrap().unwrap(&bytes, &context("participant1")).await.unwrap();
    assert_eq!(unwrapped.receipt.region.as_deref(), Some(WEST));
}

#[tokio::test]
async fn a_reference_is_resolved_to_what_it_is() {
    let kms = Kms::shared().await;
    let providers = providers_on(kms, &[CENTRAL, WEST], "");
    let resolve = async |reference: &str, regions: &[&str]| {
        let regions: Vec<String> = regions.iter().map(|region| (*region).to_owned()).collect();
        providers.resolve(ProviderKind::AwsKms, reference, &regions).await
    };
    let (mrk, single) = (kms.create_key(CENTRAL, true).await, kms.create_key(CENTRAL, false).await);
    let id = single.rsplit('/').next().unwrap();
    let alias = format!("alias/{id}");
    kms.call(CENTRAL, "CreateAlias", json!({ "AliasName": alias, "TargetKeyId": single })).await;
    for reference in [single.as_str(), id, &alias, &format!("arn:aws:kms:{CENTRAL}:{ACCOUNT}:{alias}")] {
        let found = resolve(reference, &[]).await.unwrap();
        let Description { identity, reference, regions, usable } = found;
        assert_eq!((identity, reference, usable), (format!("aws:aws:{ACCOUNT}:{id}"), single.clone(), true));
        assert_eq!(regions, [CENTRAL]);
    }

    assert_eq!(resolve(&mrk, &[]).await.unwrap().regions, [CENTRAL]);
    let unknown = resolve(&mrk, &[CENTRAL, WEST]).await.err().unwrap().to_string();
    assert!(unknown.contains("no replica in eu-west-1"), "{unknown}");
    kms.call(CENTRAL, "ReplicateKey", json!({ "KeyId": mrk, "ReplicaRegion": WEST })).await;
    assert_eq!(resolve(&mrk, &[]).await.unwrap().regions, [CENTRAL, WEST]);
    let west = resolve(&mrk, &[WEST]).await.unwrap();
    assert_eq!((west.regions.as_slice(), west.reference.contains(WEST)), ([WEST.to_owned()].as_slice(), true));

    for region in ["us-east-1", "evil.example/"] {
        assert!(matches!(resolve(&mrk, &[region]).await, Err(WrapperError::Unfit { .. })), "{region}");
    }
    let signing = kms.create(CENTRAL, json!({ "KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256" })).await;
    let hmac = kms.create(CENTRAL, json!({ "KeyUsage": "GENERATE_VERIFY_MAC", "KeySpec": "HMAC_256" })).await;
    kms.call(CENTRAL, "DisableKey", json!({ "KeyId": single })).await;
    for (reference, expected) in [(signing, Denial::WrongKind), (hmac, Denial::WrongKind), (single, Denial::Disabled)] {
        let error = resolve(&reference, &[]).await.err();
        assert!(matches!(&error, Some(WrapperError::Denied { denial, .. }) if *denial == expected), "{error:?}");
    }
}

#[tokio::test]
async fn kms_keys_are_created_only_where_the_configuration_says_so() {
    let kms = Kms::shared().await;
    let options = CreateOptions { multi_region: true, regions: vec![CENTRAL.into(), WEST.into()], request: Some("r-1".into()) };
    let refused = providers_on(kms, &[CENTRAL, WEST], "").create(ProviderKind::AwsKms, &options).await.err().unwrap().to_string();
    assert!(refused.contains("may_create"), "{refused}");

    let providers = providers_on(kms, &[CENTRAL, WEST], "may_create = true");
    let created = providers.create(ProviderKind::AwsKms, &options).await.unwrap();
    assert_eq!(created.regions, [CENTRAL, WEST]);
    assert_eq!(providers.resolve(ProviderKind::AwsKms, &created.reference, &[]).await.unwrap(), created);
    let tags = kms.call(CENTRAL, "ListResourceTags", json!({ "KeyId": created.reference })).await;
    assert!(tags.to_string().contains("canton-keyvault:request"), "{tags}");

    let one = CreateOptions { regions: vec![CENTRAL.into(), WEST.into()], ..CreateOptions::default() };
    assert!(matches!(providers.create(ProviderKind::AwsKms, &one).await, Err(WrapperError::Unfit { .. })));
}

// --- helpers ---

fn key_id(key: &WrapperKey) -> &str {
    key.identity.rsplit(':').next().unwrap()
}

/// A ciphertext that the double takes to be made by this key: its header is the key id.
fn blob_of(key: &WrapperKey) -> Vec<u8> {
    [key_id(key).as_bytes(), &[0; 60]].concat()
}

async fn nobody_listens() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Waits for a condition, a minute at most.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
