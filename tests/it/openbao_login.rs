//! The login to OpenBao: tokens in files that expire, are renewed and replaced, and logins by certificate. The server is real.

use std::{sync::Arc, time::Duration};

use canton_keyvault::{
    domain::ProviderKind,
    kms::{CredentialFault, Denial, Providers, Wrapped, Wrapper, WrapperError},
};
use serde_json::json;

use crate::support::{
    openbao::{LEAST, Openbao, token_line, write_token},
    pki::{Ca, Spec, dns},
    vault::until,
    wrapper::{context, data_key, openbao, registered},
};

#[tokio::test]
async fn a_token_that_was_revoked_is_denied_until_its_file_holds_another() {
    let server = Openbao::shared().await;
    let policy = server.policy(&LEAST).await;
    let token = server.token(json!({ "policies": [policy] })).await;
    let file = write_token(&token);
    let (_providers, wrapper) = key(server, &token_line(file.path())).await;
    wrap(&*wrapper).await.unwrap();
    server.revoke(&token).await;
    let error = wrap(&*wrapper).await.err();
    let refused = Denial::Credentials(CredentialFault::TokenRefused);
    assert!(matches!(&error, Some(WrapperError::Denied { denial, .. }) if *denial == refused), "{error:?}");
    std::fs::write(file.path(), server.token(json!({ "policies": [policy] })).await).unwrap();
    until("the new token is used", || async { wrap(&*wrapper).await.is_ok() }).await;
}

#[tokio::test]
async fn a_changed_token_file_is_read_again_although_the_old_token_is_valid() {
    let server = Openbao::shared().await;
    let file = server.token_file().await;
    let (_providers, wrapper) = key(server, &token_line(file.path())).await;
    wrap(&*wrapper).await.unwrap();
    // One that may do nothing, to see which is used.
    std::fs::write(file.path(), server.token(json!({ "policies": ["default"] })).await).unwrap();
    until("the new token is used", || async { wrap(&*wrapper).await.is_err() }).await;
    assert_denied(wrap(&*wrapper).await);
}

/// An idle vault keeps its token.
#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let server = Openbao::start().await;
    let policy = server.policy(&LEAST).await;
    let file = write_token(&server.token(json!({ "policies": [policy], "period": "2s" })).await);
    let (_providers, wrapper) = key(&server, &token_line(file.path())).await;
    until("it is renewed", || async { server.requests("auth/token/renew-self").len() >= 5 }).await;
    wrap(&*wrapper).await.unwrap();
    assert_eq!(server.requests("auth/token/lookup-self").len(), 1);
}

#[tokio::test]
async fn a_token_without_expiry_is_not_renewed_and_an_unused_one_is_dropped() {
    let server = Openbao::start().await;
    let root = write_token(server.root());
    let (providers, wrapper) = key(&server, &token_line(root.path())).await;
    until("it is looked up", || async { server.requests("auth/token/lookup-self").len() == 1 }).await;
    wrap(&*wrapper).await.unwrap();
    drop((providers, wrapper));

    let policy = server.policy(&LEAST).await;
    let file = write_token(&server.token(json!({ "policies": [policy], "period": "2s" })).await);
    let (providers, wrapper) = key(&server, &token_line(file.path())).await;
    until("it is renewed", || async { !server.requests("auth/token/renew-self").is_empty() }).await;
    drop((providers, wrapper));
    // One may be on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = server.requests("auth/token/renew-self").len();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.requests("auth/token/renew-self").len(), before, "renewal ends with the vault");
}

#[tokio::test]
async fn an_unusable_token_file_is_a_misconfiguration() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Openbao::shared().await;
    let good = server.token_file().await;
    let (providers, wrapper) = key(server, &token_line(good.path())).await;
    drop((providers, wrapper));
    let open = server.token_file().await;
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (missing, empty) = (server.file("no-token"), write_token("\n"));
    for (path, says) in [(open.path(), "chmod"), (&missing, "No such file"), (empty.path(), "no token")] {
        let url = server.url("any");
        let providers = openbao(server, &format!("reference = {url:?}"), &token_line(path));
        let error = providers.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.err();
        assert!(matches!(&error, Some(WrapperError::Misconfigured { what, .. }) if what.contains(says)), "{error:?}");
    }
}

