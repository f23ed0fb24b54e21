//! Canton's key-pair files: what `keys.secret.download` writes and `keys.secret.upload` reads, of Canton 3.3 to 3.6.

mod messages;
mod names;
mod password;
mod read_key_pair;
mod write_key_pair;

pub use self::password::MAX_PASSWORD;
pub use self::read_key_pair::{CantonKeyPair, read_key_pair};
pub use self::write_key_pair::{KeyPairToWrite, write_key_pair};

use super::CryptoError;

/// Why a file is not taken, or cannot be made. Holds no part of a key or password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CantonFileError {
    /// None of the forms that Canton writes.
    #[error("not a Canton key pair: {0}")]
    NotAKeyPair(&'static str),
    /// Canton 2 (version 0), or a version of the future.
    #[error("the file has version {0}; Canton 3.3 to 3.6 write version 30")]
    UnsupportedVersion(i32),
    /// The file is protected.
    #[error("the file is protected by a password")]
    PasswordNeeded,
    /// The file is not protected, though a password was given.
    #[error("the file is not protected by a password; import it without one")]
    NotProtected,
    /// One error for both, since AES-GCM cannot tell them apart.
    #[error("the password is wrong, or the file is damaged")]
    WrongPasswordOrDamaged,
    /// Refused, never cut.
    #[error("a password has at most {MAX_PASSWORD} bytes")]
    PasswordTooLong,
    /// ML-DSA, or a number that no known version of Canton writes.
    #[error("the key is of {what} {number}{name}, which this vault does not hold")]
    Unsupported {
        /// Which field it is.
        what: &'static str,
        /// Its number on the wire.
        number: i32,
        /// Its name in brackets, if it has one.
        name: &'static str,
    },
    /// Canton refuses these sets, too.
    #[error("the usages are not a set that Canton takes: {0}")]
    Usages(&'static str),
    /// The public key in the file is another one.
    #[error("the public key in the file does not belong to its private key")]
    PublicKeyMismatch,
    /// The key itself.
    #[error(transparent)]
    Key(#[from] CryptoError),
}
