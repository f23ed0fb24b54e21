//! The stored form of a key, all ciphertext: facts that are bound, facts that change, and wraps (design §5).

use super::{
    Class, EncryptionContext, KeyId, KeyName, KeySpec, Lifecycle, NodeName, Origin, Purpose, StateChange, Timestamp, Usages, VaultId,
    WrapperKeyId, context::canonical_bytes,
};

/// What is fixed at creation and bound to every ciphertext of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttributes {
    /// Canton's fingerprint, or random for a symmetric key.
    pub id: KeyId,
    /// The Canton node that the key belongs to.
    pub node: NodeName,
    /// What the key is for.
    pub purpose: Purpose,
    /// What the key is.
    pub spec: KeySpec,
    /// What Canton uses it for; empty unless it signs.
    pub usages: Usages,
    /// How long it lives.
    pub class: Class,
    /// Where it was born.
    pub origin: Origin,
    /// Whether an exporter may take it out.
    pub exportable: bool,
}

impl KeyAttributes {
    /// The version of the context's encoding; the first fact of it.
    pub const CONTEXT_VERSION: &'static str = "1";

    /// The context that binds these facts, in the order of design §5.
    pub fn encryption_context(&self, vault: &VaultId) -> EncryptionContext {
        let Self { id, node, purpose, spec, usages, class, origin, exportable } = self;
        EncryptionContext::new(vec![
            ("version", Self::CONTEXT_VERSION.to_owned()),
            ("vault", vault.to_string()),
            ("node", node.to_string()),
            ("key_id", id.to_string()),
            ("purpose", purpose.to_string()),
            ("spec", spec.to_string()),
            ("usages", usages.to_string()),
            ("class", class.to_string()),
            ("origin", origin.to_string()),
            ("exportable", exportable.to_string()),
        ])
    }
}

/// Sealed private key material: `version ‖ salt(32) ‖ commitment(32) ‖ ciphertext ‖ tag(16)`. Says nothing without its data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey(Vec<u8>);

impl SealedKey {
    /// Takes bytes as stored; they are checked when they are opened.
    pub const fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One wrapped copy of a key's data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrap {
    /// The wrapper key that opens it.
    pub wrapper_key: WrapperKeyId,
    /// The generation of the data key inside.
    pub generation: u32,
    /// What the provider returned.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last gave a data key that matched the commitment.
    pub verified_at: Option<Timestamp>,
    /// Whether it was found not to open although its wrapper key works.
    pub quarantined: bool,
}

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The bound facts.
    pub attributes: KeyAttributes,
    /// A label for people.
    pub name: Option<KeyName>,
    /// X.509 `SubjectPublicKeyInfo`, DER; `None` for a symmetric key.
    pub public_key: Option<Vec<u8>>,
    /// When it was created or imported.
    pub created_at: Timestamp,
    /// Counts re-seals: the generation of the data key in force, from 1.
    pub generation: u32,
    /// Counts state changes, from 1; equals that of the key's newest state-change entry in the log.
    pub revision: u64,
    /// The marks on it.
    pub lifecycle: Lifecycle,
    /// The key that follows it.
    pub successor: Option<KeyId>,
    /// The key that it follows.
    pub predecessor: Option<KeyId>,
    /// When it will be destroyed.
    pub delete_at: Option<Timestamp>,
    /// HMAC over what changes (32 bytes); `None` after a change made without opening the key.
    pub row_tag: Option<[u8; 32]>,
    /// The sealed private key; `None` for a tombstone.
    pub sealed: Option<SealedKey>,
    /// Its wraps, oldest first.
    pub wraps: Vec<Wrap>,
}

impl KeyRecord {
    /// Where the row says that the key stands: to be held against the log's word.
    pub const fn state_change(&self) -> StateChange {
        StateChange { revision: self.revision, lifecycle: self.lifecycle, successor: self.successor, delete_at: self.delete_at }
    }

    /// What the row tag covers: state, revision, successor, `delete_at`, encoded as the context is.
    pub fn tagged_bytes(&self) -> Vec<u8> {
        let fields = [
            self.lifecycle.to_string(),
            self.revision.to_string(),
            self.successor.map_or_else(String::new, |id| id.to_string()),
            self.delete_at.map_or_else(String::new, |at| at.micros().to_string()),
        ];
        canonical_bytes(fields.iter().map(String::as_str))
    }
}
