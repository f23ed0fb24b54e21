//! The state machine of a key: its transitions, and what each state allows.

use std::{fmt, str::FromStr};

use super::{
    mapping_kind::MappingKinds,
    text::{UnknownText, text_enum},
};

text_enum!(
    /// The effective state: the outermost mark of the lifecycle.
    KeyState as "key state" {
        /// The key does everything that its spec and purpose allow.
        Active = "active",
        /// The key has a successor. It decrypts, but does not sign or encrypt.
        Superseded = "superseded",
        /// The key is disabled until `enable`.
        Disabled = "disabled",
        /// The key is quarantined, because its row, its sealed bytes or its wraps failed a check.
        Quarantined = "quarantined",
        /// The key is refused for use, and destroyed when its deletion is due, unless the deletion is cancelled.
        PendingDeletion = "pending-deletion",
        /// The key material is deleted. The attributes stay.
        Destroyed = "destroyed",
    }
);

/// The marks on a key. Removing a mark reveals the mark below. Therefore the reversal of a transition restores the previous state and no
/// higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks, not a state in disguise")]
pub struct Lifecycle {
    superseded: bool,
    disabled: bool,
    quarantined: bool,
    pending_deletion: bool,
    destroyed: bool,
    topology_only: Option<MappingKinds>,
}

/// The mark of a key that signs topology transactions only. It does not change the effective state.
const TOPOLOGY_ONLY: &str = "topology-only";

/// A transition between two lifecycles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Disables the key.
    Disable,
    /// Removes `disabled` and `quarantined`.
    Enable,
    /// Ends signing, permanently.
    Supersede,
    /// Quarantines the key. Only the vault does this.
    Quarantine,
    /// Refuses use and starts the waiting time.
    ScheduleDeletion,
    /// Restores the state before the deletion was scheduled.
    CancelDeletion,
    /// Deletes the key material after the waiting time. The attributes stay.
    Destroy,
    /// Limits an active key to topology transactions with mappings of these kinds, or removes the limit.
    RestrictSigning(Option<MappingKinds>),
}

/// The state of the key does not allow the transition, or the transition would change nothing. The text says which, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub struct TransitionError {
    /// The state of the key.
    pub from: KeyState,
    /// The transition.
    pub step: Transition,
}

impl TransitionError {
    fn reason(self) -> String {
        use KeyState::{Active, Destroyed, Disabled, PendingDeletion, Superseded};
        let Self { from, step } = self;
        let fixed = match (step, from) {
            (Transition::CancelDeletion, Destroyed) => "the key is destroyed: its deletion can no longer be cancelled",
            (Transition::ScheduleDeletion | Transition::Destroy, Destroyed) => "the key is destroyed already",
            (_, Destroyed) => "the key is destroyed",
            (Transition::Disable, Disabled) => "the key is disabled already",
            (Transition::Supersede, Superseded) => "the key is superseded already",
            (Transition::ScheduleDeletion, PendingDeletion) => "the deletion of the key is scheduled already",
            (Transition::Disable, PendingDeletion) => "the deletion of the key is scheduled, so that every use of it is refused already",
            (_, PendingDeletion) => "the deletion of the key is scheduled: cancel the deletion first",
            (Transition::RestrictSigning(None), Active) => "the key has no restriction: it signs any message already",
            (Transition::RestrictSigning(Some(_)), Active) => "the key has exactly this restriction already",
            (Transition::Enable, _) => return format!("the key is {from}: it is neither disabled nor quarantined"),
            (Transition::CancelDeletion, _) => return format!("the key is {from}: no deletion is scheduled"),
            (Transition::Supersede, _) => return format!("the key is {from}: only an active key can be superseded"),
            (Transition::RestrictSigning(_), _) => return format!("the key is {from}: only an active key can be restricted"),
            (Transition::Destroy, _) => return format!("the key is {from}: its deletion is not scheduled"),
            (Transition::Disable | Transition::Quarantine | Transition::ScheduleDeletion, _) => {
                return format!("the state of the key is {from}, which does not allow this");
            }
        };
        fixed.to_owned()
    }
}

impl Lifecycle {
    /// The lifecycle of a new key.
    pub const ACTIVE: Self =
        Self { superseded: false, disabled: false, quarantined: false, pending_deletion: false, destroyed: false, topology_only: None };

