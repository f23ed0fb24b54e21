//! Cloud KMS of Google against its double: key versions, every kind of error, checksums, access tokens.

use std::sync::Arc;

use canton_keyvault::{
    domain::{PostureStatus, PostureSubject, ProviderKind},
    kms::{CreateOptions, CredentialFault, Denial, Outage, Providers, Wrapper, WrapperError},
};
use serde_json::json;

use crate::support::{
    cloud_double::Fault,
    gcp_kms::{GcpKms, RING, error_body},
    vault::until,
    wrapper::{config, context, data_key, random, registered},
};

#[tokio::test]
async fn wraps_of_each_version_open_while_their_version_is_enabled() {
    let google = GcpKms::new();
    let (name, wrapper) = connected(&google, "").await;
    let first = wrap(&*wrapper).await.unwrap();
    google.service().rotate(&name);
    let second = wrap(&*wrapper).await.unwrap();
    let version = |wrap: &[u8]| u64::from_be_bytes(wrap[1..9].try_into().unwrap());
    assert_eq!((version(&first), version(&second)), (1, 2), "a wrap names the version that made it");
    let id = open(&*wrapper, &first).await.unwrap().unwrap();
    assert_eq!(google.service().requests(":decrypt").last(), Some(&id), "the log of Google has the same id");
    open(&*wrapper, &second).await.unwrap();
    let rotation = wrapper.rotation().await.unwrap().unwrap();
    assert!(!rotation.automatic && rotation.last_at.is_some());

    for (state, of_old, of_primary) in [
        ("DISABLED", Denial::OldVersion, Denial::Disabled),
        ("DESTROY_SCHEDULED", Denial::OldVersion, Denial::InvalidState),
        ("DESTROYED", Denial::OldVersion, Denial::InvalidState),
    ] {
        google.service().set_state(&name, 1, state);
        assert_eq!(denial(open(&*wrapper, &first).await), of_old, "{state}");
        open(&*wrapper, &second).await.unwrap();
        google.service().set_state(&name, 2, state);
        assert_eq!(denial(open(&*wrapper, &second).await), of_primary, "{state}");
        assert_eq!(denial(wrap(&*wrapper).await), of_primary, "{state}");
        assert!(!wrapper.describe().await.unwrap().usable);
        let posture = wrapper.posture(&"dev".parse().unwrap()).await.unwrap();
        let line = posture.iter().find(|line| line.subject == PostureSubject::State).unwrap();
        assert!(line.status == PostureStatus::Fail && line.detail.contains(state), "{line:?}");
        for version in [1, 2] {
            google.service().set_state(&name, version, "ENABLED");
        }
        // Denials are remembered for a second.
        until("both open again", || async { open(&*wrapper, &first).await.is_ok() && open(&*wrapper, &second).await.is_ok() }).await;
    }
}

#[tokio::test]
async fn every_failure_is_a_denial_an_outage_or_a_fault_of_the_configuration() {
    let google = GcpKms::new();
    let (name, wrapper) = connected(&google, "").await;
    let ciphertext = wrap(&*wrapper).await.unwrap();
    let answer = |status: u16, code: &str| Fault::Answer(status, error_body(status, code).to_string());
    let down = |outage| Expected::Outage(outage);
    for (fault, expected) in [
        (answer(403, "PERMISSION_DENIED"), Expected::Denial(Denial::AccessDenied)),
        (answer(404, "NOT_FOUND"), Expected::Denial(Denial::NotFound)),
        (answer(400, "INVALID_ARGUMENT"), Expected::Invalid),
        (answer(401, "UNAUTHENTICATED"), Expected::Denial(Denial::Credentials(CredentialFault::AccessTokenRefused))),
        (answer(429, "RESOURCE_EXHAUSTED"), down(Outage::Throttled)),
        (answer(503, "UNAVAILABLE"), down(Outage::ServerError)),
        (answer(500, "INTERNAL"), down(Outage::ServerError)),
        (Fault::Answer(502, "<html>".to_owned()), down(Outage::ServerError)),
        (Fault::Answer(404, "<html>".to_owned()), Expected::Misconfigured),
        (Fault::Answer(200, "{".to_owned()), down(Outage::ServerError)),
        (Fault::Truncated, down(Outage::Unreachable)),
        (Fault::Closed, down(Outage::Unreachable)),
        (Fault::Hanging, down(Outage::TimedOut)),
        (Fault::Field("plaintextCrc32c", json!("1")), down(Outage::ServerError)),
        (Fault::Field("plaintext", json!("AAAA")), down(Outage::ServerError)),
    ] {
        google.fault(":decrypt", fault.clone());
        let wrapper = connect(&providers(&google.section(), ""), &name).await;
        assert_eq!(Expected::of(open(&*wrapper, &ciphertext).await), Some(expected), "{fault:?}");
        google.heal();
    }
    for (name, value) in [
        ("ciphertextCrc32c", json!("1")),
        ("ciphertext", json!("AAAA")),
        ("verifiedPlaintextCrc32c", json!(false)),
        ("verifiedAdditionalAuthenticatedDataCrc32c", json!(null)),
        ("name", json!(format!("{RING}/cryptoKeys/other/cryptoKeyVersions/1"))),
    ] {
        google.fault(":encrypt", Fault::Field(name, value));
        let (_, wrapper) = connected(&google, "").await;
        assert_eq!(Expected::of(wrap(&*wrapper).await), Some(down(Outage::ServerError)), "{name}");
        google.heal();
    }
}