#[tokio::test]
async fn a_certificate_logs_in_and_again_before_the_login_ends() {
    let server = Openbao::start().await;
    let policy = role(&server, "vault", "2s").await;
    let (_providers, wrapper) = key(&server, &certificate(&server, "vault", "role = 'vault'")).await;
    wrap(&*wrapper).await.unwrap();
    until("it logs in again and again", || async { server.requests("auth/cert/login").len() >= 4 }).await;
    wrap(&*wrapper).await.unwrap();
    assert!(server.requests("auth/token/renew-self").is_empty());

    // What the policy forbids does not become a storm of logins.
    server.set_policy(&policy, &["decrypt", "keys"]).await;
    let before = server.requests("auth/cert/login").len();
    for node in 0..200 {
        let refused = wrapper.wrap(&data_key(), &context(&format!("participant{node}"))).await;
        assert_denied(refused);
    }
    assert!(server.requests("auth/token/lookup-self").len() < 20, "nor of questions about the token");
    assert!(server.requests("auth/cert/login").len() - before < 20, "{}", server.requests("auth/cert/login").len() - before);
}

#[tokio::test]
async fn a_revoked_login_is_repeated() {
    let server = Openbao::start().await;
    role(&server, "vault", "1h").await;
    let (_providers, wrapper) = key(&server, &certificate(&server, "vault", "")).await;
    wrap(&*wrapper).await.unwrap();
    server.call("POST", "sys/leases/revoke-prefix/auth/cert/login", json!({})).await;
    until("it is logged in again", || async { wrap(&*wrapper).await.is_ok() }).await;
    assert_eq!(server.requests("auth/cert/login").len(), 2);
}

#[tokio::test]
async fn a_refused_login_is_a_denial_and_a_new_certificate_is_read_from_its_file() {
    let server = Openbao::start().await;
    role(&server, "vault", "1h").await;
    let stranger = Ca::new("stranger").issue(Spec::client(vec![dns("vault.example.org")]));
    stranger.write(server.file("").as_path(), "stranger");
    let url = server.url(&server.create_key(json!({})).await);
    for login in [certificate(&server, "stranger", "role = 'vault'"), certificate(&server, "vault", "role = 'other'")] {
        let providers = openbao(&server, &format!("reference = {url:?}"), &login);
        let error = providers.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.err();
        assert!(
            matches!(error, Some(WrapperError::Denied { denial: Denial::Credentials(CredentialFault::CertificateLoginRefused), .. })),
            "{error:?}"
        );
    }
    let providers = openbao(&server, &format!("reference = {url:?}"), &certificate(&server, "stranger", ""));
    assert!(providers.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.is_err());
    server.ca().issue(Spec::client(vec![dns("vault.example.org")])).write(server.file("").as_path(), "stranger");
    until("the new certificate is shown", || async { providers.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.is_ok() }).await;
}

// --- helpers ---

/// A key of one's own, for who logs in so. The providers keep the login.
async fn key(server: &Openbao, login: &str) -> (Providers, Arc<dyn Wrapper>) {
    let url = server.url(&server.create_key(json!({})).await);
    let providers = openbao(server, &format!("reference = {url:?}"), login);
    let found = providers.resolve(ProviderKind::OpenbaoTransit, &url, &[]).await.unwrap();
    let wrapper = providers.connect(&registered(ProviderKind::OpenbaoTransit, found)).await.unwrap();
    (providers, wrapper)
}

async fn wrap(wrapper: &dyn Wrapper) -> Result<Wrapped, WrapperError> {
    wrapper.wrap(&data_key(), &context("participant1")).await
}

/// Lets certificates of the server's CA log in for so long, and gives the policy that they get.
async fn role(server: &Openbao, name: &str, ttl: &str) -> String {
    let policy = server.policy(&LEAST).await;
    let role =
        json!({ "certificate": server.ca().pem, "allowed_dns_sans": "vault.example.org", "token_policies": [policy], "token_ttl": ttl });
    server.call("POST", &format!("auth/cert/certs/{name}"), role).await;
    policy
}

fn certificate(server: &Openbao, name: &str, role: &str) -> String {
    let file = |kind: &str| server.file(&format!("{name}.{kind}"));
    format!("certificate = '{}'\nkey = '{}'\n{role}", file("pem").display(), file("key").display())
}

fn assert_denied(answer: Result<Wrapped, WrapperError>) {
    let error = answer.err();
    assert!(matches!(error, Some(WrapperError::Denied { denial: Denial::AccessDenied, .. })), "{error:?}");
}
