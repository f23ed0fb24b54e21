//! Key policies of AWS KMS: read from JSON, and assessed for what they permit on a wrapper key.
//!
//! An assessment errs on the side of a warning: a condition that is not known here restricts nothing when it stands with a permission, and a denial
//! with such a condition denies nothing.

mod assessment;
mod statement;

pub(super) use self::assessment::{Subject, assess};
