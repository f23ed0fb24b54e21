//! What callers saw of several replicas, and whether that is what the documented guarantees allow.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// After this time from its acknowledgement, a disable or a freeze is in force at every replica.
pub(crate) const IN_FORCE: Duration = Duration::from_secs(1);

/// A call and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) what: What,
}

/// An acknowledged call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A signature, with the request id of its answer.
    Use { key: String, request_id: String },
    /// A key is refused from now on.
    Disable(String),
    /// A key works again.
    Enable(String),
    /// Every key is refused from now on.
    Freeze,
    /// The freeze ended.
    Unfreeze,
}

/// A time in which no use may end: a second after a disable or a freeze was acknowledged, until the next call that lets keys work again began. That call
/// may have taken effect at its beginning.
struct Refused<'c> {
    /// `None`: every key.
    key: Option<&'c str>,
    stop: &'c Call,
    until: Option<Instant>,
}

impl<'c> Refused<'c> {
    fn all(calls: &'c [Call]) -> Vec<Self> {
        let until = |stop: &Call, ends: &What| {
            let next = calls.iter().filter(|next| next.what == *ends && next.began >= stop.began);
            next.map(|next| next.began).min()
        };
        let refused = |stop: &'c Call| match &stop.what {
            What::Disable(key) => Some(Self { key: Some(key), stop, until: until(stop, &What::Enable(key.clone())) }),
            What::Freeze => Some(Self { key: None, stop, until: until(stop, &What::Unfreeze) }),
            What::Use { .. } | What::Enable(_) | What::Unfreeze => None,
        };
        calls.iter().filter_map(refused).collect()
    }

    fn has(&self, call: &Call, key: &str) -> bool {
        self.key.is_none_or(|refused| refused == key)
            && call.ended > self.stop.ended + IN_FORCE
            && self.until.is_none_or(|until| call.ended < until)
    }
}

/// The violations of the guarantees. `logged` has the request ids of all entries about uses that succeeded, of every log.
pub(crate) fn violations(calls: &[Call], logged: &HashSet<String>) -> Vec<String> {
    let refused = Refused::all(calls);
    let mut found = Vec::new();
    let mut seen = HashMap::new();
    for call in calls {
        let What::Use { key, request_id } = &call.what else { continue };
        if !logged.contains(request_id) {
            found.push(format!("the use {request_id} of {key} was acknowledged and has no entry"));
        }
        if seen.insert(request_id, key).is_some() {
            found.push(format!("two answers have the request id {request_id}"));
        }
        for Refused { stop, .. } in refused.iter().filter(|refused| refused.has(call, key)) {
            let late = call.ended.duration_since(stop.ended);
            found.push(format!("the use {request_id} of {key} was acknowledged {late:?} after {:?}", stop.what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history in milliseconds: begin, end, call.
    fn history(calls: &[(u64, u64, What)]) -> Vec<Call> {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        calls.iter().map(|(began, ended, what)| Call { began: at(*began), ended: at(*ended), what: what.clone() }).collect()
    }

    fn used(key: &str, id: &str) -> What {
        What::Use { key: key.into(), request_id: id.into() }
    }

    fn logged(ids: &[&str]) -> HashSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn a_permitted_history_has_no_violation() {
        let calls = history(&[
            (0, 10, used("a", "1")),
            (20, 30, What::Disable("a".into())),
            // Within a second, another replica may not know of it.
            (40, 900, used("a", "2")),
            (1100, 1200, used("b", "3")),
            (2000, 2100, What::Enable("a".into())),
            // The enable may have taken effect before its answer.
            (2000, 2050, used("a", "4")),
            (3000, 3010, What::Freeze),
            (5000, 5100, What::Unfreeze),
            (5050, 5200, used("a", "5")),
        ]);
        assert_eq!(violations(&calls, &logged(&["1", "2", "3", "4", "5"])), Vec::<String>::new());
    }

    #[test]
    fn planted_violations_are_found() {
        let disable = (20, 30, What::Disable("a".into()));
        for (calls, ids, expected) in [
            (vec![(0, 10, used("a", "1"))], &[][..], "has no entry"),
            (vec![(0, 10, used("a", "1")), (0, 10, used("b", "1"))], &["1"][..], "two answers"),
            (vec![disable.clone(), (1000, 1040, used("a", "1"))], &["1"][..], "after Disable"),
            (vec![disable.clone(), (25, 1040, used("a", "1"))], &["1"][..], "after Disable"),
            (vec![disable, (1000, 1040, used("a", "1")), (3000, 3001, What::Enable("a".into()))], &["1"][..], "after Disable"),
            (vec![(0, 5, What::Freeze), (1500, 1501, used("a", "1")), (1600, 1700, What::Unfreeze)], &["1"][..], "after Freeze"),
        ] {
            let found = violations(&history(&calls), &logged(ids));
            assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        }
    }
}
