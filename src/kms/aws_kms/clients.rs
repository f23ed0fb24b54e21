//! A KMS client and a circuit breaker for each region, made on first use and shared by all keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_config::{AppName, BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{Client, config::SharedCredentialsProvider};
use tokio::sync::OnceCell;

use super::{key_arn::AwsKey, region_key::RegionKey};
use crate::kms::{
    WrapperConfig,
    allowlist::Allowlist,
    resilience::{CallRateLimit, CircuitBreaker, RegionalWrapper},
};

/// The clients of one configuration.
pub(super) struct Clients {
    config: WrapperConfig,
    allowed: Arc<Allowlist>,
    pub(super) rate_limit: Arc<CallRateLimit>,
    /// Used instead of the standard chain.
    credentials: Option<SharedCredentialsProvider>,
    /// Credentials and the HTTP client, which the regions share.
    shared: OnceCell<SdkConfig>,
    regions: Mutex<HashMap<String, RegionClient>>,
}

#[derive(Clone)]
struct RegionClient {
    client: Client,
    circuit_breaker: Arc<CircuitBreaker>,
    label: Arc<str>,
}

impl Clients {
    /// Makes no client yet. The limits apply to all regions together.
    pub(super) fn new(config: &WrapperConfig, allowed: &Allowlist, credentials: Option<SharedCredentialsProvider>) -> Self {
        let rate_limit = Arc::new(CallRateLimit::bounded(config.limits.max_concurrency, config.limits.rate_limit));
        let allowed = Arc::new(allowed.clone());
        Self { config: config.clone(), allowed, rate_limit, credentials, shared: OnceCell::new(), regions: Mutex::default() }
    }

    /// The key named `target`, as `region` has it. Does not call AWS.
    pub(super) async fn regional(&self, region: &str, target: String, must_be_enabled: bool) -> RegionalWrapper {
        let RegionClient { client, circuit_breaker, label } = self.region_client(region).await;
        let wrapper =
            Arc::new(RegionKey { client, region: region.to_owned(), target, must_be_enabled, allowed: Arc::clone(&self.allowed) });
        RegionalWrapper { region: label, circuit_breaker, wrapper }
    }

    /// The client for calls that are made once and never retried.
    pub(super) async fn client(&self, region: &str) -> Client {
        self.region_client(region).await.client
    }

    async fn region_client(&self, region: &str) -> RegionClient {
        let shared = self.shared.get_or_init(|| self.load()).await;
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.entry(region.to_owned()).or_insert_with(|| self.make(shared, region)).clone()
    }

    /// Reads the environment and the AWS configuration files. The first call fetches credentials: from the environment, a profile, a web
    /// identity token, ECS or the instance metadata.
    async fn load(&self) -> SdkConfig {
        let limits = &self.config.limits;
        let timeouts =
            TimeoutConfig::builder().connect_timeout(limits.connect_timeout).operation_attempt_timeout(limits.attempt_timeout).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // Any region will do here. Without one, the SDK would ask the instance metadata.
            .region(Region::from_static("us-east-1"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Ok(name) = AppName::new("canton-keyvault") {
            loader = loader.app_name(name);
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        loader.load().await
    }

    fn make(&self, shared: &SdkConfig, region: &str) -> RegionClient {
        let endpoint = self.config.endpoints.get(region).or(self.config.endpoint.as_ref());
        let mut config = aws_sdk_kms::config::Builder::from(shared).region(Region::new(region.to_owned()));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint.as_str());
        }
        let circuit_breaker = Arc::new(CircuitBreaker::new(self.config.limits.breaker_failures));
        RegionClient { client: Client::from_conf(config.build()), circuit_breaker, label: self.label(region) }
    }

    /// Metrics name only the regions of the configuration, which are a closed set.
    fn label(&self, region: &str) -> Arc<str> {
        let of_reference = AwsKey::from_arn(&self.config.reference).ok();
        let known = self.config.regions.iter().map(String::as_str).chain(of_reference.as_ref().map(|(_, region)| region.as_str()));
        known.into_iter().find(|known| *known == region).unwrap_or("other").into()
    }
}
