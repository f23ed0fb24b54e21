//! `check`: verifies the configuration, the certificates, the store and the wrapper keys. Each line is `ok`, `FAIL` with the fix, or
//! `warn` for what has no effect.

use std::{fmt::Write as _, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, path::PathBuf, sync::Arc};

use clap::Args;
use serde_json::json;

use crate::{
    config::Config,
    crypto::{Random, SystemRandom, envelope},
    domain::{EncryptionContext, ProviderKind, Timestamp, WrapperKey, WrapperKeyId, WrapperState},
    kms::{Providers, Wrapper},
    mtls::{ExpiryKind, Files, TlsMaterial, Trust},
    storage::{WrapperKeyUse, inspect},
};

use super::{Failure, Format};
use crate::server::{
    hardening::harden,
    run::{clock, runtime},
    warnings,
};

/// Check configuration, certificates, storage and KMS permissions
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration of the vault
    #[arg(long, env = "KEYVAULT_CONFIG", default_value = "keyvault.toml")]
    config: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

/// One check: `Ok` with what was found, or `Err` with the fault and its fix.
struct Check {
    what: &'static str,
    result: Result<String, String>,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let (checks, warnings) = run_checks(&args.config)?;
    let failed = checks.iter().filter(|check| check.result.is_err()).count();
    match args.output {
        Format::Text => {
            for Check { what, result } in &checks {
                match result {
                    Ok(found) => writeln!(std::io::stdout(), "ok    {what}: {found}")?,
                    Err(fault) => writeln!(std::io::stdout(), "FAIL  {what}: {fault}")?,
                }
            }
            for warning in &warnings {
                writeln!(std::io::stdout(), "warn  {warning}")?;
            }
        }
        Format::Json => {
            let line = |Check { what, result }: &Check| json!({ "check": what, "ok": result.is_ok(), "detail": result.as_ref().unwrap_or_else(|fault| fault) });
            let warning = |warning: &String| json!({ "check": "warning", "ok": true, "detail": warning });
            let lines = checks.iter().map(line).chain(warnings.iter().map(warning)).collect::<Vec<_>>();
            writeln!(std::io::stdout(), "{}", serde_json::Value::from(lines))?;
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Other(anyhow::anyhow!("{failed} of {} checks failed", checks.len()))) }
}

/// The checks, and the warnings about what has no effect.
fn run_checks(file: &Path) -> Result<(Vec<Check>, Vec<String>), Failure> {
    let mut checks = Vec::new();
    let mut push = |what, result| checks.push(Check { what, result });
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            push("configuration", Err(error.to_string()));
            return Ok((checks, Vec::new()));
        }
    };
    push("configuration", Ok(format!("{} nodes, {} grants", config.nodes.len(), config.grants.len())));
    let (found, mut warnings) = match certificates(&config) {
        Ok((found, warnings)) => (found, warnings),
        Err(fault) => (Err(fault), Vec::new()),
    };
    push("certificates", found);
    push("server key", private(&config.tls.key));
    push("storage", storage(&config));
    push("memory", harden(&config.memory).map(|hardening| hardening.to_string()).map_err(|error| error.to_string()));
    for result in runtime()?.block_on(kms_servers(&config)) {
        push("KMS server", result);
    }
    push("wrapper key", runtime()?.block_on(wrapper(&config)));
    for WrapperKeyUse { key, keys, .. } in inspect(&config.storage.path).map(|found| found.wrapper_keys).unwrap_or_default() {
        push("registered wrapper key", runtime()?.block_on(registered(&config, &key, keys)));
    }
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    if let (Ok(found), Ok(providers)) = (inspect(&config.storage.path), Providers::new(config.wrapper.clone(), random)) {
        let registered = found.wrapper_keys.into_iter().map(|used| used.key).collect::<Vec<_>>();
        warnings.extend(warnings::of_wrapper_keys(&providers, &registered));
    }
    Ok((checks, warnings))
}

/// Certificates and revocation lists are valid, and no certificate expires within 30 days. With the warnings about them.
fn certificates(config: &Config) -> Result<(Result<String, String>, Vec<String>), String> {
    const SOON: i64 = 30 * 24 * 3600;
    let files = Files::read(config.tls.files()).map_err(|error| error.to_string())?;
    let material = TlsMaterial::new(&config.tls, &files, &clock()).map_err(|error| error.to_string())?;
    let trust = Trust::new(material, clock());
    let (expiries, warnings) = (trust.expiries(), warnings::of_trust_and_grants(config, &trust));
    let mut validity = String::new();
    for (kind, seconds) in &expiries {
        let _ =
            write!(validity, "{}{} valid for {} days", if validity.is_empty() { "" } else { ", " }, kind.as_str(), seconds / (24 * 3600));
    }
    // A revocation list is renewed more often than every 30 days.
    if expiries.iter().any(|(kind, seconds)| *kind != ExpiryKind::Crl && *seconds < SOON) {
        let fault = format!("{validity}. Fix: renew what expires within 30 days. The vault reads the new files without a restart");
        return Ok((Err(fault), warnings));
    }
    Ok((Ok(validity), warnings))
}

