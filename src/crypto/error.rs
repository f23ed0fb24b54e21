//! Why a key cannot be parsed or an operation failed. No text contains a part of a key.

use crate::domain::Algorithm;

/// Why key material was refused or an operation failed. All failures of a decryption are `DecryptionFailed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The key does not support the algorithm.
    #[error("a key of this spec and purpose does not support {0}")]
    Unsupported(Algorithm),
    /// The decryption failed: point, MAC, padding, length or tag. One error for all causes.
    #[error("the ciphertext does not decrypt under this key")]
    DecryptionFailed,
    /// The material is not a key of the scheme. The text names the fault.
    #[error("not a usable key: {0}")]
    BadKey(&'static str),
    /// The input is too long. The number is the limit in bytes.
    #[error("the input is longer than {0} bytes")]
    TooLong(usize),
    /// A signature did not verify, or the random number generator failed. No result was returned.
    #[error("the result of the computation is not valid")]
    Faulty,
}
