//! The identity of a key of Cloud KMS: project, location, key ring and key. Never a version, because a rotation makes a new one.
//!
//! The name of a key ring and of a key is never used again in its location, and the id of a project is never given to another one. A name is thus
//! one key for ever.

use std::{fmt, str::FromStr};

/// A key ring, as its resource name: `projects/<project>/locations/<location>/keyRings/<ring>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct KeyRingName {
    project: String,
    location: String,
    ring: String,
}

/// A key. Shown and stored as `gcp:<project>:<location>:<key ring>:<key>`; its reference is the resource name
/// `projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms) struct GcpKey {
    ring: KeyRingName,
    name: String,
}

/// The text does not have the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write the resource name of the key, projects/<project id>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>, without a version"
)]
pub(in crate::kms) struct NotAKeyName;

impl GcpKey {
    /// A key in a key ring.
    pub(in crate::kms) fn new(ring: &KeyRingName, name: &str) -> Result<Self, NotAKeyName> {
        if is_name(name) { Ok(Self { ring: ring.clone(), name: name.to_owned() }) } else { Err(NotAKeyName) }
    }

    /// Reads a resource name.
    pub(in crate::kms) fn from_reference(reference: &str) -> Result<Self, NotAKeyName> {
        let (ring, name) = reference.split_once("/cryptoKeys/").ok_or(NotAKeyName)?;
        Self::new(&ring.parse()?, name)
    }

    /// The resource name.
    pub(in crate::kms) fn reference(&self) -> String {
        format!("{}/cryptoKeys/{}", self.ring, self.name)
    }

    /// The resource name of a version.
    pub(in crate::kms) fn version(&self, version: u64) -> String {
        format!("{}/cryptoKeyVersions/{version}", self.reference())
    }

    /// The number of the version with this resource name, if it is one of this key.
    pub(in crate::kms) fn version_in(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(&self.reference())?.strip_prefix("/cryptoKeyVersions/")?.parse().ok()?;
        (self.version(number) == name).then_some(number)
    }
}

impl fmt::Display for KeyRingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project, location, ring } = self;
        write!(f, "projects/{project}/locations/{location}/keyRings/{ring}")
    }
}

impl FromStr for KeyRingName {
    type Err = NotAKeyName;

    fn from_str(text: &str) -> Result<Self, NotAKeyName> {
        let parts: Vec<&str> = text.split('/').collect();
        let ["projects", project, "locations", location, "keyRings", ring] = parts.as_slice() else { return Err(NotAKeyName) };
        let all = is_project(project) && is_location(location) && is_name(ring);
        let owned = |text: &str| text.to_owned();
        if all { Ok(Self { project: owned(project), location: owned(location), ring: owned(ring) }) } else { Err(NotAKeyName) }
    }
}

impl fmt::Display for GcpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring: KeyRingName { project, location, ring }, name } = self;
        write!(f, "gcp:{project}:{location}:{ring}:{name}")
    }
}

impl FromStr for GcpKey {
    type Err = NotAKeyName;

    fn from_str(identity: &str) -> Result<Self, NotAKeyName> {
        let parts: Vec<&str> = identity.split(':').collect();
        let ["gcp", project, location, ring, name] = parts.as_slice() else { return Err(NotAKeyName) };
        Self::new(&format!("projects/{project}/locations/{location}/keyRings/{ring}").parse()?, name)
    }
}

/// The id of a project: it begins with a letter. A project number would be a second text for the same project.
fn is_project(text: &str) -> bool {
    (6..=30).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_lowercase()) && is_location(text) && !text.ends_with('-')
}

/// `global`, `europe`, `europe-west3`.
fn is_location(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The name of a key ring or a key: `[a-zA-Z0-9_-]{1,63}`.
fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "projects/canton-prod/locations/europe-west3/keyRings/canton/cryptoKeys/vault-1";

    #[test]
    fn a_resource_name_is_an_identity_and_back() {
        let key = GcpKey::from_reference(NAME).unwrap();
        assert_eq!(key.to_string(), "gcp:canton-prod:europe-west3:canton:vault-1");
        assert_eq!((key.reference().as_str(), &key.to_string().parse::<GcpKey>().unwrap()), (NAME, &key));
        assert_eq!(key.version_in(&format!("{NAME}/cryptoKeyVersions/12")), Some(12));
        for other in [format!("{NAME}/cryptoKeyVersions/012"), format!("{NAME}/cryptoKeyVersions/"), format!("{NAME}2/cryptoKeyVersions/1")]
        {
            assert_eq!(key.version_in(&other), None, "{other}");
        }
    }

    #[test]
    fn another_form_is_refused() {
        for text in [
            "",
            "projects/canton-prod/locations/europe-west3/keyRings/canton",
            "projects/123456789012/locations/europe-west3/keyRings/canton/cryptoKeys/vault",
            "projects/canton-prod/locations/../keyRings/canton/cryptoKeys/vault",
            "projects/canton-prod/locations/global/keyRings/canton/cryptoKeys/vault/cryptoKeyVersions/1",
            "projects/canton-prod/locations/global/keyRings/canton/cryptoKeys/va:ult",
            "/projects/canton-prod/locations/global/keyRings/canton/cryptoKeys/vault",
            "gcp:canton-prod:global:canton:vault",
        ] {
            assert_eq!(GcpKey::from_reference(text), Err(NotAKeyName), "{text}");
        }
        for text in ["gcp:canton-prod:global:canton", "gcp:canton-prod:global:canton:vault:1", "aws:canton-prod:global:canton:vault"] {
            assert_eq!(text.parse::<GcpKey>(), Err(NotAKeyName), "{text}");
        }
    }
}
