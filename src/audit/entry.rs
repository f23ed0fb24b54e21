//! The stored form of an audit entry: JSON with fixed fields in a fixed order. The hash covers the stored bytes, which are never
//! re-encoded.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::{
    Algorithm, AuditEvent, Hex, KeyId, KmsUse, NodeName, Operation, Outcome, StateChange, Timestamp, WrapperKeyId, WrapperState,
};

/// The process that writes entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The id of the vault.
    pub vault: String,
    /// The name of the instance.
    pub instance: String,
    /// The version of the program.
    pub version: String,
}

/// The state of a wrapper key after a state change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WrapperKeyChange {
    /// The wrapper key.
    #[schema(value_type = String)]
    pub id: WrapperKeyId,
    /// The new state.
    pub state: WrapperState,
    /// The identity, if the wrapper key was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The name, if it was given or changed. Empty if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The place of an entry in the chain of state changes, and what the change sets besides the state of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatePosition {
    /// The number of state changes up to and including this entry.
    pub revision: u64,
    /// Of a state change: the leaf hash of the state change before.
    pub previous: Option<[u8; 32]>,
    /// Whether the vault is frozen after the change.
    pub frozen: Option<bool>,
    /// The wrapper keys whose state changed.
    pub wrapper_keys: Vec<WrapperKeyChange>,
    /// The digest of the idempotency record that was stored with the change.
    pub idempotency: Option<[u8; 32]>,
    /// The incarnation of the log that begins with the change.
    pub incarnation: Option<u64>,
    /// The last entry whose removal the change states.
    pub removed_through: Option<u64>,
}

impl StatePosition {
    /// Of an entry that changes no state.
    pub fn unchanged(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }

    /// Of a state change that sets nothing besides the state of a key.
    pub fn change(revision: u64, previous: [u8; 32]) -> Self {
        Self { revision, previous: Some(previous), ..Self::default() }
    }
}

/// An audit entry, version 4. The fields are in the order of the stored bytes. Absent fields are omitted. Version 3 has nothing after
/// `idempotency`, version 2 has nothing after `request_id`, and version 1 has no `client` either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The version of this form: 4, or a lower one in entries of earlier programs.
    pub v: u32,
    /// The sequence number, from 1, without gaps.
    pub sequence: u64,
    /// The time.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The id of the vault.
    pub vault: String,
    /// The instance that wrote the entry.
    pub instance: String,
    /// The version of the program that wrote it.
    pub version: String,
    /// The principal.
    pub principal: String,
    /// SHA-256 of the client certificate, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What the client says of itself (`User-Agent`). Not authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The operation.
    pub operation: Operation,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_id: Option<KeyId>,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeName>,
    /// The algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// SHA-256, hex: of the message to sign, of the *ciphertext* of an encryption or decryption, or of the policy that a start or reload put in force. Of a
    /// removal: the root of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The outcome.
    pub outcome: Outcome,
    /// The reason of a refusal or failure, or the cause of a state change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revision of the key after a state change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The marks of the key after a state change, outermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The successor of the key after a state change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub successor: Option<KeyId>,
    /// When the key is destroyed, after its deletion was scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delete_at: Option<Timestamp>,
    /// The object of the operation if it is not a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The number of refusals that the entry represents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The revision of the policy that decided.
    pub policy_revision: String,
    /// Request ids of the KMS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kms_request_ids: Vec<String>,
    /// The W3C trace id of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The number of state changes of the store up to and including this entry. A state change has the next number, without gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_revision: Option<u64>,
    /// Of a state change: the leaf hash, hex, of the state change before. 64 zeros in the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Whether the vault is frozen after this change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// The wrapper keys whose state this change set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrapper_keys: Vec<WrapperKeyChange>,
    /// SHA-256, hex, of the idempotency record that was stored with this change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// The incarnation of the log that begins with this entry, after an operator accepted an older or changed store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// Of the rotation of the key that signs checkpoints: the signed note (C2SP) that both keys sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of a removal of archived entries: the last one. State changes up to it are not removed. `digest` is the root of the tree of the entries up to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_through: Option<u64>,
}

