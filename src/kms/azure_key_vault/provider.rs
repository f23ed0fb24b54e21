//! The provider of keys in Azure: only allowed keys are resolved, connected and created.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::{
    api::AzureVault,
    credentials::token_source,
    key_reference::{AzureKey, NotAKeyAddress, VaultHost},
    vault_key::VaultKey,
};
use crate::{
    client::connector::TlsFiles,
    domain::{Hex, ProviderKind, WrapperKey},
    kms::{
        AzureKeyVaultConfig, CreateOptions, Description, Wrapper, WrapperError,
        allowlist::Allowlist,
        http::{HttpServer, ServerAddress},
        oauth::TokenCache,
        provider::{Provider, ProviderEntry, Settings, misconfigured, unfit},
        resilience::{CallRateLimit, CircuitBreaker, RegionalWrapper},
    },
};

/// The entry in the table of providers.
pub(in crate::kms) const ENTRY: ProviderEntry = ProviderEntry {
    kind: ProviderKind::AzureKeyVault,
    own_pattern,
    warning: |_| None,
    new: |settings| Box::new(AzureProvider::new(settings)),
};

fn own_pattern(reference: &str) -> Result<String, String> {
    AzureKey::from_reference(reference).map(|key| key.to_string()).map_err(|error| format!("reference: {error}"))
}

/// Wrapper keys in the vaults of the configuration.
struct AzureProvider {
    settings: Arc<Settings>,
    vaults: Vec<Vault>,
}

struct Vault {
    host: VaultHost,
    api: Arc<AzureVault>,
    circuit_breaker: Arc<CircuitBreaker>,
    rate_limit: Arc<CallRateLimit>,
    /// The label in metrics.
    region: Arc<str>,
}

#[derive(Serialize)]
struct NewKey {
    kty: &'static str,
    key_size: u32,
    key_ops: [&'static str; 2],
}

#[async_trait]
impl Provider for AzureProvider {
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, NO_REGIONS));
        }
        let key = AzureKey::from_reference(reference).map_err(|error| unfit(reference, &error.to_string()))?;
        self.check_allowed(&key)?;
        let vault = self.vault_of(&key).ok_or_else(|| unfit(reference, NO_SUCH_VAULT))?;
        self.wrapper(vault, key, false).describe().await
    }

    fn identity_in(&self, reference: &str) -> Option<String> {
        AzureKey::from_reference(reference).ok().map(|key| key.to_string())
    }

    async fn connect(&self, registered: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrong = |what: &str| misconfigured(&registered.reference, what);
        let key: AzureKey = registered.identity.parse().map_err(|_| wrong("the registered identity is not that of a key in Azure"))?;
        let named = AzureKey::from_reference(&registered.reference).map_err(|error: NotAKeyAddress| wrong(&error.to_string()))?;
        if key != named {
            return Err(wrong(&format!("the registered identity, {key}, is that of another key")));
        }
        self.check_allowed(&key)?;
        let vault = self.vault_of(&key).ok_or_else(|| wrong(NO_SUCH_VAULT))?;
        Ok(self.wrapper(vault, key, true))
    }

    /// Creates a key of a random name in the first vault, in an HSM.
    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        const NEW: &str = "a new key in Azure";
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit(NEW, NO_REGIONS));
        }
        if !self.settings.config.may_create {
            return Err(unfit(NEW, "this vault may not create wrapper keys; set may_create under [wrapper], or create it yourself"));
        }
        let vault = self.vaults.first().ok_or_else(|| unfit(NEW, "no [[wrapper.azure_key_vault]] is configured"))?;
        let mut random = [0; 8];
        self.settings.random.fill(&mut random).map_err(|_| misconfigured(NEW, "the random number generator of the system failed"))?;
        let key = AzureKey::new(&vault.host, &format!("canton-keyvault-{}", Hex(&random)));
        let key = key.map_err(|error| misconfigured(NEW, &error.to_string()))?;
        self.check_allowed(&key)?;
        let body = if vault.host.is_managed_hsm() {
            NewKey { kty: "oct-HSM", key_size: 256, key_ops: ["encrypt", "decrypt"] }
        } else {
            NewKey { kty: "RSA-HSM", key_size: 3072, key_ops: ["wrapKey", "unwrapKey"] }
        };
        let made = vault.api.post("KeyCreate", &format!("keys/{}/create", key.name), &body).await;
        match made.map_err(|failed| failed.needing("keys/create")) {
            Ok(_) => self.resolve(&key.reference(), &[]).await,
            Err(failed) => Err(failed.about(&key.reference())),
        }
    }

    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool {
        patterns.identity(&key.identity)
    }

    /// Each vault answers, and an access token is given.
    async fn check_servers(&self) -> Vec<Result<String, String>> {
        let mut found = Vec::new();
        for Vault { host, api, .. } in &self.vaults {
            let checked = match api.server.fault().await {
                Some(reason) => Err(format!("{host}: {reason}")),
                None => match api.tokens.token().await {
                    Ok(_) => Ok(format!("{host} answers, and the vault has an access token")),
                    Err(error) => Err(format!("{host}: {}", error.about("Azure").with_remedy())),
                },
            };
            found.push(checked);
        }
        found
    }
}

impl AzureProvider {
    fn new(settings: Arc<Settings>) -> Self {
        let vault = |(config, number): (&AzureKeyVaultConfig, usize)| {
            let (checked, limits) = (config.check().ok()?, &settings.config.limits);
            let files = TlsFiles { ca: Some(config.ca.clone()), client: None };
            let tokens = TokenCache::new(token_source(config, &checked, limits));
            let server = HttpServer::new(ServerAddress { address: checked.address, files, connect_timeout: limits.connect_timeout });
            let (calls, random) = (Arc::clone(&settings.calls), Arc::clone(&settings.random));
            Some(Vault {
                host: checked.host,
                api: Arc::new(AzureVault::new(server, tokens, calls, random)),
                circuit_breaker: Arc::new(CircuitBreaker::new(limits.breaker_failures)),
                rate_limit: Arc::new(CallRateLimit::bounded(limits.max_concurrency, limits.rate_limit)),
                region: format!("azure-key-vault-{number}").into(),
            })
        };
        let vaults = settings.config.azure_key_vault.iter().zip(1..).filter_map(vault).collect();
        Self { settings, vaults }
    }

    fn vault_of(&self, key: &AzureKey) -> Option<&Vault> {
        self.vaults.iter().find(|vault| vault.host == key.vault)
    }

    fn check_allowed(&self, key: &AzureKey) -> Result<(), WrapperError> {
        let allowed = self.settings.allowed.identity(&key.to_string());
        if allowed { Ok(()) } else { Err(WrapperError::NotAllowed { reference: key.reference() }) }
    }

    /// The key behind the guard.
    fn wrapper(&self, vault: &Vault, key: AzureKey, registered: bool) -> Arc<dyn Wrapper> {
        let reference = key.reference();
        let key = VaultKey { api: Arc::clone(&vault.api), key, reference: reference.clone(), registered };
        let (region, circuit_breaker) = (Arc::clone(&vault.region), Arc::clone(&vault.circuit_breaker));
        let regional = RegionalWrapper { region, circuit_breaker, wrapper: Arc::new(key) };
        Arc::new(self.settings.resilient(&reference, vec![regional], Arc::clone(&vault.rate_limit)))
    }
}

const NO_REGIONS: &str = "a key in Azure has no regions here: give none";
const NO_SUCH_VAULT: &str = "no [[wrapper.azure_key_vault]] of the configuration is the vault of this key";
