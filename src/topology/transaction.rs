//! A prepared topology transaction: the content of a `.prep` file, and its hash.

use serde::Serialize;
use serde_json::Value as Json;

use super::{
    CantonHash, Mapping, Namespace, TopologyError, TopologyFault, UniqueIdentifier,
    hash::{HashBuilder, HashPurpose},
    message::Message,
    schema::{TOPOLOGY_TRANSACTION, VERSIONED},
};
use crate::domain::{Fingerprint, KeyId, MappingKind, text_enum};

/// Maximum length of a prepared transaction in bytes. The vetted packages of a large participant have about 40 KiB.
pub const MAX_TRANSACTION: usize = 64 * 1024;

/// The versions of the wrapper that Canton 3.4 to 3.6 read as version 30.
const VERSIONS: std::ops::RangeInclusive<i64> = 0..=31;

text_enum!(
    /// What a transaction does with its mapping.
    TopologyOperation as "topology operation" {
        /// Adds the mapping, or replaces the one with the same unique key.
        AddReplace = "add-replace",
        /// Removes the mapping.
        Remove = "remove",
    }
);

/// A decoded transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyTransaction {
    /// The operation.
    pub operation: TopologyOperation,
    /// The serial: 1 for a new unique key, then one more for each change.
    pub serial: i32,
    /// The mapping.
    pub mapping: Mapping,
    hash: CantonHash,
    fields: Json,
}

impl TopologyTransaction {
    /// Decodes a prepared transaction: `UntypedVersionedMessage` of a `TopologyTransaction`.
    ///
    /// # Errors
    /// [`TopologyError`] for everything that Canton refuses, and for bytes that Canton reads but that are ambiguous or contain more than is
    /// shown.
    pub fn decode(prepared: &[u8]) -> Result<Self, TopologyError> {
        if prepared.len() > MAX_TRANSACTION {
            return Err(TopologyError::new("the transaction", TopologyFault::TooLong(MAX_TRANSACTION)));
        }
        let wrapper = Message::decode(&VERSIONED, prepared).map_err(|error| error.within("the transaction"))?;
        if !VERSIONS.contains(&wrapper.number("version").unwrap_or(0)) {
            return Err(TopologyError::invalid("version", "it is not a version of Canton 3"));
        }
        let data = wrapper.bytes("data").filter(|data| !data.is_empty());
        let data = data.ok_or_else(|| TopologyError::new("data", TopologyFault::Missing))?;
        let message = Message::decode(&TOPOLOGY_TRANSACTION, data).map_err(|error| error.within("data"))?;
        let operation = match message.enumeration("operation") {
            1 => TopologyOperation::AddReplace,
            2 => TopologyOperation::Remove,
            _ => return Err(TopologyError::new("operation", TopologyFault::Missing)),
        };
        let serial = message.number("serial").and_then(|serial| i32::try_from(serial).ok()).unwrap_or(0);
        if serial < 1 {
            return Err(TopologyError::invalid("serial", "it is not positive"));
        }
        let mapping = message.message("mapping").ok_or_else(|| TopologyError::new("mapping", TopologyFault::Missing))?;
        let mapping = Mapping::read(mapping).map_err(|error| error.within("mapping"))?;
        // The hash covers the bytes as received. They are never encoded again.
        let hash = HashBuilder::new(HashPurpose::TopologyTransactionSignature).raw(prepared).finish();
        Ok(Self { operation, serial, mapping, hash, fields: message.to_json() })
    }

    /// The hash that keys sign: 34 bytes, shown as 68 hex digits.
    pub const fn hash(&self) -> CantonHash {
        self.hash
    }

    /// Every field of the transaction, in the names of Canton's protobuf files. Default values are omitted.
    pub const fn fields(&self) -> &Json {
        &self.fields
    }

