//! Azure Key Vault and Managed HSM against their double: versions, every kind of error, logins.

use std::sync::Arc;

use canton_keyvault::{
    domain::{PostureStatus, PostureSubject, ProviderKind},
    kms::{CreateOptions, CredentialFault, Denial, Outage, Providers, Wrapper, WrapperError},
};
use serde_json::json;

use crate::support::{
    azure_key_vault::{AzureKeyVault, HSM, VAULT, error_body},
    cloud_double::Fault,
    vault::until,
    wrapper::{config, context, data_key, random, registered},
};

#[tokio::test]
async fn wraps_of_each_version_open_while_their_version_is_enabled() {
    for host in [VAULT, HSM] {
        let azure = AzureKeyVault::new(host);
        let (reference, wrapper) = connected(&azure).await;
        let first = wrap(&*wrapper).await.unwrap();
        azure.service().rotate(&reference);
        let second = wrap(&*wrapper).await.unwrap();
        assert_eq!(first[0], if host == HSM { 1 } else { 2 }, "the format names the kind of the key");
        assert_ne!(first[1..17], second[1..17], "a wrap names the version that made it");
        let id = open(&*wrapper, &first).await.unwrap().unwrap();
        let unwraps = azure.service().requests(if host == HSM { "/decrypt" } else { "/unwrapkey" });
        assert_eq!(unwraps.last(), Some(&id), "the log of the vault has the same correlation id");
        open(&*wrapper, &second).await.unwrap();

        azure.service().set_enabled(&reference, 1, false);
        assert_eq!(denial(open(&*wrapper, &first).await), Denial::OldVersion);
        open(&*wrapper, &second).await.unwrap();
        azure.service().set_enabled(&reference, 2, false);
        assert_eq!(denial(open(&*wrapper, &second).await), Denial::Disabled);
        assert_eq!(denial(wrap(&*wrapper).await), Denial::Disabled, "Azure would still wrap with an RSA key");
        assert!(!wrapper.describe().await.unwrap().usable);
        for version in [1, 2] {
            azure.service().set_enabled(&reference, version, true);
        }
        until("both open again", || async { open(&*wrapper, &first).await.is_ok() && open(&*wrapper, &second).await.is_ok() }).await;

        // A key that was made again has the same name. It did not make the wraps, and a key that is gone says nothing of them.
        azure.service().delete(&reference);
        assert_eq!(denial(open(&*wrapper, &first).await), Denial::NotFound);
        azure.service().add(reference.rsplit_once('/').unwrap().1, if host == HSM { "oct-HSM" } else { "RSA-HSM" });
        until("another key has the name", || async { Expected::of(open(&*wrapper, &first).await) == Some(Expected::Invalid) }).await;
    }
}

