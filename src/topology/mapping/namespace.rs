//! Mappings of namespaces: delegations to keys, and decentralized namespaces.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{MappingFacts, TopologyError, TopologyFault, TopologyKey, kind_of_code, positive};
use crate::{
    domain::{MappingKind, Usage},
    topology::{
        Namespace,
        hash::{HashBuilder, HashPurpose},
        message::Message,
    },
};

/// Lets a key sign for a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamespaceDelegation {
    /// The namespace.
    pub namespace: Namespace,
    /// The key.
    pub target_key: TopologyKey,
    /// Whether the key is the root key of the namespace.
    pub is_root: bool,
    /// What the key may sign.
    pub restriction: DelegationRestriction,
    /// Whether the transaction has the old form, in which Canton derives the restriction from a flag.
    #[serde(skip)]
    pub old_form: bool,
}

/// What the key of a delegation may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelegationRestriction {
    /// All mappings.
    AllMappings,
    /// All mappings except namespace delegations.
    AllButNamespaceDelegations,
    /// These mappings.
    SpecificMappings(Vec<MappingKind>),
}

impl DelegationRestriction {
    /// Whether the key may sign this kind of mapping.
    pub fn allows(&self, kind: MappingKind) -> bool {
        match self {
            Self::AllMappings => true,
            Self::AllButNamespaceDelegations => kind != MappingKind::NamespaceDelegation,
            Self::SpecificMappings(kinds) => kinds.contains(&kind),
        }
    }

    /// The word of the restriction.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::AllMappings => "all-mappings",
            Self::AllButNamespaceDelegations => "all-but-namespace-delegations",
            Self::SpecificMappings(_) => "specific-mappings",
        }
    }
}

impl Serialize for DelegationRestriction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.word())?;
        if let Self::SpecificMappings(kinds) = self {
            map.serialize_entry("mappings", kinds)?;
        }
        map.end()
    }
}

impl NamespaceDelegation {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let namespace = Namespace::read("namespace", message.text("namespace"))?;
        let target = message.message("target_key").ok_or_else(|| TopologyError::new("target_key", TopologyFault::Missing))?;
        let target_key = TopologyKey::read_signing(target).map_err(|error| error.within("target_key"))?;
        let root_flag = message.flag("is_root_delegation");
        let written = restriction(message)?;
        let old_form = written.is_none();
        let restriction = match written {
            Some(_) if root_flag => {
                return Err(TopologyError::invalid("is_root_delegation", "it is set together with a restriction"));
            }
            Some(restriction) => restriction,
            // The form of Canton 3.2 and older.
            None if root_flag => DelegationRestriction::AllMappings,
            None => DelegationRestriction::AllButNamespaceDelegations,
        };
        if !target_key.usages().contains(Usage::Namespace) {
            return Err(TopologyError::invalid("target_key", "the key has not the usage namespace"));
        }
        let is_root = target_key.fingerprint.to_string() == namespace.as_str();
        if is_root && !restriction.allows(MappingKind::NamespaceDelegation) {
            return Err(TopologyError::invalid("restriction", "a root key must be able to sign namespace delegations"));
        }
        Ok(Self { namespace, target_key, is_root, restriction, old_form })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::of(self.namespace.clone(), &self.namespace).unique_too(&self.target_key.fingerprint)
    }
}

fn restriction(message: &Message) -> Result<Option<DelegationRestriction>, TopologyError> {
    const SPECIFIC: &str = "can_sign_specific_mapings";
    if message.message("can_sign_all_mappings").is_some() {
        return Ok(Some(DelegationRestriction::AllMappings));
    }
    if message.message("can_sign_all_but_namespace_delegations").is_some() {
        return Ok(Some(DelegationRestriction::AllButNamespaceDelegations));
    }
    let Some(specific) = message.message(SPECIFIC) else { return Ok(None) };
    let mut kinds = Vec::new();
    for code in specific.enumerations("mappings") {
        let kind = kind_of_code(code).ok_or_else(|| TopologyError::new(SPECIFIC, TopologyFault::UnknownValue(code)))?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return Err(TopologyError::new(SPECIFIC, TopologyFault::Missing));
    }
    Ok(Some(DelegationRestriction::SpecificMappings(kinds)))
}

/// A namespace with several owners, of which a number must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecentralizedNamespaceDefinition {
    /// The namespace.
    pub namespace: Namespace,
    /// How many owners must sign.
    pub threshold: i32,
    /// The owners, in the order of the transaction.
    #[serde(rename = "owners_in_wire_order")]
    pub owners: Vec<Namespace>,
    /// The namespace that follows from the owners. A namespace keeps its name when its owners change.
    pub computed_from_owners: Namespace,
}

impl DecentralizedNamespaceDefinition {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let namespace = Namespace::read("decentralized_namespace", message.text("decentralized_namespace"))?;
        let threshold = positive(message, "threshold")?;
        let owners: Vec<Namespace> = message.texts("owners").map(|owner| Namespace::read("owners", owner)).collect::<Result<_, _>>()?;
        let mut sorted = owners.clone();
        sorted.sort();
        if owners.is_empty() {
            return Err(TopologyError::new("owners", TopologyFault::Missing));
        }
        if sorted.windows(2).any(|pair| matches!(pair, [one, two] if one == two)) {
            // Canton reads the owners as a set.
            return Err(TopologyError::invalid("owners", "an owner occurs twice"));
        }
        if usize::try_from(threshold).map_or(true, |threshold| threshold > owners.len()) {
            return Err(TopologyError::invalid("threshold", "it is higher than the number of owners"));
        }
        let hash =
            sorted.iter().fold(HashBuilder::new(HashPurpose::DecentralizedNamespace), |hash, owner| hash.bytes(owner.as_str().as_bytes()));
        Ok(Self { namespace, threshold, owners, computed_from_owners: Namespace::computed(hash.finish().to_string()) })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::of(self.namespace.clone(), &self.namespace).signed_by(self.owners.iter().cloned())
    }
}
