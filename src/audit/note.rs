//! C2SP signed notes: parsing, verifying and writing, with Ed25519 signatures of logs and cosignatures of witnesses. Pure functions.
//!
//! A note is a text that ends with a newline, an empty line, and one line for each signature: `— <key name> <base64(key id ‖ signature)>`.
//! Sources: <https://c2sp.org/signed-note>, <https://c2sp.org/tlog-cosignature>. The maintained crates bring a second Ed25519 and a second SHA-2
//! implementation into the program.

use std::{fmt, str::FromStr};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest, Sha256};

use crate::crypto::verify_ed25519;

/// Maximum number of signatures of a note, as other implementations have it.
const MAX_SIGNATURES: usize = 100;
/// Maximum bytes of a note.
pub const MAX_NOTE: usize = 1 << 20;
/// What begins a line with a signature.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// Why a note or a verifier key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The bytes are no signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The text is no verifier key.
    #[error("not a verifier key: expected NAME+8 hex digits+base64, of the type Ed25519 or of a witness")]
    VerifierKey,
    /// The note has no signature by the key.
    #[error("the note has no signature by {0}")]
    NotSigned(String),
    /// The signature by the key is wrong.
    #[error("the signature by {0} is not valid for this note")]
    WrongSignature(String),
}

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// A log signs the text of the note.
    Log,
    /// A witness signs the text and a time.
    Witness,
}

impl KeyType {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
        }
    }
}

/// The public key that verifies the signatures with one name: `<name>+<key id, 8 hex digits>+<base64(type ‖ 32 bytes)>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    public_key: [u8; 32],
}

impl VerifierKey {
    /// The key of a log.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`] if the name is empty or contains a space or a plus sign.
    pub fn log(name: &str, public_key: [u8; 32]) -> Result<Self, NoteError> {
        Self::new(name, KeyType::Log, public_key)
    }

    /// The key of a witness.
    ///
    /// # Errors
    /// As [`VerifierKey::log`].
    pub fn witness(name: &str, public_key: [u8; 32]) -> Result<Self, NoteError> {
        Self::new(name, KeyType::Witness, public_key)
    }

    fn new(name: &str, key_type: KeyType, public_key: [u8; 32]) -> Result<Self, NoteError> {
        if is_name(name) { Ok(Self { name: name.to_owned(), key_type, public_key }) } else { Err(NoteError::VerifierKey) }
    }

    /// The name, which a log has in common with its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same key under the name of another log.
    ///
    /// # Errors
    /// As [`VerifierKey::log`].
    pub fn for_log(&self, name: &str) -> Result<Self, NoteError> {
        Self::new(name, self.key_type, self.public_key)
    }

    /// What the key signs.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The key id: the first 4 bytes of SHA-256(name ‖ newline ‖ type ‖ public key).
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new().chain_update(&self.name).chain_update([b'\n', self.key_type.byte()]).chain_update(self.public_key);
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        [a, b, c, d]
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.key_type.byte()], self.public_key.as_slice()].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), BASE64_STANDARD.encode(key))
    }
}

impl<'de> serde::Deserialize<'de> for VerifierKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(NoteError::VerifierKey) };
        let key = BASE64_STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let (key_type, public_key) = match key.split_first() {
            Some((1, public_key)) => (KeyType::Log, public_key),
            Some((4, public_key)) => (KeyType::Witness, public_key),
            _ => return Err(NoteError::VerifierKey),
        };
        let key = Self::new(name, key_type, public_key.try_into().map_err(|_| NoteError::VerifierKey)?)?;
        if format!("{:08x}", u32::from_be_bytes(key.id())) == id { Ok(key) } else { Err(NoteError::VerifierKey) }
    }
}

/// Whether a text can be the name of a key: not empty, without white space, plus sign and control characters.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+' || c.is_control())
}

/// One signature of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

