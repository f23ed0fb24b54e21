//! `keys verify`: the vault opens keys from their stored form and checks each. No key is used, and the list says for each what was found.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure,
        connection::Remote,
        progress::{Counts, Progress},
        reference::{KeyReference, all},
        table::{Column, column, optional},
    },
    client::{Call, ClientError},
    domain::{KeyId, KeyName, KeyState, NodeName},
};

const COLUMNS: &[Column] =
    &[column("key_id"), column("node"), column("name"), column("state"), column("result"), optional("wrapper_key"), optional("detail")];

/// The pause after the vault refused a call because of its rate limits.
const PAUSE: Duration = Duration::from_secs(1);

/// Which keys to verify.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The keys: ids, beginnings of ids (12 characters or more), or names
    #[arg(value_name = "KEY", required_unless_present = "all")]
    keys: Vec<KeyReference>,
    /// Verify every key that you may see and that is not destroyed. The rate limit of the vault for opened keys decides how long it takes
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    /// With --all: only keys of this node
    #[arg(long, requires = "all", conflicts_with = "keys")]
    node: Option<NodeName>,
}

/// A key to verify. Only a list tells node and name.
#[derive(Debug, Deserialize)]
struct Target {
    id: KeyId,
    node: Option<NodeName>,
    name: Option<KeyName>,
    state: Option<KeyState>,
}

/// Verifies the keys, and prints what was found.
///
/// # Errors
/// The error of the vault for a single key; for several, [`Failure::KeysNotVerified`] after the list was printed.
pub(super) async fn run(args: &VerifyArgs, remote: &Remote) -> Result<(), Failure> {
    let targets = targets(args, remote).await?;
    if let ([_], [target]) = (args.keys.as_slice(), targets.as_slice()) {
        return remote.print(&verify(target.id, remote).await?);
    }
    let (mut items, mut failed) = (Vec::with_capacity(targets.len()), 0_u64);
    let mut progress = Progress::new("verified keys");
    let total = u64::try_from(targets.len()).unwrap_or(u64::MAX);
    let mut interrupted = None;
    for target in &targets {
        let done = u64::try_from(items.len()).unwrap_or(u64::MAX).saturating_sub(failed);
        progress.show(Counts { done, failed, total }, Instant::now());
        let (result, detail) = match verify(target.id, remote).await {
            Ok(answer) => (Ok(answer), None),
            Err(ClientError::Problem(problem)) => (Err(problem.code), Some(problem.detail)),
            Err(error) => {
                // What was found so far is printed first.
                interrupted = Some(error);
                break;
            }
        };
        failed += u64::from(result.is_err());
        items.push(item(target, &result, detail.as_deref()));
    }
    progress.show(Counts { done: total.saturating_sub(failed), failed, total }, Instant::now());
    drop(progress);
    let raw = items.iter().map(serde_json::value::to_raw_value).collect::<Result<Vec<_>, _>>().map_err(std::io::Error::from)?;
    let mut list = remote.list_printer(COLUMNS);
    list.items(&raw.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
    list.end(None)?;
    match interrupted {
        Some(error) => Err(error.into()),
        None if failed > 0 => Err(Failure::KeysNotVerified { failed, total }),
        None => Ok(()),
    }
}

async fn targets(args: &VerifyArgs, remote: &Remote) -> Result<Vec<Target>, Failure> {
    if args.all {
        let mut listed: Vec<Target> = all(&remote.client, || Call::get("/v1/keys").query_if("node", args.node.as_ref())).await?;
        listed.retain(|key| key.state != Some(KeyState::Destroyed));
        return Ok(listed);
    }
    let mut targets = Vec::with_capacity(args.keys.len());
    for key in &args.keys {
        targets.push(Target { id: key.resolve(&remote.client).await?, node: None, name: None, state: None });
    }
    Ok(targets)
}

/// The answer of the vault for one key. While the vault has too many requests, the call is repeated.
async fn verify(id: KeyId, remote: &Remote) -> Result<Value, ClientError> {
    loop {
        match remote.client.post(&format!("/v1/keys/{id}/verify"), &json!({})).await {
            Err(ClientError::Problem(problem)) if problem.status == 429 => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// One line of the list.
fn item(target: &Target, result: &Result<Value, String>, detail: Option<&str>) -> Value {
    let Target { id, node, name, state } = target;
    let answered = |field: &str| result.as_ref().ok().and_then(|answer| answer.get(field)).cloned();
    json!({
        "key_id": id,
        "node": node,
        "name": name,
        "state": answered("state").or_else(|| state.map(|state| json!(state))),
        "result": result.as_ref().err().map_or("verified", String::as_str),
        "wrapper_key": answered("wrapper_key"),
        "detail": detail,
    })
}