#[tokio::test]
async fn every_failure_is_a_denial_an_outage_or_a_fault_of_the_configuration() {
    let azure = AzureKeyVault::new(HSM);
    let (reference, wrapper) = connected(&azure).await;
    let ciphertext = wrap(&*wrapper).await.unwrap();
    let answer = |status: u16, code: &str, inner: Option<&str>| Fault::Answer(status, error_body(code, inner).to_string());
    let down = |outage| Expected::Outage(outage);
    let other_version = format!("{reference}/ffffffffffffffffffffffffffffffff");
    for (fault, expected) in [
        (answer(403, "Forbidden", Some("ForbiddenByRbac")), Expected::Denial(Denial::AccessDenied)),
        (answer(403, "Forbidden", Some("KeyDisabled")), Expected::Denial(Denial::Disabled)),
        (answer(400, "BadParameter", None), Expected::Invalid),
        (answer(401, "Unauthorized", None), Expected::Denial(Denial::Credentials(CredentialFault::AccessTokenRefused))),
        (answer(429, "Throttled", None), down(Outage::Throttled)),
        (answer(503, "ServiceUnavailable", None), down(Outage::ServerError)),
        (Fault::Answer(502, "<html>".to_owned()), down(Outage::ServerError)),
        (Fault::Answer(404, "<html>".to_owned()), Expected::Misconfigured),
        (Fault::Answer(200, "{".to_owned()), down(Outage::ServerError)),
        (Fault::Truncated, down(Outage::Unreachable)),
        (Fault::Closed, down(Outage::Unreachable)),
        (Fault::Hanging, down(Outage::TimedOut)),
        (Fault::Field("kid", json!(other_version)), down(Outage::ServerError)),
        (Fault::Field("value", json!("!")), down(Outage::ServerError)),
    ] {
        azure.fault("/decrypt", fault.clone());
        let wrapper = connect(&providers(&azure.section(), ""), &reference).await;
        assert_eq!(Expected::of(open(&*wrapper, &ciphertext).await), Some(expected), "{fault:?}");
        azure.heal();
    }
    for (name, value) in [("iv", json!("AAAA")), ("tag", json!("")), ("value", json!("AAAA")), ("kid", json!(other_version))] {
        azure.fault("/encrypt", Fault::Field(name, value));
        let wrapper = connect(&providers(&azure.section(), ""), &reference).await;
        assert_eq!(Expected::of(wrap(&*wrapper).await), Some(down(Outage::ServerError)), "{name}");
        azure.heal();
    }
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    for (host, wraps, unwraps) in [(VAULT, "keys/wrapKey", "keys/unwrapKey"), (HSM, "keys/encrypt", "keys/decrypt")] {
        let azure = AzureKeyVault::new(host);
        let (_, wrapper) = connected(&azure).await;
        let ciphertext = wrap(&*wrapper).await.unwrap();
        for permission in ["keys/get", wraps, unwraps] {
            azure.service().deny(permission, true);
            let refused = if permission == unwraps { open(&*wrapper, &ciphertext).await.err() } else { wrap(&*wrapper).await.err() };
            let named = matches!(&refused, Some(WrapperError::Denied { permission: Some(named), .. }) if *named == permission);
            assert!(named, "{refused:?}");
            azure.service().deny(permission, false);
            until("the permission is used", || async { wrap(&*wrapper).await.is_ok() && open(&*wrapper, &ciphertext).await.is_ok() }).await;
        }
    }
}

#[tokio::test]
async fn each_login_gives_a_token_and_a_refused_one_has_its_own_reason() {
    let azure = AzureKeyVault::new(VAULT);
    let reference = azure.service().create_key();
    for section in [azure.section(), azure.section_federated(), azure.section_managed()] {
        wrap(&*connect(&providers(&section, ""), &reference).await).await.unwrap();
    }
    azure.write("secret", "another-secret");
    azure.write("token", "eyJ.other");
    for section in [azure.section(), azure.section_federated()] {
        let refused = providers(&section, "").resolve(ProviderKind::AzureKeyVault, &reference, &[]).await;
        assert_eq!(Expected::of(refused), Some(Expected::Denial(Denial::Credentials(CredentialFault::LoginRefused))));
    }
    azure.write("secret", "two words");
    let wrong = providers(&azure.section(), "").resolve(ProviderKind::AzureKeyVault, &reference, &[]).await.err().unwrap().to_string();
    assert!(wrong.contains("client_secret_file") && wrong.contains("one line") && !wrong.contains("two words"), "{wrong}");
    azure.fault("/metadata/", Fault::Answer(429, "{}".to_owned()));
    let down = providers(&azure.section_managed(), "").resolve(ProviderKind::AzureKeyVault, &reference, &[]).await;
    assert_eq!(Expected::of(down), Some(Expected::Outage(Outage::CredentialsUnavailable)));
}

