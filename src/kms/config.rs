//! The `[wrapper]` section of the configuration: the first wrapper key, and the wrapper keys that may be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    str::FromStr,
    time::Duration,
};

use crate::domain::ProviderKind;

use super::{
    AzureKeyVaultConfig, GcpKmsConfig, OpenbaoConfig, PROVIDERS, Pkcs11Config, WrapperError, allowlist::Allowlist,
    aws_kms::key_arn::is_region,
};

/// The `[wrapper]` section. `provider` and `reference` are required.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrapperConfig {
    /// Which kind of KMS holds the first wrapper key: `local`, `aws-kms`, `openbao-transit`, `pkcs11`, `gcp-kms` or `azure-key-vault`.
    pub provider: ProviderKind,
    /// Which key: the path of a key file, a KMS key ARN, key id or alias, `https://host:port/<mount>/keys/<name>` of a transit key, a
    /// PKCS#11 URI, the resource name of a key of Cloud KMS (`projects/…`), or `https://<vault>/keys/<name>` of a key of Azure Key Vault.
    pub reference: String,
    /// The regions that may be called, in the order to try. Empty: all regions in which the keys exist.
    #[serde(default)]
    pub regions: Vec<String>,
    /// The address of every region, instead of the address of AWS (a VPC endpoint, a test server).
    #[serde(default)]
    pub endpoint: Option<EndpointUrl>,
    /// The address of single regions. Takes precedence over `endpoint`.
    #[serde(default)]
    pub endpoints: BTreeMap<String, EndpointUrl>,
    /// The wrapper keys that may be registered *and used*. The list is checked at every connection, so that an edited database row opens
    /// nothing.
    ///
    /// Each entry is an AWS account id (`111122223333`), a key ARN, the URL of a transit key, an identity as shown by the API
    /// (`aws:…`, `openbao:…`, `pkcs11:…`, `gcp:…`, `azure:…`, `local:…`), or the path of a key file: absolute, or relative to the configuration's folder. `*` stands for any run of characters within one
    /// part: it crosses neither `:` nor `/`. Empty allows only `reference` itself, if that is a KMS key ARN, a key id, a URL, a resource name, or a
    /// PKCS#11 URI with the id of the key.
    /// A `local` key is used only if an entry matches it, and so is a key behind an alias.
    #[serde(default)]
    pub allowed: Vec<String>,
    /// The order in which the wraps of a key are tried if several could open it: patterns as in `allowed`, the most preferred first.
    /// Wrapper keys that match no pattern come last, and among them the active one comes first.
    #[serde(default)]
    pub prefer: Vec<String>,
    /// Whether KMS keys and replicas may be created, which costs money and needs permissions. `local` keys may always be created.
    #[serde(default)]
    pub may_create: bool,
    /// Whether another region, or another wrapper key, is tried when one *refuses*. Off by default, because a key may be disabled on
    /// purpose.
    #[serde(default)]
    pub failover_on_denied: bool,
    /// The longest time without a call after which a wrapper key that works is asked to open its canary, so that a disabled one is noticed.
    /// 1 s to 1 h. Randomized between half of it and all of it.
    #[serde(default = "probe_interval", with = "humantime_serde")]
    pub probe_interval: Duration,
    /// Time limits, retries and quotas of KMS calls.
    #[serde(default)]
    pub limits: CallLimits,
    /// The OpenBao clusters that hold wrapper keys. They can be used beside any provider of the first wrapper key.
    #[serde(default)]
    pub openbao: Vec<OpenbaoConfig>,
    /// The PKCS#11 tokens that hold wrapper keys. They can be used beside any provider of the first wrapper key.
    #[serde(default)]
    pub pkcs11: Vec<Pkcs11Config>,
    /// Cloud KMS of Google. It can be used beside any provider of the first wrapper key.
    #[serde(default)]
    pub gcp_kms: Option<GcpKmsConfig>,
    /// The vaults in Azure that hold wrapper keys. They can be used beside any provider of the first wrapper key.
    #[serde(default)]
    pub azure_key_vault: Vec<AzureKeyVaultConfig>,
}

