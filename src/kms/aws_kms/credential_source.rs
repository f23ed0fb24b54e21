//! Where the AWS credentials of the process come from. Environment and files are read again at every load, so that a change needs no restart.
//!
//! The order is that of every AWS SDK: environment, profile, web identity, container, instance metadata. `aws-config` implements them, except
//! `credential_process`, which the vault runs itself: the SDK would log its messages, and would not end it.

use std::{env, path::PathBuf};

use aws_config::{
    AppName, BehaviorVersion, ConfigLoader, Region, profile::Profile, profile::ProfileSet, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, error::CredentialsError},
};
use aws_types::os_shim_internal::{Env, Fs};
use sha2::{Digest as _, Sha256};
use tracing::{instrument::WithSubscriber as _, subscriber::NoSubscriber};

use crate::{
    files,
    kms::{CredentialFault, Outage},
};

use super::{credential_error::classify, credential_process, credentials::Failure};

/// The kind of source that is configured, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Environment,
    Profile,
    Process,
    Sso,
    WebIdentity,
    Container,
    Instance,
}

impl Source {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment variables",
            Self::Profile => "profile",
            Self::Process => "credential_process",
            Self::Sso => "sso",
            Self::WebIdentity => "web identity",
            Self::Container => "container credentials",
            Self::Instance => "instance metadata",
        }
    }
}

/// What is configured now.
pub(super) struct Configured {
    pub(super) source: Source,
    /// The selected profile.
    pub(super) profile: String,
    command: Option<String>,
    roles: Vec<Role>,
    region: Option<String>,
}

/// A role that is assumed with the credentials before it.
struct Role {
    arn: String,
    session_name: Option<String>,
    external_id: Option<String>,
}

impl Configured {
    /// Reads the environment and the shared files.
    pub(super) async fn find() -> Result<Self, Failure> {
        #[expect(deprecated, reason = "the new name of the type is in a crate that this one need not depend on")]
        let files = aws_config::profile::profile_file::ProfileFiles::default();
        let profiles = aws_config::profile::load(&Fs::real(), &Env::real(), &files, None).with_subscriber(NoSubscriber::default()).await;
        let profiles = profiles.map_err(|_| Failure::Denied(CredentialFault::Misconfigured))?;
        let region =
            variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or_else(|| profiles.get("region").map(str::to_owned));
        let profile = profiles.selected_profile().to_owned();
        let found = |source, command, roles| Ok(Self { source, profile: profile.clone(), command, roles, region: region.clone() });
        if variable("AWS_ACCESS_KEY_ID").is_some() {
            return found(Source::Environment, None, Vec::new());
        }
        if let Some((source, command, roles)) = in_profile(&profiles, &profile) {
            return found(source, command, roles);
        }
        let set = |name: &str| variable(name).is_some();
        let source = if set("AWS_WEB_IDENTITY_TOKEN_FILE") {
            Source::WebIdentity
        } else if set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            Source::Container
        } else {
            Source::Instance
        };
        found(source, None, Vec::new())
    }

    /// Loads the credentials. `home` is the region of STS, if neither the environment nor the profile names one.
    pub(super) async fn load(&self, home: &str) -> Result<Credentials, Failure> {
        let region = self.region.clone().unwrap_or_else(|| home.to_owned());
        // The SDK logs what it finds, with the messages of processes and servers. The vault logs its own lines.
        let loaded = self.load_quietly(region).with_subscriber(NoSubscriber::default());
        loaded.await
    }

    async fn load_quietly(&self, region: String) -> Result<Credentials, Failure> {
        let failed = |error: CredentialsError| classify(self.source, &error);
        let config = loader().region(Region::new(region)).retry_config(RetryConfig::standard()).timeout_config(time_limits()).load().await;
        let Some(command) = &self.command else {
            let provider = config.credentials_provider().ok_or(Failure::Denied(CredentialFault::Missing))?;
            return provider.provide_credentials().await.map_err(failed);
        };
        let mut credentials = credential_process::run(command).await?;
        for Role { arn, session_name, external_id } in &self.roles {
            let mut role =
                AssumeRoleProvider::builder(arn).configure(&config).session_name(session_name.as_deref().unwrap_or("canton-keyvault"));
            if let Some(id) = external_id {
                role = role.external_id(id);
            }
            credentials = role.build_from_provider(credentials).await.provide_credentials().await.map_err(failed)?;
        }
        Ok(credentials)
    }
}

