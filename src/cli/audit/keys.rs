//! The verifier keys of a log: `audit verifier-keys` lists them, and other commands read them from arguments and files.

use std::path::Path;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    audit::{
        Checkpoint, KeyType, MAX_NOTE, SignedNote, VerifierKey,
        verify::{Finding, Reason, TrustedKeys},
    },
    cli::{Failure, Format, connection::Remote},
    client::Call,
    files,
};

/// The option that names the trusted keys.
#[derive(Debug, Args)]
pub(super) struct VerifierKeyArgs {
    /// The verifier key of the log, or a file with one on each line. Take it from a place that an attacker who changes the log cannot change
    #[arg(long = "verifier-key", value_name = "KEY|FILE", required = true)]
    verifier_keys: Vec<String>,
}

/// The option that names witnesses.
#[derive(Debug, Args)]
pub(super) struct WitnessArgs {
    /// The verifier key of a witness, or a file with one on each line: a checkpoint must have the cosignatures of all of them
    #[arg(long = "witness", value_name = "KEY|FILE")]
    witnesses: Vec<String>,
}

impl WitnessArgs {
    /// The keys of the witnesses.
    pub(super) fn keys(&self) -> Result<Vec<VerifierKey>, Failure> {
        let witnesses = given("--witness", &self.witnesses)?;
        match witnesses.iter().find(|key| key.key_type() != KeyType::Witness) {
            Some(key) => Err(Failure::Usage(format!("--witness: {} is no key of a witness", key.name()))),
            None => Ok(witnesses),
        }
    }
}

impl VerifierKeyArgs {
    /// The trusted keys.
    pub(super) fn keys(&self) -> Result<TrustedKeys, Failure> {
        trusted(&self.verifier_keys)
    }
}

/// The keys that `--verifier-key` gives, each as a text or in a file.
pub(super) fn trusted(values: &[String]) -> Result<TrustedKeys, Failure> {
    TrustedKeys::new(given("--verifier-key", values)?)
        .ok_or_else(|| Failure::Usage("--verifier-key: there is no key of a log among them".into()))
}

/// The keys of an option: keys, or files with keys.
fn given(option: &str, values: &[String]) -> Result<Vec<VerifierKey>, Failure> {
    let mut keys = Vec::new();
    for value in values {
        match value.parse::<VerifierKey>() {
            Ok(key) => keys.push(key),
            Err(_) => keys.extend(read_keys(option, value)?),
        }
    }
    Ok(keys)
}

/// The keys in a file, one on each line. Empty lines and those that begin with # are ignored.
fn read_keys(option: &str, path: &str) -> Result<Vec<VerifierKey>, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::Usage(format!("{option} {path}: {why}"));
    let bytes = files::read(path.as_ref(), files::MAX_FILE).map_err(|error| unusable(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable(&"not UTF-8"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().map_err(|error| unusable(&error))).collect()
}

/// A checkpoint that was seen before. A trusted key must have signed it.
pub(super) fn known_checkpoint(path: &Path, keys: &TrustedKeys) -> Result<Checkpoint, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::Usage(format!("--checkpoint {}: {why}", path.display()));
    let bytes = files::read(path, MAX_NOTE as u64).map_err(|error| unusable(&error))?;
    let note = SignedNote::parse(&bytes).map_err(|error| unusable(&error))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| unusable(&error))?;
    match keys.signer(&note, &checkpoint.origin, checkpoint.size) {
        Ok(_) => Ok(checkpoint),
        Err(reason) => Err(not_verified(&Finding::of_log(reason), &format!("--checkpoint {}: ", path.display()))),
    }
}

/// The failure of a verification.
pub(in crate::cli) fn not_verified(finding: &Finding, prefix: &str) -> Failure {
    Failure::NotVerified { code: Reason::code(&finding.reason), detail: format!("{prefix}{finding}") }
}

#[derive(Deserialize)]
struct Keys {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    verifier_key: VerifierKey,
    state: String,
    created_at: String,
}

/// The keys that the vault itself publishes: they show that the log fits them, and not that they are the right ones.
pub(super) async fn published(remote: &Remote) -> Result<TrustedKeys, Failure> {
    let Keys { items } = remote.client.success(Call::get("/v1/audit/verifier-keys")).await?.parse()?;
    let keys = items.into_iter().map(|item| item.verifier_key);
    TrustedKeys::new(keys).ok_or_else(|| Failure::Unexpected("the vault publishes no verifier key of its log".into()))
}

/// Lists the verifier keys of the vault, in the form that `--verifier-key FILE` reads.
pub(super) async fn list(remote: &Remote) -> Result<(), Failure> {
    let answer = remote.client.success(Call::get("/v1/audit/verifier-keys")).await?;
    if remote.format == Format::Json {
        return remote.print(&answer.parse::<Value>()?);
    }
    let Keys { items } = answer.parse()?;
    for Item { verifier_key, state, created_at } in items {
        println!("# {}, created {}\n{verifier_key}", crate::cli::output::printable(&state), crate::cli::output::printable(&created_at));
    }
    Ok(())
}
