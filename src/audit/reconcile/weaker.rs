//! Calls without a known request id: an attempt that got no answer, or an answer without an id. An entry or report counts them, and each explains one
//! call of the same action at the same place, time and key, by an identity that other entries name. This is weaker than a request id.

use std::collections::BTreeSet;

use crate::domain::{KeyId, Timestamp, UNIDENTIFIED_KMS_CALLS};

use super::{call::KmsCall, outcome::By};

/// The action and place of calls of which only the number was kept.
const ANY: &str = "other:calls";

/// Seconds that the clocks of the vault and of the KMS may differ. AWS refuses more.
const CLOCKS: i64 = 300;
/// Seconds; the longest operation with calls of a KMS ends within this time after its entry was begun.
const OPERATION: i64 = 600;
/// Seconds that loose calls wait for their entry, at most.
pub(super) const LOOSE: i64 = 960;

/// Attempts that an entry or a report counts.
#[derive(Debug, Clone)]
pub(super) struct Attempts {
    pub(super) by: By,
    number: u64,
    action: String,
    place: String,
    /// The first and the last time at which the KMS may have got them.
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// The keys that the entry is about. Empty for any.
    keys: BTreeSet<KeyId>,
    /// Whether the identity must be one that other entries name. A report may have an identity of its own.
    pub(super) known_identity: bool,
}

/// When the attempts of an entry were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// From the time of the entry on.
    Since(Timestamp),
    /// In the time before the entry.
    Before(Timestamp),
    /// Between the start and the end of a command.
    Between(Timestamp, Timestamp),
}

impl Made {
    /// The times of the KMS.
    pub(super) fn window(self) -> (Timestamp, Timestamp) {
        let (from, to) = match self {
            Self::Since(at) => (at, later(at, OPERATION)),
            Self::Before(at) => (later(at, -LOOSE), at),
            Self::Between(from, to) => (from, to),
        };
        (later(from, -CLOCKS), later(to, CLOCKS))
    }
}

/// A time some seconds later, or earlier.
pub(super) fn later(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_add(seconds.saturating_mul(1_000_000)))
}

impl Attempts {
    /// Reads the text in an entry. `None` if it is a request id.
    pub(super) fn read(text: &str, by: By, made: Made, keys: BTreeSet<KeyId>) -> Option<Self> {
        let (number, kind) = text.strip_prefix(UNIDENTIFIED_KMS_CALLS)?.split_once(':')?;
        let (action, place) = kind.split_once(':')?;
        let (from, to) = made.window();
        let known_identity = !matches!(made, Made::Between(..));
        let (action, place) = (action.to_owned(), place.to_owned());
        Some(Self { by, number: number.parse().ok()?, action, place, from, to, keys, known_identity })
    }

    /// The number that explained no call.
    pub(super) const fn left(&self) -> u64 {
        self.number
    }

    /// Whether one of them may be this call. It is used up then.
    pub(super) fn take(&mut self, call: &KmsCall) -> bool {
        let same = (*self.action == *call.action && *self.place == *call.place) || format!("{}:{}", self.action, self.place) == ANY;
        let in_time = (self.from..=self.to).contains(&call.at);
        let about = self.keys.is_empty() || call.key_id().is_none_or(|key| self.keys.contains(&key));
        let takes = self.number > 0 && same && in_time && about;
        self.number -= u64::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::reconcile::{ActionKind, call::Interner};

    const KEY: KeyId = KeyId::Symmetric([1; 16]);
    const OTHER: KeyId = KeyId::Symmetric([2; 16]);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_767_225_600_000_000 + seconds * 1_000_000)
    }

    fn call(action: &str, place: &str, key: KeyId, seconds: i64) -> KmsCall {
        let mut interner = Interner::default();
        KmsCall {
            at: at(seconds),
            action: interner.text(action),
            place: interner.text(place),
            kind: ActionKind::Use,
            keys: Vec::new(),
            principal: interner.text("p"),
            source: interner.text(""),
            error: None,
            context: Some(interner.context([("key_id", key.to_string().as_str())].into_iter())),
        }
    }

    fn attempts(text: &str, made: Made) -> Attempts {
        Attempts::read(text, By::Entry(1), made, BTreeSet::from([KEY])).unwrap()
    }

    #[test]
    fn each_attempt_explains_one_call_of_its_kind_place_time_and_key() {
        let text = "unidentified:2:Decrypt:eu-central-1";
        for (other, takes) in [
            (call("Decrypt", "eu-central-1", KEY, 0), true),
            (call("Decrypt", "eu-central-1", KEY, 899), true),
            (call("Decrypt", "eu-central-1", KEY, -300), true),
            (call("Decrypt", "eu-central-1", KEY, 901), false),
            (call("Decrypt", "eu-central-1", KEY, -301), false),
            (call("Decrypt", "eu-west-1", KEY, 0), false),
            (call("Encrypt", "eu-central-1", KEY, 0), false),
            (call("Decrypt", "eu-central-1", OTHER, 0), false),
        ] {
            assert_eq!(attempts(text, Made::Since(at(0))).take(&other), takes, "{other:?}");
        }
        let mut two = attempts(text, Made::Since(at(0)));
        let taken = (0..5).filter(|_| two.take(&call("Decrypt", "eu-central-1", KEY, 1))).count();
        assert_eq!((taken, two.left()), (2, 0));
        assert!(attempts(text, Made::Before(at(0))).take(&call("Decrypt", "eu-central-1", KEY, -1000)));
        assert!(attempts("unidentified:1:other:calls", Made::Since(at(0))).take(&call("Encrypt", "x", KEY, 0)));
        assert!(attempts("unidentified:1:update:transit/decrypt/a:b", Made::Since(at(0))).take(&call(
            "update",
            "transit/decrypt/a:b",
            KEY,
            0
        )));
    }

    #[test]
    fn a_request_id_is_no_attempt() {
        for text in ["03769fd4-acf9-4b33-adf3-2ab8ca73aadf", "unidentified:", "unidentified:x:a:b", "unidentified:1:a", ""] {
            assert!(Attempts::read(text, By::Entry(1), Made::Since(at(0)), BTreeSet::new()).is_none(), "{text}");
        }
    }
}
