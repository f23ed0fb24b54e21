//! The keys that a verification trusts: those that were given, and those that a trusted key and the new key together name in a rotation.

use crate::audit::{KeyRotation, KeyType, NoteError, SignedNote, VerifierKey};

use super::Reason;

/// The trusted keys of one vault, and of witnesses that must have cosigned.
#[derive(Debug, Clone)]
pub struct TrustedKeys {
    log: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
}

impl TrustedKeys {
    /// Trusts the keys of a log. `None` if there is none among them.
    pub fn new(keys: impl IntoIterator<Item = VerifierKey>) -> Option<Self> {
        let keys: Vec<_> = keys.into_iter().filter(|key| key.key_type() == KeyType::Log).collect();
        (!keys.is_empty()).then_some(Self { log: keys, witnesses: Vec::new() })
    }

    /// Demands a checkpoint that all these witnesses cosigned. Keys of logs are ignored.
    #[must_use]
    pub fn with_witnesses(self, keys: impl IntoIterator<Item = VerifierKey>) -> Self {
        Self { witnesses: keys.into_iter().filter(|key| key.key_type() == KeyType::Witness).collect(), ..self }
    }

    /// The name of a witness that did not cosign the note. `None` if all did.
    pub fn missing_witness(&self, note: &SignedNote) -> Option<&str> {
        self.witnesses.iter().find(|witness| note.verify(witness).is_err()).map(VerifierKey::name)
    }

    /// Whether cosignatures are demanded.
    pub const fn demands_witnesses(&self) -> bool {
        !self.witnesses.is_empty()
    }

    /// The log that the first key verifies, `<vault>/<instance>/<incarnation>`.
    pub fn origin(&self) -> &str {
        self.log.first().map_or("", VerifierKey::name)
    }

    /// The trusted key that signed a note of the log `origin`. A key verifies every incarnation of its log.
    ///
    /// # Errors
    /// [`Reason::UnknownKey`] or [`Reason::WrongSignature`].
    pub fn signer(&self, note: &SignedNote, origin: &str, size: u64) -> Result<VerifierKey, Reason> {
        let mut refusal = Reason::UnknownKey(size);
        for key in &self.log {
            let Ok(key) = key.for_log(origin) else { continue };
            match note.verify(&key) {
                Ok(_) => return Ok(key),
                Err(NoteError::WrongSignature(_)) => refusal = Reason::WrongSignature(size),
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// Trusts the new key of a rotation, if the old one is trusted. Returns whether it is trusted now.
    pub fn extend(&mut self, KeyRotation { old, new }: &KeyRotation) -> bool {
        let trusts = |key: &VerifierKey| self.log.iter().any(|trusted| trusted.for_log(key.name()).as_ref() == Ok(key));
        let (from_trusted, known) = (trusts(old), trusts(new));
        if from_trusted && !known {
            self.log.push(new.clone());
        }
        from_trusted || known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{checkpoint_key_rotation, verify::log::testing::Signer};

    #[test]
    fn a_new_key_is_trusted_if_a_trusted_key_and_the_new_key_signed_it() {
        let (old, new, other) = (Signer::new(1), Signer::new(2), Signer::new(3));
        let origin = "v/main/1";
        let rotation = |from: &Signer, signers: &[&Signer]| {
            let text = checkpoint_key_rotation(origin, &from.verifier(origin), &new.verifier(origin));
            KeyRotation::verify(&Signer::note(&text, origin, signers))
        };
        for (from, signers, expected) in [(&old, [&old, &new], true), (&other, [&other, &new], false)] {
            let mut keys = TrustedKeys::new([old.verifier("v/main/2")]).unwrap();
            assert_eq!(keys.extend(&rotation(from, &signers).unwrap()), expected);
            let checkpoint = SignedNote::parse(Signer::note("text\n", origin, &[&new]).as_bytes()).unwrap();
            assert_eq!(keys.signer(&checkpoint, origin, 1).is_ok(), expected);
        }
    }

    #[test]
    fn every_witness_must_have_cosigned() {
        let (log, witness) = (Signer::new(1), Signer::new(4));
        let note = SignedNote::parse(Signer::note("text\n", "v/main/1", &[&log]).as_bytes()).unwrap();
        let mut cosigned = note.clone();
        let key = witness.cosign(&mut cosigned, "w.example/1");
        let other = Signer::new(5).witness("w.example/2");
        let keys = |witnesses: &[&VerifierKey]| {
            TrustedKeys::new([log.verifier("v/main/1")]).unwrap().with_witnesses(witnesses.iter().map(|key| (*key).clone()))
        };
        assert_eq!(keys(&[]).missing_witness(&note), None);
        assert_eq!(keys(&[&key]).missing_witness(&note), Some("w.example/1"));
        assert_eq!(keys(&[&key]).missing_witness(&cosigned), None);
        assert_eq!(keys(&[&key, &other]).missing_witness(&cosigned), Some("w.example/2"));
        assert!(!keys(&[&log.verifier("v/main/1")]).demands_witnesses(), "a key of a log is no witness");
    }

    #[test]
    fn a_key_verifies_every_incarnation_and_no_other_signature() {
        let (key, other) = (Signer::new(1), Signer::new(3));
        let keys = TrustedKeys::new([key.verifier("v/main/1")]).unwrap();
        let note = |origin, signer: &Signer| SignedNote::parse(Signer::note("text\n", origin, &[signer]).as_bytes()).unwrap();
        assert!(keys.signer(&note("v/main/2", &key), "v/main/2", 1).is_ok());
        assert_eq!(keys.signer(&note("v/main/1", &other), "v/main/1", 7).unwrap_err(), Reason::UnknownKey(7));
        let changed = note("v/main/1", &key).to_string().replace("text", "test");
        assert_eq!(keys.signer(&SignedNote::parse(changed.as_bytes()).unwrap(), "v/main/1", 7).unwrap_err(), Reason::WrongSignature(7));
    }
}
