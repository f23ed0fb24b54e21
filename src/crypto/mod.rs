//! Key material: secrets that wipe themselves, the envelope, and one file for each scheme. No I/O, no async, no logs.

mod random;
mod scheme;
mod secret;

pub use random::{Random, RandomFailed, SystemRandom};
pub use scheme::{CryptoError, PrivateKey, Scheme};
pub use secret::SecretBytes;
