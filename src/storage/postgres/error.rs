//! Converts errors of PostgreSQL into reasons.

use deadpool_postgres::PoolError;
use tokio_postgres::Error;

use super::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("53100") => Self::DiskFull,
            Some("55P03") => Self::Failed(LOCKED.into()),
            Some("25006") => Self::ReadOnly,
            _ => Self::Failed(with_causes(&error)),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Closed => Self::Closed,
            other => Self::Failed(format!("no connection to PostgreSQL: {other}")),
        }
    }
}

/// Another session held a lock for too long.
pub(super) const LOCKED: &str = "another session holds a lock of PostgreSQL for too long";

/// Whether the error leaves the outcome of a statement open: the connection was lost, or the server ended the session.
pub(super) fn is_outcome_unknown(error: &Error) -> bool {
    error.code().is_none_or(|state| ["08", "57P", "XX", "F0"].iter().any(|class| state.code().starts_with(class)))
}

/// An error with its causes. It contains no password.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A row is not valid.
pub(super) fn corrupt(table: &'static str, what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { table, what: what.to_string() }
}

/// An integer for a column, which is signed.
pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Failed(format!("{number} does not fit a column")))
}

/// A count or revision. It was not negative when it was written.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Failed(format!("the store holds {number} where a count belongs")))
}
