//! Wrapper keys in files, for development. The key is real, but it cannot be disabled.

mod key_file;

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use crate::domain::{ProviderKind, WrapperKey};

use self::key_file::{LocalWrapper, create_key_file_in, in_background, other_key};
use super::{
    CreateOptions, Description, Wrapper, WrapperError,
    allowlist::Allowlist,
    provider::{Provider, ProviderEntry, Settings, misconfigured, unfit},
    resilience::{CallRateLimit, CircuitBreaker, RegionalWrapper},
};

pub use self::key_file::create_key_file;

/// The entry in the table of providers.
pub(super) const ENTRY: ProviderEntry = ProviderEntry {
    kind: ProviderKind::Local,
    own_pattern,
    warning: |reference| Some(warning(reference)),
    new: |settings| Box::new(LocalProvider { settings }),
};

fn own_pattern(_: &str) -> Result<String, String> {
    Err("a wrapper key in a file must be allowed explicitly. Put its absolute path under [wrapper] allowed".to_owned())
}

fn warning(reference: &str) -> String {
    format!(
        "THE WRAPPER KEY IS A FILE ({reference}). Every user who can read the file and the database has every key, and the wrapper key cannot be disabled"
    )
}

struct LocalProvider {
    settings: Arc<Settings>,
}

#[async_trait]
impl Provider for LocalProvider {
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, NO_REGIONS));
        }
        let path = absolute_path(reference)?;
        self.open(&path).await?.describe().await
    }

    async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let path = absolute_path(&key.reference)?;
        let wrapper = self.open(&path).await?;
        if wrapper.identity() != key.identity {
            return Err(misconfigured(&key.reference, &other_key(wrapper.identity(), &key.identity)));
        }
        let regional = RegionalWrapper {
            region: "local".into(),
            circuit_breaker: Arc::new(CircuitBreaker::new(u32::MAX)),
            wrapper: Arc::new(wrapper),
        };
        Ok(Arc::new(self.settings.resilient(&key.reference, vec![regional], Arc::new(CallRateLimit::free()))))
    }

    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        const NEW: &str = "a new key file";
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit(NEW, NO_REGIONS));
        }
        let configured = absolute_path(&self.settings.config.reference)?;
        let (ProviderKind::Local, Some(directory)) = (self.settings.config.provider, configured.parent()) else {
            return Err(unfit(NEW, "a key file is created beside the configured one, but none is configured"));
        };
        let (directory, random) = (directory.to_owned(), Arc::clone(&self.settings.random));
        // The name contains the identity, which is not known yet. Any such name shows whether the directory is allowed.
        let example = directory.join("wrapper-0000000000000000.key").display().to_string();
        if !self.settings.allowed.local("local:0000000000000000", &example) {
            return Err(WrapperError::NotAllowed { reference: example });
        }
        let (path, identity) = in_background(move || create_key_file_in(&directory, &*random)).await?;
        Ok(Description { identity, reference: path.display().to_string(), regions: Vec::new(), usable: true })
    }

    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool {
        patterns.local(&key.identity, &key.reference)
    }
}

impl LocalProvider {
    /// Opens a key file that is allowed. If an identity is allowed in any file, the file must be read first.
    async fn open(&self, path: &Path) -> Result<LocalWrapper, WrapperError> {
        let (owned, random) = (path.to_owned(), Arc::clone(&self.settings.random));
        let reference = path.display().to_string();
        let allowed = &self.settings.allowed;
        if !allowed.local_path(&reference) && !allowed.names_local_identities() {
            return Err(WrapperError::NotAllowed { reference });
        }
        let opened = in_background(move || LocalWrapper::open(&owned, random)).await;
        let identity = opened.as_ref().map_or("", LocalWrapper::identity);
        if !allowed.local(identity, &reference) {
            return Err(WrapperError::NotAllowed { reference });
        }
        opened
    }
}

const NO_REGIONS: &str = "a key file has no regions";

/// An absolute path without `..`, because a pattern of the allowlist cannot match such a path reliably.
fn absolute_path(reference: &str) -> Result<PathBuf, WrapperError> {
    let path = std::path::absolute(reference).map_err(|error| unfit(reference, &error.to_string()))?;
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(unfit(reference, "a path with .. is not allowed"));
    }
    Ok(path)
}