/// The bytes of the entry of an event that changes no state: those of [`Entry::new`] and [`Entry::encode`], without a copy of each text. A signature
/// writes such an entry.
///
/// # Errors
/// Never in practice: all fields serialize.
pub fn encode_use(sequence: u64, source: &Source, event: &AuditEvent, state_revision: u64) -> Result<Vec<u8>, EntryError> {
    #[derive(Serialize)]
    struct Use<'a> {
        v: u32,
        sequence: u64,
        at: Timestamp,
        vault: &'a str,
        instance: &'a str,
        version: &'a str,
        principal: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        certificate: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a str>,
        operation: Operation,
        #[serde(skip_serializing_if = "Option::is_none")]
        key_id: Option<KeyId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<&'a NodeName>,
        #[serde(skip_serializing_if = "Option::is_none")]
        algorithm: Option<Algorithm>,
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<&'a str>,
        outcome: Outcome,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        policy_revision: &'a str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        kms_request_ids: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        trace_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        state_revision: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'a str>,
    }
    // Destructured, so that a new field cannot be forgotten here.
    let AuditEvent {
        at,
        principal,
        operation,
        key,
        node,
        algorithm,
        digest,
        outcome,
        reason,
        policy_revision,
        kms: KmsUse { request_ids, wrapper_keys: _ },
        client,
        trace_id,
        request_id,
        change,
        subject,
        count,
        note,
    } = event;
    if change.is_some() {
        return Entry::new(sequence, source, event, StatePosition::unchanged(state_revision)).encode();
    }
    let (mut certificate_digits, mut digest_digits) = ([0; 64], [0; 64]);
    let entry = Use {
        v: Entry::VERSION,
        sequence,
        at: *at,
        vault: &source.vault,
        instance: &source.instance,
        version: &source.version,
        principal: &principal.name,
        certificate: principal.certificate.as_ref().map(|digest| hex(digest, &mut certificate_digits)),
        client: client.as_deref(),
        operation: *operation,
        key_id: *key,
        node: node.as_ref(),
        algorithm: *algorithm,
        digest: digest.as_ref().map(|digest| hex(digest, &mut digest_digits)),
        outcome: *outcome,
        reason: reason.as_deref(),
        subject: subject.as_deref(),
        count: *count,
        policy_revision,
        kms_request_ids: request_ids,
        trace_id: trace_id.as_deref(),
        request_id: request_id.as_deref(),
        state_revision,
        note: note.as_deref(),
    };
    // Most entries fit, so that the buffer does not grow.
    let mut bytes = Vec::with_capacity(1024);
    serde_json::to_writer(&mut bytes, &entry)?;
    Ok(bytes)
}

fn hex<'a>(digest: &[u8; 32], digits: &'a mut [u8; 64]) -> &'a str {
    base16ct::lower::encode_str(digest, digits).unwrap_or_default()
}

/// Why stored bytes are not a valid entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The bytes are not the JSON of an entry.
    #[error("not an audit entry: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The entry was written by a newer program.
    #[error("audit entry of version {0}, which this program does not know")]
    Version(u32),
    /// The lifecycle in the entry does not exist.
    #[error("audit entry {0} names a key state that does not exist")]
    State(u64),
}

impl Entry {
    /// The version that this program writes.
    pub const VERSION: u32 = 4;

    /// The entry of an event, with its sequence number and its place in the chain of state changes.
    pub fn new(sequence: u64, source: &Source, event: &AuditEvent, position: StatePosition) -> Self {
        let StatePosition { revision, previous, frozen, wrapper_keys, idempotency, incarnation, removed_through } = position;
        // The event is destructured, so that a new field cannot be forgotten here.
        let AuditEvent {
            at,
            principal,
            operation,
            key,
            node,
            algorithm,
            digest,
            outcome,
            reason,
            policy_revision,
            kms: KmsUse { request_ids, wrapper_keys: _ },
            client,
            trace_id,
            request_id,
            change,
            subject,
            count,
            note,
        } = event;
        Self {
            v: Self::VERSION,
            sequence,
            at: *at,
            vault: source.vault.clone(),
            instance: source.instance.clone(),
            version: source.version.clone(),
            principal: principal.name.to_string(),
            certificate: principal.certificate.as_ref().map(|digest| Hex(digest).to_string()),
            client: client.as_deref().map(str::to_owned),
            operation: *operation,
            key_id: *key,
            node: node.clone(),
            algorithm: *algorithm,
            digest: digest.as_ref().map(|digest| Hex(digest).to_string()),
            outcome: *outcome,
            reason: reason.clone(),
            revision: change.map(|change| change.revision),
            state: change.map(|change| change.lifecycle.to_string()),
            successor: change.and_then(|change| change.successor),
            delete_at: change.and_then(|change| change.delete_at),
            subject: subject.clone(),
            count: *count,
            policy_revision: policy_revision.to_string(),
            kms_request_ids: request_ids.clone(),
            trace_id: trace_id.as_deref().map(str::to_owned),
            request_id: request_id.as_deref().map(str::to_owned),
            state_revision: Some(revision),
            previous: previous.map(|leaf| Hex(&leaf).to_string()),
            frozen,
            wrapper_keys,
            idempotency: idempotency.map(|digest| Hex(&digest).to_string()),
            incarnation,
            note: note.clone(),
            removed_through,
        }
    }