/// Only the owner can read the file.
fn private(path: &Path) -> Result<String, String> {
    let mode = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.permissions().mode() & 0o777;
    if mode.trailing_zeros() >= 6 {
        Ok(format!("only its owner can read {} (mode {mode:04o})", path.display()))
    } else {
        Err(format!("mode {mode:04o} lets others read it. Fix: chmod 600 {}", path.display()))
    }
}

fn storage(config: &Config) -> Result<String, String> {
    let path = &config.storage.path;
    if !path.exists() {
        let folder = path.parent().filter(|folder| folder.is_dir());
        return folder.map_or_else(
            || Err(format!("the folder of {} does not exist. Fix: create it, owned by the user that runs the vault", path.display())),
            |_| Ok(format!("{} will be created at the first start", path.display())),
        );
    }
    private(path)?;
    let found = inspect(path).map_err(|error| error.to_string())?;
    if found.vault != config.vault.id.as_str() {
        return Err(format!(
            "{} belongs to the vault {}, but [vault] id is {}. Fix: correct the id or the path",
            path.display(),
            found.vault,
            config.vault.id
        ));
    }
    if found.mode != "production" {
        return Err(format!("{} was created by {}, and serve refuses it. Fix: choose another path", path.display(), found.mode));
    }
    if let Some(damage) = found.damage.first() {
        return Err(format!("{} is damaged ({damage}). Fix: restore a backup", path.display()));
    }
    Ok(format!("{} keys in {}", found.keys, path.display()))
}

/// Every configured KMS server answers, is unsealed, and accepts the login of the vault.
async fn kms_servers(config: &Config) -> Vec<Result<String, String>> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    match Providers::new(config.wrapper.clone(), random) {
        Ok(providers) => providers.check_servers().await,
        // The check of the wrapper key reports the error.
        Err(_) => Vec::new(),
    }
}

/// The configured wrapper key wraps and unwraps with the permissions of this process.
async fn wrapper(config: &Config) -> Result<String, String> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let providers = Providers::new(config.wrapper.clone(), random).map_err(|error| error.to_string())?;
    let wrapper = &config.wrapper;
    let found = providers.resolve(wrapper.provider, &wrapper.reference, &wrapper.regions).await.map_err(|error| error.with_remedy())?;
    if !found.usable {
        return Err(format!("{} is disabled. Fix: enable it, or configure another one", found.reference));
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
    // The names of the permissions in the KMS.
    let (wraps, unwraps) = match config.wrapper.provider {
        ProviderKind::Local => ("read the file", "read the file"),
        ProviderKind::AwsKms => ("kms:Encrypt", "kms:Decrypt"),
        ProviderKind::OpenbaoTransit => ("read of keys/, update of encrypt/", "update of decrypt/"),
    };
    let made = wrapper
        .wrap(&data_key, &context)
        .await
        .map_err(|error| format!("it does not wrap: {}. Required permission: {wraps}", error.with_remedy()))?;
    let unwrapped = wrapper
        .unwrap(&made.bytes, &context)
        .await
        .map_err(|error| format!("it does not unwrap: {}. Required permission: {unwraps}", error.with_remedy()))?;
    if unwrapped.data_key.same(&data_key) { Ok(()) } else { Err("it unwrapped another data key".into()) }
}

/// A registered wrapper key opens its canary, and the configuration allows it.
async fn registered(config: &Config, key: &WrapperKey, keys: u64) -> Result<String, String> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let providers = Providers::new(config.wrapper.clone(), random).map_err(|error| error.to_string())?;
    let wrapper = providers.connect(key).await.map_err(|error| format!("{}: {error}", key.id))?;
    let context = crate::vault::canary_context(&config.vault.id, key.id);
    wrapper.unwrap(&key.canary, &context).await.map_err(|error| format!("{}: {}", key.id, error.with_remedy()))?;
    Ok(format!("{} ({}, {}) opens its canary; {keys} keys have a wrap under it", key.id, key.identity, key.state))
}
