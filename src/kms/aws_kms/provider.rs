//! Resolving, connecting and creating KMS keys. A key that the configuration does not allow is neither used nor created.

use std::sync::Arc;

use async_trait::async_trait;

use aws_sdk_kms::{
    config::SharedCredentialsProvider,
    types::{KeySpec, KeyUsageType, Tag},
};

use crate::domain::{ProviderKind, WrapperKey};

use super::{
    clients::Clients,
    credentials::Action,
    error::unusable_answer,
    key_arn::{AwsKey, is_key_id, is_region},
};
use crate::kms::{
    CreateOptions, Description, Outage, Providers, Wrapper, WrapperError,
    allowlist::Allowlist,
    provider::{Provider, ProviderEntry, Settings, misconfigured, unfit},
};

/// The entry in the table of providers.
pub(in crate::kms) const ENTRY: ProviderEntry = ProviderEntry {
    kind: ProviderKind::AwsKms,
    own_pattern,
    warning: |_| None,
    new: |settings| Box::new(AwsProvider::new(settings, None)),
};

/// The pattern of the configured KMS key. An alias has none: the permission to move the alias would be the permission to choose the wrapper
/// key.
fn own_pattern(reference: &str) -> Result<String, String> {
    match AwsKey::from_arn(reference) {
        Ok((key, _)) => Ok(key.to_string()),
        Err(_) if is_key_id(reference) => Ok(format!("aws:*:*:{reference}")),
        Err(_) => {
            Err("reference is neither a key ARN nor a key id. An alias can be moved: put what it may stand for, such as the account id, \
                       under [wrapper] allowed"
                .to_owned())
        }
    }
}

/// Wrapper keys in AWS KMS.
pub(super) struct AwsProvider {
    pub(super) settings: Arc<Settings>,
    pub(super) clients: Clients,
}

impl Providers {
    /// Uses these AWS credentials instead of the configured sources.
    #[must_use]
    pub fn with_aws_credentials(mut self, credentials: SharedCredentialsProvider) -> Self {
        let provider = AwsProvider::new(Arc::clone(&self.settings), Some(credentials));
        self.by_kind.insert(ProviderKind::AwsKms, Box::new(provider));
        self
    }
}

#[async_trait]
impl Provider for AwsProvider {
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        Box::pin(self.resolve_key(reference, regions)).await
    }

    fn identity_in(&self, reference: &str) -> Option<String> {
        AwsKey::from_arn(reference).ok().map(|(key, _)| key.to_string())
    }

    async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        Box::pin(self.connect_key(key)).await
    }

    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        Box::pin(self.create_key(options)).await
    }

    fn may_replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        self.check_replication(key, region)
    }

    async fn replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        self.check_replication(key, region)?;
        Box::pin(self.create_replica(key, region)).await
    }

    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool {
        let Ok(aws) = key.identity.parse::<AwsKey>() else { return false };
        let home = AwsKey::from_arn(&key.reference).map(|(_, region)| region).ok();
        key.regions.iter().chain(&home).any(|region| patterns.aws(&aws, region))
    }
}

impl AwsProvider {
    fn new(settings: Arc<Settings>, credentials: Option<SharedCredentialsProvider>) -> Self {
        let clients = Clients::new(&settings.config, &settings.allowed, &settings.calls, credentials);
        Self { settings, clients }
    }

