//! Canton's key-pair files: what `keys.secret.download` writes and `keys.secret.upload` reads, and the rows of its private key
//! store.

mod messages;
mod names;
mod password;
mod public_key;
mod read_key_pair;
mod write_key_pair;

pub use self::names::{read_usage_numbers, usage_database_numbers};
pub use self::password::MAX_PASSWORD;
pub use self::public_key::{CantonPublicKey, PublicKeyMessage, read_public_key};
pub use self::read_key_pair::{CantonKeyPair, read_key_pair, read_private_key_row};
pub use self::write_key_pair::{CantonVersion, KeyPairToWrite, write_key_pair, write_private_key_row};

use super::CryptoError;

/// Why a file is refused or cannot be written. The text contains no part of a key or password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CantonFileError {
    /// The file has none of the forms that Canton writes.
    #[error("not a Canton key pair: {0}")]
    NotAKeyPair(&'static str),
    /// Canton does not read this id of a private key.
    #[error("the id in the file is empty, longer than 68 characters, contains `::`, or is not an id of Canton")]
    KeyId,
    /// The file is protected, and no password was given.
    #[error("the file is protected by a password")]
    PasswordNeeded,
    /// A password was given, but the file is not protected.
    #[error("the file is not protected by a password; import it without one")]
    NotProtected,
    /// The password is wrong or the file is damaged. AES-GCM cannot distinguish them.
    #[error("the password is wrong, or the file is damaged")]
    WrongPasswordOrDamaged,
    /// The password is too long. It is not truncated.
    #[error("a password has at most {MAX_PASSWORD} bytes")]
    PasswordTooLong,
    /// The field has a number that is not supported, such as ML-DSA, or not known.
    #[error("the key is of {what} {number}{name}, which this vault does not hold")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// The number in the message.
        number: i32,
        /// The name in parentheses, if there is one.
        name: &'static str,
    },
    /// Canton refuses this set of usages too.
    #[error("the usages are not a set that Canton takes: {0}")]
    Usages(&'static str),
    /// The public key in the file does not belong to the private key.
    #[error("the public key in the file does not belong to its private key")]
    PublicKeyMismatch,
    /// The public key is not one that Canton reads.
    #[error("the public key is not valid: {0}")]
    PublicKey(&'static str),
    /// The key is not valid.
    #[error(transparent)]
    Key(#[from] CryptoError),
}
