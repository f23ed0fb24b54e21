//! The statement that one checkpoint key follows another: a note in the audit entry of the rotation, signed by both keys. Pure functions.

use super::note::{SignedNote, VerifierKey};

/// The second line. No checkpoint has it, because a number stands there in checkpoints.
const TITLE: &str = "rotate-checkpoint-key";

/// The text to sign: a line each for the origin of the log, the title, the old and the new verifier key.
pub fn checkpoint_key_rotation(origin: &str, old: &VerifierKey, new: &VerifierKey) -> String {
    format!("{origin}\n{TITLE}\n{old}\n{new}\n")
}

/// A proven rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRotation {
    /// The key before.
    pub old: VerifierKey,
    /// The key from then on.
    pub new: VerifierKey,
}

/// The note of an audit entry proves no rotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the note of a rotated checkpoint key: {0}")]
pub struct NotARotation(String);

impl KeyRotation {
    /// Reads the note of an audit entry, and verifies the signatures of both keys.
    ///
    /// # Errors
    /// [`NotARotation`].
    pub fn verify(note: &str) -> Result<Self, NotARotation> {
        let wrong = |why: &dyn std::fmt::Display| NotARotation(why.to_string());
        let note = SignedNote::parse(note.as_bytes()).map_err(|error| wrong(&error))?;
        let lines: Vec<&str> = note.text().lines().collect();
        let [origin, TITLE, old, new] = lines.as_slice() else { return Err(wrong(&"it has other lines")) };
        let key = |text: &str| text.parse::<VerifierKey>().map_err(|error| wrong(&error));
        let (old, new) = (key(old)?, key(new)?);
        if [&old, &new].iter().any(|key| key.name() != *origin) {
            return Err(wrong(&"a key has another name than the log"));
        }
        for key in [&old, &new] {
            note.verify(key).map_err(|error| wrong(&error))?;
        }
        Ok(Self { old, new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::note::tests::signer, domain::Algorithm};

    #[test]
    fn a_rotation_needs_both_signatures() {
        let (old_private, old) = signer("v/main/1");
        let (new_private, new) = signer("v/main/1");
        let text = checkpoint_key_rotation("v/main/1", &old, &new);
        let signed = |by: &[(&dyn crate::crypto::PrivateKey, &VerifierKey)]| {
            let mut note = SignedNote::new(text.clone()).unwrap();
            for (private, key) in by {
                note.add_signature(key, private.sign(Algorithm::Ed25519, text.as_bytes()).unwrap());
            }
            note.to_string()
        };
        let (by_old, by_new) = ((old_private.as_ref(), &old), (new_private.as_ref(), &new));
        let both = signed(&[by_old, by_new]);
        assert_eq!(KeyRotation::verify(&both), Ok(KeyRotation { old: old.clone(), new: new.clone() }));
        for one in [signed(&[by_old]), signed(&[by_new])] {
            assert!(KeyRotation::verify(&one).is_err());
        }
        assert!(KeyRotation::verify(&both.replacen(TITLE, "7", 1)).is_err());
        assert!(KeyRotation::verify(&both.replacen("v/main/1\n", "v/main/2\n", 1)).is_err());
    }
}
