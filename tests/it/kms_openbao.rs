//! OpenBao in particular: transit keys and their changes, outages, several servers. The server is real (`tests/openbao/`).

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    domain::{ProviderKind, WrapperKey},
    kms::{CreateOptions, Denial, Description, Outage, Providers, Unwrapped, Wrapped, Wrapper, WrapperError},
};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::support::{
    openbao::{LEAST, Openbao, token_line, write_token},
    proxy::TcpProxy,
    vault::until,
    wrapper::{context, data_key, openbao, openbao_at, registered},
};

#[tokio::test]
async fn every_call_is_in_the_log_of_the_server() {
    let transit = Transit::new(Openbao::shared().await).await;
    let Wrapped { bytes, receipt: wrapped } = transit.wrap().await.unwrap();
    let Unwrapped { receipt: unwrapped, .. } = transit.unwrap(&bytes).await.unwrap();
    for (operation, receipt) in [("encrypt", wrapped), ("decrypt", unwrapped)] {
        let requests = transit.server.requests(&format!("transit/{operation}/{}", transit.name));
        assert_eq!(requests.len(), 1);
        assert_eq!((requests[0]["id"].as_str(), receipt.region), (receipt.request_id.as_deref(), None));
        let context = requests[0]["data"]["associated_data"].as_str().unwrap();
        assert!(context.starts_with("hmac-"), "the log shows that there is a context, and a MAC of it");
    }
}

#[tokio::test]
async fn a_call_without_permission_is_denied_and_works_again_with_it() {
    let server = Openbao::shared().await;
    for missing in LEAST {
        let transit = Transit::new(server).await;
        let wrap = transit.wrap().await.unwrap().bytes;
        let left: Vec<_> = LEAST.into_iter().filter(|operation| *operation != missing).collect();
        server.set_policy(&transit.policy, &left).await;
        let (wrapped, unwrapped) = (transit.wrap().await.err(), transit.unwrap(&wrap).await.err());
        for (found, expected) in [(wrapped, missing != "decrypt"), (unwrapped, missing == "decrypt")] {
            assert_eq!(found.as_ref().and_then(denial), expected.then_some(Denial::AccessDenied), "{missing}: {found:?}");
        }
        server.set_policy(&transit.policy, &LEAST).await;
        until("it is allowed again", || async { transit.wrap().await.is_ok() && transit.unwrap(&wrap).await.is_ok() }).await;
    }
}

#[tokio::test]
async fn a_missing_key_is_denied_and_not_created_again() {
    let server = Openbao::shared().await;
    // With the root token, `encrypt` would make the key.
    let transit = Transit::with(server, write_token(server.root())).await;
    let wrap = transit.wrap().await.unwrap().bytes;
    server.delete_key(&transit.name).await;
    for error in transit.errors(&wrap).await {
        assert_eq!(denial(&error), Some(Denial::NotFound), "{error:?}");
    }
    assert!(server.requests(&format!("transit/keys/{}", transit.name)).len() > 2);
    assert_eq!(server.requests(&format!("transit/encrypt/{}", transit.name)).len(), 1, "nothing is asked that would make it");
}

/// What lies under the name now is a stranger's, however it came there: nothing goes to it, and no wrap is called broken for it.
#[tokio::test]
async fn a_key_that_was_created_again_has_another_identity() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let wrap = transit.wrap().await.unwrap().bytes;
    server.delete_key(&transit.name).await;
    // The next second, so that the identities differ.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server.create_key_named(&transit.name, json!({})).await;
    for error in [transit.wrap().await.err(), transit.unwrap(&wrap).await.err()] {
        assert_eq!(error.as_ref().and_then(denial), Some(Denial::NotFound), "{error:?}");
    }
    let found = transit.wrapper.describe().await.unwrap();
    assert!(!found.usable && found.identity != transit.key.identity);
    let anew = transit.resolve().await.unwrap();
    assert_eq!((anew.identity == transit.key.identity, anew.reference), (false, transit.key.reference.clone()));
}

