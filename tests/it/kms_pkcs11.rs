//! PKCS#11 in particular: keys that are not fit, references, new keys, known answers, sessions, PINs. The tokens are real (SoftHSM2).

use std::sync::Arc;

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use canton_keyvault::{
    domain::{ProviderKind, WrapperKey},
    kms::{CreateOptions, CredentialFault, Denial, Description, Providers, Wrapper, WrapperError},
};

use crate::support::{
    softhsm::Softhsm,
    wrapper::{config, context, data_key, random, registered},
};

#[tokio::test]
async fn a_key_that_is_not_fit_is_refused_with_its_reason() {
    let tokens = Softhsm::shared();
    for (id, options, says) in [
        ("1001", &["--key-type", "AES:32", "--extractable"][..], "leave the token"),
        ("1002", &["--key-type", "AES:32", "--extractable", "--sensitive"], "leave the token"),
        ("1003", &["--key-type", "AES:16", "--sensitive"], "256 bits"),
    ] {
        tokens.keygen("keys", &[options, &["--id", id, "--label", "unfit"]].concat());
        let error = resolve(&uri(id)).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(says), "{options:?}: {error}");
    }
    let missing = resolve(&uri("10ff")).await.err();
    assert!(matches!(missing, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{missing:?}");
    let ambiguous = resolve("pkcs11:token=keys;object=unfit").await.err().unwrap().to_string();
    assert!(ambiguous.contains("several keys"), "{ambiguous}");
}

#[tokio::test]
async fn a_reference_by_label_is_resolved_to_token_and_id() {
    Softhsm::shared().create_key("keys", "2001", "by label");
    let found = resolve("pkcs11:token=keys;object=by%20label").await.unwrap();
    let serial = found.identity.strip_prefix("pkcs11:").and_then(|rest| rest.strip_suffix(":2001")).unwrap();
    assert_eq!(found.reference, format!("pkcs11:token=keys;serial={serial};id=%20%01"));
    assert_eq!(resolve(&found.reference).await.unwrap(), found);
    assert_eq!(resolve(&uri("2001")).await.unwrap(), found);

    let other = "pkcs11:token=keys;serial=0000000000000000;id=%20%01";
    let error = resolve(other).await.err().unwrap().to_string();
    assert!(error.contains("it is another one"), "{error}");
    for (reference, says) in [
        ("pkcs11:token=elsewhere;id=%20%01", "no [[wrapper.pkcs11]]"),
        ("pkcs11:token=keys", "write a PKCS#11 URI"),
        ("pkcs11:token=keys;id=%20%01?pin-value=1234", "no part after ?"),
    ] {
        let error = resolve(reference).await.err().unwrap();
        assert!(matches!(&error, WrapperError::Unfit { what, .. } if what.contains(says)), "{reference}: {error:?}");
    }
    let regions = providers("").resolve(ProviderKind::Pkcs11, &uri("2001"), &["eu-central-1".to_owned()]).await.err();
    assert!(matches!(regions, Some(WrapperError::Unfit { .. })), "{regions:?}");
}

#[tokio::test]
async fn a_key_is_created_only_if_allowed_and_cannot_leave_the_token() {
    let create = async |settings: &str| with(settings).create(ProviderKind::Pkcs11, &CreateOptions::default()).await;
    let forbidden = create("allowed = ['pkcs11:*:*']").await.err();
    assert!(matches!(forbidden, Some(WrapperError::Unfit { .. })), "{forbidden:?}");
    let elsewhere = create("allowed = ['pkcs11:*:01']\nmay_create = true").await.err();
    assert!(matches!(elsewhere, Some(WrapperError::NotAllowed { .. })), "{elsewhere:?}");
    let made = create("allowed = ['pkcs11:*:*']\nmay_create = true").await.unwrap();
    let wrapper = connected(&made).await;
    let wrap = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    assert_eq!(wrapper.unwrap(&wrap.bytes, &context("participant1")).await.unwrap().data_key.expose(), data_key().expose());
}

/// The stored form, version 1, from outside: another implementation of AES-GCM made the wrap, which must open for ever.
#[tokio::test]
async fn a_wrap_of_another_aes_gcm_opens_and_an_extractable_key_wraps_nothing() {
    const KEY: [u8; 32] = [0x5a; 32];
    let tokens = Softhsm::shared();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), KEY).unwrap();
    let path = file.path().to_str().unwrap();
    tokens.tool(
        "keys",
        &["--write-object", path, "--type", "secrkey", "--key-type", "AES:32", "--id", "3001", "--usage-decrypt", "--private"],
    );
    // Such a key is not fit for registration: it was outside of the token.
    let serial = serial().await;
    let found = Description {
        identity: format!("pkcs11:{serial}:3001"),
        reference: format!("pkcs11:token=keys;serial={serial};id=%30%01"),
        regions: Vec::new(),
        usable: true,
    };
    let wrapper = connected(&found).await;
    let cipher = Aes256Gcm::new(&KEY.into());
    let (nonce, context) = ([7; 12], context("participant1"));
    let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: data_key().expose(), aad: &context.canonical_bytes() }).unwrap();
    let wrap = [&[1], nonce.as_slice(), &sealed].concat();
    assert_eq!(wrapper.unwrap(&wrap, &context).await.unwrap().data_key.expose(), data_key().expose());
    let refused = wrapper.wrap(&data_key(), &context).await.err();
    assert!(matches!(refused, Some(WrapperError::Denied { denial: Denial::Exportable, .. })), "{refused:?}");
}

