//! The configured providers. A wrapper key that the configuration does not allow is neither used nor created.

use std::{collections::HashMap, sync::Arc};

use crate::{
    crypto::Random,
    domain::{ProviderKind, WrapperKey},
};

use super::{
    Description, KmsCalls, PROVIDERS, Wrapper, WrapperConfig, WrapperError,
    allowlist::Allowlist,
    provider::{Provider, Settings, misconfigured, unfit},
    resilience::Circuits,
    traced::TracedWrapper,
};

/// The providers of one configuration. Making them calls no KMS.
pub struct Providers {
    pub(super) settings: Arc<Settings>,
    pub(super) by_kind: HashMap<ProviderKind, Box<dyn Provider>>,
    /// The patterns of `[wrapper] prefer`, the most preferred first.
    preferred: Vec<Allowlist>,
    decorate: Option<Decorate>,
}

/// Wraps each connected wrapper key in another one.
type Decorate = Box<dyn Fn(&WrapperKey, Arc<dyn Wrapper>) -> Arc<dyn Wrapper> + Send + Sync>;

/// Options of a new wrapper key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// AWS: a multi-Region key, which can have replicas. It cannot be changed later.
    pub multi_region: bool,
    /// AWS: the region in which it is created, then those of its replicas. Empty: the first configured region.
    pub regions: Vec<String>,
    /// AWS: the value of a tag, by which an operator finds the key of a repeated or interrupted request.
    pub request: Option<String>,
}

impl Providers {
    /// The providers of `[wrapper]`. `random` is for nonces, key files and jitter.
    ///
    /// # Errors
    /// `Misconfigured`, if the section is not valid.
    pub fn new(config: WrapperConfig, random: Arc<dyn Random>) -> Result<Self, WrapperError> {
        let allowed = config.check()?;
        let preferred = config.prefer.iter().map(|pattern| {
            Allowlist::parse(std::slice::from_ref(pattern))
                .map_err(|what| misconfigured(&config.reference, &what.replace("[wrapper] allowed", "[wrapper] prefer")))
        });
        let preferred = preferred.collect::<Result<_, _>>()?;
        let settings = Arc::new(Settings { config, allowed, random, calls: Arc::default(), circuits: Circuits::default() });
        let by_kind = PROVIDERS.iter().map(|entry| (entry.kind, (entry.new)(Arc::clone(&settings)))).collect();
        Ok(Self { settings, by_kind, preferred, decorate: None })
    }

    /// The same providers, with a wrapper around each wrapper key that is connected from now on, for injected faults and counters.
    #[must_use]
    pub fn decorated(mut self, decorate: impl Fn(&WrapperKey, Arc<dyn Wrapper>) -> Arc<dyn Wrapper> + Send + Sync + 'static) -> Self {
        self.decorate = Some(Box::new(decorate));
        self
    }

    /// The place of a wrapper key in the order of preference, from 0: the index of the first pattern of `[wrapper] prefer` that matches it,
    /// or the number of patterns.
    pub fn preference(&self, key: &WrapperKey) -> usize {
        let matches = |pattern: &Allowlist| self.by_kind.get(&key.provider).is_some_and(|provider| provider.matches(pattern, key));
        self.preferred.iter().position(matches).unwrap_or(self.preferred.len())
    }

    /// The patterns of `[wrapper] allowed` and `prefer` that match none of these wrapper keys, each with its option.
    pub fn unmatched(&self, keys: &[WrapperKey]) -> Vec<(&'static str, String)> {
        let matches =
            |pattern: &Allowlist, key: &WrapperKey| self.by_kind.get(&key.provider).is_some_and(|provider| provider.matches(pattern, key));
        let config = self.config();
        let all = config.allowed.iter().map(|text| ("allowed", text)).chain(config.prefer.iter().map(|text| ("prefer", text)));
        let parsed = all.filter_map(|(option, text)| Some((option, text, Allowlist::parse(std::slice::from_ref(text)).ok()?)));
        let unmatched = parsed.filter(|(_, _, pattern)| !keys.iter().any(|key| matches(pattern, key)));
        unmatched.map(|(option, text, _)| (option, text.clone())).collect()
    }

    /// The configuration.
    pub fn config(&self) -> &WrapperConfig {
        &self.settings.config
    }

    /// The calls of the KMS that no audit entry has yet.
    pub fn calls(&self) -> &Arc<KmsCalls> {
        &self.settings.calls
    }

    /// Sets the metric of the circuit breakers by their state now.
    pub fn tell_circuits(&self) {
        for (region, is_open) in self.settings.circuits.states() {
            metrics::gauge!("keyvault_kms_circuit_open", "region" => region).set(f64::from(u8::from(is_open)));
        }
    }

    /// Resolves a reference by asking the KMS.
    ///
    /// # Errors
    /// [`WrapperError`]; `Unfit` if the reference is not valid, `NotAllowed` if the configuration does not allow the key.
    pub async fn resolve(&self, provider: ProviderKind, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        self.provider(provider)?.resolve(reference, regions).await
    }

    /// The identity of a reference. A reference that contains its identity is not resolved, and need not be allowed.
    ///
    /// # Errors
    /// As [`Providers::resolve`].
    pub async fn identity(&self, provider: ProviderKind, reference: &str) -> Result<String, WrapperError> {
        let provider = self.provider(provider)?;
        match provider.identity_in(reference) {
            Some(identity) => Ok(identity),
            None => Ok(provider.resolve(reference, &[]).await?.identity),
        }
    }

