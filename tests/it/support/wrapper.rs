//! Wrapper keys for tests, from the configuration that an operator would write.

use std::sync::Arc;

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use canton_keyvault::{
    crypto::{SecretBytes, SystemRandom},
    domain::{EncryptionContext, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Description, Providers, Wrapper, WrapperConfig},
};
use serde_json::json;

use super::{kms::Kms, openbao::Openbao};

pub(crate) const CENTRAL: &str = "eu-central-1";
pub(crate) const WEST: &str = "eu-west-1";
/// The account of every key in the double.
pub(crate) const ACCOUNT: &str = "123456789012";

/// A multi-Region key of one's own in the shared double, with replicas in all but the first of the regions.
pub(crate) struct Aws {
    pub(crate) providers: Providers,
    pub(crate) key: WrapperKey,
    pub(crate) wrapper: Arc<dyn Wrapper>,
}

impl Aws {
    pub(crate) async fn new(kms: &Kms, regions: &[&str], settings: &str) -> Self {
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

pub(crate) fn providers_on(kms: &Kms, regions: &[&str], settings: &str) -> Providers {
    let endpoint = kms.endpoint();
    aws(&format!("reference = 'alias/any'\nallowed = [{ACCOUNT:?}]\nendpoint = {endpoint:?}\nregions = {regions:?}\n{settings}"))
}

pub(crate) fn aws(settings: &str) -> Providers {
    let limits = "[limits]\nattempt_timeout = '1s'\ntimeout = '5s'\nretries = 2\nbreaker_failures = 3\nbreaker_cooldown = '300ms'";
    let config = config(&format!("provider = 'aws-kms'\n{settings}\n{limits}"));
    let credentials = Credentials::new("AKIATEST", "test", None, None, "test");
    Providers::new(config, random()).unwrap().with_aws_credentials(SharedCredentialsProvider::new(credentials))
}

/// Providers that log in to an OpenBao server as `login` says: `token_file = …`, or certificate and key.
pub(crate) fn openbao(server: &Openbao, settings: &str, login: &str) -> Providers {
    openbao_at(&[&server.address()], server, settings, login)
}

/// The same, over other addresses.
pub(crate) fn openbao_at(addresses: &[&str], server: &Openbao, settings: &str, login: &str) -> Providers {
    let limits = "[limits]\nattempt_timeout = '1500ms'\ntimeout = '5s'\nretries = 2\nbreaker_failures = 3\nbreaker_cooldown = '300ms'";
    let text = format!(
        "provider = 'openbao-transit'\n{settings}\n{limits}\n[[openbao]]\naddresses = {addresses:?}\nca = '{}'\n{login}",
        server.file("ca.pem").display()
    );
    Providers::new(config(&text), random()).unwrap()
}

pub(crate) fn local(settings: &str) -> Providers {
    Providers::new(config(&format!("provider = 'local'\n{settings}")), random()).unwrap()
}

pub(crate) fn config(text: &str) -> WrapperConfig {
    toml::from_str(text).unwrap()
}

pub(crate) fn random() -> Arc<SystemRandom> {
    Arc::new(SystemRandom::default())
}

pub(crate) fn registered(provider: ProviderKind, found: Description) -> WrapperKey {
    let Description { identity, reference, regions, usable: _ } = found;
    let (id, state, created_at) = (WrapperKeyId::from_random([1; 6]), WrapperState::Active, Timestamp::from_micros(0));
    WrapperKey { id, name: None, provider, identity, reference, regions, state, canary: Vec::new(), created_at }
}

pub(crate) fn context(node: &str) -> EncryptionContext {
    EncryptionContext::new(vec![("keyvault:vault", "test".into()), ("keyvault:node", node.into())])
}

pub(crate) fn data_key() -> SecretBytes {
    SecretBytes::from((1..=32).collect::<Vec<u8>>())
}
