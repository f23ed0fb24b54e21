//! The identity of a transit key of OpenBao: cluster, mount, name and the second of its creation. Never an address, and never a name alone.

use std::{fmt, str::FromStr};

use http::Uri;

use crate::kms::http::{Address, NotAnAddress};

/// The path of a transit key, including namespaces: `<mount>/keys/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct KeyPath {
    /// The mount of the transit engine, with the namespaces in front: `transit`, `team/kms/transit`.
    pub(in crate::kms) mount: String,
    /// The name of the key on the mount.
    pub(in crate::kms) name: String,
}

/// A transit key. Shown and stored as `openbao:<cluster id>:<mount>:<name>:<second>`.
///
/// The second in which its version 1 was made is part of the identity. A key that is deleted and created again under the same name has
/// another identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct OpenbaoKey {
    /// The id of the cluster, which stays the same when the cluster moves to other machines and names.
    pub(in crate::kms) cluster: String,
    /// The path in the cluster.
    pub(in crate::kms) path: KeyPath,
    /// Seconds since 1970.
    pub(in crate::kms) created: i64,
}

/// The text does not have the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kms) struct NotAKeyReference;

/// Reads `https://host[:port]/<mount>/keys/<name>`.
pub(in crate::kms) fn from_reference(reference: &str) -> Result<(Address, KeyPath), NotAKeyReference> {
    let uri: Uri = reference.parse().map_err(|_| NotAKeyReference)?;
    let path = uri.path().strip_prefix('/').ok_or(NotAKeyReference)?;
    // Compares what the URL parser drops, so that every parser reads the same reference.
    if uri.query().is_some() || reference.contains('#') {
        return Err(NotAKeyReference);
    }
    Ok((Address::from_uri(&uri).map_err(|NotAnAddress| NotAKeyReference)?, path.parse()?))
}

impl KeyPath {
    /// A key on a mount.
    pub(in crate::kms) fn new(mount: &str, name: &str) -> Result<Self, NotAKeyReference> {
        let good = is_name(name) && is_path(mount);
        if good { Ok(Self { mount: mount.to_owned(), name: name.to_owned() }) } else { Err(NotAKeyReference) }
    }

    /// The URL of the key on this server.
    pub(in crate::kms) fn url(&self, server: &Address) -> String {
        format!("{server}/{self}")
    }

    /// The path of an operation of the transit engine with this key: `/v1/<mount>/<operation>/<name>`.
    pub(in crate::kms) fn api(&self, operation: &str) -> String {
        format!("/v1/{}/{operation}/{}", self.mount, self.name)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/keys/{}", self.mount, self.name)
    }
}

impl FromStr for KeyPath {
    type Err = NotAKeyReference;

    fn from_str(text: &str) -> Result<Self, NotAKeyReference> {
        let (rest, name) = text.rsplit_once('/').ok_or(NotAKeyReference)?;
        Self::new(rest.strip_suffix("/keys").ok_or(NotAKeyReference)?, name)
    }
}

impl fmt::Display for OpenbaoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, path: KeyPath { mount, name }, created } = self;
        write!(f, "openbao:{cluster}:{mount}:{name}:{created}")
    }
}

impl FromStr for OpenbaoKey {
    type Err = NotAKeyReference;

    fn from_str(identity: &str) -> Result<Self, NotAKeyReference> {
        let parts: Vec<&str> = identity.split(':').collect();
        let ["openbao", cluster, mount, name, created] = parts.as_slice() else { return Err(NotAKeyReference) };
        if !is_cluster(cluster) {
            return Err(NotAKeyReference);
        }
        let path = KeyPath::new(mount, name)?;
        let key = Self { cluster: (*cluster).to_owned(), path, created: created.parse().map_err(|_| NotAKeyReference)? };
        // One text for one key: `+1` is not valid.
        if key.to_string() == identity { Ok(key) } else { Err(NotAKeyReference) }
    }
}

/// Whether a text can be the id of a cluster: a UUID.
pub(in crate::kms) fn is_cluster(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Whether it is a path of mounts or namespaces. Characters that need escaping in a URL, and `..`, are refused.
pub(in crate::kms) fn is_path(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(is_name)
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !text.bytes().all(|b| b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e";

    #[test]
    fn a_reference_is_an_address_and_a_path_and_back() {
        for (reference, canonical) in [
            ("https://bao.example.org:8200/transit/keys/canton", "https://bao.example.org:8200/transit/keys/canton"),
            ("https://BAO.example.org:443/transit/keys/canton", "https://bao.example.org/transit/keys/canton"),
            ("http://[::1]:8200/team/kms/transit/keys/a.b-c_d", "http://[::1]:8200/team/kms/transit/keys/a.b-c_d"),
        ] {
            let (address, path) = from_reference(reference).unwrap();
            assert_eq!(path.url(&address), canonical);
        }
        let (address, path) = from_reference("https://bao:8200/team/transit/keys/k").unwrap();
        assert_eq!((address.port, path.mount.as_str(), path.api("encrypt")), (8200, "team/transit", "/v1/team/transit/encrypt/k".into()));
    }

    #[test]
    fn an_ambiguous_reference_is_refused() {
        for text in [
            "transit/keys/canton",
            "ftp://bao/transit/keys/canton",
            "https://user@bao/transit/keys/canton",
            "https://bao/transit/keys/canton?version=1",
            "https://bao/transit/keys/canton#x",
            "https://bao/transit/keys/",
            "https://bao/keys/canton",
            "https://bao/transit/canton",
            "https://bao/transit//keys/canton",
            "https://bao/../keys/canton",
            "https://bao/transit/keys/..",
            "https://bao/tr%61nsit/keys/canton",
        ] {
            assert_eq!(from_reference(text), Err(NotAKeyReference), "{text}");
        }
    }

    #[test]
    fn an_identity_has_one_text() {
        let text = format!("openbao:{CLUSTER}:team/transit:canton:1795319440");
        let key: OpenbaoKey = text.parse().unwrap();
        assert_eq!((key.to_string(), key.path.to_string(), key.created), (text.clone(), "team/transit/keys/canton".into(), 1_795_319_440));
        for other in [text.replace(":1795", ":+1795"), text.replace(CLUSTER, "x"), text.replace("team/", "team/../"), format!("{text}:1")] {
            assert_eq!(other.parse::<OpenbaoKey>(), Err(NotAKeyReference), "{other}");
        }
    }
}