#[tokio::test]
async fn a_key_that_is_switched_off_is_denied_and_comes_back() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let wrap = transit.wrap().await.unwrap().bytes;
    let path = |end: &str| format!("transit/keys/{}/{end}", transit.name);
    server.call("DELETE", &path("soft-delete"), json!({})).await;
    for error in [transit.wrap().await.err(), transit.unwrap(&wrap).await.err(), transit.resolve().await.err()] {
        assert_eq!(error.as_ref().and_then(denial), Some(Denial::Disabled), "{error:?}");
    }
    assert!(!transit.wrapper.describe().await.unwrap().usable);
    server.call("POST", &path("soft-delete-restore"), json!({})).await;
    until("it opens again", || async { transit.unwrap(&wrap).await.is_ok() }).await;
}

#[tokio::test]
async fn an_old_version_that_is_switched_off_denies_its_own_wraps_only() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let old = transit.wrap().await.unwrap().bytes;
    let path = |end: &str| format!("transit/keys/{}/{end}", transit.name);
    server.call("POST", &path("rotate"), json!({})).await;
    let new = transit.wrap().await.unwrap().bytes;
    assert!(old.starts_with(b"vault:v1:") && new.starts_with(b"vault:v2:"));
    transit.unwrap(&old).await.unwrap();

    server.call("POST", &path("config"), json!({ "min_decryption_version": 2 })).await;
    for _ in 0..3 {
        let error = transit.unwrap(&old).await.err();
        assert_eq!(error.as_ref().and_then(denial), Some(Denial::OldVersion), "{error:?}");
        transit.unwrap(&new).await.unwrap();
    }
    transit.wrap().await.unwrap();
    let description = transit.wrapper.describe().await.unwrap();
    assert_eq!((description.identity.as_str(), description.usable), (transit.key.identity.as_str(), true));
    // Version 1, which is part of the identity, is hidden: the key cannot be registered.
    let hidden = transit.resolve().await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(hidden.contains("min_decryption_version"), "{hidden}");
    server.call("POST", &path("config"), json!({ "min_decryption_version": 1 })).await;
    until("the old wrap opens again", || async { transit.unwrap(&old).await.is_ok() }).await;
}

#[tokio::test]
async fn only_a_key_that_binds_and_stays_inside_is_taken() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    for (options, says) in [
        (json!({ "exportable": true }), "export"),
        (json!({ "allow_plaintext_backup": true }), "back"),
        (json!({ "derived": true }), "derived"),
        (json!({ "derived": true, "convergent_encryption": true }), "derived"),
        (json!({ "type": "aes128-gcm96" }), "aes128-gcm96"),
        (json!({ "type": "rsa-2048" }), "rsa-2048"),
        (json!({ "type": "ed25519" }), "ed25519"),
        (json!({ "type": "hmac", "key_size": 32 }), "hmac"),
    ] {
        let url = server.url(&server.create_key(options.clone()).await);
        let error = transit.providers.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.err();
        let text = error.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(matches!(error, Some(WrapperError::Unfit { .. })) && text.contains(says), "{options}: {text}");
        assert!(text.contains("type=aes256-gcm96"), "{text}");
    }
    for kind in ["chacha20-poly1305", "xchacha20-poly1305"] {
        let name = server.create_key(json!({ "type": kind })).await;
        transit.providers.resolve(ProviderKind::OpenbaoTransit, &server.url(&name), &[]).await.unwrap();
    }
}

/// OpenBao lets anybody who may configure a key make it exportable for ever: what was wrapped stays usable, nothing is added.
#[tokio::test]
async fn a_key_that_became_exportable_opens_and_wraps_no_more() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let wrap = transit.wrap().await.unwrap().bytes;
    server.call("POST", &format!("transit/keys/{}/config", transit.name), json!({ "exportable": true })).await;
    assert_eq!(transit.wrap().await.err().as_ref().and_then(denial), Some(Denial::Exportable));
    assert!(!transit.wrapper.describe().await.unwrap().usable);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    transit.unwrap(&wrap).await.unwrap();
}

