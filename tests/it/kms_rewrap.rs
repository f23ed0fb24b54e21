//! Re-wrapping from one AWS key to another inside KMS: the calls, the regions, and the refusals.

use canton_keyvault::{
    domain::{EncryptionContext, ProviderKind, WrapperKey},
    kms::{Denial, ForeignWrap, Outage, Wrapped, WrapperError},
};
use serde_json::json;

use crate::support::{
    kms::Kms,
    wrapper::{ACCOUNT, Aws, CENTRAL, WEST, aws, context, data_key},
};

#[tokio::test]
async fn a_data_key_moves_by_one_reencrypt_and_is_never_shown() {
    let kms = Kms::shared().await;
    let Pair { from, to, wrapped } = Pair::new(kms, &[CENTRAL], &[CENTRAL]).await;
    let before = kms.log("key/").len();
    let moved = to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.unwrap();
    let calls: Vec<_> = kms.log("key/").split_off(before).into_iter().filter(|call| concerns(call, &[&from.key, &to.key])).collect();
    let [call] = calls.as_slice() else { panic!("{calls:#?}") };
    let told = json!({ "keyvault:vault": "test", "keyvault:node": "participant1" });
    assert_eq!((&call["action"], &call["region"]), (&json!("ReEncrypt"), &json!(CENTRAL)));
    assert_eq!((&call["source_key_id"], &call["destination_key_id"]), (&json!(from.key.reference), &json!(to.key.reference)));
    assert_eq!((&call["source_context"], &call["context"]), (&told, &told));
    assert_eq!((moved.receipt.region.as_deref(), moved.receipt.request_id.as_deref()), (Some(CENTRAL), call["request_id"].as_str()));

    let opened = to.wrapper.unwrap(&moved.bytes, &context("participant1")).await.unwrap();
    assert_eq!(opened.data_key.expose(), data_key().expose());
    let elsewhere = to.wrapper.unwrap(&moved.bytes, &context("participant2")).await.err();
    assert!(matches!(elsewhere, Some(WrapperError::Invalid { .. })), "the new wrap is bound as the old one was: {elsewhere:?}");
    assert!(from.wrapper.unwrap(&wrapped, &context("participant1")).await.is_ok(), "the old wrap is as good as before");
}

#[tokio::test]
async fn a_wrap_for_another_context_is_invalid_as_source() {
    let kms = Kms::shared().await;
    let Pair { from, to, wrapped } = Pair::new(kms, &[CENTRAL], &[CENTRAL]).await;
    let stranger = Aws::new(kms, &[CENTRAL], "").await;
    let theirs = stranger.wrapper.wrap(&data_key(), &context("participant1")).await.unwrap().bytes;
    let mut bent = wrapped.clone();
    *bent.last_mut().unwrap() ^= 1;
    let here = || context("participant1");
    for (what, bytes, context) in [
        ("another context", &wrapped, context("participant2")),
        ("no context", &wrapped, EncryptionContext::new(Vec::new())),
        ("another key's", &theirs, here()),
        ("a flipped bit", &bent, here()),
        ("nothing", &Vec::new(), here()),
        ("too much", &vec![7; 6145], here()),
    ] {
        let refused = to.wrapper.rewrap(foreign(&from, bytes), &context).await.err();
        let Some(WrapperError::Invalid { reference, .. }) = &refused else { panic!("{what}: {refused:?}") };
        assert_eq!(reference, &from.key.reference, "{what}: it is the source that did not make it");
    }
}

#[tokio::test]
async fn a_refusal_may_be_of_either_key_and_blocks_neither() {
    let kms = Kms::shared().await;
    for (disabled, name) in [(true, "source"), (false, "destination")] {
        let Pair { from, to, wrapped } = Pair::new(kms, &[CENTRAL], &[CENTRAL]).await;
        let key = if disabled { &from.key } else { &to.key };
        kms.call(CENTRAL, "DisableKey", json!({ "KeyId": key.reference })).await;
        let refused = to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.err().unwrap();
        assert!(matches!(&refused, WrapperError::Denied { denial: Denial::Disabled, request_id: Some(_), .. }), "{name}: {refused:?}");
        let text = refused.to_string();
        assert!(text.contains(&to.key.reference) && text.contains(&from.key.reference), "{name}: {text}");
        // Remembered for this call alone: another wrap, and the destination by itself, are asked about.
        let count = || kms.log(&to.key.reference).iter().filter(|call| call["action"] == "ReEncrypt").count();
        let asked = count();
        assert_eq!(to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.err(), Some(refused));
        assert_eq!(count(), asked);
        assert_eq!(to.wrapper.wrap(&data_key(), &context("participant1")).await.is_ok(), disabled, "{name}");
    }
}

