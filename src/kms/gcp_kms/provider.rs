//! The provider of keys in Cloud KMS: only allowed keys are resolved, connected and created.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::{
    api::CloudKms,
    credentials::token_source,
    crypto_key::CryptoKey,
    error::Refusal,
    key_reference::{GcpKey, KeyRingName, NotAKeyName},
};
use crate::{
    client::connector::TlsFiles,
    domain::{Clock, Hex, ProviderKind, Timestamp, WrapperKey},
    kms::{
        CreateOptions, Description, Wrapper, WrapperError,
        allowlist::Allowlist,
        http::{HttpServer, ServerAddress},
        oauth::TokenCache,
        provider::{Provider, ProviderEntry, Settings, misconfigured, unfit},
        resilience::{CallRateLimit, CircuitBreaker, RegionalWrapper},
    },
};

/// The entry in the table of providers.
pub(in crate::kms) const ENTRY: ProviderEntry =
    ProviderEntry { kind: ProviderKind::GcpKms, own_pattern, warning: |_| None, new: |settings| Box::new(GcpProvider::new(settings)) };

fn own_pattern(reference: &str) -> Result<String, String> {
    GcpKey::from_reference(reference).map(|key| key.to_string()).map_err(|error| format!("reference: {error}"))
}

/// Wrapper keys in Cloud KMS.
struct GcpProvider {
    settings: Arc<Settings>,
    /// `None` without `[wrapper.gcp_kms]`.
    service: Option<Service>,
}

struct Service {
    api: Arc<CloudKms>,
    circuit_breaker: Arc<CircuitBreaker>,
    rate_limit: Arc<CallRateLimit>,
    /// Where new keys are created.
    key_ring: Option<KeyRingName>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewKey {
    purpose: &'static str,
    version_template: VersionTemplate,
    destroy_scheduled_duration: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionTemplate {
    protection_level: &'static str,
    algorithm: &'static str,
}

#[async_trait]
impl Provider for GcpProvider {
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, NO_REGIONS));
        }
        let key = GcpKey::from_reference(reference).map_err(|error| unfit(reference, &error.to_string()))?;
        self.check_allowed(&key)?;
        self.wrapper(self.service(reference)?, key, false).describe().await
    }

    fn identity_in(&self, reference: &str) -> Option<String> {
        GcpKey::from_reference(reference).ok().map(|key| key.to_string())
    }

    async fn connect(&self, registered: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrong = |what: &str| misconfigured(&registered.reference, what);
        let key: GcpKey = registered.identity.parse().map_err(|_| wrong("the registered identity is not that of a key of Cloud KMS"))?;
        let named = GcpKey::from_reference(&registered.reference).map_err(|error: NotAKeyName| wrong(&error.to_string()))?;
        if key != named {
            return Err(wrong(&format!("the registered identity, {key}, is that of another key")));
        }
        self.check_allowed(&key)?;
        let service = self.service.as_ref().ok_or_else(|| wrong(NOT_CONFIGURED))?;
        Ok(self.wrapper(service, key, true))
    }

    /// Creates a key of a random name in the configured key ring, in an HSM.
    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        const NEW: &str = "a new key of Cloud KMS";
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit(NEW, NO_REGIONS));
        }
        if !self.settings.config.may_create {
            return Err(unfit(NEW, "this vault may not create wrapper keys; set may_create under [wrapper], or create it yourself"));
        }
        let service = self.service(NEW)?;
        let ring = service.key_ring.as_ref().ok_or_else(|| unfit(NEW, "set key_ring under [wrapper.gcp_kms], or create it yourself"))?;
        let mut random = [0; 8];
        self.settings.random.fill(&mut random).map_err(|_| misconfigured(NEW, "the random number generator of the system failed"))?;
        let name = format!("canton-keyvault-{}", Hex(&random));
        let key = GcpKey::new(ring, &name).map_err(|error| misconfigured(NEW, &error.to_string()))?;
        self.check_allowed(&key)?;
        let body = NewKey {
            purpose: "ENCRYPT_DECRYPT",
            version_template: VersionTemplate { protection_level: "HSM", algorithm: "GOOGLE_SYMMETRIC_ENCRYPTION" },
            destroy_scheduled_duration: "2592000s",
        };
        let rest = format!("/cryptoKeys?cryptoKeyId={name}");
        let made = service.api.post("CreateCryptoKey", &ring.to_string(), &rest, &body).await;
        match made.map_err(|failed| failed.needing("cloudkms.cryptoKeys.create")) {
            // A name of 64 random bits is unique: the request was sent twice.
            Ok(_) | Err(super::api::Failed { why: Refusal::AlreadyExists, .. }) => self.resolve(&key.reference(), &[]).await,
            Err(failed) => Err(failed.about(&key.reference())),
        }
    }

    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool {
        patterns.identity(&key.identity)
    }

    /// Cloud KMS answers, and an access token is given.
    async fn check_servers(&self) -> Vec<Result<String, String>> {
        let Some(service) = &self.service else { return Vec::new() };
        let address = service.api.server.address();
        if let Some(reason) = service.api.server.fault().await {
            return vec![Err(format!("{address}: {reason}"))];
        }
        let token = service.api.tokens.token().await;
        vec![
            token
                .map(|_| format!("{address} answers, and the vault has an access token"))
                .map_err(|error| format!("{address}: {}", error.about("Cloud KMS").with_remedy())),
        ]
    }
}

