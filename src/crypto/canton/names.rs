//! Canton's numbers for specs and usages, and its rule for ids. One table for each kind of number serves reading and writing.

use crate::domain::{KeySpec, Usage, Usages};

use super::CantonFileError;

/// The numbers of a field and their meanings. A number with a name but without a meaning is known and not supported.
pub(super) struct Numbers {
    what: &'static str,
    known: &'static [(i32, Option<KeySpec>, &'static str)],
}

pub(super) const SIGNING_KEY_SPEC: Numbers = Numbers {
    what: "signing key spec",
    known: &[
        (1, Some(KeySpec::EcCurve25519), ""),
        (2, Some(KeySpec::EcP256), ""),
        (3, Some(KeySpec::EcP384), ""),
        (4, Some(KeySpec::EcSecp256k1), ""),
        (5, None, " (ML-DSA-65)"),
    ],
};

/// Deprecated. Read where the key spec is 0.
pub(super) const SIGNING_KEY_SCHEME: Numbers = Numbers {
    what: "signing key scheme",
    known: &[(1, Some(KeySpec::EcCurve25519), ""), (2, Some(KeySpec::EcP256), ""), (3, Some(KeySpec::EcP384), "")],
};

pub(super) const ENCRYPTION_KEY_SPEC: Numbers =
    Numbers { what: "encryption key spec", known: &[(1, Some(KeySpec::EcP256), ""), (2, Some(KeySpec::Rsa2048), "")] };

/// Deprecated. Read where the key spec is 0. The schemes 1 (ECIES with AES-GCM) and 2 (with AES-CBC) have the same kind of key. 3.4
/// renumbered `EncryptionAlgorithmSpec`, which no key pair contains, but not this field.
pub(super) const ENCRYPTION_KEY_SCHEME: Numbers = Numbers {
    what: "encryption key scheme",
    known: &[(1, Some(KeySpec::EcP256), ""), (2, Some(KeySpec::EcP256), ""), (3, Some(KeySpec::Rsa2048), "")],
};

impl Numbers {
    /// The meaning of a number.
    pub(super) fn spec(&self, number: i32) -> Result<KeySpec, CantonFileError> {
        let known = self.known.iter().find(|(known, ..)| *known == number);
        let name = known.map_or("", |(_, _, name)| name);
        known.and_then(|(_, spec, _)| *spec).ok_or(CantonFileError::Unsupported { what: self.what, number, name })
    }

    /// The number of a spec. `None` if this kind of key has no such spec.
    pub(super) fn number(&self, spec: KeySpec) -> Option<i32> {
        self.known.iter().find(|(_, known, _)| *known == Some(spec)).map(|(number, ..)| *number)
    }
}

/// `SigningKeyUsage`, ascending.
const USAGES: [(i32, Usage); 4] =
    [(1, Usage::Namespace), (3, Usage::SequencerAuthentication), (4, Usage::Protocol), (5, Usage::ProofOfOwnership)];

/// Canton ignores it when reading.
const IDENTITY_DELEGATION: i32 = 2;

/// The usages as Canton reads them: without a number other than the ignored one they are all usages, and proof of ownership is added where
/// the set allows it.
pub(super) fn read_usages(numbers: &[i32]) -> Result<Usages, CantonFileError> {
    Ok(read_usage_numbers(numbers)?.into_iter().map(|(_, usage)| usage).collect())
}

/// As [`read_usages`], with the numbers, in the order in which Canton writes them again.
///
/// # Errors
/// [`CantonFileError::Unsupported`] for a number that is not known, [`CantonFileError::Usages`] for a set that Canton refuses.
pub fn read_usage_numbers(numbers: &[i32]) -> Result<Vec<(i32, Usage)>, CantonFileError> {
    let mut read: Vec<(i32, Usage)> = Vec::new();
    for number in numbers.iter().filter(|number| **number != IDENTITY_DELEGATION) {
        let known = USAGES.iter().find(|(known, _)| known == number).copied();
        let known = known.ok_or(CantonFileError::Unsupported {
            what: "signing key usage",
            number: *number,
            name: if *number == 6 { " (party JWT authentication)" } else { "" },
        })?;
        if !read.contains(&known) {
            read.push(known);
        }
    }
    if read.is_empty() {
        return Ok(USAGES.to_vec());
    }
    let all = complete(read.iter().map(|(_, usage)| *usage).collect())?;
    read.extend(USAGES.iter().filter(|known| all.contains(known.1) && !read.contains(known)).copied().collect::<Vec<_>>());
    Ok(read)
}