/// The `[wrapper.limits]` section: time limits, retries and quotas of KMS calls.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallLimits {
    /// Time limit for opening one connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time limit for one attempt in one region, connecting included.
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Duration,
    /// Time limit for one whole call: waiting, attempts, pauses and failover.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How many more times every region is tried after an outage.
    pub retries: u32,
    /// How many attempts may run at the same time.
    pub max_concurrency: usize,
    /// How many attempts may start in a second. Stay below the quota of the account, which all its users share.
    pub rate_limit: u32,
    /// How many consecutive outages open the circuit breaker of a region.
    pub breaker_failures: u32,
    /// How long the circuit breaker of a region stays open before one call probes the region. Randomized.
    #[serde(with = "humantime_serde")]
    pub breaker_cooldown: Duration,
    /// How long a call waits until a new replica can be used.
    #[serde(with = "humantime_serde")]
    pub replica_timeout: Duration,
}

const fn probe_interval() -> Duration {
    Duration::from_mins(1)
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(2),
            // Enough for two regions that do not answer before the third attempt succeeds. Canton itself waits 10 s and more.
            timeout: Duration::from_secs(6),
            retries: 2,
            max_concurrency: 32,
            // A tenth of the smallest regional quota of AWS for symmetric operations (5,500/s, shared by the account).
            rate_limit: 550,
            breaker_failures: 5,
            breaker_cooldown: Duration::from_secs(5),
            replica_timeout: Duration::from_mins(1),
        }
    }
}

impl WrapperConfig {
    /// Makes file names relative to the folder of the configuration: the reference of a local key, and the files in `allowed` and `prefer`.
    pub fn resolve(&mut self, folder: &Path) {
        let absolute =
            |path: &str| std::path::absolute(folder.join(path)).map_or_else(|_| path.to_owned(), |path| path.display().to_string());
        if self.provider == ProviderKind::Local {
            self.reference = absolute(&self.reference);
        }
        let is_file = |entry: &str| !entry.contains(':') && !entry.chars().all(|c| c.is_ascii_digit() || c == '*');
        for entry in self.allowed.iter_mut().chain(&mut self.prefer).filter(|entry| is_file(entry)) {
            *entry = absolute(entry);
        }
        self.openbao.iter_mut().for_each(|cluster| cluster.resolve(folder));
        self.pkcs11.iter_mut().for_each(|token| token.resolve(folder));
        self.gcp_kms.iter_mut().for_each(|service| service.resolve(folder));
        self.azure_key_vault.iter_mut().for_each(|vault| vault.resolve(folder));
    }

    /// The warning of the provider at every start, if there is one.
    pub fn warning(&self) -> Option<String> {
        let entry = PROVIDERS.iter().find(|entry| entry.kind == self.provider)?;
        (entry.warning)(&self.reference)
    }

    /// Checks what the types cannot express, and returns the patterns of the allowed wrapper keys.
    pub(super) fn check(&self) -> Result<Allowlist, WrapperError> {
        let wrong = |what: String| Err(WrapperError::Misconfigured { reference: self.reference.clone(), what });
        if self.reference.is_empty() {
            return wrong("[wrapper] reference is empty; name a key file, or a KMS key".to_owned());
        }
        if let Some(region) = self.regions.iter().chain(self.endpoints.keys()).find(|region| !is_region(region)) {
            return wrong(format!("{region:?} under [wrapper] is not the name of a region, such as eu-central-1"));
        }
        let CallLimits {
            connect_timeout,
            attempt_timeout,
            timeout,
            retries: _,
            max_concurrency,
            rate_limit,
            breaker_failures,
            breaker_cooldown,
            replica_timeout,
        } = &self.limits;
        let times = [connect_timeout, attempt_timeout, timeout, breaker_cooldown, replica_timeout];
        if times.iter().any(|time| time.is_zero()) || *max_concurrency == 0 || *rate_limit == 0 || *breaker_failures == 0 {
            return wrong("under [wrapper.limits] only retries may be 0".to_owned());
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&self.probe_interval) {
            return wrong("[wrapper] probe_interval is not between 1s and 1h".to_owned());
        }
        let mut addresses = BTreeSet::new();
        for cluster in &self.openbao {
            match cluster.check() {
                Ok(all) => {
                    if let Some(twice) = all.iter().find(|address| !addresses.insert(address.to_string())) {
                        return wrong(format!("{twice} is twice under [[wrapper.openbao]] addresses"));
                    }
                }
                Err(what) => return wrong(what),
            }
        }
        let mut tokens = BTreeSet::new();
        for token in &self.pkcs11 {
            if let Err(what) = token.check() {
                return wrong(what);
            }
            if !tokens.insert(&token.token) {
                return wrong(format!("the token {:?} is twice under [[wrapper.pkcs11]]", token.token));
            }
        }
        if let Some(Err(what)) = self.gcp_kms.as_ref().map(GcpKmsConfig::check) {
            return wrong(what);
        }
        let mut vaults = BTreeSet::new();
        for vault in &self.azure_key_vault {
            match vault.check() {
                Ok(checked) if vaults.insert(checked.host.to_string()) => {}
                Ok(checked) => return wrong(format!("the vault {} is twice under [[wrapper.azure_key_vault]]", checked.host)),
                Err(what) => return wrong(what),
            }
        }
        if !self.allowed.is_empty() {
            return Allowlist::parse(&self.allowed).or_else(wrong);
        }
        let Some(entry) = PROVIDERS.iter().find(|entry| entry.kind == self.provider) else {
            return wrong(format!("this binary was built without the provider {}", self.provider));
        };
        (entry.own_pattern)(&self.reference).and_then(|pattern| Allowlist::parse(&[pattern])).or_else(wrong)
    }
}