    /// Finds the key behind an ARN, a key id or an alias, and the regions where it exists.
    ///
    /// Without requested `regions`, the key is used in the configured regions where it exists, or in all of its regions if none are
    /// configured.
    async fn resolve_key(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        let first = self.first_region(reference, regions)?;
        for region in regions.iter().chain([&first]) {
            self.check_region(reference, region)?;
        }
        if let Ok((key, region)) = AwsKey::from_arn(reference) {
            self.check_allowed(&key, &region)?;
        }
        let regional = self.clients.regional(&first, reference.to_owned(), true).await;
        let found = self.settings.resilient(reference, vec![regional], Arc::clone(&self.clients.rate_limit)).describe().await?;
        let key: AwsKey = found.identity.parse().map_err(|_| unusable_answer(reference))?;

        let wanted = match (regions, self.settings.config.regions.as_slice()) {
            ([], []) => found.regions.clone(),
            ([], configured) => configured.iter().filter(|region| found.regions.contains(region)).cloned().collect(),
            (asked, _) => asked.to_vec(),
        };
        for region in &wanted {
            self.check_allowed(&key, region)?;
            if !found.regions.contains(region) {
                return Err(unfit(reference, &format!("the key has no replica in {region}")));
            }
        }
        let arn = key.arn(wanted.first().unwrap_or(&first));
        Ok(Description { identity: found.identity, reference: arn, regions: wanted, usable: found.usable })
    }

    /// The key in each region, behind the guard. Does not call AWS.
    async fn connect_key(&self, registered: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrong = |what: &str| misconfigured(&registered.reference, what);
        let key: AwsKey = registered.identity.parse().map_err(|_| wrong("the registered identity is not that of a KMS key"))?;
        let (named, home) = AwsKey::from_arn(&registered.reference).map_err(|_| wrong("the registered reference is not a key ARN"))?;
        if named != key {
            return Err(wrong(&format!("the registered identity, {key}, is that of another key")));
        }
        let mut regional_wrappers = Vec::new();
        for region in self.regions_to_use(&key, registered, home)? {
            self.check_region(&registered.reference, &region)?;
            self.check_allowed(&key, &region)?;
            regional_wrappers.push(self.clients.regional(&region, key.arn(&region), false).await);
        }
        Ok(Arc::new(self.settings.resilient(&registered.reference, regional_wrappers, Arc::clone(&self.clients.rate_limit))))
    }

    /// Creates a key in the first region and replicas of it in the others. A call is not retried, because KMS would create a second key.
    async fn create_key(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        let reference = "a new KMS key";
        if !self.settings.config.may_create {
            return Err(unfit(reference, "this vault may not create KMS keys; set may_create under [wrapper], or create it yourself"));
        }
        if !self.settings.allowed.a_new_aws_key() {
            return Err(WrapperError::NotAllowed { reference: format!("{reference}, whose id is not known yet,") });
        }
        let first = self.first_region(reference, &options.regions)?;
        let replicas = options.regions.get(1..).unwrap_or_default();
        if !replicas.is_empty() && !options.multi_region {
            return Err(unfit(reference, "only a multi_region key can be in several regions"));
        }
        for region in replicas.iter().chain([&first]) {
            self.check_region(reference, region)?;
        }
        let key = Box::pin(self.create_in(&first, options)).await?;
        self.check_allowed(&key, &first)?;
        for region in replicas {
            self.check_allowed(&key, region)?;
            let request = self.clients.client(&first).await.replicate_key().key_id(key.arn(&first)).replica_region(region);
            let request = request.description(DESCRIPTION).set_tags(Some(tags(options)?));
            let (arn, credentials) = (key.arn(region), self.clients.credentials().await);
            self.in_time(
                &arn,
                Box::pin(
                    credentials.send(Action { name: "ReplicateKey", region: &first }, &arn, "kms:ReplicateKey", || request.clone().send()),
                ),
            )
            .await?;
        }
        let regions = std::iter::once(&first).chain(replicas).cloned().collect();
        Ok(Description { identity: key.to_string(), reference: key.arn(&first), regions, usable: true })
    }

