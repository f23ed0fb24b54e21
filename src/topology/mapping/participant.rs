//! Mappings of participants: their synchronizers, their permissions, their packages.

use serde::Serialize;

use super::{MappingFacts, Permission, TopologyError, check_micros, micros};
use crate::topology::{UniqueIdentifier, message::Message};

/// A participant trusts a synchronizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SynchronizerTrustCertificate {
    /// The participant.
    pub participant: UniqueIdentifier,
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
    /// `ParticipantFeatureFlag`.
    pub feature_flags: Vec<i64>,
}

impl SynchronizerTrustCertificate {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        Ok(Self {
            participant: UniqueIdentifier::read_participant("participant_uid", message.text("participant_uid"))?,
            synchronizer: UniqueIdentifier::read("synchronizer_id", message.text("synchronizer_id"))?,
            feature_flags: message.enumerations("feature_flags").collect(),
        })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        // The unique key has the participant as a member.
        let unique = format!("PAR::{}", self.participant);
        let facts = MappingFacts::of(self.participant.namespace.clone(), &unique).unique_too(&self.synchronizer);
        MappingFacts { unique_identifier: Some(self.participant.clone()), ..facts }.on(&self.synchronizer)
    }
}

/// The permission of a participant on a synchronizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParticipantPermission {
    /// The participant.
    pub participant: UniqueIdentifier,
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
    /// The permission.
    pub permission: Permission,
    /// Maximum number of confirmation requests in a second.
    pub confirmation_requests_max_rate: Option<i64>,
    /// The participant can log in after this time, in microseconds since 1970.
    pub login_after_micros: Option<i64>,
}

impl ParticipantPermission {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        const LOGIN_AFTER: &str = "login_after";
        let limits = message.message("limits");
        Ok(Self {
            participant: UniqueIdentifier::read_participant("participant_uid", message.text("participant_uid"))?,
            synchronizer: UniqueIdentifier::read("synchronizer_id", message.text("synchronizer_id"))?,
            permission: Permission::read(message)?,
            confirmation_requests_max_rate: limits.map(|limits| limits.number("confirmation_requests_max_rate").unwrap_or(0)),
            login_after_micros: message.number(LOGIN_AFTER).map(|micros| check_micros(LOGIN_AFTER, micros)).transpose()?,
        })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        let facts = MappingFacts::of(self.participant.namespace.clone(), &self.synchronizer);
        let facts = facts.unique_too(&format!("PAR::{}", self.participant)).signed_by([self.synchronizer.namespace.clone()]);
        MappingFacts { unique_identifier: Some(self.participant.clone()), ..facts }.on(&self.synchronizer)
    }
}

/// The packages that a participant uses. The list is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VettedPackages {
    /// The participant.
    pub participant: UniqueIdentifier,
    /// The packages.
    pub packages: Vec<VettedPackage>,
}

/// A package, and when it can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VettedPackage {
    /// The id.
    pub package_id: String,
    /// From this time, in microseconds since 1970.
    pub valid_from_micros: Option<i64>,
    /// Before this time, in microseconds since 1970.
    pub valid_until_micros: Option<i64>,
}

impl VettedPackages {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let participant = UniqueIdentifier::read_participant("participant_uid", message.text("participant_uid"))?;
        let unbounded = message
            .texts("package_ids")
            .map(|id| Ok(VettedPackage { package_id: package_id("package_ids", id)?, valid_from_micros: None, valid_until_micros: None }));
        let bounded = message.messages("packages").map(|package| VettedPackage::read(package).map_err(|error| error.within("packages")));
        let packages: Vec<VettedPackage> = unbounded.chain(bounded).collect::<Result<_, _>>()?;
        let mut ids: Vec<&str> = packages.iter().map(|package| package.package_id.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| matches!(pair, [one, two] if one == two)) {
            return Err(TopologyError::invalid("packages", "a package occurs twice"));
        }
        Ok(Self { participant, packages })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        let facts = MappingFacts::of(self.participant.namespace.clone(), &format!("PAR::{}", self.participant));
        MappingFacts { unique_identifier: Some(self.participant.clone()), ..facts }
    }
}

impl VettedPackage {
    fn read(message: &Message) -> Result<Self, TopologyError> {
        let package = Self {
            package_id: package_id("package_id", message.text("package_id"))?,
            valid_from_micros: micros(message, "valid_from_inclusive")?,
            valid_until_micros: micros(message, "valid_until_exclusive")?,
        };
        match (package.valid_from_micros, package.valid_until_micros) {
            (Some(from), Some(until)) if from >= until => {
                Err(TopologyError::invalid("valid_until_exclusive", "it is not after valid_from_inclusive"))
            }
            _ => Ok(package),
        }
    }
}

/// An id of a Daml-LF package: 1 to 64 letters, digits, hyphens, underscores and spaces.
fn package_id(field: &'static str, id: &str) -> Result<String, TopologyError> {
    let of_an_id = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | ' ');
    if (1..=64).contains(&id.len()) && id.chars().all(of_an_id) {
        Ok(id.to_owned())
    } else {
        Err(TopologyError::invalid(field, "it is not the id of a package"))
    }
}