#[tokio::test]
async fn a_missing_key_is_denied_and_an_invalid_reference_is_unfit() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let resolve = async |reference: &str| transit.providers.resolve(ProviderKind::OpenbaoTransit, reference, &[]).await.err().unwrap();
    assert_eq!(denial(&resolve(&server.url("never-made")).await), Some(Denial::NotFound));
    let unmounted = server.url("x").replace("/transit/", "/nothing/");
    // Without a permission on the mount, the error does not say whether it exists.
    for (login, expected) in [(server.token_file().await, Denial::AccessDenied), (write_token(server.root()), Denial::NotFound)] {
        let providers = openbao(server, &format!("reference = {unmounted:?}"), &token_line(login.path()));
        let error = providers.resolve(ProviderKind::OpenbaoTransit, &unmounted, &[]).await.err();
        assert_eq!(error.as_ref().and_then(denial), Some(expected), "{error:?}");
    }
    for reference in
        ["canton", "transit/keys/canton", &format!("{}/transit/canton", server.address()), "https://elsewhere:8200/transit/keys/canton"]
    {
        assert!(matches!(resolve(reference).await, WrapperError::Unfit { .. }), "{reference}");
    }
    let regions = ["eu-central-1".to_owned()];
    let error = transit.providers.resolve(ProviderKind::OpenbaoTransit, &server.url("x"), &regions).await.err();
    assert!(matches!(error, Some(WrapperError::Unfit { .. })), "{error:?}");
}

#[tokio::test]
async fn a_key_is_what_it_is_by_whatever_address_and_namespace() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let localhost = server.address().replace("127.0.0.1", "localhost");
    let login = token_line(transit.login.path());
    let two = openbao_at(
        &[&localhost, &server.address()],
        server,
        "reference = 'https://x/transit/keys/x'\nallowed = ['openbao:*:transit:*:*']",
        &login,
    );
    for reference in
        [server.url(&transit.name), format!("{}/transit/keys/{}", localhost.to_uppercase().replace("HTTPS", "https"), transit.name)]
    {
        let found = two.resolve(ProviderKind::OpenbaoTransit, &reference, &[]).await.unwrap();
        assert_eq!(
            (found.identity.as_str(), found.reference),
            (transit.key.identity.as_str(), format!("{localhost}/transit/keys/{}", transit.name))
        );
    }
    let parts: Vec<_> = transit.key.identity.split(':').collect();
    assert_eq!((parts.len(), parts[0], parts[2], parts[3]), (5, "openbao", "transit", transit.name.as_str()));

    server.call("POST", "sys/namespaces/team", json!({})).await;
    server.call("POST", "team/sys/mounts/kms/transit", json!({ "type": "transit" })).await;
    server.call("POST", "team/kms/transit/keys/canton", json!({ "type": "aes256-gcm96" })).await;
    let url = format!("{}/team/kms/transit/keys/canton", server.address());
    let root = write_token(server.root());
    let nested = openbao(server, &format!("reference = {url:?}"), &token_line(root.path()));
    let found = nested.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.unwrap();
    assert!(found.identity.contains(":team/kms/transit:canton:"), "{}", found.identity);
    let wrapper = nested.connect(&registered(ProviderKind::OpenbaoTransit, found)).await.unwrap();
    let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    wrapper.unwrap(&bytes, &context("participant1")).await.unwrap();
}

