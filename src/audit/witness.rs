//! What a log and a witness say to each other (C2SP tlog-witness): the request for a cosignature, and its answer. Pure functions.
//!
//! Source: <https://c2sp.org/tlog-witness>.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{
    merkle::Hash,
    note::{SignedNote, VerifierKey},
};

/// The body of `POST …/add-checkpoint`: the size of the tree that the witness knows, the consistency proof from there, an empty line, the note.
pub fn add_checkpoint(old: u64, proof: &[Hash], note: &SignedNote) -> String {
    let proof: String = proof.iter().map(|hash| BASE64_STANDARD.encode(hash) + "\n").collect();
    format!("old {old}\n{proof}\n{note}")
}

/// The answer of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessAnswer {
    /// It cosigned: the note with its valid cosignature.
    Cosigned(SignedNote),
    /// It knows a tree of another size than the request says.
    Knows(u64),
}

/// Why an answer is no cosignature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// The witness does not know the log.
    #[error("the witness does not know the log {0}: give it the origin and the verifier key")]
    UnknownLog(String),
    /// The witness trusts another key.
    #[error("the witness trusts another key than the one that signed the checkpoint: give it the new verifier key")]
    UnknownKey,
    /// The witness found the proof wrong.
    #[error("the log does not continue the one that the witness cosigned before: the witness knows another history")]
    Inconsistent,
    /// The cosignature is missing or wrong.
    #[error("the answer has no valid cosignature by {0}")]
    NoCosignature(String),
    /// Something else.
    #[error("the answer has the status {0}")]
    Status(u16),
}

/// Reads an answer. Cosignatures of other keys are ignored.
///
/// # Errors
/// [`WitnessError`].
pub fn read_answer(status: u16, body: &[u8], note: &SignedNote, key: &VerifierKey) -> Result<WitnessAnswer, WitnessError> {
    match status {
        200 => {
            let missing = || WitnessError::NoCosignature(key.name().to_owned());
            let cosigned = SignedNote::parse(&[note.to_string().as_bytes(), body].concat()).map_err(|_| missing())?;
            cosigned.verify(key).map_err(|_| missing())?;
            let mut verified = note.clone();
            verified.add_signatures_by(key, &cosigned);
            Ok(WitnessAnswer::Cosigned(verified))
        }
        409 => {
            let size = std::str::from_utf8(body).ok().and_then(|text| text.strip_suffix('\n')).and_then(|text| text.parse().ok());
            size.map(WitnessAnswer::Knows).ok_or(WitnessError::Status(status))
        }
        403 => Err(WitnessError::UnknownKey),
        404 => Err(WitnessError::UnknownLog(note.text().lines().next().unwrap_or_default().to_owned())),
        422 => Err(WitnessError::Inconsistent),
        status => Err(WitnessError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    fn note() -> SignedNote {
        SignedNote::parse("v/main/1\n3\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\n— v/main/1 AAAAAAAA\n".as_bytes()).unwrap()
    }

    /// The verifier key of a witness, and its cosignature line.
    fn cosigned(seed: u8, name: &str) -> (VerifierKey, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = VerifierKey::witness(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        let message = format!("cosignature/v1\ntime 1700000000\n{}", note().text());
        let signature = [1_700_000_000_u64.to_be_bytes().as_slice(), pair.sign(message.as_bytes()).as_ref()].concat();
        let line = format!("— {name} {}\n", BASE64_STANDARD.encode([key.id().as_slice(), &signature].concat()));
        (key, line)
    }

    #[test]
    fn the_request_is_as_the_specification_says() {
        let body = add_checkpoint(2, &[[1; 32], [2; 32]], &note());
        let expected = "old 2\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\nv/main/1\n3\n\
            AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\n— v/main/1 AAAAAAAA\n";
        assert_eq!(body, expected);
        assert!(add_checkpoint(0, &[], &note()).starts_with("old 0\n\nv/main/1\n"));
    }

    #[test]
    fn only_a_valid_cosignature_of_the_witness_is_taken() {
        let ((key, line), (_, other)) = (cosigned(1, "w.example/1"), cosigned(2, "w.example/1"));
        let Ok(WitnessAnswer::Cosigned(taken)) = read_answer(200, format!("{other}{line}").as_bytes(), &note(), &key) else { panic!() };
        assert_eq!(taken.verify(&key), Ok(Some(1_700_000_000)));
        assert_eq!(taken.to_string(), format!("{}{line}", note()), "the other cosignature is left out");
        let missing = WitnessError::NoCosignature("w.example/1".into());
        let wrong = line.replace('A', "B");
        for body in [other.as_str(), "", "nothing", "— w.example/1 AAAAAAAAAAAAAAAA\n", &wrong] {
            assert_eq!(read_answer(200, body.as_bytes(), &note(), &key), Err(missing.clone()), "{body}");
        }
    }

    #[test]
    fn each_refusal_has_its_meaning() {
        let (key, _) = cosigned(1, "w.example/1");
        let read = |status, body: &str| read_answer(status, body.as_bytes(), &note(), &key);
        assert_eq!(read(409, "17\n"), Ok(WitnessAnswer::Knows(17)));
        assert_eq!(read(409, "17"), Err(WitnessError::Status(409)));
        assert_eq!(read(404, ""), Err(WitnessError::UnknownLog("v/main/1".into())));
        assert_eq!(read(403, ""), Err(WitnessError::UnknownKey));
        assert_eq!(read(422, ""), Err(WitnessError::Inconsistent));
        assert_eq!(read(500, ""), Err(WitnessError::Status(500)));
    }
}
