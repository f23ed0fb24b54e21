//! `check`: a doctor. One line for each thing that must be right: ok, or what to do.

use std::{fmt::Write as _, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, path::PathBuf, sync::Arc};

use clap::Args;
use serde_json::json;

use crate::{
    config::Config,
    crypto::{Random, SystemRandom, envelope},
    domain::{EncryptionContext, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Providers, Wrapper},
    mtls::{ExpiryKind, Files, Material, Trust},
    storage::{WrapperKeyUse, inspect},
};

use super::{Failure, Format};
use crate::server::{
    hardening::harden,
    run::{clock, runtime},
};

/// Check configuration, certificates, storage and KMS permissions
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

/// One thing that was looked at: `Ok` tells what is so, `Err` what to do.
struct Line {
    what: &'static str,
    found: Result<String, String>,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let lines = lines(&args.config)?;
    let wrong = lines.iter().filter(|line| line.found.is_err()).count();
    match args.output {
        Format::Text => {
            for Line { what, found } in &lines {
                match found {
                    Ok(so) => writeln!(std::io::stdout(), "ok    {what}: {so}")?,
                    Err(mend) => writeln!(std::io::stdout(), "MEND  {what}: {mend}")?,
                }
            }
        }
        Format::Json => {
            let line = |Line { what, found }: &Line| json!({ "check": what, "ok": found.is_ok(), "detail": found.as_ref().unwrap_or_else(|mend| mend) });
            writeln!(std::io::stdout(), "{}", serde_json::Value::from(lines.iter().map(line).collect::<Vec<_>>()))?;
        }
    }
    if wrong == 0 { Ok(()) } else { Err(Failure::Other(anyhow::anyhow!("{wrong} of {} checks need mending", lines.len()))) }
}

fn lines(file: &Path) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    let mut push = |what, found| lines.push(Line { what, found });
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            push("configuration", Err(error.to_string()));
            return Ok(lines);
        }
    };
    push("configuration", Ok(format!("{} nodes, {} grants", config.nodes.len(), config.grants.len())));
    push("certificates", certificates(&config));
    push("server key file", private(&config.tls.key));
    push("storage", storage(&config));
    push("memory", harden(&config.memory).map(|hardening| hardening.to_string()).map_err(|error| error.to_string()));
    for found in runtime()?.block_on(openbao_servers(&config)) {
        push("OpenBao server", found);
    }
    push("wrapper key", runtime()?.block_on(wrapper(&config)));
    for WrapperKeyUse { key, keys, .. } in inspect(&config.storage.path).map(|found| found.wrapper_keys).unwrap_or_default() {
        push("registered wrapper key", runtime()?.block_on(registered(&config, &key, keys)));
    }
    Ok(lines)
}

/// Certificates and lists can be used, and none expires within a month.
fn certificates(config: &Config) -> Result<String, String> {
    const SOON: i64 = 30 * 24 * 3600;
    let files = Files::read(config.tls.files()).map_err(|error| error.to_string())?;
    let material = Material::new(&config.tls, &files, &clock()).map_err(|error| error.to_string())?;
    let expiries = Trust::new(material, clock()).expiries();
    let mut told = String::new();
    for (kind, seconds) in &expiries {
        let _ = write!(told, "{}{} for {} days", if told.is_empty() { "" } else { ", " }, kind.as_str(), seconds / (24 * 3600));
    }
    // A revocation list is renewed far more often than monthly.
    if expiries.iter().any(|(kind, seconds)| *kind != ExpiryKind::Crl && *seconds < SOON) {
        return Err(format!("{told}: renew what ends within 30 days; it is read anew while the vault serves"));
    }
    Ok(told)
}

/// Nobody but the owner reads it.
fn private(path: &Path) -> Result<String, String> {
    let mode = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.permissions().mode() & 0o777;
    if mode.trailing_zeros() >= 6 {
        Ok(format!("{} is private ({mode:03o})", path.display()))
    } else {
        Err(format!("{} can be read by others ({mode:03o}): chmod 600", path.display()))
    }
}