    /// What the transaction does, for programs.
    pub fn description(&self) -> Description<'_> {
        let facts = self.mapping.facts();
        Description {
            operation: self.operation,
            serial: self.serial,
            kind: self.mapping.kind(),
            code: self.mapping.code(),
            short_code: self.mapping.short_code(),
            unique_key: self.mapping.unique_key(&facts),
            namespace: facts.namespace,
            unique_identifier: facts.unique_identifier,
            restricted_to_synchronizer: facts.restricted_to_synchronizer,
            required_namespaces: facts.required_namespaces,
            required_keys: facts.required_keys.iter().map(Fingerprint::to_string).collect(),
            mapping: &self.mapping,
        }
    }

    /// The fingerprints in the transaction: of its keys, of its namespace, and of the namespaces that must sign.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        let facts = self.mapping.facts();
        let namespaces =
            facts.required_namespaces.iter().chain([&facts.namespace]).filter_map(|namespace| match namespace.as_str().parse() {
                Ok(KeyId::Pair(fingerprint)) => Some(fingerprint),
                _ => None,
            });
        let mut all: Vec<Fingerprint> = Vec::new();
        for fingerprint in self.mapping.keys().into_iter().map(|key| key.fingerprint).chain(namespaces) {
            if !all.contains(&fingerprint) {
                all.push(fingerprint);
            }
        }
        all
    }

    /// What the transaction does, in one line for the audit log: at most about 400 characters.
    pub fn summary(&self) -> String {
        let facts = self.mapping.facts();
        let object = facts.unique_identifier.map_or_else(|| facts.namespace.to_string(), |uid| uid.to_string());
        let detail = match &self.mapping {
            Mapping::NamespaceDelegation(delegation) => {
                format!(
                    " to {} ({}{})",
                    delegation.target_key.fingerprint,
                    if delegation.is_root { "root, " } else { "" },
                    delegation.restriction.word()
                )
            }
            _ => String::new(),
        };
        format!("{} {} serial {} of {object}{detail}, hash {}", self.operation, self.mapping.kind(), self.serial, self.hash)
    }
}

/// What a transaction does, as JSON. The fields of the mapping stand beside these.
#[derive(Serialize)]
pub struct Description<'a> {
    /// The operation.
    pub operation: TopologyOperation,
    /// The serial.
    pub serial: i32,
    /// The kind of the mapping.
    #[serde(rename = "mapping")]
    pub kind: MappingKind,
    /// Canton's number of the kind.
    pub code: i32,
    /// Canton's three letters of the kind.
    pub short_code: &'static str,
    /// The namespace that the mapping belongs to.
    pub namespace: Namespace,
    /// The node, party or synchronizer that it concerns.
    pub unique_identifier: Option<UniqueIdentifier>,
    /// The only synchronizer on which it is valid.
    pub restricted_to_synchronizer: Option<UniqueIdentifier>,
    /// Canton's unique key.
    #[serde(rename = "unique_key_hex")]
    pub unique_key: CantonHash,
    /// The namespaces that must sign, if nothing with this unique key exists yet.
    #[serde(rename = "required_namespaces_if_new")]
    pub required_namespaces: Vec<Namespace>,
    /// The keys that must sign too.
    #[serde(rename = "required_extra_keys_if_new")]
    pub required_keys: Vec<String>,
    #[serde(flatten)]
    mapping: &'a Mapping,
}

/// The hash of several transactions that one signature covers: each hash with its length, in the order of their hex digits.
pub fn combined_hash(hashes: &[CantonHash]) -> CantonHash {
    let mut sorted = hashes.to_vec();
    sorted.sort();
    let start = HashBuilder::new(HashPurpose::MultiTopologyTransaction).int(i32::try_from(sorted.len()).unwrap_or(i32::MAX));
    sorted.iter().fold(start, |hash, one| hash.bytes(one.as_bytes())).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_input_is_refused_before_it_is_read() {
        let error = TopologyTransaction::decode(&vec![0; MAX_TRANSACTION + 1]).unwrap_err();
        assert_eq!(error.fault, TopologyFault::TooLong(MAX_TRANSACTION));
    }
}