/// A loader of SDK configurations with the settings that all clients share.
pub(super) fn loader() -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest());
    match AppName::new("canton-keyvault") {
        Ok(name) => loader.app_name(name),
        Err(_) => loader,
    }
}

/// Which files hold the profiles, as the SDKs find them.
pub(super) fn shared_files() -> Vec<PathBuf> {
    let home = || variable("HOME").map(PathBuf::from).unwrap_or_default();
    let file = |name: &str, default: &str| variable(name).map_or_else(|| home().join(".aws").join(default), PathBuf::from);
    vec![file("AWS_CONFIG_FILE", "config"), file("AWS_SHARED_CREDENTIALS_FILE", "credentials")]
}

/// A digest of the contents of the shared files. A file that is missing counts as empty.
pub(super) fn fingerprint() -> [u8; 32] {
    let contents = shared_files().into_iter().map(|file| files::read(&file, files::MAX_FILE).map(|bytes| Sha256::digest(&*bytes)).ok());
    let digest = contents.fold(Sha256::new(), |digest, one| digest.chain_update(one.unwrap_or_default()));
    digest.finalize().into()
}

/// The source of the profile's credentials, the command of a process, and the roles to assume with them, the first one first. `None` if the
/// profile has no credentials. Follows `source_profile`, with the precedence of the SDKs.
fn in_profile(profiles: &ProfileSet, selected: &str) -> Option<(Source, Option<String>, Vec<Role>)> {
    let (mut roles, mut visited, mut name) = (Vec::new(), Vec::new(), selected);
    loop {
        let profile = profiles.get_profile(name)?;
        let is_first = visited.is_empty();
        if visited.contains(&name) {
            // The SDK reports the loop.
            return Some((Source::Profile, None, Vec::new()));
        }
        visited.push(name);
        if !is_first && profile.get("aws_access_key_id").is_some() {
            return Some((Source::Profile, None, Vec::new()));
        }
        if let Some(arn) = profile.get("role_arn").filter(|_| profile.get("web_identity_token_file").is_none()) {
            let text = |key| profile.get(key).map(str::to_owned);
            roles.push(Role { arn: arn.to_owned(), session_name: text("role_session_name"), external_id: text("external_id") });
            if let Some(next) = profile.get("source_profile").filter(|next| *next != name) {
                name = next;
                continue;
            }
        }
        roles.reverse();
        return base(profile).map(|(source, command)| (source, command, roles));
    }
}

fn base(profile: &Profile) -> Option<(Source, Option<String>)> {
    let has = |key| profile.get(key).is_some();
    match profile.get("credential_source") {
        Some(name) if name.eq_ignore_ascii_case("EcsContainer") => Some((Source::Container, None)),
        Some(name) if name.eq_ignore_ascii_case("Ec2InstanceMetadata") => Some((Source::Instance, None)),
        Some(_) => Some((Source::Environment, None)),
        None if has("web_identity_token_file") => Some((Source::WebIdentity, None)),
        None if has("sso_session") || has("sso_start_url") => Some((Source::Sso, None)),
        None if has("credential_process") => Some((Source::Process, profile.get("credential_process").map(str::to_owned))),
        None if has("aws_access_key_id") || has("role_arn") => Some((Source::Profile, None)),
        None => None,
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A metadata service or STS answers within milliseconds.
fn time_limits() -> TimeoutConfig {
    let (connect, attempt) = (std::time::Duration::from_secs(2), std::time::Duration::from_secs(5));
    TimeoutConfig::builder().connect_timeout(connect).operation_attempt_timeout(attempt).build()
}

/// The failure of a load that takes too long.
pub(super) const SLOW: Failure = Failure::Outage(Outage::CredentialsUnavailable);
