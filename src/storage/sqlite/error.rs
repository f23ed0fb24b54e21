//! Converts errors of SQLite into reasons.

use rusqlite::{Error, ErrorCode, ffi};

use super::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.sqlite_error() {
            Some(said) if said.code == ErrorCode::DiskFull || said.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::DiskFull,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// A row is not valid.
pub(super) fn corrupt(table: &'static str, what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { table, what: what.to_string() }
}

/// An integer for SQLite, which has signed integers only.
pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Failed(format!("{number} does not fit a column")))
}
