//! A KMS client and a circuit breaker for each region, made on first use and shared by all keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_config::{Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{Client, config::SharedCredentialsProvider};
use tokio::sync::OnceCell;

use super::{
    credential_source::loader,
    credentials::{ANY_REGION, AwsCredentials},
    key_arn::AwsKey,
    region_key::RegionKey,
};
use crate::kms::{
    KmsCalls, WrapperConfig,
    allowlist::Allowlist,
    resilience::{CallRateLimit, CircuitBreaker, RegionalWrapper},
};

/// The clients of one configuration.
pub(super) struct Clients {
    config: WrapperConfig,
    allowed: Arc<Allowlist>,
    pub(super) rate_limit: Arc<CallRateLimit>,
    /// Used instead of the configured sources.
    given: Option<SharedCredentialsProvider>,
    calls: Arc<KmsCalls>,
    /// What the regions share.
    credentials: OnceCell<Arc<AwsCredentials>>,
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
    pub(super) fn new(
        config: &WrapperConfig,
        allowed: &Allowlist,
        calls: &Arc<KmsCalls>,
        given: Option<SharedCredentialsProvider>,
    ) -> Self {
        let rate_limit = Arc::new(CallRateLimit::bounded(config.limits.max_concurrency, config.limits.rate_limit));
        let (allowed, calls) = (Arc::new(allowed.clone()), Arc::clone(calls));
        Self { config: config.clone(), allowed, rate_limit, given, calls, credentials: OnceCell::new(), regions: Mutex::default() }
    }

    /// The key named `target`, as `region` has it. Does not call AWS.
    pub(super) async fn regional(&self, region: &str, target: String, must_be_enabled: bool) -> RegionalWrapper {
        let RegionClient { client, circuit_breaker, label } = self.region_client(region).await;
        let (credentials, allowed) = (Arc::clone(self.credentials().await), Arc::clone(&self.allowed));
        let wrapper = Arc::new(RegionKey { client, credentials, region: region.to_owned(), target, must_be_enabled, allowed });
        RegionalWrapper { region: label, circuit_breaker, wrapper }
    }

    /// The client for calls that are made once and never retried.
    pub(super) async fn client(&self, region: &str) -> Client {
        self.region_client(region).await.client
    }

    /// The credentials of all regions.
    pub(super) async fn credentials(&self) -> &Arc<AwsCredentials> {
        self.credentials.get_or_init(|| self.prepare()).await
    }

    async fn region_client(&self, region: &str) -> RegionClient {
        let credentials = self.credentials().await;
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.entry(region.to_owned()).or_insert_with(|| self.make(credentials, region)).clone()
    }

    /// The settings of all clients. Loads no credentials.
    async fn prepare(&self) -> Arc<AwsCredentials> {
        let limits = &self.config.limits;
        let timeouts =
            TimeoutConfig::builder().connect_timeout(limits.connect_timeout).operation_attempt_timeout(limits.attempt_timeout).build();
        // Any region will do here. Without one, the SDK would ask the instance metadata.
        let loader = loader().region(Region::from_static(ANY_REGION)).retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        let of_reference = AwsKey::from_arn(&self.config.reference).ok().map(|(_, region)| region);
        let home = self.config.regions.first().cloned().or(of_reference).unwrap_or_else(|| ANY_REGION.to_owned());
        // Less than an attempt, so that the error names the credentials and not the KMS.
        let patience = limits.attempt_timeout * 3 / 4;
        let given = self.given.clone();
        let loader = match &given {
            Some(given) => loader.credentials_provider(given.clone()),
            None => loader.no_credentials(),
        };
        AwsCredentials::new(home, patience, given, loader.load().await, Arc::clone(&self.calls))
    }

    fn make(&self, credentials: &Arc<AwsCredentials>, region: &str) -> RegionClient {
        let endpoint = self.config.endpoints.get(region).or(self.config.endpoint.as_ref());
        let mut config = credentials.client_config().region(Region::new(region.to_owned()));
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
