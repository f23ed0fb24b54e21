//! Mappings of parties: their participants, their keys, the limits on hosting them.

use serde::Serialize;

use super::{MappingFacts, TopologyError, TopologyFault, TopologyKey, positive, signing_keys};
use crate::topology::{UniqueIdentifier, message::Message};

/// What a participant may do for a party or on a synchronizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Sees what concerns the party.
    Observation,
    /// Confirms for the party too.
    Confirmation,
    /// Submits for the party too.
    Submission,
}

impl Permission {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        match message.enumeration("permission") {
            1 => Ok(Self::Submission),
            2 => Ok(Self::Confirmation),
            3 => Ok(Self::Observation),
            _ => Err(TopologyError::new("permission", TopologyFault::Missing)),
        }
    }
}

/// The participants that host a party. The list is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartyToParticipant {
    /// The party.
    pub party: UniqueIdentifier,
    /// How many participants must confirm.
    pub threshold: i32,
    /// The participants.
    pub participants: Vec<HostingParticipant>,
    /// The keys of an external party.
    pub party_signing_keys: Option<PartySigningKeys>,
    /// Whether the key of the party's namespace is among its signing keys.
    pub self_signed: bool,
}

/// A participant that hosts a party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostingParticipant {
    /// The participant.
    pub participant: UniqueIdentifier,
    /// What it may do for the party.
    pub permission: Permission,
    /// Whether it is still being onboarded.
    pub onboarding: bool,
}

/// The signing keys of an external party.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartySigningKeys {
    /// How many keys must sign.
    pub threshold: i32,
    /// The keys.
    pub keys: Vec<TopologyKey>,
}

impl PartyToParticipant {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        const PARTICIPANTS: &str = "participants";
        let party = UniqueIdentifier::read("party", message.text("party"))?;
        let threshold = positive(message, "threshold")?;
        let participants: Vec<HostingParticipant> = message
            .messages(PARTICIPANTS)
            .map(HostingParticipant::read)
            .collect::<Result<_, _>>()
            .map_err(|error: TopologyError| error.within(PARTICIPANTS))?;
        let twice = |(index, one): (usize, &HostingParticipant)| {
            participants.iter().skip(index + 1).any(|other| other.participant == one.participant)
        };
        if participants.iter().enumerate().any(twice) {
            // Canton keeps the higher permission.
            return Err(TopologyError::invalid(PARTICIPANTS, "a participant occurs twice"));
        }
        let keys = message.message("party_signing_keys").map(PartySigningKeys::read).transpose();
        let party_signing_keys = keys.map_err(|error| error.within("party_signing_keys"))?;
        let is_own = |key: &TopologyKey| key.fingerprint.to_string() == party.namespace.as_str();
        let self_signed = party_signing_keys.as_ref().is_some_and(|keys| keys.keys.iter().any(is_own));
        Ok(Self { party, threshold, participants, party_signing_keys, self_signed })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        let hosts = self.participants.iter().map(|host| host.participant.namespace.clone());
        MappingFacts::about(&self.party)
            .signed_by(hosts.chain([self.party.namespace.clone()]))
            .and_by_keys(self.party_signing_keys.iter().flat_map(|keys| &keys.keys))
    }
}

impl HostingParticipant {
    fn read(message: &Message) -> Result<Self, TopologyError> {
        Ok(Self {
            participant: UniqueIdentifier::read_participant("participant_uid", message.text("participant_uid"))?,
            permission: Permission::read(message)?,
            onboarding: message.message("onboarding").is_some(),
        })
    }
}

impl PartySigningKeys {
    fn read(message: &Message) -> Result<Self, TopologyError> {
        Ok(Self { keys: signing_keys(message, "keys")?, threshold: positive(message, "threshold")? })
    }
}

/// The keys of an external party, in the form of Canton 3.3 and older.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartyToKeyMapping {
    /// The party.
    pub party: UniqueIdentifier,
    /// How many keys must sign.
    pub threshold: i32,
    /// The keys.
    pub keys: Vec<TopologyKey>,
}

impl PartyToKeyMapping {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let party = UniqueIdentifier::read("party", message.text("party"))?;
        Ok(Self { party, threshold: positive(message, "threshold")?, keys: signing_keys(message, "signing_keys")? })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.party).and_by_keys(&self.keys)
    }
}

/// Limits on hosting a party on a synchronizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartyHostingLimits {
    /// The party.
    pub party: UniqueIdentifier,
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
}

impl PartyHostingLimits {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        Ok(Self {
            party: UniqueIdentifier::read("party", message.text("party"))?,
            synchronizer: UniqueIdentifier::read("synchronizer_id", message.text("synchronizer_id"))?,
        })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        let facts = MappingFacts::of(self.party.namespace.clone(), &self.synchronizer).unique_too(&self.party);
        let facts = facts.signed_by([self.synchronizer.namespace.clone()]);
        MappingFacts { unique_identifier: Some(self.party.clone()), ..facts }.on(&self.synchronizer)
    }
}
