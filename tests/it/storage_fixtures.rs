//! Keys, commits and filters for the tests of the store, distinguished by a number.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use canton_keyvault::{
    audit::{Entry, Source},
    crypto::SystemRandom,
    domain::{
        Algorithm, AuditEvent, Class, Fingerprint, KeyAttributes, KeyId, KeyRecord, KeySpec, Lifecycle, NodeName, NodeScope, Operation,
        Origin, Principal, ProviderKind, Purpose, SealedKey, StateChange, Timestamp, Usage, Wrap, WrapperKey, WrapperKeyId, WrapperState,
    },
    storage::{
        Change, Commit, EntryFilter, IdempotencyRecord, KeyFilter, KeyPrecondition, KeyStore, KeyUpdate, OpenStoreError, PageRequest,
        SqliteConfig, SqliteStore, StoredEntry,
    },
};

pub(crate) fn open(config: SqliteConfig) -> SqliteStore {
    until_unlocked(move || try_open(config.clone()))
}

/// Opens a store that was closed in this process just before. A program that another test starts holds the lock file between `fork` and
/// `exec`, so that the lock can outlive the store by a moment.
pub(crate) fn until_unlocked(mut open: impl FnMut() -> Result<SqliteStore, OpenStoreError>) -> SqliteStore {
    let began = Instant::now();
    loop {
        match open() {
            Err(OpenStoreError::InUse(_)) if began.elapsed() < Duration::from_secs(30) => thread::sleep(Duration::from_millis(5)),
            other => return other.unwrap(),
        }
    }
}

pub(crate) fn try_open(config: SqliteConfig) -> Result<SqliteStore, OpenStoreError> {
    let source = Source { vault: "v1".into(), instance: "i1".into(), version: "0.1.0".into() };
    SqliteStore::open(config, source, &"v1".parse().unwrap(), &SystemRandom::default(), at(0))
}

pub(crate) const fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

pub(crate) fn id(number: u8) -> KeyId {
    KeyId::Pair(Fingerprint::from_digest([number; 32]))
}

pub(crate) fn node(number: u8) -> NodeName {
    format!("participant{number}").parse().unwrap()
}

pub(crate) fn only(numbers: &[u8]) -> NodeScope {
    NodeScope::Only(numbers.iter().map(|number| node(*number)).collect())
}

pub(crate) const fn wrapper(number: u8) -> WrapperKeyId {
    WrapperKeyId::from_random([number; 6])
}

pub(crate) fn wrapper_key(number: u8, state: WrapperState) -> WrapperKey {
    WrapperKey {
        id: wrapper(number),
        name: None,
        provider: ProviderKind::AwsKms,
        identity: format!("aws:aws:111122223333:{number}"),
        reference: format!("arn:aws:kms:eu-west-1:111122223333:key/{number}"),
        regions: vec!["eu-west-1".into(), "eu-central-1".into()],
        state,
        canary: vec![number; 40],
        created_at: at(i64::from(number)),
    }
}

pub(crate) fn wrap(number: u8) -> Wrap {
    Wrap {
        wrapper_key: wrapper(number),
        generation: 1,
        wrapped: vec![number; 60],
        created_at: at(11),
        verified_at: Some(at(12)),
        quarantined: false,
    }
}

/// On node `number` modulo 3, with one wrap, under wrapper key 1.
pub(crate) fn record(number: u8) -> KeyRecord {
    KeyRecord {
        attributes: KeyAttributes {
            id: id(number),
            node: node(number % 3),
            purpose: Purpose::Signing,
            spec: KeySpec::EcCurve25519,
            usages: [Usage::Protocol, Usage::ProofOfOwnership].into_iter().collect(),
            class: Class::LongTerm,
            origin: Origin::Generated,
            exportable: false,
        },
        name: Some(format!("schlüssel {number}").parse().unwrap()),
        public_key: Some(vec![number; 44]),
        created_at: at(10),
        generation: 1,
        revision: 1,
        lifecycle: Lifecycle::ACTIVE,
        successor: None,
        predecessor: None,
        delete_at: None,
        row_tag: Some([number; 32]),
        sealed: Some(SealedKey::from_stored(vec![number; 129])),
        wraps: vec![wrap(1)],
    }
}

