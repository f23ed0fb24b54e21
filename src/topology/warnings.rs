//! What is dangerous about a transaction.

use serde::Serialize;

use super::{Mapping, Namespace, TopologyOperation, TopologyTransaction};
use crate::domain::{Fingerprint, MappingKind, text_enum};

text_enum!(
    /// Why a transaction deserves attention.
    WarningReason as "topology warning" {
        /// The root delegation of a namespace.
        RootDelegation = "root-delegation",
        /// A key can sign everything for a namespace.
        FullDelegation = "full-delegation",
        /// A mapping is removed.
        Removal = "removal",
        /// A key of the mapping is not in the vault.
        UnknownKey = "unknown-key",
        /// The mapping replaces the whole list of keys, members, packages or hosts.
        CompleteList = "complete-list",
        /// The mapping replaces an earlier one.
        Replacement = "replacement",
        /// One signature of several is enough.
        ThresholdOne = "threshold-one",
        /// A participant can submit for the party.
        SubmissionByOthers = "submission-by-others",
        /// Rules of a synchronizer change for all its members.
        SynchronizerChange = "synchronizer-change",
        /// The namespace does not follow from its owners.
        NamespaceNotOfOwners = "namespace-not-of-owners",
        /// The transaction has the form of an earlier version.
        OldForm = "old-form",
        /// The connection is not encrypted.
        NoTls = "no-tls",
    }
);

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopologyWarning {
    /// The reason.
    pub reason: WarningReason,
    /// A sentence that says what can happen.
    pub detail: String,
}

/// A key that the vault holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// The name, or else the node.
    pub name: String,
}

/// The warnings about a transaction. `known` are the keys that the vault holds and the reader may see.
pub fn warnings(transaction: &TopologyTransaction, known: &[KnownKey]) -> Vec<TopologyWarning> {
    let mut found = Vec::new();
    let mut warn = |reason, detail: String| found.push(TopologyWarning { reason, detail });
    if transaction.operation == TopologyOperation::Remove {
        warn(WarningReason::Removal, "The mapping is removed. A removed delegation cannot be created again for the same key.".into());
    } else if transaction.serial > 1 {
        warn(WarningReason::Replacement, format!("Serial {}: the mapping replaces an earlier one.", transaction.serial));
    }
    for key in transaction.mapping.keys() {
        if !known.iter().any(|known| known.fingerprint == key.fingerprint) {
            warn(WarningReason::UnknownKey, format!("The vault does not hold key {}, or this principal may not see it.", key.fingerprint));
        }
    }
    if let Some(list) = complete_list(&transaction.mapping) {
        warn(WarningReason::CompleteList, format!("The list of {list} is complete. What is not in it is removed."));
    }
    match &transaction.mapping {
        Mapping::NamespaceDelegation(delegation) => {
            let namespace = &delegation.namespace;
            if delegation.is_root {
                warn(WarningReason::RootDelegation, format!("This is the root delegation of the namespace {namespace}."));
            } else if transaction.operation == TopologyOperation::AddReplace
                && delegation.restriction.allows(MappingKind::NamespaceDelegation)
            {
                // A key that may sign delegations can give itself, or another key, every right that it has not.
                let key = delegation.target_key.fingerprint;
                warn(
                    WarningReason::FullDelegation,
                    format!("Key {key} can sign everything for the namespace {namespace}, further delegations included."),
                );
            }
            if delegation.old_form {
                warn(
                    WarningReason::OldForm,
                    format!("The transaction names no restriction. Canton reads it as {}.", delegation.restriction.word()),
                );
            }
        }
        Mapping::DecentralizedNamespaceDefinition(definition) => {
            threshold(&mut warn, definition.threshold, definition.owners.len(), "owners");
            if definition.namespace != definition.computed_from_owners {
                let computed: &Namespace = &definition.computed_from_owners;
                warn(
                    WarningReason::NamespaceNotOfOwners,
                    format!(
                        "The namespace of these owners is {computed}. Another one is right only if its owners changed since it was created."
                    ),
                );
            }
        }
        Mapping::PartyToKeyMapping(mapping) => threshold(&mut warn, mapping.threshold, mapping.keys.len(), "keys"),
        Mapping::PartyToParticipant(mapping) => {
            threshold(&mut warn, mapping.threshold, mapping.participants.len(), "participants");
            for host in mapping.participants.iter().filter(|host| host.participant.namespace != mapping.party.namespace) {
                warn(
                    WarningReason::SubmissionByOthers,
                    format!("Participant {} of another namespace hosts the party with {}.", host.participant, permission(host.permission)),
                );
            }
        }
        Mapping::SynchronizerParametersState(_)
        | Mapping::SequencingDynamicParametersState(_)
        | Mapping::ParticipantPermission(_)
        | Mapping::PartyHostingLimits(_)
        | Mapping::LsuAnnouncement(_) => {
            warn(WarningReason::SynchronizerChange, "The rules of the synchronizer change for its members.".into());
        }
        Mapping::MediatorSynchronizerState(state) => {
            warn(WarningReason::SynchronizerChange, "The mediators of the synchronizer change.".into());
            threshold(&mut warn, state.threshold, state.active.len(), "mediators");
        }
        Mapping::SequencerSynchronizerState(state) => {
            warn(WarningReason::SynchronizerChange, "The sequencers of the synchronizer change.".into());
            threshold(&mut warn, state.threshold, state.active.len(), "sequencers");
        }
        Mapping::SequencerConnectionSuccessor(successor) if !successor.tls => {
            warn(WarningReason::NoTls, "The endpoints of the sequencer do not use TLS.".into());
        }
        _ => {}
    }
    found
}

fn threshold(warn: &mut impl FnMut(WarningReason, String), threshold: i32, of: usize, what: &str) {
    if threshold == 1 && of > 1 {
        warn(WarningReason::ThresholdOne, format!("One of {of} {what} is enough."));
    }
}

const fn permission(permission: super::mapping::Permission) -> &'static str {
    match permission {
        super::mapping::Permission::Submission => "submission",
        super::mapping::Permission::Confirmation => "confirmation",
        super::mapping::Permission::Observation => "observation",
    }
}

/// What the mapping lists completely.
const fn complete_list(mapping: &Mapping) -> Option<&'static str> {
    match mapping {
        Mapping::OwnerToKeyMapping(_) => Some("the keys of the node"),
        Mapping::VettedPackages(_) => Some("packages"),
        Mapping::PartyToParticipant(_) => Some("participants"),
        Mapping::PartyToKeyMapping(_) => Some("the keys of the party"),
        Mapping::MediatorSynchronizerState(_) => Some("mediators"),
        Mapping::SequencerSynchronizerState(_) => Some("sequencers"),
        Mapping::DecentralizedNamespaceDefinition(_) => Some("owners"),
        _ => None,
    }
}