impl GcpProvider {
    fn new(settings: Arc<Settings>) -> Self {
        let limits = &settings.config.limits;
        let service = settings.config.gcp_kms.as_ref().and_then(|config| {
            let (address, metadata) = config.check().ok()?;
            let files = TlsFiles { ca: Some(config.ca.clone()), client: None };
            let server = HttpServer::new(ServerAddress { address, files, connect_timeout: limits.connect_timeout });
            let tokens = TokenCache::new(token_source(config, metadata, limits, clock()));
            let (calls, random) = (Arc::clone(&settings.calls), Arc::clone(&settings.random));
            Some(Service {
                api: Arc::new(CloudKms::new(server, tokens, calls, random)),
                circuit_breaker: Arc::new(CircuitBreaker::new(limits.breaker_failures)),
                rate_limit: Arc::new(CallRateLimit::bounded(limits.max_concurrency, limits.rate_limit)),
                key_ring: config.key_ring.as_ref().and_then(|ring| ring.parse().ok()),
            })
        });
        Self { settings, service }
    }

    fn service(&self, reference: &str) -> Result<&Service, WrapperError> {
        self.service.as_ref().ok_or_else(|| unfit(reference, NOT_CONFIGURED))
    }

    fn check_allowed(&self, key: &GcpKey) -> Result<(), WrapperError> {
        let allowed = self.settings.allowed.identity(&key.to_string());
        if allowed { Ok(()) } else { Err(WrapperError::NotAllowed { reference: key.reference() }) }
    }

    /// The key behind the guard.
    fn wrapper(&self, service: &Service, key: GcpKey, registered: bool) -> Arc<dyn Wrapper> {
        let reference = key.reference();
        let key = CryptoKey { api: Arc::clone(&service.api), key, reference: reference.clone(), registered };
        let circuit_breaker = Arc::clone(&service.circuit_breaker);
        let regional = RegionalWrapper { region: REGION.into(), circuit_breaker, wrapper: Arc::new(key) };
        Arc::new(self.settings.resilient(&reference, vec![regional], Arc::clone(&service.rate_limit)))
    }
}

/// The time in an assertion, which Google compares with its own.
#[expect(clippy::disallowed_methods, reason = "like the signatures of AWS requests, an assertion has the time of the machine")]
fn clock() -> Clock {
    Arc::new(|| Timestamp::from(std::time::SystemTime::now()))
}

/// The label in metrics.
const REGION: &str = "gcp-kms";
const NO_REGIONS: &str = "the location of a key of Cloud KMS is a part of its name: give no regions";
const NOT_CONFIGURED: &str = "no [wrapper.gcp_kms] is configured";
