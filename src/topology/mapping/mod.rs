//! The topology mappings of Canton 3.5: one type for each kind, checked as Canton checks it (`topology/transaction/TopologyMapping.scala`).

mod member_keys;
mod namespace;
mod participant;
mod party;
mod synchronizer;
mod upgrade;

use serde::Serialize;

pub(super) use self::party::Permission;
use self::{
    member_keys::OwnerToKeyMapping,
    namespace::{DecentralizedNamespaceDefinition, NamespaceDelegation},
    participant::{ParticipantPermission, SynchronizerTrustCertificate, VettedPackages},
    party::{PartyHostingLimits, PartyToKeyMapping, PartyToParticipant},
    synchronizer::{MediatorSynchronizerState, SequencerSynchronizerState, SequencingDynamicParametersState, SynchronizerParametersState},
    upgrade::{LsuAnnouncement, SequencerConnectionSuccessor},
};
use super::{
    CantonHash, Namespace, TopologyError, TopologyFault, TopologyKey, UniqueIdentifier,
    hash::{HashBuilder, HashPurpose},
    message::Message,
};
use crate::domain::{Fingerprint, MappingKind};

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is the mapping of its name")]
pub enum Mapping {
    NamespaceDelegation(NamespaceDelegation),
    DecentralizedNamespaceDefinition(DecentralizedNamespaceDefinition),
    OwnerToKeyMapping(OwnerToKeyMapping),
    SynchronizerTrustCertificate(SynchronizerTrustCertificate),
    ParticipantPermission(ParticipantPermission),
    PartyHostingLimits(PartyHostingLimits),
    VettedPackages(VettedPackages),
    PartyToParticipant(PartyToParticipant),
    SynchronizerParametersState(SynchronizerParametersState),
    MediatorSynchronizerState(MediatorSynchronizerState),
    SequencerSynchronizerState(SequencerSynchronizerState),
    SequencingDynamicParametersState(SequencingDynamicParametersState),
    PartyToKeyMapping(PartyToKeyMapping),
    LsuAnnouncement(LsuAnnouncement),
    SequencerConnectionSuccessor(SequencerConnectionSuccessor),
}

/// What Canton derives from a mapping: whom it concerns and who must sign it.
pub struct MappingFacts {
    /// The namespace that it belongs to.
    pub namespace: Namespace,
    /// The node, party or synchronizer that it concerns.
    pub unique_identifier: Option<UniqueIdentifier>,
    /// The only synchronizer on which it is valid.
    pub restricted_to_synchronizer: Option<UniqueIdentifier>,
    /// The namespaces that must sign it if there is no earlier mapping with the same unique key, sorted.
    pub required_namespaces: Vec<Namespace>,
    /// The keys that must sign it too, because it adds them, sorted.
    pub required_keys: Vec<Fingerprint>,
    /// The parts of the unique key, in their order.
    unique: Vec<UniquePart>,
}

/// A part of a unique key.
enum UniquePart {
    Text(String),
    Number(i32),
}

impl MappingFacts {
    /// A mapping that its own namespace signs, and whose unique key is this text.
    fn of(namespace: Namespace, unique: &impl ToString) -> Self {
        Self {
            required_namespaces: vec![namespace.clone()],
            namespace,
            unique_identifier: None,
            restricted_to_synchronizer: None,
            required_keys: Vec::new(),
            unique: vec![UniquePart::Text(unique.to_string())],
        }
    }

    /// A mapping of a node or party, which its namespace signs.
    fn about(uid: &UniqueIdentifier) -> Self {
        Self { unique_identifier: Some(uid.clone()), ..Self::of(uid.namespace.clone(), uid) }
    }

    /// The same, valid on one synchronizer only.
    fn on(self, synchronizer: &UniqueIdentifier) -> Self {
        Self { restricted_to_synchronizer: Some(synchronizer.clone()), ..self }
    }

    fn unique_too(mut self, text: &impl ToString) -> Self {
        self.unique.push(UniquePart::Text(text.to_string()));
        self
    }

