//! The command line: a file a command, and the parts that only a process needs.

#[cfg(feature = "dev-pki")]
pub mod pki;
