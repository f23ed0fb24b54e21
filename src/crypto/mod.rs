//! Key material: secrets that wipe themselves, the envelope, and one file for each scheme. No I/O, no async, no logs.

pub mod canton;
mod curve;
mod der;
pub mod envelope;
mod fingerprint;
mod pkcs8;
mod prove;
mod random;
mod scheme;
mod secret;
mod stack;
mod verify;

pub use fingerprint::fingerprint;
pub use pkcs8::read_pkcs8;
pub use prove::prove;
pub use random::{Random, RandomFailed, SystemRandom};
pub use scheme::{CryptoError, MAX_MESSAGE, PrivateKey, SCHEMES, Scheme, ecies_sender, scheme};
pub use secret::SecretBytes;
pub use stack::on_wiped_stack;
pub use verify::verify;