    /// Whether the entry is a state change in the chain.
    pub const fn changes_state(&self) -> bool {
        self.previous.is_some()
    }

    /// The jobs and wrapper keys that the subject names.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let words = self.subject.as_deref().unwrap_or_default().split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        words.filter(|word| word.starts_with("job-") || word.starts_with("wk-"))
    }

    /// The bytes to store and to hash.
    ///
    /// # Errors
    /// Never in practice: all fields serialize.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Parses stored bytes.
    ///
    /// # Errors
    /// [`EntryError`] if they are no entry that this program knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let entry: Self = serde_json::from_slice(bytes)?;
        if (1..=Self::VERSION).contains(&entry.v) { Ok(entry) } else { Err(EntryError::Version(entry.v)) }
    }

    /// The state change in the entry, if there is one.
    ///
    /// # Errors
    /// [`EntryError::State`] if the state in it does not exist.
    pub fn state_change(&self) -> Result<Option<StateChange>, EntryError> {
        let (Some(revision), Some(state)) = (self.revision, self.state.as_deref()) else { return Ok(None) };
        let lifecycle = state.parse().map_err(|_| EntryError::State(self.sequence))?;
        Ok(Some(StateChange { revision, lifecycle, successor: self.successor, delete_at: self.delete_at }))
    }
}