/// The numbers of the usages, ascending, as Canton reads them.
pub(super) fn write_usages(usages: Usages) -> Result<Vec<i32>, CantonFileError> {
    let complete = complete(usages)?;
    Ok(USAGES.iter().filter(|(_, usage)| complete.contains(*usage)).map(|(number, _)| *number).collect())
}

/// The usages as numbers of the column `key_usage` of Canton's table `common_kms_metadata_store`, ascending, with the proof of ownership that
/// Canton adds (`SigningKeyUsage.dbType` in `CryptoKeys.scala`).
///
/// # Errors
/// [`CantonFileError::Usages`] for a set that Canton refuses.
pub fn usage_database_numbers(usages: Usages) -> Result<Vec<i32>, CantonFileError> {
    Ok(write_usages(usages)?.into_iter().map(|number| number - 1).collect())
}

/// Adds proof of ownership to every set except {namespace}, and refuses the sets that Canton calls invalid.
fn complete(usages: Usages) -> Result<Usages, CantonFileError> {
    let is = |set: &[Usage]| usages == set.iter().copied().collect();
    if usages.is_empty() {
        // An empty list would be read as all usages, which were not granted.
        Err(CantonFileError::Usages("there is none"))
    } else if is(&[Usage::ProofOfOwnership]) {
        Err(CantonFileError::Usages("proof-of-ownership alone"))
    } else if is(&[Usage::Namespace, Usage::ProofOfOwnership]) {
        Err(CantonFileError::Usages("namespace with proof-of-ownership alone"))
    } else if is(&[Usage::Namespace]) {
        Ok(usages)
    } else {
        Ok(usages.iter().chain([Usage::ProofOfOwnership]).collect())
    }
}

/// Maximum length of the id of a private key in characters (`String68`).
const MAX_KEY_ID: usize = 68;

/// Whether Canton reads this id of a private key: not empty, at most 68 characters of a Daml-LF party, without the delimiter `::`
/// (`Fingerprint.fromProtoPrimitive`, `UniqueIdentifier.verifyValidString`).
pub(super) fn check_key_id(id: &str) -> Result<(), CantonFileError> {
    let of_a_party = |character: char| character.is_ascii_alphanumeric() || matches!(character, ':' | '-' | '_' | ' ');
    let valid = !id.is_empty() && id.len() <= MAX_KEY_ID && id.chars().all(of_a_party) && !id.contains("::");
    if valid { Ok(()) } else { Err(CantonFileError::KeyId) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_canton_reads() {
        for id in ["1220ab", "1220AB", "a:b", &"x".repeat(68)] {
            assert_eq!(check_key_id(id), Ok(()), "{id}");
        }
        for id in ["", "a::b", "a/b", "\u{e9}", "a\n", &"x".repeat(69)] {
            assert_eq!(check_key_id(id), Err(CantonFileError::KeyId), "{id}");
        }
    }

    #[test]
    fn usages_are_read_as_canton_does() {
        let all = [Usage::Namespace, Usage::SequencerAuthentication, Usage::Protocol, Usage::ProofOfOwnership];
        assert_eq!(read_usages(&[]), Ok(all.into_iter().collect()));
        assert_eq!(read_usages(&[2, 2]), Ok(all.into_iter().collect()));
        assert_eq!(read_usages(&[1]), Ok([Usage::Namespace].into_iter().collect()));
        assert_eq!(read_usages(&[2, 1]), Ok([Usage::Namespace].into_iter().collect()));
        assert_eq!(read_usages(&[4]), Ok([Usage::Protocol, Usage::ProofOfOwnership].into_iter().collect()));
        assert_eq!(read_usages(&[5, 3]), Ok([Usage::SequencerAuthentication, Usage::ProofOfOwnership].into_iter().collect()));
        for refused in [&[5][..], &[1, 5], &[2, 5], &[0], &[6], &[4, 7]] {
            assert!(read_usages(refused).is_err(), "{refused:?}");
        }
        assert_eq!(write_usages(all.into_iter().collect()), Ok(vec![1, 3, 4, 5]));
        assert!(write_usages(Usages::NONE).is_err());
    }
}
