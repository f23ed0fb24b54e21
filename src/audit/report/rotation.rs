//! The entries of one rotation of the wrapper key, and what they show for each key: which entry proves that it has a verified wrap under the new one.
//!
//! The vault writes `keys.rewrap` only after the new wrap opened to the data key of the key. A key that is created, imported or re-sealed gets its first
//! wrap under the active wrapper key, and is not stored without it.

use std::collections::BTreeMap;

use crate::{
    audit::Entry,
    domain::{JobId, KeyId, NodeName, Operation, Outcome, Timestamp, WrapperKeyId, WrapperState},
};

use super::Listed;

/// Keys that are followed one by one.
const MOST_KEYS: usize = 200_000;
/// Re-wraps that are listed.
const MOST_LISTED: usize = 2_000;

/// A further wrap for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrap {
    /// The sequence number of the entry.
    pub sequence: u64,
    /// The time.
    pub at: Timestamp,
    /// The key.
    pub key: Option<KeyId>,
    /// Its node.
    pub node: Option<NodeName>,
    /// The wrapper key whose wrap was taken.
    pub from: String,
    /// The wrapper key of the new wrap.
    pub to: String,
    /// Whether the KMS re-encrypted it. Otherwise the data key was unwrapped and wrapped in the memory of the vault.
    pub re_encrypted: bool,
    /// The request ids that the KMS assigned.
    pub kms_request_ids: Vec<String>,
}

impl Rewrap {
    /// The re-wrap that an entry is about.
    pub fn of(entry: &Entry) -> Option<Self> {
        if entry.operation != Operation::RewrapKey || entry.outcome != Outcome::Ok {
            return None;
        }
        let mut named = entry.named().filter(|name| name.starts_with("wk-")).map(str::to_owned);
        Some(Self {
            sequence: entry.sequence,
            at: entry.at,
            key: entry.key_id,
            node: entry.node.clone(),
            from: named.next()?,
            to: named.next()?,
            re_encrypted: entry.subject.as_deref().is_some_and(|text| text.contains("re-encrypted by the KMS")),
            kms_request_ids: entry.kms_request_ids.clone(),
        })
    }
}

/// What shows that a key has a verified wrap under the new wrapper key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The job gave it the wrap in this entry.
    Job(u64),
    /// It got the wrap in this entry, while the wrapper key was on standby or by another rotation.
    Elsewhere(u64),
    /// It was created, imported or re-sealed in this entry, while the wrapper key was active.
    Sealed(u64),
    /// No entry shows it.
    Missing,
}

/// The entries of a rotation, counted.
#[derive(Debug, Clone)]
pub struct RotationCount {
    job: String,
    /// The wrapper key that was active before.
    pub from: String,
    /// The new one.
    pub to: String,
    /// The entry that started the job.
    pub start: Option<Entry>,
    /// The entry that ended or aborted it.
    pub end: Option<Entry>,
    /// The re-wraps of the job.
    pub rewraps: Listed<Rewrap>,
    /// How many the KMS re-encrypted.
    pub re_encrypted: u64,
    /// How many were unwrapped and wrapped.
    pub unwrapped: u64,
    /// The entries about the retirement of the old wrapper key since the start.
    pub retirement: Listed<Entry>,
    /// Keys and wraps that the vault quarantined since the start.
    pub quarantined: Listed<Entry>,
    /// What shows that each key that is not destroyed has a wrap under the new wrapper key.
    pub keys: BTreeMap<KeyId, Evidence>,
    /// Keys that are not followed, because there are too many.
    pub not_followed: u64,
    active: Option<String>,
}

impl RotationCount {
    /// No entry yet, of a job from one wrapper key to another.
    pub fn new(job: JobId, from: WrapperKeyId, to: WrapperKeyId) -> Self {
        Self {
            job: job.to_string(),
            from: from.to_string(),
            to: to.to_string(),
            start: None,
            end: None,
            rewraps: Listed::new(MOST_LISTED),
            re_encrypted: 0,
            unwrapped: 0,
            retirement: Listed::new(20),
            quarantined: Listed::new(100),
            keys: BTreeMap::new(),
            not_followed: 0,
            active: None,
        }
    }

    /// Adds the next entry of the log.
    pub fn add(&mut self, entry: &Entry) {
        use Operation as O;
        if entry.outcome != Outcome::Ok {
            return;
        }
        if let Some(active) = entry.wrapper_keys.iter().find(|change| change.state == WrapperState::Active) {
            self.active = Some(active.id.to_string());
        }
        let since_start = self.start.is_some();
        match entry.operation {
            O::StartRotation if self.is_started_by(entry) => self.start = Some(entry.clone()),
            O::EndRotation | O::AbortRotation if self.is_named(entry) => self.end = Some(entry.clone()),
            O::RewrapKey => self.rewrapped(entry),
            O::RetireWrapperKey if since_start && entry.changes_state() && entry.named().next() == Some(&*self.from) => {
                self.retirement.push(entry.clone());
            }
            O::DestroyKey => drop(entry.key_id.and_then(|key| self.keys.remove(&key))),
            O::Quarantine if since_start => self.quarantined.push(entry.clone()),
            // The other entry of the rotation of a key is about the predecessor, and names the successor.
            O::CreateKey
            | O::CreateExportableKey
            | O::ImportKey
            | O::RotateKey
            | O::ResealKey
            | O::CreateCheckpointKey
            | O::RotateCheckpointKey
                if entry.state.is_some() && entry.successor.is_none() =>
            {
                let sealed = self.active.as_ref() == Some(&self.to);
                self.follow(entry.key_id, if sealed { Evidence::Sealed(entry.sequence) } else { Evidence::Missing });
            }
            _ => {}
        }
    }

    /// The number of followed keys, and of those without evidence.
    pub fn followed(&self) -> (usize, usize) {
        (self.keys.len(), self.keys.values().filter(|evidence| **evidence == Evidence::Missing).count())
    }

    fn is_named(&self, entry: &Entry) -> bool {
        entry.named().any(|name| name == self.job)
    }

    /// Whether the entry started the job. Earlier versions did not name the job: then it is the last start between the two wrapper keys before the end of
    /// the job, because one job runs at a time.
    fn is_started_by(&self, entry: &Entry) -> bool {
        self.is_named(entry) || (self.end.is_none() && entry.named().eq([self.from.as_str(), self.to.as_str()]))
    }

    fn rewrapped(&mut self, entry: &Entry) {
        let Some(rewrap) = Rewrap::of(entry).filter(|rewrap| rewrap.to == self.to) else { return };
        if !self.is_named(entry) {
            return self.follow(entry.key_id, Evidence::Elsewhere(entry.sequence));
        }
        self.follow(entry.key_id, Evidence::Job(entry.sequence));
        *(if rewrap.re_encrypted { &mut self.re_encrypted } else { &mut self.unwrapped }) += 1;
        self.rewraps.push(rewrap);
    }

    fn follow(&mut self, key: Option<KeyId>, evidence: Evidence) {
        let Some(key) = key else { return };
        if let Some(known) = self.keys.get_mut(&key) {
            *known = evidence;
        } else if self.keys.len() < MOST_KEYS {
            self.keys.insert(key, evidence);
        } else {
            self.not_followed = self.not_followed.saturating_add(1);
        }
    }
}