pub(crate) fn event(operation: Operation, key: Option<KeyId>) -> AuditEvent {
    let principal = Principal { name: "dns:participant1".into(), certificate: Some([0xab; 32]) };
    AuditEvent { key, ..AuditEvent::new(at(10), principal, operation, "p-1".into()) }
}

/// An event that differs from all others.
pub(crate) fn tagged(number: u32) -> AuditEvent {
    AuditEvent { subject: Some(number.to_string()), ..event(Operation::Sign, None) }
}

/// A commit of an event alone.
pub(crate) fn commit(operation: Operation, key: Option<KeyId>) -> Commit {
    Commit::entry(event(operation, key))
}

/// A use of a key that was known to have this revision at this revision of the store.
pub(crate) fn sign(key: KeyId, revision: u64, store_revision: u64) -> Commit {
    let event = AuditEvent {
        node: Some(node(1)),
        algorithm: Some(Algorithm::Ed25519),
        digest: Some([0xcd; 32]),
        ..event(Operation::Sign, Some(key))
    };
    Commit { precondition: Some(KeyPrecondition { key, revision, store_revision, imported: false }), ..Commit::entry(event) }
}

/// A new key while wrapper key 1 is active.
pub(crate) fn insert(record: &KeyRecord) -> Commit {
    let event = AuditEvent { change: Some(record.state_change()), ..event(Operation::CreateKey, Some(record.attributes.id)) };
    Commit::change(Change::InsertKey { record: Box::new(record.clone()), active: wrapper(1), link: None, replaces: None }, event)
}

/// As [`insert`], with the predecessor's link.
pub(crate) fn insert_after(record: &KeyRecord, link: &KeyUpdate) -> Commit {
    let linked = AuditEvent { change: Some(link.to), ..event(Operation::RotateKey, Some(link.key)) };
    let link = Some((link.clone(), Box::new(linked)));
    Commit {
        change: Some(Change::InsertKey { record: Box::new(record.clone()), active: wrapper(1), link, replaces: None }),
        ..insert(record)
    }
}

/// The next revision of a key as it is.
pub(crate) fn step(record: &KeyRecord, lifecycle: Lifecycle) -> KeyUpdate {
    KeyUpdate {
        key: record.attributes.id,
        if_revision: record.revision,
        to: StateChange { revision: record.revision + 1, lifecycle, successor: record.successor, delete_at: record.delete_at },
        row_tag: record.row_tag,
        reinstate_wrap: None,
    }
}

pub(crate) fn change(update: &KeyUpdate) -> Commit {
    let event = AuditEvent { change: Some(update.to), ..event(Operation::DisableKey, Some(update.key)) };
    Commit::change(Change::UpdateKey(update.clone()), event)
}

pub(crate) fn add(wrapper_key: WrapperKey) -> Commit {
    Commit::change(Change::InsertWrapperKey(Box::new(wrapper_key)), event(Operation::AddWrapperKey, None))
}

pub(crate) fn freeze(frozen: bool) -> Commit {
    Commit::change(Change::SetFrozen(frozen), event(Operation::Freeze, None))
}

pub(crate) async fn register(store: &Arc<dyn KeyStore>, number: u8, state: WrapperState) {
    store.commit(add(wrapper_key(number, state))).await.unwrap();
}

pub(crate) fn remembered(answer: &str) -> IdempotencyRecord {
    IdempotencyRecord { body_hash: [9; 32], answer: answer.into() }
}

pub(crate) const fn page(after: u64, limit: u32) -> PageRequest {
    PageRequest { after, limit }
}

pub(crate) fn all_keys() -> KeyFilter {
    KeyFilter::all()
}

pub(crate) const fn all_entries() -> EntryFilter {
    EntryFilter::all()
}

/// The whole log, page by page.
pub(crate) async fn log(store: &Arc<dyn KeyStore>) -> Vec<StoredEntry> {
    let mut all = Vec::<StoredEntry>::new();
    loop {
        let after = all.last().map_or(0, |stored| stored.entry.sequence);
        let more = store.entries(&all_entries(), page(after, 1_000)).await.unwrap().entries;
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

pub(crate) async fn entry(store: &Arc<dyn KeyStore>, sequence: u64) -> Entry {
    store.entries(&all_entries(), page(sequence - 1, 1)).await.unwrap().entries.remove(0).entry
}
