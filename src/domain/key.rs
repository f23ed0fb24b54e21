//! The stored form of a key, which contains ciphertext only: bound attributes, mutable state, and wraps.

use super::{
    Class, EncryptionContext, KeyId, KeyName, KeySpec, Lifecycle, NodeName, Origin, Purpose, StateChange, Timestamp, Usages, VaultId,
    WrapperKeyId, context::canonical_bytes,
};

/// The attributes of a key. They are fixed at creation and bound to every ciphertext of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttributes {
    /// The id: Canton's fingerprint, or random for a symmetric key.
    pub id: KeyId,
    /// The Canton node that the key belongs to.
    pub node: NodeName,
    /// The purpose.
    pub purpose: Purpose,
    /// The spec.
    pub spec: KeySpec,
    /// The usages in Canton. Empty unless it is a signing key.
    pub usages: Usages,
    /// The class.
    pub class: Class,
    /// The origin.
    pub origin: Origin,
    /// Whether the role `exporter` may export it.
    pub exportable: bool,
}

impl KeyAttributes {
    /// The version of the encoding of the context. It is the first attribute of the context.
    pub const CONTEXT_VERSION: &'static str = "1";

    /// The encryption context of these attributes, in the order that ARCHITECTURE.md fixes.
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

/// Sealed private key material: `version ‖ salt(32) ‖ commitment(32) ‖ ciphertext ‖ tag(16)`. It reveals nothing without its data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey(Vec<u8>);

impl SealedKey {
    /// Stored bytes. They are checked when they are opened.
    pub const fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One wrapped copy of the data key of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrap {
    /// The wrapper key that unwraps it.
    pub wrapper_key: WrapperKeyId,
    /// The generation of the data key.
    pub generation: u32,
    /// The bytes that the provider returned.
    pub wrapped: Vec<u8>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last unwrapped to a data key that matches the commitment.
    pub verified_at: Option<Timestamp>,
    /// Whether it did not open although its wrapper key works.
    pub quarantined: bool,
}

/// A stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The bound attributes.
    pub attributes: KeyAttributes,
    /// The name.
    pub name: Option<KeyName>,
    /// X.509 `SubjectPublicKeyInfo`, DER; `None` for a symmetric key.
    pub public_key: Option<Vec<u8>>,
    /// When the key was created or imported.
    pub created_at: Timestamp,
    /// The generation of the current data key, from 1. Each re-seal increases it.
    pub generation: u32,
    /// The number of state changes, from 1. It equals the revision in the newest state change of the key in the audit log.
    pub revision: u64,
    /// The lifecycle.
    pub lifecycle: Lifecycle,
    /// The successor.
    pub successor: Option<KeyId>,
    /// The predecessor.
    pub predecessor: Option<KeyId>,
    /// When the key is destroyed.
    pub delete_at: Option<Timestamp>,
    /// HMAC over the mutable state (32 bytes). `None` after a change that was made without opening the key.
    pub row_tag: Option<[u8; 32]>,
    /// The sealed private key. `None` for a destroyed key.
    pub sealed: Option<SealedKey>,
    /// The wraps, oldest first.
    pub wraps: Vec<Wrap>,
}

impl KeyRecord {
    /// The state in the row, to compare with the newest state change in the audit log.
    pub const fn state_change(&self) -> StateChange {
        StateChange { revision: self.revision, lifecycle: self.lifecycle, successor: self.successor, delete_at: self.delete_at }
    }

    /// The bytes under the row tag: state, revision, successor, `delete_at`, in the encoding of the context.
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
