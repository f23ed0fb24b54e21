//! The kinds of topology mappings of Canton, and sets of them.

use std::{fmt, str::FromStr};

use super::text::{UnknownText, text_enum};

text_enum!(
    /// The kind of a topology mapping (`TopologyMapping.Code`).
    MappingKind as "mapping kind" {
        /// Lets a key sign for a namespace.
        NamespaceDelegation = "namespace-delegation",
        /// Defines a namespace with several owners.
        DecentralizedNamespaceDefinition = "decentralized-namespace-definition",
        /// The keys of a node.
        OwnerToKeyMapping = "owner-to-key-mapping",
        /// A participant trusts a synchronizer.
        SynchronizerTrustCertificate = "synchronizer-trust-certificate",
        /// The permission of a participant on a synchronizer.
        ParticipantPermission = "participant-permission",
        /// Limits on hosting a party.
        PartyHostingLimits = "party-hosting-limits",
        /// The packages that a participant uses.
        VettedPackages = "vetted-packages",
        /// The participants that host a party.
        PartyToParticipant = "party-to-participant",
        /// The parameters of a synchronizer.
        SynchronizerParametersState = "synchronizer-parameters-state",
        /// The mediators of a synchronizer.
        MediatorSynchronizerState = "mediator-synchronizer-state",
        /// The sequencers of a synchronizer.
        SequencerSynchronizerState = "sequencer-synchronizer-state",
        /// The parameters of the sequencers of a synchronizer.
        SequencingDynamicParametersState = "sequencing-dynamic-parameters-state",
        /// The keys of an external party.
        PartyToKeyMapping = "party-to-key-mapping",
        /// Announces the upgrade of a synchronizer.
        LsuAnnouncement = "lsu-announcement",
        /// Where a sequencer is reached after an upgrade.
        SequencerConnectionSuccessor = "sequencer-connection-successor",
    }
);

/// A set of mapping kinds. Its text is empty for all kinds, and otherwise the kinds in the order of [`MappingKind`], comma-joined. This is
/// also the authenticated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingKinds(u16);

impl MappingKinds {
    /// All kinds, including those of later versions of the vault.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: MappingKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// Whether every kind of `other` is in the set.
    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The listed kinds. Empty for [`Self::ALL`].
    pub fn listed(self) -> Vec<MappingKind> {
        if self == Self::ALL { Vec::new() } else { MappingKind::ALL.iter().copied().filter(|kind| self.contains(*kind)).collect() }
    }
}

impl FromIterator<MappingKind> for MappingKinds {
    fn from_iter<I: IntoIterator<Item = MappingKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }
}

impl fmt::Display for MappingKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.listed().into_iter().map(MappingKind::as_str).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for MappingKinds {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        if text.is_empty() { Ok(Self::ALL) } else { text.split(',').map(str::parse).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_kinds_read_back() {
        let two: MappingKinds = [MappingKind::PartyToParticipant, MappingKind::NamespaceDelegation].into_iter().collect();
        assert_eq!(two.to_string(), "namespace-delegation,party-to-participant");
        for set in [two, MappingKinds::ALL, [MappingKind::SequencerConnectionSuccessor].into_iter().collect()] {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        assert!(MappingKinds::ALL.contains_all(two) && !two.contains_all(MappingKinds::ALL));
        assert!("namespace-delegation,nothing".parse::<MappingKinds>().is_err());
    }
}