/// RFC 6962 §2.1 leaf hash: SHA-256(0x00 ‖ entry bytes).
pub fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Lifecycle, Principal};

    fn event() -> AuditEvent {
        let principal = Principal { name: "dns:participant1".into(), certificate: Some([0xab; 32]) };
        AuditEvent {
            key: Some(KeyId::Symmetric([1; 16])),
            node: Some("participant1".parse().unwrap()),
            algorithm: Some(Algorithm::Ed25519),
            digest: Some([0xcd; 32]),
            change: Some(StateChange { revision: 2, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None }),
            ..AuditEvent::new(Timestamp::from_micros(1_767_225_600_000_001), principal, Operation::Sign, "p-1".into())
        }
    }

    fn source() -> Source {
        Source { vault: "v".into(), instance: "i".into(), version: "0.1.0".into() }
    }

    /// One example of each version ever written. A change here breaks the reading of existing logs.
    const VERSION_1: &str = concat!(
        r#"{"v":1,"sequence":7,"at":"2026-01-01T00:00:00.000001Z","vault":"v","instance":"i","version":"0.1.0","#,
        r#""principal":"dns:participant1","certificate":"abababababababababababababababababababababababababababababababab","#,
        r#""operation":"keys.sign","key_id":"sym-01010101010101010101010101010101","node":"participant1","algorithm":"ed25519","#,
        r#""digest":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","outcome":"ok","revision":2,"state":"active","#,
        r#""policy_revision":"p-1"}"#
    );
    const VERSION_2: &str = concat!(
        r#"{"v":2,"sequence":7,"at":"2026-01-01T00:00:00.000001Z","vault":"v","instance":"i","version":"0.1.0","#,
        r#""principal":"dns:participant1","certificate":"abababababababababababababababababababababababababababababababab","#,
        r#""client":"canton-keyvault-driver/0.1.0","#,
        r#""operation":"keys.sign","key_id":"sym-01010101010101010101010101010101","node":"participant1","algorithm":"ed25519","#,
        r#""digest":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","outcome":"ok","revision":2,"state":"active","#,
        r#""policy_revision":"p-1"}"#
    );

    const VERSION_3: &str = concat!(
        r#"{"v":3,"sequence":7,"at":"2026-01-01T00:00:00.000001Z","vault":"v","instance":"i","version":"0.1.0","#,
        r#""principal":"dns:participant1","certificate":"abababababababababababababababababababababababababababababababab","#,
        r#""client":"canton-keyvault-driver/0.1.0","#,
        r#""operation":"keys.sign","key_id":"sym-01010101010101010101010101010101","node":"participant1","algorithm":"ed25519","#,
        r#""digest":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","outcome":"ok","revision":2,"state":"active","#,
        r#""policy_revision":"p-1","state_revision":9,"previous":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
        r#""frozen":false,"wrapper_keys":[{"id":"wk-000000000001","state":"active","identity":"local:0011"},"#,
        r#"{"id":"wk-000000000001","state":"draining"}],"idempotency":"efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef"}"#
    );

    const VERSION_4: &str = concat!(
        r#"{"v":4,"sequence":7,"at":"2026-01-01T00:00:00.000001Z","vault":"v","instance":"i","version":"0.1.0","#,
        r#""principal":"dns:participant1","certificate":"abababababababababababababababababababababababababababababababab","#,
        r#""client":"canton-keyvault-driver/0.1.0","#,
        r#""operation":"keys.sign","key_id":"sym-01010101010101010101010101010101","node":"participant1","algorithm":"ed25519","#,
        r#""digest":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","outcome":"ok","revision":2,"state":"active","#,
        r#""policy_revision":"p-1","state_revision":9,"previous":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
        r#""frozen":false,"wrapper_keys":[{"id":"wk-000000000001","state":"active","identity":"local:0011"},"#,
        r#"{"id":"wk-000000000001","state":"draining"}],"idempotency":"efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef","incarnation":2}"#
    );

    #[test]
    fn version_1_is_read() {
        let read = Entry::decode(VERSION_1.as_bytes()).unwrap();
        assert_eq!((read.v, read.client.as_deref()), (1, None));
        assert_eq!(Hex(&leaf_hash(VERSION_1.as_bytes())).to_string(), "ff72cdd71e1f651362fb089da7bba099c9a3d61dfb7c20691d098c1f336b6e00");
        assert_eq!(String::from_utf8(read.encode().unwrap()).unwrap(), VERSION_1);
        assert_eq!(
            read.state_change().unwrap(),
            Some(StateChange { revision: 2, lifecycle: Lifecycle::ACTIVE, successor: None, delete_at: None })
        );
    }

    #[test]
    fn version_3_is_read() {
        let read = Entry::decode(VERSION_3.as_bytes()).unwrap();
        assert_eq!((read.v, read.incarnation, read.state_revision), (3, None, Some(9)));
        assert_eq!(String::from_utf8(read.encode().unwrap()).unwrap(), VERSION_3);
    }

    #[test]
    fn version_2_is_read() {
        let read = Entry::decode(VERSION_2.as_bytes()).unwrap();
        assert_eq!((read.v, read.client.as_deref(), read.changes_state()), (2, Some("canton-keyvault-driver/0.1.0"), false));
        assert_eq!(String::from_utf8(read.encode().unwrap()).unwrap(), VERSION_2);
    }

    #[test]
    fn version_4_is_frozen() {
        let event = AuditEvent { client: Some("canton-keyvault-driver/0.1.0".into()), ..event() };
        let wrapper_keys = [(Some("local:0011".to_owned()), "active"), (None, "draining")].map(|(identity, state)| WrapperKeyChange {
            id: "wk-000000000001".parse().unwrap(),
            state: state.parse().unwrap(),
            identity,
            name: None,
        });
        let position = StatePosition {
            frozen: Some(false),
            wrapper_keys: wrapper_keys.into(),
            idempotency: Some([0xef; 32]),
            incarnation: Some(2),
            ..StatePosition::change(9, [0xaa; 32])
        };
        let bytes = Entry::new(7, &source(), &event, position).encode().unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), VERSION_4);
        assert!(Entry::decode(&bytes).unwrap().changes_state());
        let unchanged = Entry::new(7, &source(), &event, StatePosition::unchanged(9));
        assert!(!unchanged.changes_state() && unchanged.state_revision == Some(9));
    }

    #[test]
    fn a_use_has_the_bytes_of_its_entry() {
        let full = AuditEvent {
            reason: Some("a \"reason\"".into()),
            kms: KmsUse { request_ids: vec!["k-1".into(), "k-2".into()], wrapper_keys: Vec::new() },
            client: Some("client".into()),
            trace_id: Some("trace".into()),
            request_id: Some("request".into()),
            subject: Some("sübject".into()),
            count: Some(3),
            note: Some("note\n".into()),
            change: None,
            ..event()
        };
        let empty = AuditEvent::new(Timestamp::from_micros(1_767_225_600_000_000), Principal::system(), Operation::Start, "-".into());
        for event in [full, empty, event()] {
            let expected = Entry::new(7, &source(), &event, StatePosition::unchanged(9)).encode().unwrap();
            assert_eq!(encode_use(7, &source(), &event, 9).unwrap(), expected, "{event:?}");
        }
    }

    #[test]
    fn later_versions_are_refused() {
        let later = VERSION_4.replacen("\"v\":4", "\"v\":5", 1);
        assert!(matches!(Entry::decode(later.as_bytes()), Err(EntryError::Version(5))));
    }
}
