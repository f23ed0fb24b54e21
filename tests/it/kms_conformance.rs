//! One conformance suite for all KMS providers, then tests of key files.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use canton_keyvault::{
    crypto::{SecretBytes, SystemRandom},
    domain::{EncryptionContext, ProviderKind, WrapperKey, WrapperState},
    kms::{
        Connections, CreateOptions, Denial, Description, ForeignWrap, Providers, Unwrapped, Wrapped, Wrapper, WrapperError, create_key_file,
    },
};

use serde_json::json;

use crate::support::{
    azure_key_vault::{AzureKeyVault, HSM, VAULT},
    gcp_kms::{GcpKms, RING},
    kms::Kms,
    openbao::{Openbao, token_line},
    softhsm::Softhsm,
    wrapper::{CENTRAL, aws, config, context, data_key, local, openbao, providers_on, random, registered},
};

// --- every provider ---

#[tokio::test]
async fn a_wrap_unwraps_with_region_and_request_id() {
    for Case { wrapper, key, .. } in cases().await {
        let wrapped = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert!(!wrapped.bytes.windows(32).any(|window| window == data_key().expose()), "the data key does not show");
        let again = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert_ne!(wrapped.bytes, again.bytes, "no two wraps are alike");
        let unwrapped = wrapper.unwrap(&wrapped.bytes, &context("participant1")).await.unwrap();
        assert_eq!(unwrapped.data_key.expose(), data_key().expose());
        assert_eq!(unwrapped.receipt.region, key.regions.first().cloned());
        assert_eq!(unwrapped.receipt.request_id.is_some(), !matches!(key.provider, ProviderKind::Local | ProviderKind::Pkcs11));

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
async fn a_wrap_of_another_key_is_invalid() {
    for Case { wrapper, other, .. } in cases().await {
        let Wrapped { bytes, .. } = other.wrap(&data_key(), &context("participant1")).await.unwrap();
        assert_invalid(wrapper.unwrap(&bytes, &context("participant1")).await);
        assert!(other.unwrap(&bytes, &context("participant1")).await.is_ok());
    }
}

#[tokio::test]
async fn only_keys_of_one_aws_meet_in_a_kms_that_rewraps() {
    for Case { wrapper, key, others, other, .. } in cases().await {
        assert_eq!(wrapper.can_rewrap_from(&others), key.provider == ProviderKind::AwsKms, "{}", key.provider);
        if !wrapper.can_rewrap_from(&others) {
            let wrapped = &other.wrap(&data_key(), &context("participant1")).await.unwrap().bytes;
            let refused = wrapper.rewrap(ForeignWrap { key: &others, wrapped }, &context("participant1")).await.err();
            assert!(matches!(refused, Some(WrapperError::Unfit { .. })), "{refused:?}");
        }
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
async fn a_key_that_is_not_allowed_is_neither_resolved_nor_connected() {
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
async fn connections_connect_once_and_again_when_the_row_changes() {
    for Case { providers, key, others, .. } in cases().await {
        let ring = Connections::new(providers);
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
    let ring = Connections::new(providers);
    let missing = ring.get(&key).await.err();
    assert!(matches!(missing, Some(WrapperError::Denied { denial: Denial::NotFound, .. })), "{missing:?}");
    std::fs::rename(&aside, &path).unwrap();
    assert!(ring.get(&key).await.is_ok(), "a failure is not remembered by the ring");
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
    _files: Box<dyn std::any::Any>,
}

async fn cases() -> [Case; 7] {
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
    let server = Openbao::shared().await;
    let login = server.token_file().await;
    let urls = [server.url(&server.create_key(json!({})).await), server.url(&server.create_key(json!({})).await)];
    let file = token_line(login.path());
    let transit = openbao(server, &format!("reference = {:?}\nallowed = ['{}']", urls[0], server.url("*")), &file);
    let no_transit = openbao(server, &format!("reference = {:?}\nallowed = ['{}']", urls[0], server.url("other-*")), &file);
    let tokens = Softhsm::shared();
    let ids = [(); 2].map(|()| {
        static COUNTER: AtomicU16 = AtomicU16::new(0x100);
        let id = format!("{:04x}", COUNTER.fetch_add(1, Ordering::Relaxed));
        tokens.create_key("conformance", &id, "conformance");
        id
    });
    let in_tokens = ids.map(|id| format!("pkcs11:token=conformance;id=%{}%{}", &id[..2], &id[2..]));
    let token = |allowed: &str| {
        let entry = tokens.entry("conformance");
        let text = format!("provider = 'pkcs11'\nreference = {:?}\nallowed = [{allowed:?}]\n[[pkcs11]]\n{entry}", in_tokens[0]);
        Providers::new(config(&text), random()).unwrap()
    };
    let (in_token, not_in_token) = (token("pkcs11:*:*"), token("pkcs11:*:ff"));
    let google = GcpKms::new();
    let names = [(); 2].map(|()| google.service().create_key());
    let cloud = |allowed: &str| {
        let section = google.section();
        let text = format!("provider = 'gcp-kms'\nreference = {:?}\nallowed = [{allowed:?}]\n[gcp_kms]\n{section}", names[0]);
        Providers::new(config(&text), random()).unwrap()
    };
    let (in_cloud, not_in_cloud) = (cloud("gcp:canton-test:europe-west3:canton:*"), cloud("gcp:canton-test:europe-west3:other:*"));
    assert!(names.iter().all(|name| name.starts_with(RING)));
    let in_azure = |host: &'static str| {
        let azure = AzureKeyVault::new(host);
        let references = [(); 2].map(|()| azure.service().create_key());
        let providers = |allowed: &str| {
            let section = azure.section();
            let first = &references[0];
            let text =
                format!("provider = 'azure-key-vault'\nreference = {first:?}\nallowed = [{allowed:?}]\n[[azure_key_vault]]\n{section}");
            Providers::new(config(&text), random()).unwrap()
        };
        let both = (providers(&format!("azure:{host}:*")), providers("azure:other.vault.azure.net:*"));
        (both.0, references, both.1, azure)
    };
    let (vault, in_vault, not_in_vault, of_vault) = in_azure(VAULT);
    let (hsm, in_hsm, not_in_hsm, of_hsm) = in_azure(HSM);
    [
        Case::new(ProviderKind::AzureKeyVault, vault, &in_vault, not_in_vault, of_vault).await,
        Case::new(ProviderKind::AzureKeyVault, hsm, &in_hsm, not_in_hsm, of_hsm).await,
        Case::new(ProviderKind::GcpKms, in_cloud, &names, not_in_cloud, google).await,
        Case::new(ProviderKind::Pkcs11, in_token, &in_tokens, not_in_token, ()).await,
        Case::new(ProviderKind::Local, files, &paths, no_files, directory).await,
        Case::new(ProviderKind::AwsKms, providers_on(kms, &[CENTRAL], ""), &arns, aws(&strict), tempfile::tempdir().unwrap()).await,
        Case::new(ProviderKind::OpenbaoTransit, transit, &urls, no_transit, login).await,
    ]
}

impl Case {
    async fn new(
        provider: ProviderKind,
        providers: Providers,
        references: &[String; 2],
        strict: Providers,
        files: impl std::any::Any,
    ) -> Self {
        let key = registered(provider, providers.resolve(provider, &references[0], &[]).await.unwrap());
        let others = registered(provider, providers.resolve(provider, &references[1], &[]).await.unwrap());
        let (wrapper, other) = (providers.connect(&key).await.unwrap(), providers.connect(&others).await.unwrap());
        Self { providers: Arc::new(providers), key, wrapper, others, other, strict, _files: Box::new(files) }
    }
}

fn assert_invalid(answer: Result<Unwrapped, WrapperError>) {
    let error = answer.err();
    assert!(matches!(error, Some(WrapperError::Invalid { .. })), "{error:?}");
}
