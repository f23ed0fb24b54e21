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

/// The violations of the guarantees. `logged` has the request ids of all entries about uses that succeeded, of every log.
pub(crate) fn violations(calls: &[Call], logged: &HashSet<String>) -> Vec<String> {
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
        let refused_since = |ends: &dyn Fn(&What) -> bool, begins: &dyn Fn(&What) -> bool| {
            calls.iter().filter(|stop| begins(&stop.what)).find(|stop| {
                // The next call that lets the key work again may have taken effect when it began.
                let again = calls.iter().filter(|next| ends(&next.what) && next.began >= stop.began).map(|next| next.began).min();
                call.ended > stop.ended + IN_FORCE && again.is_none_or(|again| call.ended < again)
            })
        };
        let disabled = refused_since(&|what| *what == What::Enable(key.clone()), &|what| *what == What::Disable(key.clone()));
        let frozen = refused_since(&|what| *what == What::Unfreeze, &|what| *what == What::Freeze);
        for stop in disabled.iter().chain(&frozen) {
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