/// What lies under the id now is another key: it opens nothing, and no wrap is called an outage for it.
#[tokio::test]
async fn a_deleted_key_is_missing_and_another_one_with_its_id_opens_nothing() {
    let tokens = Softhsm::shared();
    tokens.create_key("keys", "4001", "first");
    let wrapper = connected(&resolve(&uri("4001")).await.unwrap()).await;
    let wrap = wrapper.wrap(&data_key(), &context("")).await.unwrap().bytes;
    tokens.delete_key("keys", "4001");
    let gone = wrapper.unwrap(&wrap, &context("")).await.err();
    assert!(matches!(gone, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{gone:?}");
    assert!(matches!(wrapper.describe().await, Err(WrapperError::Denied { denial: Denial::NotFound, .. })));
    tokens.create_key("keys", "4001", "second");
    // The denial is remembered for a second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let other = wrapper.unwrap(&wrap, &context("")).await.err();
    assert!(matches!(other, Some(WrapperError::Invalid { .. })), "{other:?}");
}

#[tokio::test]
async fn more_calls_than_sessions_wait_for_their_turn() {
    Softhsm::shared().create_key("keys", "5001", "busy");
    let providers = providers("sessions = 2");
    let found = providers.resolve(ProviderKind::Pkcs11, &uri("5001"), &[]).await.unwrap();
    let wrapper = providers.connect(&registered(ProviderKind::Pkcs11, found)).await.unwrap();
    let wrap = async |number: usize| {
        let context = context(&format!("participant{number}"));
        let wrap = wrapper.wrap(&data_key(), &context).await?;
        wrapper.unwrap(&wrap.bytes, &context).await
    };
    let all = futures_util::future::join_all((0..24).map(wrap)).await;
    assert!(all.iter().all(|one| one.as_ref().is_ok_and(|found| found.data_key.same(&data_key()))));
}

#[tokio::test]
async fn a_refused_pin_is_a_fault_of_the_credentials_until_its_file_changes() {
    let tokens = Softhsm::shared();
    tokens.create_key("refused pin", "6001", "key");
    let folder = tempfile::tempdir().unwrap();
    let pin = folder.path().join("pin");
    let write = |text: &str| canton_keyvault::files::replace(&pin, text.as_bytes()).unwrap();
    write("1234");
    let entry = tokens.entry("refused pin").lines().filter(|line| !line.starts_with("pin_file")).collect::<Vec<_>>().join("\n");
    let text = format!("reference = 'x'\nallowed = ['pkcs11:*:*']\n[[pkcs11]]\n{entry}\npin_file = '{}'", pin.display());
    let providers = Providers::new(config(&format!("provider = 'pkcs11'\n{text}")), random()).unwrap();
    let reference = "pkcs11:token=refused%20pin;id=%60%01";
    for _ in 0..3 {
        let refused = providers.resolve(ProviderKind::Pkcs11, reference, &[]).await.err();
        let expected = Denial::Credentials(CredentialFault::PinRefused);
        assert!(matches!(&refused, Some(WrapperError::Denied { denial, .. }) if *denial == expected), "{refused:?}");
    }
    let servers = providers.check_servers().await;
    assert!(matches!(servers.as_slice(), [Err(fault)] if fault.contains("Write the right PIN to pin_file")), "{servers:?}");
    write(crate::support::softhsm::PIN);
    providers.resolve(ProviderKind::Pkcs11, reference, &[]).await.unwrap();
    let servers = providers.check_servers().await;
    assert!(matches!(servers.as_slice(), [Ok(found)] if found.contains("accepts the PIN")), "{servers:?}");
}

fn uri(id: &str) -> String {
    let (first, second) = id.split_at(2);
    format!("pkcs11:token=keys;id=%{first}%{second}")
}

fn with(settings: &str) -> Providers {
    let entry = Softhsm::shared().entry("keys");
    Providers::new(config(&format!("provider = 'pkcs11'\nreference = 'x'\n{settings}\n[[pkcs11]]\n{entry}")), random()).unwrap()
}

/// Providers that allow every key of the token, with more options of its entry.
fn providers(entry: &str) -> Providers {
    let whole = format!("{}\n{entry}", Softhsm::shared().entry("keys"));
    let text = format!("provider = 'pkcs11'\nreference = 'x'\nallowed = ['pkcs11:*:*']\n[[pkcs11]]\n{whole}");
    Providers::new(config(&text), random()).unwrap()
}

async fn resolve(reference: &str) -> Result<Description, WrapperError> {
    providers("").resolve(ProviderKind::Pkcs11, reference, &[]).await
}

async fn connected(found: &Description) -> Arc<dyn Wrapper> {
    let key: WrapperKey = registered(ProviderKind::Pkcs11, found.clone());
    providers("").connect(&key).await.unwrap()
}

/// The serial number of the token, from what `check` prints of it.
async fn serial() -> String {
    let found = providers("").check_servers().await.remove(0).unwrap();
    found.split("serial number ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}
