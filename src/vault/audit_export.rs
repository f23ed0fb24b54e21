//! Exports of the audit log: one call, one audit entry, a stream of any length.
//!
//! Between two parts of the stream nothing is held but a few numbers: no snapshot of the store, no lock. The authorization of the caller is
//! checked again before each part. An export ends with the entry that its checkpoint covers last, so that it can be verified as a whole.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    audit::merkle::Hash,
    domain::{AuditEvent, Hex, NodeScope, Operation},
    storage::{EntryFilter, EntryPage, Order, PageRequest, StoredCheckpoint, TreeQuery},
};

use super::{AuditedResult, CallContext, EntryQuery, Vault, VaultError, audit_gate::Completed};

/// How long one export may take. It is resumed after the last entry that the reader has.
pub const EXPORT_TIME: Duration = Duration::from_hours(1);

/// Entries in a part of the stream: some 200 KB.
const ENTRIES_AT_ONCE: u32 = 256;

/// An export in progress. [`Export::next`] gives its parts.
pub struct Export {
    vault: Arc<Vault>,
    /// The event of the call, for further checks of the authorization.
    event: AuditEvent,
    filter: EntryFilter,
    /// The first line, until it was given.
    header: Option<Vec<u8>>,
    /// The last entry of the export.
    size: u64,
    /// Earlier checkpoints, which narrow down a change for a verification. Each stands after the last entry that it covers.
    checkpoints: VecDeque<StoredCheckpoint>,
    /// The last entry looked at.
    position: u64,
    /// Entries given.
    entries: u64,
    /// When the export ends at the latest.
    deadline: Instant,
    ended: bool,
}

impl Vault {
    /// Begins an export of the entries about the nodes that the caller may see, oldest first, after `query.after`. A checkpoint is made first.
    /// If that is not possible, the newest stored one is used.
    ///
    /// # Errors
    /// `InvalidRequest` if the key is not clear, the order is not oldest first, or the log is shorter than `query.after`; `Forbidden`,
    /// `StorageUnavailable` or `AuditUnavailable`.
    pub async fn export_audit(self: &Arc<Self>, call: &CallContext, query: EntryQuery) -> Result<AuditedResult<Export>, VaultError> {
        let event = self.gate.event(call, Operation::ExportAudit);
        let result = async {
            let permit = self.gate.permit_inventory(&event)?;
            let filter = self.entry_filter(query, permit.nodes()).await?;
            if filter.order == Order::Newest {
                return Err(VaultError::InvalidRequest("order: an export is oldest first".into()));
            }
            let checkpoint = self.checkpoint_of_export().await?;
            let size = checkpoint.as_ref().map_or_else(|| self.env.store.log_head().size, |checkpoint| checkpoint.size);
            let after = filter.after;
            if after > size {
                return Err(VaultError::InvalidRequest(format!("after: the checkpoint of the log has {size} entries")));
            }
            if !filter.leaves_out() {
                self.not_removed(after)?;
            }
            let origin = match &checkpoint {
                Some(checkpoint) => checkpoint.origin.clone(),
                None => self.log_origin().await?,
            };
            let frontier = self.env.store.tree(TreeQuery::Subtrees { size: after }).await?;
            let header = Header {
                export: 1,
                origin: &origin,
                checkpoint: checkpoint.as_ref().map(|checkpoint| checkpoint.note.as_str()),
                after,
                filter: filter.leaves_out().then(|| shown(&filter)),
                frontier: encoded(&frontier),
                removed_through: Some(self.env.store.removed_through()).filter(|removed| *removed > after),
            };
            let header = Some(line(&header)?);
            let checkpoints = if filter.leaves_out() { Vec::new() } else { self.env.store.checkpoints(after, size).await? };
            let filter = EntryFilter { last: Some(size), ..filter };
            let (event, deadline) = (event.clone(), Instant::now() + EXPORT_TIME);
            let vault = Arc::clone(self);
            Ok(Completed::read(
                permit,
                Export {
                    vault,
                    event,
                    filter,
                    header,
                    size,
                    checkpoints: checkpoints.into(),
                    position: after,
                    entries: 0,
                    deadline,
                    ended: false,
                },
            ))
        };
        let result = Box::pin(result).await;
        Box::pin(self.gate.conclude(event, result)).await
    }

    async fn checkpoint_of_export(&self) -> Result<Option<StoredCheckpoint>, VaultError> {
        // Its future is large.
        match Box::pin(self.make_checkpoint(true)).await {
            Ok(made) => Ok(made),
            Err(error) => {
                tracing::warn!(%error, "an export of the audit log uses an earlier checkpoint, because none can be made");
                Ok(self.env.store.newest_checkpoint(&self.log_origin().await?).await?)
            }
        }
    }
}