fn storage(config: &Config) -> Result<String, String> {
    let path = &config.storage.path;
    if !path.exists() {
        let folder = path.parent().filter(|folder| folder.is_dir());
        return folder.map_or_else(
            || Err(format!("the folder of {} does not exist: make it, owned by the user that serves", path.display())),
            |_| Ok(format!("{} will be made at the first start", path.display())),
        );
    }
    private(path)?;
    let found = inspect(path).map_err(|error| error.to_string())?;
    if found.vault != config.vault.id.as_str() {
        return Err(format!("{} belongs to the vault {}, and [vault] id is {}", path.display(), found.vault, config.vault.id));
    }
    if found.mode != "production" {
        return Err(format!("{} was made by {}: serve refuses it", path.display(), found.mode));
    }
    if let Some(damage) = found.damage.first() {
        return Err(format!("{} is damaged ({damage}): restore a backup", path.display()));
    }
    Ok(format!("{} keys in {}", found.keys, path.display()))
}

/// Every server of OpenBao answers, is unsealed, and lets the vault in.
async fn openbao_servers(config: &Config) -> Vec<Result<String, String>> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    match Providers::new(config.wrapper.clone(), random) {
        Ok(providers) => providers.openbao_servers().await,
        // Said of the wrapper key.
        Err(_) => Vec::new(),
    }
}

/// The configured wrapper key wraps and unwraps now, with the permissions this process has.
async fn wrapper(config: &Config) -> Result<String, String> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let providers = Providers::new(config.wrapper.clone(), random).map_err(|error| error.to_string())?;
    let wrapper = &config.wrapper;
    let found = providers.resolve(wrapper.provider, &wrapper.reference, &wrapper.regions).await.map_err(|error| error.to_string())?;
    if !found.usable {
        return Err(format!("{} is not enabled: enable it, or configure another", found.reference));
    }
    let key = WrapperKey {
        id: WrapperKeyId::from_random([0; 6]),
        provider: wrapper.provider,
        identity: found.identity.clone(),
        reference: found.reference.clone(),
        regions: found.regions.clone(),
        state: WrapperState::Standby,
        canary: Vec::new(),
        created_at: Timestamp::from_micros(0),
    };
    let connected = providers.connect(&key).await.map_err(|error| error.to_string())?;
    round_trip(connected.as_ref(), config).await?;
    let warning = wrapper.warning().map_or_else(String::new, |warning| format!("; {warning}"));
    Ok(format!("{} wraps and unwraps{warning}", found.identity))
}

async fn round_trip(wrapper: &dyn Wrapper, config: &Config) -> Result<(), String> {
    let context = EncryptionContext::new(vec![("version", "1".into()), ("vault", config.vault.id.to_string()), ("canary", "check".into())]);
    let data_key = envelope::new_data_key(&SystemRandom::default()).map_err(|error| error.to_string())?;
    // What the KMS calls the rights that it takes.
    let (wraps, unwraps) = match config.wrapper.provider {
        ProviderKind::Local => ("read the file", "read the file"),
        ProviderKind::AwsKms => ("kms:Encrypt", "kms:Decrypt"),
        ProviderKind::OpenbaoTransit => ("read of keys/, update of encrypt/", "update of decrypt/"),
    };
    let made = wrapper.wrap(&data_key, &context).await.map_err(|error| format!("it does not wrap ({wraps}): {error}"))?;
    let back = wrapper.unwrap(&made.bytes, &context).await.map_err(|error| format!("it does not unwrap ({unwraps}): {error}"))?;
    if back.data_key.same(&data_key) { Ok(()) } else { Err("it gave back another data key".into()) }
}

/// A wrapper key that the store names still opens its canary, and is still allowed.
async fn registered(config: &Config, key: &WrapperKey, keys: u64) -> Result<String, String> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let providers = Providers::new(config.wrapper.clone(), random).map_err(|error| error.to_string())?;
    let wrapper = providers.connect(key).await.map_err(|error| format!("{}: {error}", key.id))?;
    let context = crate::vault::canary_context(&config.vault.id, key.id);
    wrapper.unwrap(&key.canary, &context).await.map_err(|error| format!("{}: {error}", key.id))?;
    Ok(format!("{} ({}, {}) opens its canary; {keys} keys have a wrap under it", key.id, key.identity, key.state))
}