    fn unique_number(mut self, number: i32) -> Self {
        self.unique.push(UniquePart::Number(number));
        self
    }

    fn signed_by(self, namespaces: impl IntoIterator<Item = Namespace>) -> Self {
        let mut required_namespaces: Vec<Namespace> = namespaces.into_iter().collect();
        required_namespaces.sort();
        required_namespaces.dedup();
        Self { required_namespaces, ..self }
    }

    fn and_by_keys<'a>(self, keys: impl IntoIterator<Item = &'a TopologyKey>) -> Self {
        let mut required_keys: Vec<Fingerprint> = keys.into_iter().map(|key| key.fingerprint).collect();
        required_keys.sort_by_cached_key(Fingerprint::to_string);
        Self { required_keys, ..self }
    }
}

/// The kinds: code, short code, and the name of the field in `TopologyMapping`.
const KINDS: [(MappingKind, i32, &str, &str); 15] = [
    (MappingKind::NamespaceDelegation, 1, "nsd", "namespace_delegation"),
    (MappingKind::DecentralizedNamespaceDefinition, 3, "dnd", "decentralized_namespace_definition"),
    (MappingKind::OwnerToKeyMapping, 4, "otk", "owner_to_key_mapping"),
    (MappingKind::SynchronizerTrustCertificate, 5, "dtc", "synchronizer_trust_certificate"),
    (MappingKind::ParticipantPermission, 6, "pdp", "participant_permission"),
    (MappingKind::PartyHostingLimits, 7, "phl", "party_hosting_limits"),
    (MappingKind::VettedPackages, 8, "vtp", "vetted_packages"),
    (MappingKind::PartyToParticipant, 9, "ptp", "party_to_participant"),
    (MappingKind::SynchronizerParametersState, 11, "dop", "synchronizer_parameters_state"),
    (MappingKind::MediatorSynchronizerState, 12, "mds", "mediator_synchronizer_state"),
    (MappingKind::SequencerSynchronizerState, 13, "sds", "sequencer_synchronizer_state"),
    (MappingKind::SequencingDynamicParametersState, 17, "sep", "sequencing_dynamic_parameters_state"),
    (MappingKind::PartyToKeyMapping, 18, "ptk", "party_to_key_mapping"),
    (MappingKind::LsuAnnouncement, 19, "lsu", "synchronizer_upgrade_announcement"),
    (MappingKind::SequencerConnectionSuccessor, 20, "scs", "sequencer_connection_successor"),
];

/// The kind with this code.
fn kind_of_code(code: i64) -> Option<MappingKind> {
    KINDS.iter().find(|(_, known, ..)| i64::from(*known) == code).map(|(kind, ..)| *kind)
}

impl Mapping {
    /// Reads a `TopologyMapping`.
    pub(super) fn read(mapping: &Message) -> Result<Self, TopologyError> {
        let (field, content) = mapping.only().ok_or_else(|| TopologyError::new("", TopologyFault::Missing))?;
        let kind = KINDS.iter().find(|(.., name)| *name == field).map(|(kind, ..)| *kind);
        let kind = kind.ok_or_else(|| TopologyError::new(field, TopologyFault::Missing))?;
        let read = match kind {
            MappingKind::NamespaceDelegation => NamespaceDelegation::read(content).map(Self::NamespaceDelegation),
            MappingKind::DecentralizedNamespaceDefinition => {
                DecentralizedNamespaceDefinition::read(content).map(Self::DecentralizedNamespaceDefinition)
            }
            MappingKind::OwnerToKeyMapping => OwnerToKeyMapping::read(content).map(Self::OwnerToKeyMapping),
            MappingKind::SynchronizerTrustCertificate => {
                SynchronizerTrustCertificate::read(content).map(Self::SynchronizerTrustCertificate)
            }
            MappingKind::ParticipantPermission => ParticipantPermission::read(content).map(Self::ParticipantPermission),
            MappingKind::PartyHostingLimits => PartyHostingLimits::read(content).map(Self::PartyHostingLimits),
            MappingKind::VettedPackages => VettedPackages::read(content).map(Self::VettedPackages),
            MappingKind::PartyToParticipant => PartyToParticipant::read(content).map(Self::PartyToParticipant),
            MappingKind::SynchronizerParametersState => SynchronizerParametersState::read(content).map(Self::SynchronizerParametersState),
            MappingKind::MediatorSynchronizerState => MediatorSynchronizerState::read(content).map(Self::MediatorSynchronizerState),
            MappingKind::SequencerSynchronizerState => SequencerSynchronizerState::read(content).map(Self::SequencerSynchronizerState),
            MappingKind::SequencingDynamicParametersState => {
                SequencingDynamicParametersState::read(content).map(Self::SequencingDynamicParametersState)
            }
            MappingKind::PartyToKeyMapping => PartyToKeyMapping::read(content).map(Self::PartyToKeyMapping),
            MappingKind::LsuAnnouncement => LsuAnnouncement::read(content).map(Self::LsuAnnouncement),
            MappingKind::SequencerConnectionSuccessor => {
                SequencerConnectionSuccessor::read(content).map(Self::SequencerConnectionSuccessor)
            }
        };
        read.map_err(|error| error.within(field))
    }