/// A checksum that does not fit on the way to Cloud KMS gives the answer of a wrong ciphertext. The wrap must not be called invalid for it.
#[tokio::test]
async fn one_damaged_request_or_answer_is_repeated() {
    let google = GcpKms::new();
    let (_, wrapper) = connected(&google, "").await;
    let ciphertext = wrap(&*wrapper).await.unwrap();
    google.fault_once(":decrypt", Fault::Answer(400, error_body(400, "INVALID_ARGUMENT").to_string()));
    open(&*wrapper, &ciphertext).await.unwrap();
    google.fault_once(":decrypt", Fault::Field("plaintextCrc32c", json!("1")));
    open(&*wrapper, &ciphertext).await.unwrap();
    google.fault_once(":encrypt", Fault::Truncated);
    wrap(&*wrapper).await.unwrap();
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let google = GcpKms::new();
    let (_, wrapper) = connected(&google, "").await;
    let ciphertext = wrap(&*wrapper).await.unwrap();
    for (permission, wraps) in [
        ("cloudkms.cryptoKeys.get", true),
        ("cloudkms.cryptoKeyVersions.useToEncrypt", true),
        ("cloudkms.cryptoKeyVersions.useToDecrypt", false),
    ] {
        google.service().deny(permission, true);
        let refused = if wraps { wrap(&*wrapper).await.err() } else { open(&*wrapper, &ciphertext).await.err() };
        assert!(matches!(&refused, Some(WrapperError::Denied { permission: Some(named), .. }) if *named == permission), "{refused:?}");
        google.service().deny(permission, false);
        until("the permission is used", || async { wrap(&*wrapper).await.is_ok() && open(&*wrapper, &ciphertext).await.is_ok() }).await;
    }
}

#[tokio::test]
async fn tokens_are_shared_renewed_and_replaced() {
    let google = GcpKms::new();
    let section = google.section_of_a_machine();
    let name = google.service().create_key();
    let wrapper = connect(&providers(&section, ""), &name).await;
    assert_eq!(google.service().token_requests(), 1, "the metadata server gives tokens");
    let many = futures_util::future::join_all((0..8).map(|_| wrap(&*wrapper))).await;
    assert!(many.iter().all(Result::is_ok) && google.service().token_requests() == 1);

    // A service account whose tokens live 2 s: they are renewed in time.
    google.service().set_lifetime(2);
    let wrapper = connect(&providers(&google.section(), ""), &google.service().create_key()).await;
    let before = google.service().token_requests();
    until("a token is renewed", || async {
        wrap(&*wrapper).await.unwrap();
        google.service().token_requests() > before
    })
    .await;
    google.service().set_lifetime(3600);

    // A token that Google refuses is replaced within the call, unless it is new.
    let wrapper = connect(&providers(&google.section(), ""), &google.service().create_key()).await;
    google.service().revoke_tokens();
    let refused = wrap(&*wrapper).await.err();
    assert!(matches!(refused, None | Some(WrapperError::Denied { denial: Denial::Credentials(CredentialFault::AccessTokenRefused), .. })));
    until("there is another token", || async { wrap(&*wrapper).await.is_ok() }).await;
}