    /// The lifecycle shown for a row whose state cannot be read.
    pub const QUARANTINED: Self = Self { quarantined: true, ..Self::ACTIVE };

    /// The effective state.
    pub const fn state(self) -> KeyState {
        match self {
            Self { destroyed: true, .. } => KeyState::Destroyed,
            Self { pending_deletion: true, .. } => KeyState::PendingDeletion,
            Self { quarantined: true, .. } => KeyState::Quarantined,
            Self { disabled: true, .. } => KeyState::Disabled,
            Self { superseded: true, .. } => KeyState::Superseded,
            _ => KeyState::Active,
        }
    }

    /// The lifecycle after a transition.
    ///
    /// # Errors
    /// [`TransitionError`] where the step does not exist, or would change nothing; a key that waits to be destroyed can be set aside
    /// again, because its row was edited each time.
    pub fn after(self, step: Transition) -> Result<Self, TransitionError> {
        use KeyState::{Active, Destroyed, Disabled, PendingDeletion, Quarantined, Superseded};
        let from = self.state();
        Ok(match (step, from) {
            (Transition::Disable, Active | Superseded | Quarantined) => Self { disabled: true, quarantined: false, ..self },
            (Transition::Enable, Disabled | Quarantined) => Self { disabled: false, quarantined: false, ..self },
            (Transition::Supersede, Active) => Self { superseded: true, ..self },
            (Transition::Quarantine, Active | Superseded | Disabled | PendingDeletion) => Self { quarantined: true, ..self },
            (Transition::ScheduleDeletion, Active | Superseded | Disabled | Quarantined) => Self { pending_deletion: true, ..self },
            (Transition::CancelDeletion, PendingDeletion) => Self { pending_deletion: false, ..self },
            (Transition::Destroy, PendingDeletion) => Self { destroyed: true, ..self },
            (Transition::RestrictSigning(topology_only), Active) if topology_only != self.topology_only => Self { topology_only, ..self },
            (_, Active | Superseded | Disabled | Quarantined | PendingDeletion | Destroyed) => return Err(TransitionError { from, step }),
        })
    }

    /// Whether the key may sign or encrypt.
    pub const fn can_sign(self) -> bool {
        matches!(self.state(), KeyState::Active)
    }

    /// Whether the key may decrypt.
    pub const fn can_decrypt(self) -> bool {
        matches!(self.state(), KeyState::Active | KeyState::Superseded)
    }

    /// The kinds of mappings that the key may sign, if it signs topology transactions only.
    pub const fn topology_only(self) -> Option<MappingKinds> {
        self.topology_only
    }

    /// Whether the key material is deleted.
    pub const fn is_destroyed(self) -> bool {
        self.destroyed
    }
}

/// The marks, outermost first, space-separated: `pending-deletion disabled superseded`. A key that signs topology transactions only has
/// the last mark `topology-only`, followed by `:` and the kinds if they are listed: `active topology-only:namespace-delegation`. This text
/// is stored, authenticated and logged.
impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { superseded, disabled, quarantined, pending_deletion, destroyed, topology_only } = *self;
        let marks = [
            (destroyed, KeyState::Destroyed),
            (pending_deletion, KeyState::PendingDeletion),
            (quarantined, KeyState::Quarantined),
            (disabled, KeyState::Disabled),
            (superseded, KeyState::Superseded),
        ];
        let set: Vec<&str> = marks.iter().filter(|(on, _)| *on).map(|(_, state)| state.as_str()).collect();
        f.write_str(if set.is_empty() { KeyState::Active.as_str().to_owned() } else { set.join(" ") }.as_str())?;
        match topology_only {
            None => Ok(()),
            Some(MappingKinds::ALL) => write!(f, " {TOPOLOGY_ONLY}"),
            Some(kinds) => write!(f, " {TOPOLOGY_ONLY}:{kinds}"),
        }
    }
}