    /// The kind.
    pub const fn kind(&self) -> MappingKind {
        match self {
            Self::NamespaceDelegation(_) => MappingKind::NamespaceDelegation,
            Self::DecentralizedNamespaceDefinition(_) => MappingKind::DecentralizedNamespaceDefinition,
            Self::OwnerToKeyMapping(_) => MappingKind::OwnerToKeyMapping,
            Self::SynchronizerTrustCertificate(_) => MappingKind::SynchronizerTrustCertificate,
            Self::ParticipantPermission(_) => MappingKind::ParticipantPermission,
            Self::PartyHostingLimits(_) => MappingKind::PartyHostingLimits,
            Self::VettedPackages(_) => MappingKind::VettedPackages,
            Self::PartyToParticipant(_) => MappingKind::PartyToParticipant,
            Self::SynchronizerParametersState(_) => MappingKind::SynchronizerParametersState,
            Self::MediatorSynchronizerState(_) => MappingKind::MediatorSynchronizerState,
            Self::SequencerSynchronizerState(_) => MappingKind::SequencerSynchronizerState,
            Self::SequencingDynamicParametersState(_) => MappingKind::SequencingDynamicParametersState,
            Self::PartyToKeyMapping(_) => MappingKind::PartyToKeyMapping,
            Self::LsuAnnouncement(_) => MappingKind::LsuAnnouncement,
            Self::SequencerConnectionSuccessor(_) => MappingKind::SequencerConnectionSuccessor,
        }
    }

    /// Canton's number of the kind.
    pub fn code(&self) -> i32 {
        KINDS.iter().find(|(kind, ..)| *kind == self.kind()).map_or(0, |(_, code, ..)| *code)
    }

