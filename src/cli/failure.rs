//! Why a command failed, and the exit code of the program.

use std::{io, process::ExitCode};

use super::Format;
use crate::{client::ClientError, vault::VaultError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An argument is not valid.
    #[error("{0}")]
    Usage(String),
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A name or the beginning of an id does not mean exactly one key.
    #[error("{detail}")]
    Reference {
        /// For a program: `not_found`, `ambiguous` or `forbidden`.
        code: &'static str,
        /// For people: the candidates, or how to list.
        detail: String,
    },
    /// Keys that were to be verified do not open, or could not be tried.
    #[error("{failed} of {total} keys could not be verified. The column RESULT has the reason of each; docs/errors.md says what to do")]
    KeysNotVerified {
        /// How many.
        failed: u64,
        /// Of how many.
        total: u64,
    },
    /// The answer of the vault cannot be used.
    #[error("{0}")]
    Unexpected(String),
    /// The job did not succeed.
    #[error("{detail}")]
    Job {
        /// For a program: `job_failed` or `job_aborted`.
        code: &'static str,
        /// For people, over several lines: the progress, and the keys that failed.
        detail: String,
    },
    /// The log is not the one that was signed. The text names the first bad entry and the reason.
    #[error("not verified: {detail}")]
    NotVerified {
        /// For a program.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// The log of the KMS has calls that the audit log does not explain, or lacks calls.
    #[error("not reconciled: {0}")]
    NotReconciled(String),
    /// Ctrl-C ended the waiting. The text says what continues, and how to show it.
    #[error("{0}")]
    Interrupted(String),
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
    /// The log of the process says what failed.
    #[error("see the log")]
    Logged,
    /// Another failure. The text says what to do.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// 1: the vault refused, or the work failed. 2: an argument is not valid. 3: the vault did not answer. 4: the audit log is
    /// not the one that was signed. 5: the log of the KMS and the audit log differ. 130 (128 and SIGINT, as in shells): Ctrl-C.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => match error.decisive() {
                ClientError::Usage(_) => 2,
                ClientError::CannotConnect { .. } | ClientError::NoAnswer { .. } => 3,
                ClientError::Problem(_) | ClientError::Unreadable { .. } | ClientError::NoneDid(_) => 1,
            },
            Self::Usage(_) => 2,
            Self::Reference { .. }
            | Self::KeysNotVerified { .. }
            | Self::Unexpected(_)
            | Self::Job { .. }
            | Self::Write(_)
            | Self::Logged
            | Self::Other(_) => 1,
            Self::NotVerified { .. } => 4,
            Self::NotReconciled(_) => 5,
            Self::Interrupted(_) => 130,
        }
    }

    /// Prints the failure on standard error, and returns the exit code.
    pub(super) fn report(&self, format: Format) -> ExitCode {
        match (self, format) {
            // The reader of the pipe has closed it, as `head` does. Nothing needs to be printed.
            (Self::Write(error), _) if error.kind() == io::ErrorKind::BrokenPipe => {}
            (Self::Logged, _) => {}
            (_, Format::Text) => eprintln!("error: {}", crate::cli::output::printable(&self.to_string())),
            (Self::Client(error), Format::Json) => eprintln!("{}", error.document()),
            (_, Format::Json) => {
                eprintln!("{}", serde_json::json!({ "code": self.code(), "detail": self.to_string(), "retryable": false }));
            }
        }
        ExitCode::from(self.exit_code())
    }

    /// For programs, if there is no problem document of the vault.
    const fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Reference { code, .. } | Self::Job { code, .. } | Self::NotVerified { code, .. } => code,
            Self::KeysNotVerified { .. } => "keys_not_verified",
            Self::NotReconciled(_) => "not_reconciled",
            Self::Interrupted(_) => "interrupted",
            Self::Client(_) | Self::Unexpected(_) | Self::Write(_) | Self::Logged | Self::Other(_) => "failed",
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        Self::Other(error.into())
    }
}