/// A text and its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// A note without signatures yet.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] if the text is empty, does not end with a newline, or contains control characters.
    pub fn new(text: String) -> Result<Self, NoteError> {
        if !text.ends_with('\n') || text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Malformed("its text does not end with a newline or contains control characters"));
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note. The signatures are not verified.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::Malformed("it is longer than 1 MiB"));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
        let (text, signatures) = all.rsplit_once("\n\n").ok_or(NoteError::Malformed("it has no empty line before the signatures"))?;
        let mut note = Self::new(format!("{text}\n"))?;
        let lines = signatures.strip_suffix('\n').ok_or(NoteError::Malformed("its last line is not complete"))?;
        for line in lines.split('\n') {
            let signature = line.strip_prefix(SIGNATURE_MARK).and_then(|line| line.split_once(' '));
            let (name, encoded) = signature.ok_or(NoteError::Malformed("a line is no signature"))?;
            let decoded = BASE64_STANDARD.decode(encoded).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
            let (key_id, signature) = decoded.split_first_chunk::<4>().ok_or(NoteError::Malformed("a signature is too short"))?;
            if !is_name(name) || signature.is_empty() || note.signatures.len() == MAX_SIGNATURES {
                return Err(NoteError::Malformed("a signature has no name or no content, or there are more than 100"));
            }
            note.signatures.push(NoteSignature { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() });
        }
        Ok(note)
    }

    /// The signed text, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds the signature (64 bytes) of a log over [`SignedNote::text`].
    pub fn add_signature(&mut self, key: &VerifierKey, signature: Vec<u8>) {
        self.signatures.push(NoteSignature { name: key.name.clone(), key_id: key.id(), signature });
    }

    /// Adds the signatures that another copy of the same note has. Nothing is verified.
    pub fn add_signatures_of(&mut self, other: &Self) {
        for signature in &other.signatures {
            if other.text == self.text && !self.signatures.contains(signature) && self.signatures.len() < MAX_SIGNATURES {
                self.signatures.push(signature.clone());
            }
        }
    }

    /// Adds the signatures by a key that another copy of the same note has. Nothing is verified.
    pub fn add_signatures_by(&mut self, key: &VerifierKey, other: &Self) {
        let id = key.id();
        let by_key = |signature: &&NoteSignature| signature.name == key.name && signature.key_id == id;
        let signatures = other.signatures.iter().filter(by_key).cloned().collect();
        self.add_signatures_of(&Self { text: other.text.clone(), signatures });
    }

    /// Verifies the signature by a key. Returns the time of a cosignature, in seconds since 1970.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`], or [`NoteError::WrongSignature`] if a signature names the key and is not valid.
    pub fn verify(&self, key: &VerifierKey) -> Result<Option<u64>, NoteError> {
        let id = key.id();
        let by_key = |signature: &&NoteSignature| signature.name == key.name && signature.key_id == id;
        let found = self.signatures.iter().find(by_key).ok_or_else(|| NoteError::NotSigned(key.name.clone()))?;
        let (message, signature, time) = match (key.key_type, found.signature.split_first_chunk::<8>()) {
            (KeyType::Log, _) => (self.text.clone(), found.signature.as_slice(), None),
            (KeyType::Witness, Some((time, signature))) => {
                let time = u64::from_be_bytes(*time);
                (format!("cosignature/v1\ntime {time}\n{}", self.text), signature, Some(time))
            }
            (KeyType::Witness, None) => return Err(NoteError::WrongSignature(key.name.clone())),
        };
        if verify_ed25519(&key.public_key, message.as_bytes(), signature) {
            Ok(time)
        } else {
            Err(NoteError::WrongSignature(key.name.clone()))
        }
    }
}

/// The bytes of the note.
impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for NoteSignature { name, key_id, signature } in &self.signatures {
            writeln!(f, "{SIGNATURE_MARK}{name} {}", BASE64_STANDARD.encode([key_id.as_slice(), signature].concat()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        crypto::{PrivateKey, SystemRandom, scheme},
        domain::{KeySpec, Purpose},
    };

    /// A new key of a log.
    pub(in crate::audit) fn signer(name: &str) -> (Box<dyn PrivateKey>, VerifierKey) {
        let scheme = scheme(KeySpec::EcCurve25519, Purpose::Signing).unwrap();
        let private = scheme.parse(&scheme.generate(&SystemRandom::default()).unwrap()).unwrap();
        let public_key = private.public_key().unwrap()[12..].try_into().unwrap();
        (private, VerifierKey::log(name, public_key).unwrap())
    }

    /// The example of Go's package `golang.org/x/mod/sumdb/note`.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_example_of_another_implementation_is_valid() {
        let (key, note) = (KEY.parse::<VerifierKey>().unwrap(), SignedNote::parse(NOTE.as_bytes()).unwrap());
        assert_eq!(note.verify(&key), Ok(None));
        assert_eq!((key.to_string().as_str(), note.to_string().as_str()), (KEY, NOTE));
    }

    #[test]
    fn a_changed_note_is_refused() {
        let key: VerifierKey = KEY.parse().unwrap();
        let changed = NOTE.replace("don't", "do");
        assert_eq!(SignedNote::parse(changed.as_bytes()).unwrap().verify(&key), Err(NoteError::WrongSignature("PeterNeumann".into())));
        let other = VerifierKey::log("PeterNeumann", [7; 32]).unwrap();
        assert_eq!(SignedNote::parse(NOTE.as_bytes()).unwrap().verify(&other), Err(NoteError::NotSigned("PeterNeumann".into())));
        for broken in ["", "text", "text\n", "text\n\n", "text\n\n— name", "text\n\n— name AAAA\n", "te\u{7}xt\n\n— name AAAAAAAA\n"]
        {
            assert!(SignedNote::parse(broken.as_bytes()).is_err(), "{broken:?}");
        }
        assert!(SignedNote::parse("text\n\n— name AAAAAAAA\n".as_bytes()).is_ok());
    }

    #[test]
    fn a_verifier_key_with_a_wrong_id_or_name_is_refused() {
        for wrong in
            ["", "PeterNeumann", &KEY.replace("c74f20a3", "c74f20a4"), &KEY.replace("Peter", "Peter "), &KEY.replace("ARpc", "AhpC")]
        {
            assert_eq!(wrong.parse::<VerifierKey>(), Err(NoteError::VerifierKey), "{wrong}");
        }
    }
}