    /// Canton's three letters of the kind.
    pub fn short_code(&self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self.kind()).map_or("", |(_, _, short, _)| *short)
    }

    /// What Canton derives from the mapping.
    pub fn facts(&self) -> MappingFacts {
        match self {
            Self::NamespaceDelegation(mapping) => mapping.facts(),
            Self::DecentralizedNamespaceDefinition(mapping) => mapping.facts(),
            Self::OwnerToKeyMapping(mapping) => mapping.facts(),
            Self::SynchronizerTrustCertificate(mapping) => mapping.facts(),
            Self::ParticipantPermission(mapping) => mapping.facts(),
            Self::PartyHostingLimits(mapping) => mapping.facts(),
            Self::VettedPackages(mapping) => mapping.facts(),
            Self::PartyToParticipant(mapping) => mapping.facts(),
            Self::SynchronizerParametersState(mapping) => mapping.facts(),
            Self::MediatorSynchronizerState(mapping) => mapping.facts(),
            Self::SequencerSynchronizerState(mapping) => mapping.facts(),
            Self::SequencingDynamicParametersState(mapping) => mapping.facts(),
            Self::PartyToKeyMapping(mapping) => mapping.facts(),
            Self::LsuAnnouncement(mapping) => mapping.facts(),
            Self::SequencerConnectionSuccessor(mapping) => mapping.facts(),
        }
    }

    /// The keys in the mapping.
    pub fn keys(&self) -> Vec<&TopologyKey> {
        match self {
            Self::NamespaceDelegation(mapping) => vec![&mapping.target_key],
            Self::OwnerToKeyMapping(mapping) => mapping.keys.iter().collect(),
            Self::PartyToKeyMapping(mapping) => mapping.keys.iter().collect(),
            Self::PartyToParticipant(mapping) => mapping.party_signing_keys.iter().flat_map(|keys| &keys.keys).collect(),
            _ => Vec::new(),
        }
    }

    /// Canton's unique key: a later transaction with the same unique key replaces this one.
    pub(super) fn unique_key(&self, facts: &MappingFacts) -> CantonHash {
        let parts = facts.unique.iter().fold(HashBuilder::new(HashPurpose::TopologyMappingUniqueKey), |hash, part| match part {
            UniquePart::Text(text) => hash.bytes(text.as_bytes()),
            UniquePart::Number(number) => hash.int(*number),
        });
        parts.int(self.code()).finish()
    }
}

/// A number that Canton requires to be positive.
fn positive(message: &Message, field: &'static str) -> Result<i32, TopologyError> {
    let number = message.number(field).and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
    if number > 0 { Ok(number) } else { Err(TopologyError::invalid(field, "it is not positive")) }
}

/// The microseconds of a `google.protobuf.Timestamp`.
fn micros(message: &Message, field: &'static str) -> Result<Option<i64>, TopologyError> {
    let Some(time) = message.message(field) else { return Ok(None) };
    let (seconds, nanos) = (time.number("seconds").unwrap_or(0), time.number("nanos").unwrap_or(0));
    let whole = (0..1_000_000_000).contains(&nanos) && nanos % 1000 == 0;
    let micros = seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(nanos / 1000)).filter(|_| whole);
    micros.map_or_else(|| Err(not_a_time(field)), |micros| check_micros(field, micros).map(Some))
}

/// Microseconds since 1970 between the years 1 and 9999 (`daml-lf/data/Time.scala`).
fn check_micros(field: &'static str, micros: i64) -> Result<i64, TopologyError> {
    let in_range = (-62_135_596_800_000_000..=253_402_300_799_999_999).contains(&micros);
    if in_range { Ok(micros) } else { Err(not_a_time(field)) }
}

fn not_a_time(field: &'static str) -> TopologyError {
    TopologyError::invalid(field, "it is not a time of Canton")
}

/// Signing keys, at least one and at most 20, without duplicates.
fn signing_keys(message: &Message, field: &'static str) -> Result<Vec<TopologyKey>, TopologyError> {
    read_keys(message, field, TopologyKey::read_signing)
}

/// `KeyMapping.MaxKeys`.
const MAX_KEYS: usize = 20;

/// Keys, at least one and at most 20, without duplicates. They are counted first, because to read one takes much longer than its bytes suggest.
fn read_keys(
    message: &Message,
    field: &'static str,
    read: impl Fn(&Message) -> Result<TopologyKey, TopologyError>,
) -> Result<Vec<TopologyKey>, TopologyError> {
    match message.messages(field).count() {
        0 => return Err(TopologyError::new(field, TopologyFault::Missing)),
        1..=MAX_KEYS => {}
        _ => return Err(TopologyError::invalid(field, "there are more than 20 keys")),
    }
    let keys: Vec<TopologyKey> = message.messages(field).map(read).collect::<Result<_, _>>().map_err(|error| error.within(field))?;
    let duplicate =
        keys.iter().enumerate().any(|(index, key)| keys.iter().skip(index + 1).any(|other| other.fingerprint == key.fingerprint));
    if duplicate { Err(TopologyError::invalid(field, "a key occurs twice")) } else { Ok(keys) }
}