#[tokio::test]
async fn only_keys_that_can_wrap_are_registered_and_new_ones_are_in_an_hsm() {
    for (host, spec) in [(VAULT, PostureStatus::Warning), (HSM, PostureStatus::Ok)] {
        let azure = AzureKeyVault::new(host);
        azure.service().add("curve", "EC-HSM");
        let all = providers(&azure.section(), "");
        let unfit = all.resolve(ProviderKind::AzureKeyVault, &format!("https://{host}/keys/curve"), &[]).await.err();
        assert!(matches!(&unfit, Some(WrapperError::Unfit { what, .. }) if what.contains("EC-HSM")), "{unfit:?}");
        let elsewhere = all.resolve(ProviderKind::AzureKeyVault, "https://other.vault.azure.net/keys/curve", &[]).await.err();
        assert!(
            matches!(&elsewhere, Some(WrapperError::Unfit { what, .. }) if what.contains("[[wrapper.azure_key_vault]]")),
            "{elsewhere:?}"
        );
        let refused = all.create(ProviderKind::AzureKeyVault, &CreateOptions::default()).await.err();
        assert!(matches!(refused, Some(WrapperError::Unfit { .. })), "{refused:?}");

        let creator = providers(&azure.section(), "may_create = true");
        let made = creator.create(ProviderKind::AzureKeyVault, &CreateOptions::default()).await.unwrap();
        assert!(made.usable && made.identity.starts_with(&format!("azure:{host}:canton-keyvault-")), "{made:?}");
        let wrapper = creator.connect(&registered(ProviderKind::AzureKeyVault, made)).await.unwrap();
        let posture = wrapper.posture(&"dev".parse().unwrap()).await.unwrap();
        let status = |subject: PostureSubject| posture.iter().find(|line| line.subject == subject).unwrap().status;
        assert_eq!(status(PostureSubject::Spec), spec, "{posture:?}");
        for subject in [PostureSubject::Origin, PostureSubject::State, PostureSubject::Deletion, PostureSubject::Export] {
            assert_eq!(status(subject), PostureStatus::Ok, "{posture:?}");
        }
    }
}

// --- helpers ---

#[derive(Debug, PartialEq)]
enum Expected {
    Denial(Denial),
    Outage(Outage),
    Invalid,
    Misconfigured,
}

impl Expected {
    fn of<T>(answer: Result<T, WrapperError>) -> Option<Self> {
        Some(match answer.err()? {
            WrapperError::Denied { denial, .. } => Self::Denial(denial),
            WrapperError::Unavailable { outage, .. } => Self::Outage(outage),
            WrapperError::Invalid { .. } => Self::Invalid,
            WrapperError::Misconfigured { .. } => Self::Misconfigured,
            other => panic!("{other:?}"),
        })
    }
}

fn providers(section: &str, settings: &str) -> Providers {
    let limits = "[limits]\nconnect_timeout = '2s'\nattempt_timeout = '2s'\ntimeout = '6s'\nretries = 1\nbreaker_failures = 100";
    let text = format!(
        "provider = 'azure-key-vault'\nreference = 'https://{VAULT}/keys/x'\nallowed = ['azure:*.*.azure.net:*']\n{settings}\n{limits}\n\
         [[azure_key_vault]]\n{section}"
    );
    Providers::new(config(&text), random()).unwrap()
}

async fn connect(providers: &Providers, reference: &str) -> Arc<dyn Wrapper> {
    let found = providers.resolve(ProviderKind::AzureKeyVault, reference, &[]).await.unwrap();
    providers.connect(&registered(ProviderKind::AzureKeyVault, found)).await.unwrap()
}

/// A key of one's own.
async fn connected(azure: &AzureKeyVault) -> (String, Arc<dyn Wrapper>) {
    let reference = azure.service().create_key();
    let wrapper = connect(&providers(&azure.section(), ""), &reference).await;
    (reference, wrapper)
}

async fn wrap(wrapper: &dyn Wrapper) -> Result<Vec<u8>, WrapperError> {
    wrapper.wrap(&data_key(), &context("participant1")).await.map(|ciphertext| ciphertext.bytes)
}

/// The id of the request that opened the wrap.
async fn open(wrapper: &dyn Wrapper, ciphertext: &[u8]) -> Result<Option<String>, WrapperError> {
    let unwrapped = wrapper.unwrap(ciphertext, &context("participant1")).await?;
    assert_eq!(unwrapped.data_key.expose(), data_key().expose());
    Ok(unwrapped.receipt.request_id)
}

fn denial<T>(answer: Result<T, WrapperError>) -> Denial {
    match answer.err() {
        Some(WrapperError::Denied { denial, .. }) => denial,
        other => panic!("{other:?}"),
    }
}
