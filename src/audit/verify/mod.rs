//! Verifies a log offline: that its entries are those that were signed, and if not, which is the first bad entry and why. Pure functions, in constant
//! memory.
//!
//! | file | guarantees |
//! |---|---|
//! | `export` | reads an export line by line; a part that was removed, added or moved is found |
//! | `log` | entries in their order: numbers, state chain, tree, checkpoints |
//! | `chain` | each state change names the one before it |
//! | `head` | the few fields of an entry that the verification needs |
//! | `keys` | a checkpoint counts only if a trusted key signed it |
//! | `finding` | where and why a verification failed |
//!
//! A signature is trusted by its public key. The keys come from outside the log, and a rotation that the old and the new key signed adds the new one.

mod chain;
mod export;
mod finding;
mod head;
mod keys;
mod log;

pub use self::export::ExportVerifier;
pub use self::finding::{Finding, Place, Reason};
pub use self::keys::TrustedKeys;
pub use self::log::{Depth, LogCheck, LogName, Verified};