impl Export {
    /// The next part: whole lines. `None` after the last one.
    ///
    /// # Errors
    /// `Forbidden` if the caller may no longer see what it exports; `ShuttingDown`; `StorageUnavailable`. Nothing follows an error, and the
    /// stream lacks its last line.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        if let Some(header) = self.header.take() {
            return Ok(Some(header));
        }
        if self.ended {
            return Ok(None);
        }
        let part = self.part().await;
        self.ended |= part.is_err();
        part.map(Some)
    }

    async fn part(&mut self) -> Result<Vec<u8>, VaultError> {
        let mut lines = Vec::new();
        loop {
            self.check()?;
            let page = PageRequest { after: self.position, limit: ENTRIES_AT_ONCE };
            let EntryPage { entries, stopped_at } = self.vault.env.store.entries(&self.filter, page).await?;
            let full = entries.len() >= ENTRIES_AT_ONCE as usize;
            let last = entries.last().map(|stored| stored.entry.sequence);
            let mut proofs = Vec::new();
            if self.filter.leaves_out() && !entries.is_empty() {
                let leaves = entries.iter().map(|stored| stored.entry.sequence.saturating_sub(1)).collect();
                proofs = self.vault.env.store.inclusion_proofs(leaves, self.size).await?;
            }
            let mut proofs = proofs.into_iter();
            for stored in entries {
                lines.extend_from_slice(&stored.bytes);
                lines.push(b'\n');
                if let Some(proof) = proofs.next() {
                    lines.extend(line(&ProofLine { proof: encoded(&proof) })?);
                }
                while self.checkpoints.front().is_some_and(|checkpoint| checkpoint.size <= stored.entry.sequence) {
                    if let Some(StoredCheckpoint { note, .. }) = self.checkpoints.pop_front() {
                        lines.extend(line(&CheckpointLine { checkpoint: &note })?);
                    }
                }
                self.entries += 1;
            }
            if let Some(position) = stopped_at.or(last.filter(|_| full)) {
                self.position = position;
            } else {
                self.ended = true;
                lines.extend(line(&EndLine { end: End { last: self.size, entries: self.entries } })?);
            }
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// Whether the export may go on.
    fn check(&self) -> Result<(), VaultError> {
        self.vault.gate.not_stopping()?;
        if Instant::now() >= self.deadline {
            return Err(VaultError::InvalidRequest("the export took too long. Resume it after the last entry".into()));
        }
        let permit = self.vault.gate.permit_inventory(&self.event)?;
        if *permit.nodes() == self.filter.nodes {
            Ok(())
        } else {
            Err(VaultError::InvalidRequest("the grants of this principal changed during the export. Start it again".into()))
        }
    }
}

/// The first line of an export, or of the part that resumes one.
#[derive(Serialize)]
struct Header<'a> {
    /// The version of this form.
    export: u32,
    /// The name of the log.
    origin: &'a str,
    /// The signed note of the checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a str>,
    /// The entry after which this part begins.
    after: u64,
    /// What is left out. If it is absent, nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Map<String, Value>>,
    /// The roots of the complete subtrees of the entries up to `after`, largest first.
    frontier: Vec<String>,
    /// The entries up to this one were archived and removed, so that the export lacks those of them that fit the filter, except state changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_through: Option<u64>,
}

/// A line after an entry of an export that leaves out entries.
#[derive(Serialize)]
struct ProofLine {
    /// The inclusion proof of the entry in the tree of the checkpoint.
    proof: Vec<String>,
}

/// A line after the last entry that an earlier checkpoint covers.
#[derive(Serialize)]
struct CheckpointLine<'a> {
    /// The signed note.
    checkpoint: &'a str,
}

/// The last line. An export without it is not complete.
#[derive(Serialize)]
struct EndLine {
    end: End,
}

#[derive(Serialize)]
struct End {
    /// The last entry of the log that the export covers.
    last: u64,
    /// The number of entries since the header.
    entries: u64,
}

/// The filter with the names of the query, so that a reader knows what is left out.
fn shown(filter: &EntryFilter) -> Map<String, Value> {
    let EntryFilter {
        nodes,
        key,
        node,
        principal,
        certificate,
        operation,
        outcome,
        request_id,
        trace_id,
        job,
        wrapper_key,
        from,
        to,
        after: _,
        last: _,
        order: _,
    } = filter;
    let texts = [
        ("key_id", key.map(|key| key.to_string())),
        ("node", node.as_ref().map(ToString::to_string)),
        ("principal", principal.clone()),
        ("certificate", certificate.map(|digest| Hex(&digest).to_string())),
        ("operation", operation.map(|operation| operation.to_string())),
        ("outcome", outcome.map(|outcome| outcome.to_string())),
        ("request_id", request_id.clone()),
        ("trace_id", trace_id.clone()),
        ("job", job.map(|job| job.to_string())),
        ("wrapper_key", wrapper_key.map(|key| key.to_string())),
        ("from", from.map(|time| time.to_string())),
        ("to", to.map(|time| time.to_string())),
    ];
    let given = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
    let mut shown: Map<String, Value> = given.collect();
    if let NodeScope::Only(nodes) = nodes {
        shown.insert("nodes".into(), nodes.iter().map(|node| Value::from(node.as_str())).collect());
    }
    shown
}

fn encoded(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

fn line(value: &impl Serialize) -> Result<Vec<u8>, VaultError> {
    let mut line = serde_json::to_vec(value).map_err(|_| VaultError::Internal("a line of an export is no JSON"))?;
    line.push(b'\n');
    Ok(line)
}