#[tokio::test]
async fn a_refused_login_a_broken_key_file_and_a_silent_metadata_server_have_their_own_errors() {
    let google = GcpKms::new();
    let name = google.service().create_key();
    let resolve = |section: String| {
        let name = name.clone();
        async move { providers(&section, "").resolve(ProviderKind::GcpKms, &name, &[]).await.err() }
    };
    google.write_key_file(&json!({ "client_email": "other@canton-test.iam.gserviceaccount.com" }));
    let refused = resolve(google.section()).await;
    assert!(
        matches!(refused, Some(WrapperError::Denied { denial: Denial::Credentials(CredentialFault::LoginRefused), .. })),
        "{refused:?}"
    );
    google.write_key_file(&json!({ "type": "authorized_user" }));
    let wrong = resolve(google.section()).await.unwrap().to_string();
    assert!(wrong.contains("account.json") && wrong.contains("authorized_user"), "{wrong}");
    google.fault("/computeMetadata/", Fault::Answer(503, "{}".to_owned()));
    let down = resolve(google.section_of_a_machine()).await;
    assert_eq!(Expected::of(Err::<(), _>(down.unwrap())), Some(Expected::Outage(Outage::CredentialsUnavailable)));
    let none = resolve(String::new()).await.unwrap().to_string();
    assert!(none.contains("no [wrapper.gcp_kms]"), "{none}");
}

/// Workload identity federation: a token of another issuer, from a file or a server, is exchanged for one of the external identity or of a service account.
#[tokio::test]
async fn a_token_of_another_issuer_is_exchanged() {
    let google = GcpKms::new();
    let federation = &google.service().federation;
    let (name, token_file) = (google.service().create_key(), google.file("projected-token"));
    let write = |text: &str| std::fs::write(&token_file, text).unwrap();
    let file = json!({ "file": token_file });
    let json_file = json!({ "file": token_file, "format": { "type": "json", "subject_token_field_name": "token" } });
    let url = |address: String| {
        json!({
            "url": format!("{address}/subject?audience=canton"), "headers": { "Metadata": "True" },
            "format": { "type": "json", "subject_token_field_name": "id_token" },
        })
    };
    let sources = [
        (file.clone(), format!("{}\n", federation.subject())),
        (json_file, json!({ "token": federation.subject() }).to_string()),
        (url(google.address()), String::new()),
        (url(google.plain_address()), String::new()),
    ];
    for (source, text) in sources {
        for impersonates in [false, true] {
            write(&text);
            google.write_external_account(&source, impersonates);
            let before = federation.exchanges();
            let wrapper = connect(&providers(&google.section(), ""), &name).await;
            open(&*wrapper, &wrap(&*wrapper).await.unwrap()).await.unwrap();
            assert_eq!(federation.exchanges(), before + 1, "{source} {impersonates}");
        }
    }

    // The file is read at each request: its issuer replaces it.
    google.write_external_account(&file, true);
    federation.set_subject("header.second.signature");
    write(&federation.subject());
    let wrapper = connect(&providers(&google.section(), ""), &name).await;
    google.service().revoke_tokens();
    federation.set_subject("header.third.signature");
    write(&federation.subject());
    until("there is another token", || async { wrap(&*wrapper).await.is_ok() }).await;
}

