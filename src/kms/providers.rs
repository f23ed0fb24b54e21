//! From a reference to a wrapper key: resolving, connecting, creating. What the configuration does not allow goes no further.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::{
    crypto::Random,
    domain::{ProviderKind, WrapperKey},
};

use super::{
    Config, Description, Wrapper, WrapperError,
    allowlist::Allowlist,
    aws_key::AwsKey,
    local::{LocalWrapper, create_key_file_in, in_background},
    preference::Preference,
    resilience::{CallRateLimit, CircuitBreaker, DenialCache, RegionalWrapper, ResilientWrapper},
};

/// The providers as configured. Cheap to keep, needs no KMS to be up.
pub struct Providers {
    pub(super) config: Config,
    pub(super) allowed: Allowlist,
    preferred: Preference,
    pub(super) random: Arc<dyn Random>,
    decorate: Option<Decorate>,
    #[cfg(feature = "aws-kms")]
    pub(super) aws: crate::kms::aws_kms::Clients,
    #[cfg(feature = "openbao-transit")]
    pub(super) openbao: Vec<Arc<crate::kms::openbao::Cluster>>,
}

/// Puts something around each wrapper that is connected.
type Decorate = Box<dyn Fn(&WrapperKey, Arc<dyn Wrapper>) -> Arc<dyn Wrapper> + Send + Sync>;

/// What kind of wrapper key to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// AWS: a multi-Region key, which may have replicas. Cannot be changed later.
    pub multi_region: bool,
    /// AWS: where to create it, and then replicas of it; empty for the first configured region.
    pub regions: Vec<String>,
    /// AWS: a tag by which an operator finds what a repeated or interrupted request has made.
    pub request: Option<String>,
}

impl Providers {
    /// The providers of `[wrapper]`, with `random` for nonces, key files and jitter.
    ///
    /// # Errors
    /// `Misconfigured`, if the section cannot be meant.
    pub fn new(config: Config, random: Arc<dyn Random>) -> Result<Self, WrapperError> {
        let allowed = config.check()?;
        let preferred = Preference::parse(&config.prefer).map_err(|what| misconfigured(&config.reference, &what))?;
        Ok(Self {
            #[cfg(feature = "aws-kms")]
            aws: crate::kms::aws_kms::Clients::new(&config, &allowed),
            #[cfg(feature = "openbao-transit")]
            openbao: crate::kms::openbao::clusters(&config),
            config,
            allowed,
            preferred,
            random,
            decorate: None,
        })
    }

    /// The same, with something around each wrapper that is connected from now on, outside of the guard: faults, counters.
    #[must_use]
    pub fn decorated(mut self, decorate: impl Fn(&WrapperKey, Arc<dyn Wrapper>) -> Arc<dyn Wrapper> + Send + Sync + 'static) -> Self {
        self.decorate = Some(Box::new(decorate));
        self
    }

    /// Where a wrapper key stands in the order of preference: the smaller, the earlier keys are opened through it.
    pub fn preference(&self, key: &WrapperKey) -> usize {
        self.preferred.place(key)
    }

    /// The configuration they were made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Finds out what a reference stands for, by asking the provider.
    ///
    /// # Errors
    /// [`WrapperError`]; `Unfit` if it cannot be meant, `NotAllowed` if what it stands for is not allowed.
    pub async fn resolve(&self, provider: ProviderKind, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        match provider {
            ProviderKind::Local => self.resolve_local(reference, regions).await,
            #[cfg(feature = "aws-kms")]
            ProviderKind::AwsKms => Box::pin(self.resolve_aws(reference, regions)).await,
            #[cfg(not(feature = "aws-kms"))]
            ProviderKind::AwsKms => Err(unfit("aws-kms", WITHOUT_AWS)),
            #[cfg(feature = "openbao-transit")]
            ProviderKind::OpenbaoTransit => Box::pin(self.resolve_openbao(reference, regions)).await,
            #[cfg(not(feature = "openbao-transit"))]
            ProviderKind::OpenbaoTransit => Err(unfit("openbao-transit", WITHOUT_OPENBAO)),
        }
    }

