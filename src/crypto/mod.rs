//! Cryptography: secrets that are wiped on drop, the envelope, and one file for each scheme. No I/O, no async, no logs.

pub mod canton;
mod curve;
mod der;
pub mod envelope;
mod error;
mod fingerprint;
mod key_file;
mod pem;
mod pkcs8;
mod random;
mod read_pkcs8;
mod scheme;
mod secret;
mod self_test;
mod stack_wipe;

pub use self::error::CryptoError;
pub use self::fingerprint::fingerprint;
use self::fingerprint::fingerprint_of_bytes;
pub use self::key_file::{read_certificate_file, read_pkcs8_file, read_private_key};
pub use self::pem::{PemSection, pem_sections};
pub use self::random::{Random, RandomFailed, SystemRandom};
pub use self::read_pkcs8::read_pkcs8;
pub use self::scheme::{MAX_MESSAGE, PrivateKey, SCHEMES, Scheme, ecies_sender, scheme, verify_ed25519};
pub use self::secret::SecretBytes;
pub use self::self_test::self_test;
pub use self::stack_wipe::with_wiped_stack;