#[tokio::test]
async fn a_federation_that_gives_no_token_says_why() {
    let google = GcpKms::new();
    let federation = &google.service().federation;
    let (name, token_file) = (google.service().create_key(), google.file("projected-token"));
    std::fs::write(&token_file, federation.subject()).unwrap();
    let (file, url) = (json!({ "file": token_file }), json!({ "url": format!("{}/subject", google.address()) }));
    let resolve = async |source: &serde_json::Value| {
        google.write_external_account(source, true);
        let refused = providers(&google.section(), "").resolve(ProviderKind::GcpKms, &name, &[]).await;
        refused.map(drop)
    };
    resolve(&file).await.unwrap();
    let login_refused = || Some(Expected::Denial(Denial::Credentials(CredentialFault::LoginRefused)));
    *federation.may_impersonate.lock().unwrap() = false;
    assert_eq!(Expected::of(resolve(&file).await), login_refused());
    *federation.may_impersonate.lock().unwrap() = true;
    federation.set_subject("header.hidden.signature");
    assert_eq!(Expected::of(resolve(&file).await), login_refused());
    for (fault, place) in [("/sts/", &file), ("/iam/", &file), ("/subject", &url)] {
        std::fs::write(&token_file, federation.subject()).unwrap();
        google.fault(fault, Fault::Answer(503, "{}".to_owned()));
        assert_eq!(Expected::of(resolve(place).await), Some(Expected::Outage(Outage::CredentialsUnavailable)), "{fault}");
        google.heal();
    }

    for (source, says) in [
        (json!({ "file": google.file("missing") }), "credential_source.file"),
        (json!({ "file": token_file, "format": { "type": "json", "subject_token_field_name": "token" } }), "the field \"token\""),
        (url, "gives no token (status 403); check the address and the headers"),
        (json!({ "executable": { "command": "/usr/bin/hidden" } }), "name that in credential_source.file"),
        (json!({ "environment_id": "aws1", "region_url": "http://169.254.169.254/hidden" }), "environment_id"),
    ] {
        let wrong = resolve(&source).await.unwrap_err();
        assert!(matches!(wrong, WrapperError::Misconfigured { .. }), "{wrong:?}");
        let text = wrong.to_string();
        assert!(text.contains(says) && !text.contains("hidden"), "{text}");
    }
}

#[tokio::test]
async fn only_keys_that_bind_the_context_are_registered_and_new_ones_are_in_an_hsm() {
    let google = GcpKms::new();
    let all = providers(&google.section(), "");
    let other = format!("{RING}/cryptoKeys/mac");
    google.service().add(&other, "MAC");
    let unfit = all.resolve(ProviderKind::GcpKms, &other, &[]).await.err();
    assert!(matches!(&unfit, Some(WrapperError::Unfit { what, .. }) if what.contains("purpose MAC")), "{unfit:?}");
    let version = format!("{}/cryptoKeyVersions/1", google.service().create_key());
    let unfit = all.resolve(ProviderKind::GcpKms, &version, &[]).await.err();
    assert!(matches!(&unfit, Some(WrapperError::Unfit { what, .. }) if what.contains("without a version")), "{unfit:?}");

    let refused = all.create(ProviderKind::GcpKms, &CreateOptions::default()).await.err();
    assert!(matches!(refused, Some(WrapperError::Unfit { .. })), "{refused:?}");
    let creator = providers(&format!("{}\nkey_ring = '{RING}'", google.section()), "may_create = true");
    let made = creator.create(ProviderKind::GcpKms, &CreateOptions::default()).await.unwrap();
    assert!(made.usable && made.identity.starts_with("gcp:canton-test:europe-west3:canton:canton-keyvault-"), "{made:?}");
    let wrapper = creator.connect(&registered(ProviderKind::GcpKms, made)).await.unwrap();
    let posture = wrapper.posture(&"dev".parse().unwrap()).await.unwrap();
    for subject in [PostureSubject::Spec, PostureSubject::Origin, PostureSubject::State, PostureSubject::Deletion, PostureSubject::Export] {
        assert_eq!(posture.iter().find(|line| line.subject == subject).unwrap().status, PostureStatus::Ok, "{posture:?}");
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

/// The limits of a call are short, so that what hangs ends in seconds.
fn providers(section: &str, settings: &str) -> Providers {
    let limits = "[limits]\nconnect_timeout = '2s'\nattempt_timeout = '2s'\ntimeout = '6s'\nretries = 1\nbreaker_failures = 100";
    let section = if section.is_empty() { String::new() } else { format!("[gcp_kms]\n{section}") };
    let text = format!(
        "provider = 'gcp-kms'\nreference = '{RING}/cryptoKeys/x'\nallowed = ['gcp:canton-test:*:*:*']\n{settings}\n{limits}\n{section}"
    );
    Providers::new(config(&text), random()).unwrap()
}

async fn connect(providers: &Providers, name: &str) -> Arc<dyn Wrapper> {
    let found = providers.resolve(ProviderKind::GcpKms, name, &[]).await.unwrap();
    providers.connect(&registered(ProviderKind::GcpKms, found)).await.unwrap()
}

/// A key of one's own.
async fn connected(google: &GcpKms, settings: &str) -> (String, Arc<dyn Wrapper>) {
    let name = google.service().create_key();
    let wrapper = connect(&providers(&google.section(), settings), &name).await;
    (name, wrapper)
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