    /// The identity that a reference stands for; of a key ARN without asking anybody, whether it is allowed or not.
    ///
    /// # Errors
    /// As [`Providers::resolve`].
    pub async fn identity(&self, provider: ProviderKind, reference: &str) -> Result<String, WrapperError> {
        match (provider, AwsKey::from_arn(reference)) {
            (ProviderKind::AwsKms, Ok((key, _))) => Ok(key.to_string()),
            _ => Ok(self.resolve(provider, reference, &[]).await?.identity),
        }
    }

    /// The guarded wrapper of a registered key, if the configuration allows it *now*. Does not speak to a KMS.
    ///
    /// # Errors
    /// `NotAllowed`; `Misconfigured` for facts that contradict each other or the configuration; for a local key, what reading its file gives.
    pub async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrapper = match key.provider {
            ProviderKind::Local => self.connect_local(key).await,
            #[cfg(feature = "aws-kms")]
            ProviderKind::AwsKms => Box::pin(self.connect_aws(key)).await,
            #[cfg(not(feature = "aws-kms"))]
            ProviderKind::AwsKms => Err(unfit("aws-kms", WITHOUT_AWS)),
            #[cfg(feature = "openbao-transit")]
            ProviderKind::OpenbaoTransit => self.connect_openbao(key),
            #[cfg(not(feature = "openbao-transit"))]
            ProviderKind::OpenbaoTransit => Err(unfit("openbao-transit", WITHOUT_OPENBAO)),
        }?;
        Ok(match &self.decorate {
            Some(decorate) => decorate(key, wrapper),
            None => wrapper,
        })
    }

    /// Creates a wrapper key: a file next to the configured one, or a key in a KMS if `may_create`.
    ///
    /// # Errors
    /// [`WrapperError`]; `NotAllowed` or `Unfit` before anything is created, if what is created could not be used.
    pub async fn create(&self, provider: ProviderKind, options: &CreateOptions) -> Result<Description, WrapperError> {
        match provider {
            ProviderKind::Local => self.create_local(options).await,
            #[cfg(feature = "aws-kms")]
            ProviderKind::AwsKms => Box::pin(self.create_aws(options)).await,
            #[cfg(not(feature = "aws-kms"))]
            ProviderKind::AwsKms => Err(unfit("aws-kms", WITHOUT_AWS)),
            #[cfg(feature = "openbao-transit")]
            ProviderKind::OpenbaoTransit => Box::pin(self.create_openbao(options)).await,
            #[cfg(not(feature = "openbao-transit"))]
            ProviderKind::OpenbaoTransit => Err(unfit("openbao-transit", WITHOUT_OPENBAO)),
        }
    }

    /// Whether a replica of a registered key could be made in `region`: asks nobody.
    ///
    /// # Errors
    /// `Unfit` or `NotAllowed`.
    pub fn may_replicate(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        match key.provider {
            #[cfg(feature = "aws-kms")]
            ProviderKind::AwsKms => self.may_replicate_aws(key, region),
            _ => Err(unfit(&key.reference, &format!("only a multi-Region key of AWS KMS can have a replica in {region}"))),
        }
    }

    /// Makes a replica of a registered key in `region`, and gives the KMS's id of the request; `None` if there is one already. It may
    /// take a while until it can be used.
    ///
    /// # Errors
    /// [`WrapperError`]; `NotAllowed` or `Unfit` before anything is made.
    pub async fn replicate(&self, key: &WrapperKey, region: &str) -> Result<Option<String>, WrapperError> {
        match key.provider {
            #[cfg(feature = "aws-kms")]
            ProviderKind::AwsKms => {
                self.may_replicate_aws(key, region)?;
                Box::pin(self.replicate_aws(key, region)).await
            }
            _ => std::future::ready(self.may_replicate(key, region).map(|()| None)).await,
        }
    }

    /// There are no servers of OpenBao for a binary without it.
    #[cfg(not(feature = "openbao-transit"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub async fn openbao_servers(&self) -> Vec<Result<String, String>> {
        Vec::new()
    }

    async fn resolve_local(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, "a key file has no regions"));
        }
        let path = plain_path(reference)?;
        self.open_local(&path).await?.describe().await
    }

    async fn connect_local(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let path = plain_path(&key.reference)?;
        let wrapper = self.open_local(&path).await?;
        if wrapper.identity() != key.identity {
            let what = format!("the file holds another key, {}, than the registered {}", wrapper.identity(), key.identity);
            return Err(misconfigured(&key.reference, &what));
        }
        let regional = RegionalWrapper {
            region: "local".into(),
            circuit_breaker: Arc::new(CircuitBreaker::new(u32::MAX)),
            wrapper: Arc::new(wrapper),
        };
        Ok(Arc::new(self.guard(&key.reference, vec![regional], Arc::new(CallRateLimit::free()))))
    }

    async fn create_local(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit("a new key file", "a key file has no regions"));
        }
        let configured = plain_path(&self.config.reference)?;
        let (ProviderKind::Local, Some(directory)) = (self.config.provider, configured.parent()) else {
            let what = "a key file is created next to the configured one, and none is configured";
            return Err(unfit("a new key file", what));
        };
        let (directory, random) = (directory.to_owned(), Arc::clone(&self.random));
        // Its name is known once it is made; whether that is allowed can be told before by any such name.
        let example = directory.join("wrapper-0000000000000000.key").display().to_string();
        if !self.allowed.local("local:0000000000000000", &example) {
            return Err(WrapperError::NotAllowed { reference: example });
        }
        let (path, identity) = in_background(move || create_key_file_in(&directory, &*random)).await?;
        Ok(Description { identity, reference: path.display().to_string(), regions: Vec::new(), usable: true })
    }

    /// Opens a key file that is allowed. Where an identity is allowed wherever it lies, the file must be read to know.
    async fn open_local(&self, path: &Path) -> Result<LocalWrapper, WrapperError> {
        let (owned, random) = (path.to_owned(), Arc::clone(&self.random));
        let reference = path.display().to_string();
        if !self.allowed.local_path(&reference) && !self.allowed.names_local_identities() {
            return Err(WrapperError::NotAllowed { reference });
        }
        let opened = in_background(move || LocalWrapper::open(&owned, random)).await;
        let identity = opened.as_ref().map_or("", LocalWrapper::identity);
        if !self.allowed.local(identity, &reference) {
            return Err(WrapperError::NotAllowed { reference });
        }
        opened
    }

    /// Puts the guard in front.
    pub(super) fn guard(
        &self,
        reference: &str,
        regional_wrappers: Vec<RegionalWrapper>,
        rate_limit: Arc<CallRateLimit>,
    ) -> ResilientWrapper {
        ResilientWrapper {
            reference: reference.to_owned(),
            regional_wrappers,
            rate_limit,
            limits: self.config.limits.clone(),
            failover_on_denied: self.config.failover_on_denied,
            random: Arc::clone(&self.random),
            denial_cache: DenialCache::default(),
        }
    }
}

/// An absolute path without `..`, which a pattern could not see through.
fn plain_path(reference: &str) -> Result<PathBuf, WrapperError> {
    let path = std::path::absolute(reference).map_err(|error| unfit(reference, &error.to_string()))?;
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(unfit(reference, "a path with .. is not followed"));
    }
    Ok(path)
}

pub(super) fn unfit(reference: &str, what: &str) -> WrapperError {
    WrapperError::Unfit { reference: reference.to_owned(), what: what.to_owned() }
}

pub(super) fn misconfigured(reference: &str, what: &str) -> WrapperError {
    WrapperError::Misconfigured { reference: reference.to_owned(), what: what.to_owned() }
}

#[cfg(not(feature = "aws-kms"))]
const WITHOUT_AWS: &str = "this binary was built without the feature aws-kms";
#[cfg(not(feature = "openbao-transit"))]
const WITHOUT_OPENBAO: &str = "this binary was built without the feature openbao-transit";
