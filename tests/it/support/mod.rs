//! What tests start and talk to.

pub(crate) mod kms;