#[tokio::test]
async fn a_missing_source_or_permission_is_denied_and_an_outage_is_tried_again() {
    let kms = Kms::shared().await;
    let Pair { from, to, wrapped } = Pair::new(kms, &[CENTRAL], &[CENTRAL]).await;
    let gone = WrapperKey {
        identity: format!("aws:aws:{ACCOUNT}:00000000-0000-0000-0000-000000000000"),
        reference: format!("arn:aws:kms:{CENTRAL}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000"),
        ..from.key.clone()
    };
    let missing = to.wrapper.rewrap(ForeignWrap { key: &gone, wrapped: &wrapped }, &context("participant1")).await.err();
    assert!(matches!(missing, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{missing:?}");

    for of_source in [true, false] {
        let Pair { from, to, wrapped } = Pair::new(kms, &[CENTRAL], &[CENTRAL]).await;
        let key = if of_source { &from.key } else { &to.key };
        kms.fault(json!({ "mode": "denied", "only": "ReEncrypt", "key": key.reference })).await;
        let denied = to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.err();
        assert!(matches!(denied, Some(WrapperError::Denied { denial: Denial::AccessDenied, .. })), "{denied:?}");
    }
    kms.fault(json!({ "mode": "internal", "only": "ReEncrypt", "key": to.key.reference, "count": 1 })).await;
    assert!(to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.is_ok(), "one retry");
    kms.fault(json!({ "mode": "throttle", "only": "ReEncrypt", "key": from.key.reference })).await;
    let throttled = to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.err();
    assert!(matches!(throttled, Some(WrapperError::Unavailable { outage: Outage::Throttled, .. })), "{throttled:?}");
    kms.fault(json!({ "mode": "none", "key": from.key.reference })).await;
}

#[tokio::test]
async fn two_keys_meet_where_both_live() {
    let kms = Kms::shared().await;
    let Pair { from, to, wrapped } = Pair::new(kms, &[WEST], &[CENTRAL, WEST]).await;
    assert!(to.wrapper.can_rewrap_from(&from.key), "in the second region");
    let moved = to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.unwrap();
    assert_eq!(moved.receipt.region.as_deref(), Some(WEST));
    let opened = to.wrapper.unwrap(&moved.bytes, &context("participant1")).await.unwrap();
    assert_eq!(opened.receipt.region.as_deref(), Some(CENTRAL), "the key is one in all its regions");
    let old = WrapperKey { regions: Vec::new(), ..from.key.clone() };
    assert!(to.wrapper.can_rewrap_from(&old), "a row without regions lives in that of its ARN");

    let apart = Aws::new(kms, &[CENTRAL], "").await;
    let file = WrapperKey { provider: ProviderKind::Local, ..apart.key.clone() };
    let renamed = WrapperKey { reference: from.key.reference.clone(), ..apart.key.clone() };
    let china = |text: &str| text.replace("aws:aws:", "aws:aws-cn:").replace("arn:aws:", "arn:aws-cn:");
    let china = WrapperKey { identity: china(&apart.key.identity), reference: china(&apart.key.reference), ..apart.key.clone() };
    for (what, other) in [("no common region", &from.key), ("a file", &file), ("a contradiction", &renamed), ("a partition", &china)] {
        assert!(!apart.wrapper.can_rewrap_from(other), "{what}");
        let refused = apart.wrapper.rewrap(ForeignWrap { key: other, wrapped: &wrapped }, &context("participant1")).await.err();
        assert!(matches!(refused, Some(WrapperError::Unfit { .. })), "{what}: {refused:?}");
    }
}

#[tokio::test]
async fn the_second_common_region_serves_when_the_first_is_down() {
    let kms = Kms::shared().await;
    let regions = [CENTRAL, WEST];
    let Pair { from, to, wrapped } = Pair::new(kms, &regions, &regions).await;
    kms.fault(json!({ "mode": "drop", "region": CENTRAL, "key": to.key.reference })).await;
    let moved = to.wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.unwrap();
    assert_eq!(moved.receipt.region.as_deref(), Some(WEST));
    kms.fault(json!({ "mode": "none", "key": to.key.reference })).await;
}

#[tokio::test]
async fn a_wrap_of_a_key_that_is_not_allowed_is_not_rewrapped() {
    let kms = Kms::shared().await;
    let Pair { from, to, wrapped } = Pair::new(kms, &[CENTRAL], &[CENTRAL]).await;
    let strict = aws(&format!("reference = {:?}\nendpoint = {:?}\nregions = [{CENTRAL:?}]", to.key.reference, kms.endpoint()));
    let wrapper = strict.connect(&to.key).await.unwrap();
    assert!(!wrapper.can_rewrap_from(&from.key));
    let before = kms.log(&from.key.reference).len();
    assert!(wrapper.rewrap(foreign(&from, &wrapped), &context("participant1")).await.is_err());
    assert_eq!(kms.log(&from.key.reference).len(), before, "KMS is not asked");
}

// --- helpers ---

/// Two keys of one's own, and a data key under the first.
struct Pair {
    from: Aws,
    to: Aws,
    wrapped: Vec<u8>,
}

impl Pair {
    async fn new(kms: &Kms, from: &[&str], to: &[&str]) -> Self {
        let (from, to) = (Aws::new(kms, from, "").await, Aws::new(kms, to, "").await);
        let Wrapped { bytes: wrapped, .. } = from.wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        Self { from, to, wrapped }
    }
}

fn foreign<'a>(from: &'a Aws, wrapped: &'a [u8]) -> ForeignWrap<'a> {
    ForeignWrap { key: &from.key, wrapped }
}

/// Whether a request names one of these keys, by any ARN.
fn concerns(call: &serde_json::Value, keys: &[&WrapperKey]) -> bool {
    let ids: Vec<&str> = keys.iter().map(|key| key.reference.rsplit('/').next().unwrap()).collect();
    ids.iter().any(|id| call.to_string().contains(id))
}
