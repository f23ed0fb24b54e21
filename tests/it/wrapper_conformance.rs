//! One suite over all wrapper providers, then what AWS KMS alone has: states, outages, regions. The double is `tests/kms/`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_credential_types::{
    Credentials,
    credential_fn::provide_credentials_fn,
    provider::{SharedCredentialsProvider, error::CredentialsError},
};
use canton_keyvault::{
    crypto::{SecretBytes, SystemRandom},
    domain::{EncryptionContext, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    wrapper::{
        Config, CreateOptions, Denial, Description, Outage, Providers, Ring, Unwrapped, Wrapped, Wrapper, WrapperError, create_key_file,
    },
};
use serde_json::json;

use crate::support::kms::Kms;

const CENTRAL: &str = "eu-central-1";
const WEST: &str = "eu-west-1";
/// The account of every key in the double.
const ACCOUNT: &str = "123456789012";

// --- every provider ---

#[tokio::test]
async fn what_is_wrapped_unwraps_and_says_who_did_it() {
    for Case { wrapper, key, .. } in cases().await {
        let wrapped = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert!(!wrapped.bytes.windows(32).any(|window| window == data_key().expose()), "the data key does not show");
        let again = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert_ne!(wrapped.bytes, again.bytes, "no two wraps are alike");
        let unwrapped = wrapper.unwrap(&wrapped.bytes, &context("participant1")).await.unwrap();
        assert_eq!(unwrapped.data_key.expose(), data_key().expose());
        assert_eq!(unwrapped.receipt.region, key.regions.first().cloned());
        assert_eq!(unwrapped.receipt.request_id.is_some(), key.provider == ProviderKind::AwsKms);

        let description = wrapper.describe().await.unwrap();
        let Description { identity, reference, regions, usable } = description;
        assert_eq!((identity, reference, regions, usable), (key.identity, key.reference, key.regions, true));
    }
}

#[tokio::test]
async fn another_context_is_invalid() {
    for Case { wrapper, .. } in cases().await {
        let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        let moved = EncryptionContext::new(vec![("keyvault:vault", "v".into()), ("keyvault:node", String::new())]);
        let renamed = EncryptionContext::new(vec![("keyvault:vault", "testparticipant1".into()), ("keyvault:node", String::new())]);
        for other in [context("participant2"), context(""), moved, renamed] {
            assert_invalid(wrapper.unwrap(&bytes, &other).await);
        }
    }
}

#[tokio::test]
async fn any_changed_bit_is_invalid() {
    for Case { wrapper, key, .. } in cases().await {
        let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        let step = if key.provider == ProviderKind::Local { 1 } else { 9 };
        for bit in (0..bytes.len() * 8).step_by(step) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_invalid(wrapper.unwrap(&changed, &context("participant1")).await);
        }
        for cut in [&[][..], &bytes[..1], &bytes[..13], &bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0; 7000]].concat()] {
            assert_invalid(wrapper.unwrap(cut, &context("participant1")).await);
        }
    }
}

#[tokio::test]
async fn what_another_key_wrapped_is_invalid() {
    for Case { wrapper, other, .. } in cases().await {
        let Wrapped { bytes, .. } = other.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert_invalid(wrapper.unwrap(&bytes, &context("participant1")).await);
        assert!(other.unwrap(&bytes, &context("participant1")).await.is_ok());
    }
}