    /// Connects to a registered wrapper key, if the configuration allows it. Does not call the KMS.
    ///
    /// # Errors
    /// `NotAllowed`; `Misconfigured` if the registered attributes contradict each other or the configuration; for a local key, the error of
    /// its file.
    pub async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrapper = self.provider(key.provider)?.connect(key).await?;
        let wrapper = match &self.decorate {
            Some(decorate) => decorate(key, wrapper),
            None => wrapper,
        };
        Ok(Arc::new(TracedWrapper::new(key, wrapper)))
    }

    /// Creates a wrapper key: a file beside the configured one, or a key in a KMS if `may_create` is set.
    ///
    /// # Errors
    /// [`WrapperError`]; `NotAllowed` or `Unfit` before anything is created.
    pub async fn create(&self, provider: ProviderKind, options: &CreateOptions) -> Result<Description, WrapperError> {
        self.provider(provider)?.create(options).await
    }

    /// Whether a replica of a registered key can be created in `region`. Does not call the KMS.
    ///
    /// # Errors
    /// `Unfit` or `NotAllowed`.
    pub fn may_replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        self.provider(key.provider)?.may_replicate(key, region)
    }

    /// Creates a replica of a registered key in `region`, unless there is one. The replica becomes usable after some seconds.
    ///
    /// # Errors
    /// [`WrapperError`]; `NotAllowed` or `Unfit` before anything is created.
    pub async fn replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        self.provider(key.provider)?.replicate(key, region).await
    }

    /// The state of each configured server of all providers, for `check`.
    pub async fn check_servers(&self) -> Vec<Result<String, String>> {
        let mut all = Vec::new();
        for provider in self.by_kind.values() {
            all.extend(provider.check_servers().await);
        }
        all
    }

    fn provider(&self, kind: ProviderKind) -> Result<&dyn Provider, WrapperError> {
        self.by_kind.get(&kind).map(Box::as_ref).ok_or_else(|| unfit(kind.as_str(), "this binary was built without this provider"))
    }
}

#[cfg(test)]
#[cfg(all(feature = "aws-kms", feature = "openbao-transit"))]
mod tests {
    use super::*;
    use crate::{
        crypto::SystemRandom,
        domain::{Timestamp, WrapperKeyId, WrapperState},
    };

    fn providers(prefer: &[&str]) -> Result<Providers, WrapperError> {
        let prefer = prefer.iter().map(|pattern| format!("{pattern:?}")).collect::<Vec<_>>().join(", ");
        let config = format!("provider = \"local\"\nreference = \"/w.key\"\nallowed = [\"/w.key\"]\nprefer = [{prefer}]");
        Providers::new(toml::from_str(&config).unwrap(), Arc::new(SystemRandom::default()))
    }

    fn key(provider: ProviderKind, identity: &str, reference: &str, regions: &[&str]) -> WrapperKey {
        WrapperKey {
            id: WrapperKeyId::from_random([1; 6]),
            name: None,
            provider,
            identity: identity.into(),
            reference: reference.into(),
            regions: regions.iter().map(|region| (*region).into()).collect(),
            state: WrapperState::Active,
            canary: Vec::new(),
            created_at: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn the_first_matching_pattern_gives_the_preference() {
        let patterns = ["arn:aws:kms:eu-west-1:*:key/*", "111122223333", "/etc/keyvault/*.key", "https://bao:8200/transit/keys/canton"];
        let providers = providers(&patterns).unwrap_or_else(|error| panic!("{error}"));
        let (id, uuid) = ("mrk-0123456789abcdef0123456789abcdef", "00000000-0000-0000-0000-000000000000");
        let aws = |account: &str, id: &str, region: &str, regions: &[&str]| {
            key(ProviderKind::AwsKms, &format!("aws:aws:{account}:{id}"), &format!("arn:aws:kms:{region}:{account}:key/{id}"), regions)
        };
        let transit = |url: &str| key(ProviderKind::OpenbaoTransit, "openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:transit:k:1", url, &[]);
        for (key, place) in [
            (aws("111122223333", id, "eu-central-1", &["eu-central-1", "eu-west-1"]), 0),
            (aws("111122223333", uuid, "eu-central-1", &[]), 1),
            (aws("444455556666", uuid, "eu-west-1", &[]), 0),
            (aws("444455556666", uuid, "eu-central-1", &[]), 4),
            (key(ProviderKind::Local, "local:0011223344556677", "/etc/keyvault/wrapper.key", &[]), 2),
            (key(ProviderKind::Local, "local:0011223344556677", "/tmp/wrapper.key", &[]), 4),
            (transit("https://bao:8200/transit/keys/canton"), 3),
            (transit("https://bao:8200/transit/keys/other"), 4),
        ] {
            assert_eq!(providers.preference(&key), place, "{key:?}");
        }
    }

    #[test]
    fn an_alias_is_not_a_pattern_of_preference() {
        let wrong = providers(&["alias/canton"]).err().unwrap().to_string();
        assert!(wrong.contains("[wrapper] prefer"), "{wrong}");
    }
}