#[tokio::test]
async fn keys_are_created_only_where_the_configuration_says_so() {
    let server = Openbao::shared().await;
    let paths = [("keys", "\"create\", \"update\", \"read\""), ("encrypt", "\"update\""), ("decrypt", "\"update\"")];
    let path = |(operation, rights)| format!("path \"transit/{operation}/canton-keyvault-*\" {{ capabilities = [{rights}] }}\n");
    let policy: String = paths.into_iter().map(path).collect();
    server.call("PUT", "sys/policies/acl/creator", json!({ "policy": policy })).await;
    let login = write_token(&server.token(json!({ "policies": ["creator"] })).await);
    let providers = |settings: &str| openbao(server, &format!("reference = {:?}\n{settings}", server.url("x")), &token_line(login.path()));
    let create = async |settings: &str| providers(settings).create(ProviderKind::OpenbaoTransit, &CreateOptions::default()).await;
    let all = format!("allowed = ['{}']", server.url("canton-keyvault-*"));

    let error = create(&all).await.err().unwrap();
    assert!(matches!(&error, WrapperError::Unfit { what, .. } if what.contains("may_create")), "{error:?}");
    let error = create("may_create = true").await.err();
    assert!(matches!(error, Some(WrapperError::NotAllowed { .. })), "{error:?}");
    for allowed in [all.as_str(), "allowed = ['openbao:*:transit:canton-keyvault-*:*']"] {
        let settings = format!("{allowed}\nmay_create = true");
        let made = create(&settings).await.unwrap();
        assert!(made.reference.contains("/transit/keys/canton-keyvault-") && made.usable, "{made:?}");
        let wrapper = providers(&settings).connect(&registered(ProviderKind::OpenbaoTransit, made)).await.unwrap();
        wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    }
    let regions = CreateOptions { multi_region: true, ..CreateOptions::default() };
    let error = providers(&format!("{all}\nmay_create = true")).create(ProviderKind::OpenbaoTransit, &regions).await.err();
    assert!(matches!(error, Some(WrapperError::Unfit { .. })), "{error:?}");
}

#[tokio::test]
async fn a_sealed_slow_or_stopped_server_is_an_outage_and_recovers() {
    let mut server = Openbao::start().await;
    let transit = Transit::new(&server).await;
    let wrap = transit.wrap().await.unwrap().bytes;
    let outage = async |transit: &Transit<'_>| match transit.unwrap(&wrap).await.err() {
        Some(WrapperError::Unavailable { outage, .. }) => outage,
        other => panic!("{other:?}"),
    };
    server.seal().await;
    assert_eq!(outage(&transit).await, Outage::Sealed);
    server.unseal().await;
    until("it is open", || async { transit.unwrap(&wrap).await.is_ok() }).await;

    server.suspend();
    assert_eq!(outage(&transit).await, Outage::TimedOut);
    server.resume();
    until("it goes on", || async { transit.unwrap(&wrap).await.is_ok() }).await;

    let Transit { login, key, providers, name, policy, wrapper, server: _ } = transit;
    server.stop();
    let transit = Transit { login, key, providers, name, policy, wrapper, server: &server };
    assert_eq!(outage(&transit).await, Outage::Unreachable);
    assert_eq!(outage(&transit).await, Outage::NotTried, "the breaker is open");
}

#[tokio::test]
async fn the_next_server_serves_while_one_is_away_and_is_left_when_it_is_back() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let line = TcpProxy::to(&server.authority(), true);
    let first = line.url().replace("http", "https");
    let settings = format!("reference = {:?}\nallowed = ['openbao:*:transit:*:*']", server.url(&transit.name));
    let providers = openbao_at(&[&first, &server.address()], server, &settings, &token_line(transit.login.path()));
    let wrapper = providers.connect(&transit.key).await.unwrap();
    let wrap = async || wrapper.wrap(&data_key(), &context("participant1")).await;
    wrap().await.unwrap();
    for _ in 0..3 {
        line.cut();
        for _ in 0..5 {
            wrap().await.unwrap();
        }
        line.mend();
    }
}

