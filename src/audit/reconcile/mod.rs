//! Compares the log of a KMS with the audit log, in both directions: which call of the KMS no entry explains, and which call of an entry the KMS does not have.
//! Pure functions over bytes from outside; memory is bounded by the number of calls.
//!
//! | file | guarantees |
//! |---|---|
//! | `call` | a call as the log of a KMS has it, with texts of bounded length |
//! | `cloudtrail` | reads files of AWS CloudTrail; other services and unknown fields are skipped |
//! | `openbao` | reads lines of an OpenBao audit file; a request and its response are one call |
//! | `wrapper_keys` | which calls concern a wrapper key of the vault |
//! | `calls` | every call once, by its request id, within a limit |
//! | `matching` | a call is explained by its request id, or else by a recorded attempt without one, and never by both |
//! | `outcome` | the result: numbers, and lists of bounded length |
//! | `weaker` | which calls without a known request id may be those that an entry or a report counts |

mod call;
mod calls;
mod cloudtrail;
mod matching;
mod openbao;
mod outcome;
mod weaker;
mod wrapper_keys;

pub use self::call::{ActionKind, KmsCall};
pub use self::calls::{CallSet, TooManyCalls};
pub use self::cloudtrail::{CloudTrailError, read_cloudtrail};
pub use self::matching::Reconciliation;
pub use self::openbao::read_openbao_line;
pub use self::outcome::{By, JobCalls, Listed, MissingCall, Period, Reconciled, Report, WeakerCall};
pub use self::wrapper_keys::{NotAWrapperKey, WrapperKeySet};