#[tokio::test]
async fn only_data_keys_of_32_bytes_are_wrapped() {
    for Case { wrapper, .. } in cases().await {
        let short = wrapper.wrap(&SecretBytes::zeroed(31), &context("participant1")).await;
        assert!(matches!(short, Err(WrapperError::Misconfigured { .. })));
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_neither_resolved_nor_connected() {
    for Case { key, strict, .. } in cases().await {
        let resolved = strict.resolve(key.provider, &key.reference, &[]).await;
        assert!(matches!(resolved, Err(WrapperError::NotAllowed { .. })), "{resolved:?}");
        let connected = strict.connect(&key).await.err();
        assert!(matches!(connected, Some(WrapperError::NotAllowed { .. })), "{connected:?}");
    }
}

/// Somebody edits a row to move all keys under a wrapper key of his own.
#[tokio::test]
async fn a_row_whose_facts_contradict_each_other_is_refused() {
    for Case { providers, key, others, .. } in cases().await {
        let identity_edited = WrapperKey { identity: others.identity.clone(), ..key.clone() };
        let reference_edited = WrapperKey { reference: others.reference.clone(), ..key.clone() };
        for edited in [identity_edited, reference_edited] {
            let refused = providers.connect(&edited).await.err();
            assert!(matches!(refused, Some(WrapperError::Misconfigured { .. })), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn the_ring_connects_once_and_anew_when_the_row_changes() {
    for Case { providers, key, others, .. } in cases().await {
        let ring = Ring::new(providers);
        let (one, two) = tokio::join!(ring.get(&key), ring.get(&key));
        let one = one.unwrap();
        assert!(Arc::ptr_eq(&one, &two.unwrap()));
        let retired = WrapperKey { state: WrapperState::Retired, ..key.clone() };
        assert!(Arc::ptr_eq(&one, &ring.get(&retired).await.unwrap()), "the state does not matter to the connection");
        let edited = WrapperKey { identity: others.identity.clone(), ..key.clone() };
        assert!(ring.get(&edited).await.is_err(), "what is cached does not serve other facts");
        ring.forget(key.id);
        assert!(!Arc::ptr_eq(&one, &ring.get(&key).await.unwrap()));
    }
}

// --- local ---

#[tokio::test]
async fn a_new_key_file_lies_next_to_the_configured_one_and_works() {
    let directory = tempfile::tempdir().unwrap();
    let first = directory.path().join("wrapper.key");
    create_key_file(&first, &SystemRandom::default()).unwrap();
    let allowing = |pattern: &str| local(&format!("reference = {first:?}\nallowed = [{:?}]", directory.path().join(pattern)));

    let refused = allowing("wrapper.key").create(ProviderKind::Local, &CreateOptions::default()).await;
    assert!(matches!(refused, Err(WrapperError::NotAllowed { .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is created that could not be used");

    let providers = allowing("*.key");
    let created = providers.create(ProviderKind::Local, &CreateOptions::default()).await.unwrap();
    let resolved = providers.resolve(ProviderKind::Local, &created.reference, &[]).await.unwrap();
    assert_eq!(resolved, created);
    let wrapper = providers.connect(&registered(ProviderKind::Local, created)).await.unwrap();
    wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
}

#[tokio::test]
async fn a_missing_key_file_is_final_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join("wrapper.key"), directory.path().join("aside"));
    create_key_file(&path, &SystemRandom::default()).unwrap();
    let providers = Arc::new(local(&format!("reference = {path:?}\nallowed = [{path:?}]")));
    let key = registered(ProviderKind::Local, providers.resolve(ProviderKind::Local, path.to_str().unwrap(), &[]).await.unwrap());
    std::fs::rename(&path, &aside).unwrap();
    let ring = Ring::new(providers);
    let missing = ring.get(&key).await.err();
    assert!(matches!(missing, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{missing:?}");
    std::fs::rename(&aside, &path).unwrap();
    assert!(ring.get(&key).await.is_ok(), "a failure is not remembered by the ring");
}

// --- AWS KMS ---

#[tokio::test]
async fn kms_is_told_the_key_and_the_context_of_every_call() {
    let kms = Kms::shared().await;
    let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
    let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    wrapper.unwrap(&bytes, &context("participant1")).await.unwrap();
    let log: Vec<_> = kms.log(&key.reference).into_iter().filter(|entry| entry["action"] != "DescribeKey").collect();
    let expected = |action: &str| {
        json!({ "action": action, "key_id": key.reference, "region": CENTRAL, "fault": null,
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
        (json!({ "mode": "slow", "delay_ms": 3000 }), Outage::TimedOut),
    ] {
        let Aws { wrapper, key, .. } = Aws::new(kms, &[CENTRAL], "").await;
        let mut fault = fault;
        fault["key"] = json!(key.reference);
        kms.fault(fault.clone()).await;
        let begin = Instant::now();
        let error = wrapper.wrap(&data_key(), &context("participant1")).await.err().unwrap();
        assert!(matches!(&error, WrapperError::Unavailable { outage, .. } if *outage == expected), "{fault}: {error:?}");
        assert!(begin.elapsed() < Duration::from_secs(6), "{fault}: {:?}", begin.elapsed());
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
async fn what_is_not_kms_is_for_a_person_to_mend() {
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
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn missing_credentials_are_for_a_person_to_mend_and_slow_ones_are_an_outage() {
    type Failure = fn() -> CredentialsError;
    type Verdict = fn(&WrapperError) -> bool;
    let Aws { key, .. } = Aws::new(Kms::shared().await, &[CENTRAL], "").await;
    let cases: [(Failure, Verdict); 3] = [
        (CredentialsError::not_loaded_no_source, |error| matches!(error, WrapperError::Misconfigured { .. })),
        (
            || CredentialsError::provider_error("s3cret refused"),
            |error| matches!(error, WrapperError::Misconfigured { .. }) && !error.to_string().contains("s3cret"),
        ),
        (
            || CredentialsError::provider_timed_out(Duration::from_secs(1)),
            |error| matches!(error, WrapperError::Unavailable { outage: Outage::TimedOut, .. }),
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
    // Three attempts a call, and it opens after three.
    assert!(wrapper.wrap(&data_key(), &context("participant1")).await.is_err());
    let before = kms.log(&key.reference).len();
    let error = wrapper.wrap(&data_key(), &context("participant1")).await.err();
    assert!(matches!(error, Some(WrapperError::Unavailable { outage: Outage::NotTried, .. })), "{error:?}");
    assert_eq!(kms.log(&key.reference).len(), before, "an open breaker sends nothing");
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
        assert!(matches!(resolve(&mrk, &[region]).await, Err(WrapperError::Misconfigured { .. })), "{region}");
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
    assert!(matches!(providers.create(ProviderKind::AwsKms, &one).await, Err(WrapperError::Misconfigured { .. })));
}

// --- helpers ---

/// A connected key of one provider, a second one, and providers that allow neither.
struct Case {
    providers: Arc<Providers>,
    key: WrapperKey,
    wrapper: Arc<dyn Wrapper>,
    others: WrapperKey,
    other: Arc<dyn Wrapper>,
    strict: Providers,
    _directory: tempfile::TempDir,
}

async fn cases() -> [Case; 2] {
    let kms = Kms::shared().await;
    let directory = tempfile::tempdir().unwrap();
    let paths = ["one.key", "two.key"].map(|name| directory.path().join(name).display().to_string());
    for path in &paths {
        create_key_file(path.as_ref(), &SystemRandom::default()).unwrap();
    }
    let files = local(&format!("reference = {:?}\nallowed = ['{}/*.key']", paths[0], directory.path().display()));
    let no_files = local(&format!("reference = {:?}\nallowed = ['/elsewhere/*']", paths[0]));
    let arns = [kms.create_key(CENTRAL, false).await, kms.create_key(CENTRAL, false).await];
    let strict = format!("reference = {:?}\nendpoint = {:?}\nallowed = ['000000000000']", arns[0], kms.endpoint());
    [
        Case::new(ProviderKind::Local, files, &paths, no_files, directory).await,
        Case::new(ProviderKind::AwsKms, providers_on(kms, &[CENTRAL], ""), &arns, aws(&strict), tempfile::tempdir().unwrap()).await,
    ]
}

impl Case {
    async fn new(
        provider: ProviderKind,
        providers: Providers,
        references: &[String; 2],
        strict: Providers,
        directory: tempfile::TempDir,
    ) -> Self {
        let key = registered(provider, providers.resolve(provider, &references[0], &[]).await.unwrap());
        let others = registered(provider, providers.resolve(provider, &references[1], &[]).await.unwrap());
        let (wrapper, other) = (providers.connect(&key).await.unwrap(), providers.connect(&others).await.unwrap());
        Self { providers: Arc::new(providers), key, wrapper, others, other, strict, _directory: directory }
    }
}

/// A multi-Region key of one's own in the shared double, with replicas in all but the first of the regions.
struct Aws {
    providers: Providers,
    key: WrapperKey,
    wrapper: Arc<dyn Wrapper>,
}

impl Aws {
    async fn new(kms: &Kms, regions: &[&str], settings: &str) -> Self {
        let arn = kms.create_key(regions[0], true).await;
        for replica in &regions[1..] {
            kms.call(regions[0], "ReplicateKey", json!({ "KeyId": arn, "ReplicaRegion": replica })).await;
        }
        let providers = providers_on(kms, regions, settings);
        let key = registered(ProviderKind::AwsKms, providers.resolve(ProviderKind::AwsKms, &arn, &[]).await.unwrap());
        let wrapper = providers.connect(&key).await.unwrap();
        Self { providers, key, wrapper }
    }
}

fn providers_on(kms: &Kms, regions: &[&str], settings: &str) -> Providers {
    let endpoint = kms.endpoint();
    aws(&format!("reference = 'alias/any'\nallowed = [{ACCOUNT:?}]\nendpoint = {endpoint:?}\nregions = {regions:?}\n{settings}"))
}

fn aws(settings: &str) -> Providers {
    let limits = "[limits]\nattempt_timeout = '1s'\ntimeout = '5s'\nretries = 2\nbreaker_failures = 3\nbreaker_pause = '300ms'";
    let config = config(&format!("provider = 'aws-kms'\n{settings}\n{limits}"));
    let credentials = Credentials::new("AKIATEST", "test", None, None, "test");
    Providers::new(config, random()).unwrap().with_aws_credentials(SharedCredentialsProvider::new(credentials))
}

fn local(settings: &str) -> Providers {
    Providers::new(config(&format!("provider = 'local'\n{settings}")), random()).unwrap()
}

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn random() -> Arc<SystemRandom> {
    Arc::new(SystemRandom::default())
}

fn registered(provider: ProviderKind, found: Description) -> WrapperKey {
    let Description { identity, reference, regions, usable: _ } = found;
    let (id, state, created_at) = (WrapperKeyId::from_random([1; 6]), WrapperState::Active, Timestamp::from_micros(0));
    WrapperKey { id, provider, identity, reference, regions, state, canary: Vec::new(), created_at }
}

fn context(node: &str) -> EncryptionContext {
    EncryptionContext::new(vec![("keyvault:vault", "test".into()), ("keyvault:node", node.into())])
}

fn data_key() -> SecretBytes {
    SecretBytes::from((1..=32).collect::<Vec<u8>>())
}

fn key_id(key: &WrapperKey) -> &str {
    key.identity.rsplit(':').next().unwrap()
}

/// A ciphertext that the double takes to be made by this key: its header is the key id.
fn blob_of(key: &WrapperKey) -> Vec<u8> {
    [key_id(key).as_bytes(), &[0; 60]].concat()
}

fn assert_invalid(answer: Result<Unwrapped, WrapperError>) {
    let error = answer.err();
    assert!(matches!(error, Some(WrapperError::Invalid { .. })), "{error:?}");
}

async fn nobody_listens() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Waits for a condition, 10 s at most.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