impl FromStr for Lifecycle {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        let unknown =
            || UnknownText { set: "lifecycle", word: text.chars().take(128).collect(), known: "the marks, outermost first".into() };
        let mut read = Self::ACTIVE;
        for word in text.split(' ') {
            if let Some(kinds) = word.strip_prefix(TOPOLOGY_ONLY) {
                read.topology_only = Some(kinds.strip_prefix(':').unwrap_or(kinds).parse()?);
                continue;
            }
            match word.parse()? {
                KeyState::Active => {}
                KeyState::Superseded => read.superseded = true,
                KeyState::Disabled => read.disabled = true,
                KeyState::Quarantined => read.quarantined = true,
                KeyState::PendingDeletion => read.pending_deletion = true,
                KeyState::Destroyed => read.destroyed = true,
            }
        }
        // Each lifecycle has exactly one text. Another text was edited.
        if read.to_string() == text { Ok(read) } else { Err(unknown()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Transition; 9] = [
        Transition::Disable,
        Transition::Enable,
        Transition::Supersede,
        Transition::Quarantine,
        Transition::ScheduleDeletion,
        Transition::CancelDeletion,
        Transition::Destroy,
        Transition::RestrictSigning(Some(MappingKinds::ALL)),
        Transition::RestrictSigning(None),
    ];

    fn reachable() -> Vec<Lifecycle> {
        let mut all = vec![Lifecycle::ACTIVE];
        let mut next = 0;
        while let Some(from) = all.get(next).copied() {
            all.extend(STEPS.iter().filter_map(|step| from.after(*step).ok()).collect::<Vec<_>>());
            all = all.iter().copied().fold(Vec::new(), |mut set, item| {
                if !set.contains(&item) {
                    set.push(item);
                }
                set
            });
            next += 1;
        }
        all
    }

    #[test]
    fn every_reachable_lifecycle_reads_back() {
        for lifecycle in reachable() {
            assert_eq!(lifecycle.to_string().parse(), Ok(lifecycle));
        }
        let kinds = "active topology-only:namespace-delegation,owner-to-key-mapping";
        assert_eq!(kinds.parse::<Lifecycle>().unwrap().to_string(), kinds);
        for edited in ["topology-only", "active topology-only:", "active topology-onlynamespace-delegation", "topology-only active"] {
            assert!(edited.parse::<Lifecycle>().is_err(), "{edited}");
        }
        assert!("disabled active".parse::<Lifecycle>().is_err());
        assert!("superseded disabled".parse::<Lifecycle>().is_err());
    }

    #[test]
    fn superseded_is_final_and_no_way_back_gives_more() {
        for lifecycle in reachable().into_iter().filter(|l| l.to_string().contains("superseded")) {
            for step in STEPS {
                if let Ok(after) = lifecycle.after(step) {
                    assert!(after.superseded, "{lifecycle} --{step:?}--> {after}");
                    assert!(!after.can_sign());
                }
            }
        }
    }

    #[test]
    fn only_a_transition_of_its_own_changes_what_a_key_may_sign() {
        for lifecycle in reachable() {
            for step in STEPS.into_iter().filter(|step| !matches!(step, Transition::RestrictSigning(_))) {
                if let Ok(after) = lifecycle.after(step) {
                    assert_eq!(after.topology_only(), lifecycle.topology_only(), "{lifecycle} --{step:?}--> {after}");
                }
            }
        }
    }

    /// A refusal names the state, or says that there is nothing to change. It never names a cause that is not there.
    #[test]
    fn a_refusal_says_why() {
        for lifecycle in reachable() {
            for step in STEPS {
                let Err(refused) = lifecycle.after(step) else { continue };
                let (text, state) = (refused.to_string(), lifecycle.state());
                let word = if state == KeyState::PendingDeletion { "scheduled" } else { state.as_str() };
                let unchanged = matches!(step, Transition::RestrictSigning(_)) && state == KeyState::Active;
                assert!(text.contains(word) || (unchanged && text.contains("already")), "{lifecycle} --{step:?}: {text}");
            }
        }
    }

    #[test]
    fn destroyed_is_the_end() {
        let destroyed = Lifecycle { pending_deletion: true, destroyed: true, ..Lifecycle::ACTIVE };
        assert!(STEPS.iter().all(|step| destroyed.after(*step).is_err()));
    }

    #[test]
    fn cancelling_restores_what_was_there() {
        let before = Lifecycle::ACTIVE.after(Transition::Supersede).and_then(|l| l.after(Transition::Disable)).unwrap();
        let back = before.after(Transition::ScheduleDeletion).and_then(|l| l.after(Transition::CancelDeletion)).unwrap();
        assert_eq!(back, before);
        assert_eq!(back.after(Transition::Enable).unwrap().state(), KeyState::Superseded);
    }
}