/// An `http` or `https` address without user information. `Debug` does not show it, to keep addresses of a KMS out of logs.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct EndpointUrl(String);

impl EndpointUrl {
    /// An address in the source, as the default of an option.
    pub(super) fn known(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: http::Uri = text.parse().map_err(|_| "an endpoint of [wrapper] is not a URL")?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(Self(text.to_owned())),
            _ => Err("an endpoint of [wrapper] is an http or https URL without a user name"),
        }
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointUrl(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef";

    const TWICE: &str = "provider = 'aws-kms'\nreference = 'alias/x'\nallowed = ['111122223333']\n\
                         [[pkcs11]]\nmodule = 'm'\ntoken = 't'\npin_file = 'p'\n[[pkcs11]]\nmodule = 'm'\ntoken = 't'\npin_file = 'p'";

    fn read(text: &str) -> Result<WrapperConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_least_section_has_sensible_limits() {
        let config = read(&format!("provider = 'aws-kms'\nreference = '{ARN}'")).unwrap();
        assert_eq!((config.limits.clone(), config.may_create), (CallLimits::default(), false));
        assert!(config.check().is_ok() && config.warning().is_none());
    }

    #[test]
    fn a_full_section_is_read_and_an_unknown_field_is_refused() {
        let full = "provider = 'aws-kms'\nreference = 'alias/canton'\nregions = ['eu-central-1', 'eu-west-1']\nallowed = ['111122223333']\n\
                    endpoints = { \"eu-central-1\" = 'http://127.0.0.1:4566' }\n[limits]\ntimeout = '9s'\nretries = 0";
        let config = read(full).unwrap();
        assert_eq!((config.limits.timeout, config.limits.retries), (Duration::from_secs(9), 0));
        assert!(config.check().is_ok());
        assert!(!format!("{config:?}").contains("4566"), "endpoints stay out of logs");
        assert!(read(&format!("{full}\nspeed = 1")).is_err());
    }

    #[test]
    fn an_invalid_section_is_refused_with_its_fix() {
        for (text, says) in [
            ("provider = 'local'\nreference = '/k'", "must be allowed"),
            ("provider = 'aws-kms'\nreference = 'alias/x'", "alias"),
            ("provider = 'aws-kms'\nreference = ''", "empty"),
            (TWICE, "twice"),
            ("provider = 'aws-kms'\nreference = 'alias/x'\nallowed = ['111122223333']\nprobe_interval = '500ms'", "probe_interval"),
            ("provider = 'aws-kms'\nreference = 'alias/x'\nallowed = ['111122223333']\nregions = ['evil.example/']", "region"),
            ("provider = 'aws-kms'\nreference = 'alias/x'\nallowed = ['111122223333']\n[limits]\nrate_limit = 0", "limits"),
        ] {
            let error = read(text).unwrap().check().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(says), "{text}: {error}");
        }
        for endpoint in ["ftp://x", "http://user:secret@x", "kms.local"] {
            assert!(endpoint.parse::<EndpointUrl>().is_err(), "{endpoint}");
        }
    }

    #[test]
    fn a_key_in_a_file_is_warned_of() {
        let config = read("provider = 'local'\nreference = '/k'\nallowed = ['/k']").unwrap();
        assert!(config.warning().unwrap().contains("/k"));
    }
}
