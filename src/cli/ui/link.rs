//! Links inside the pages. Every part of an address that is no constant is percent-encoded, so that no text from the vault can change where a link leads.

use crate::client::percent_encoded;

/// The address of a page with a query. Parameters without a value are left out.
pub(super) fn with_query<'q>(path: &str, query: impl IntoIterator<Item = (&'q str, &'q str)>) -> String {
    let mut href = path.to_owned();
    for (name, value) in query.into_iter().filter(|(_, value)| !value.is_empty()) {
        href.push(if href.contains('?') { '&' } else { '?' });
        href.push_str(name);
        href.push('=');
        href.push_str(&percent_encoded(value));
    }
    href
}

/// The page of a key.
pub(super) fn key(id: &str) -> String {
    format!("/keys/{}", percent_encoded(id))
}

/// The page of a wrapper key.
pub(super) fn wrapper_key(id: &str) -> String {
    format!("/wrapper-keys/{}", percent_encoded(id))
}

/// The page of a rotation.
pub(super) fn rotation(id: &str) -> String {
    format!("/jobs/rotations/{}", percent_encoded(id))
}

/// The page of a job that re-seals all keys.
pub(super) fn reseal(id: &str) -> String {
    format!("/jobs/reseals/{}", percent_encoded(id))
}

/// The page of an entry of the audit log.
pub(super) fn entry(sequence: &str) -> String {
    format!("/audit/{}", percent_encoded(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_place_in_an_address() {
        assert_eq!(with_query("/keys", [("node", "a&b=c#d"), ("state", "")]), "/keys?node=a%26b%3Dc%23d");
        assert_eq!(key("../x?y\"'<>"), "/keys/..%2Fx%3Fy%22%27%3C%3E");
        assert_eq!(entry("javascript:x"), "/audit/javascript%3Ax");
    }
}