    async fn create_in(&self, region: &str, options: &CreateOptions) -> Result<AwsKey, WrapperError> {
        let reference = format!("a new KMS key in {region}");
        let request = self.clients.client(region).await.create_key().key_spec(KeySpec::SymmetricDefault);
        let request = request.key_usage(KeyUsageType::EncryptDecrypt).multi_region(options.multi_region);
        let request = request.description(DESCRIPTION).set_tags(Some(tags(options)?));
        let credentials = self.clients.credentials().await;
        let made = self
            .in_time(
                &reference,
                Box::pin(credentials.send(Action { name: "CreateKey", region }, &reference, "kms:CreateKey", || request.clone().send())),
            )
            .await?;
        let arn = made.key_metadata.as_ref().and_then(|metadata| metadata.arn()).unwrap_or_default();
        AwsKey::from_arn(arn).map(|(key, _)| key).map_err(|_| unusable_answer(&reference))
    }

    pub(super) async fn in_time<T>(&self, reference: &str, call: impl Future<Output = Result<T, WrapperError>>) -> Result<T, WrapperError> {
        let late = || WrapperError::Unavailable { reference: reference.to_owned(), outage: Outage::TimedOut, request_id: None };
        tokio::time::timeout(self.settings.config.limits.timeout, call).await.unwrap_or_else(|_| Err(late()))
    }

    /// The registered regions in the order of the configuration. Regions that are not configured are left out.
    ///
    /// A multi-Region key that is registered for other regions only is used in the configured ones, as after a restore in another region.
    pub(super) fn regions_to_use(&self, key: &AwsKey, registered: &WrapperKey, home: String) -> Result<Vec<String>, WrapperError> {
        let known = if registered.regions.is_empty() { vec![home] } else { registered.regions.clone() };
        let configured = &self.settings.config.regions;
        if configured.is_empty() {
            return Ok(known);
        }
        let common: Vec<String> = configured.iter().filter(|region| known.contains(region)).cloned().collect();
        match (common.is_empty(), key.is_multi_region()) {
            (false, _) => Ok(common),
            (true, true) => Ok(configured.clone()),
            (true, false) => {
                let what = format!("its region {} is not under [wrapper] regions", known.join(", "));
                Err(misconfigured(&registered.reference, &what))
            }
        }
    }

    fn first_region(&self, reference: &str, asked: &[String]) -> Result<String, WrapperError> {
        region_of(reference)
            .or_else(|| asked.first().cloned())
            .or_else(|| self.settings.config.regions.first().cloned())
            .or_else(|| region_of(&self.settings.config.reference))
            .ok_or_else(|| unfit(reference, "no region is named, neither in the request nor under [wrapper] regions"))
    }

    pub(super) fn check_region(&self, reference: &str, region: &str) -> Result<(), WrapperError> {
        if !is_region(region) {
            return Err(unfit(reference, &format!("{region:?} is not the name of a region")));
        }
        if !self.settings.config.regions.is_empty() && !self.settings.config.regions.iter().any(|configured| configured == region) {
            return Err(unfit(reference, &format!("{region} is not under [wrapper] regions")));
        }
        Ok(())
    }

    pub(super) fn check_allowed(&self, key: &AwsKey, region: &str) -> Result<(), WrapperError> {
        if self.settings.allowed.aws(key, region) { Ok(()) } else { Err(WrapperError::NotAllowed { reference: key.arn(region) }) }
    }
}

/// The region in the ARN of a key or an alias.
fn region_of(reference: &str) -> Option<String> {
    let ["arn", _, "kms", region, _, _] = *reference.split(':').collect::<Vec<_>>() else { return None };
    Some(region.to_owned())
}

/// The tags of keys that this vault creates.
pub(super) fn tags(options: &CreateOptions) -> Result<Vec<Tag>, WrapperError> {
    let pairs = [Some(("canton-keyvault", "wrapper-key")), options.request.as_deref().map(|request| ("canton-keyvault:request", request))];
    let tag = |(name, value)| {
        Tag::builder().tag_key(name).tag_value(value).build().map_err(|_| misconfigured("a new KMS key", "its tags cannot be built"))
    };
    pairs.into_iter().flatten().map(tag).collect()
}

/// What AWS reports of a key or a replica that this vault created.
pub(super) const DESCRIPTION: &str = "canton-keyvault wrapper key: wraps the data keys of a vault";