/// An agent or a proxy on the same machine.
#[tokio::test]
async fn plain_http_serves_on_loopback() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let settings = format!("reference = {:?}\nallowed = ['openbao:*:transit:*:*']", server.url(&transit.name));
    let providers = openbao_at(&[&server.plain_address()], server, &settings, &token_line(transit.login.path()));
    let wrapper = providers.connect(&transit.key).await.unwrap();
    let Wrapped { bytes, .. } = wrapper.wrap(&data_key(), &context("participant1")).await.unwrap();
    transit.unwrap(&bytes).await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_trusted_certificate_gets_no_data() {
    let server = Openbao::shared().await;
    let transit = Transit::new(server).await;
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("ca.pem");
    std::fs::write(&other, &crate::support::pki::Ca::new("other").pem).unwrap();
    let unwrap = async |ca: &std::path::Path| {
        let text = format!(
            "provider = 'openbao-transit'\nreference = {:?}\n[[openbao]]\naddresses = [{:?}]\nca = {ca:?}\n{}",
            transit.key.reference,
            server.address(),
            token_line(transit.login.path())
        );
        let providers = Providers::new(toml::from_str(&text).unwrap(), crate::support::wrapper::random()).unwrap();
        providers.connect(&transit.key).await.unwrap().wrap(&data_key(), &context("participant1")).await.err()
    };
    let error = unwrap(&other).await;
    assert!(matches!(error, Some(WrapperError::Unavailable { outage: Outage::TlsFailed, .. })), "{error:?}");
    let missing = unwrap(&directory.path().join("missing.pem")).await.map(|error| error.to_string()).unwrap_or_default();
    assert!(missing.contains("missing.pem"), "{missing}");
}

// --- helpers ---

/// A key of one's own, and one who is logged in with the least rights.
struct Transit<'a> {
    server: &'a Openbao,
    name: String,
    policy: String,
    login: NamedTempFile,
    providers: Providers,
    key: WrapperKey,
    wrapper: Arc<dyn Wrapper>,
}

impl<'a> Transit<'a> {
    async fn new(server: &'a Openbao) -> Self {
        let policy = server.policy(&LEAST).await;
        let login = write_token(&server.token(json!({ "policies": [policy] })).await);
        Self { policy, ..Self::with(server, login).await }
    }

    async fn with(server: &'a Openbao, login: NamedTempFile) -> Self {
        let name = server.create_key(json!({})).await;
        let settings = format!("reference = {:?}\nallowed = ['{}']", server.url(&name), server.url("*"));
        let providers = openbao(server, &settings, &token_line(login.path()));
        let found = providers.resolve(ProviderKind::OpenbaoTransit, &server.url(&name), &[]).await.unwrap();
        let key = registered(ProviderKind::OpenbaoTransit, found);
        let wrapper = providers.connect(&key).await.unwrap();
        Self { server, name, policy: String::new(), login, providers, key, wrapper }
    }

    async fn wrap(&self) -> Result<Wrapped, WrapperError> {
        self.checked(self.wrapper.wrap(&data_key(), &context("participant1")).await)
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<Unwrapped, WrapperError> {
        self.checked(self.wrapper.unwrap(wrapped, &context("participant1")).await)
    }

    async fn resolve(&self) -> Result<Description, WrapperError> {
        self.checked(self.providers.resolve(ProviderKind::OpenbaoTransit, &self.key.reference, &[]).await)
    }

    /// How all that one can ask of the key is refused.
    async fn errors(&self, wrapped: &[u8]) -> Vec<WrapperError> {
        let described = self.checked(self.wrapper.describe().await).err();
        let errors = [described, self.wrap().await.err(), self.unwrap(wrapped).await.err(), self.resolve().await.err()];
        errors.into_iter().map(|error| error.expect("it is refused")).collect()
    }

    /// No error shows the token or the data key.
    fn checked<T>(&self, answer: Result<T, WrapperError>) -> Result<T, WrapperError> {
        if let Err(error) = &answer {
            let token = std::fs::read_to_string(self.login.path()).unwrap();
            let shown = format!("{error} {error:?}");
            for secret in [token, STANDARD.encode(data_key().expose())] {
                assert!(!shown.contains(&secret), "{shown}");
            }
        }
        answer
    }
}

fn denial(error: &WrapperError) -> Option<Denial> {
    match error {
        WrapperError::Denied { denial, .. } => Some(*denial),
        _ => None,
    }
}
