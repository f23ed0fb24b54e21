//! Why a command did not do what it was asked, and with which exit code the program ends.

use std::{io, process::ExitCode};

use super::Format;
use crate::{client::ClientError, vault::VaultError};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was given on the command line cannot be used.
    #[error("{0}")]
    Usage(String),
    /// A call brought no result.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The vault answered something that the command cannot work with.
    #[error("{0}")]
    Unexpected(String),
    /// The job that was waited for did not succeed.
    #[error("{detail}")]
    Job {
        /// For a program: `job_failed` or `job_aborted`.
        code: &'static str,
        /// For a person, over several lines: how far it came, and which keys it could not do.
        detail: String,
    },
    /// Waiting was ended by Ctrl-C; the text says what goes on, and how to look again.
    #[error("{0}")]
    Interrupted(String),
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
    /// Anything else; the text says what to do.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// 1: the vault, or the work, said no. 2: the command line cannot be used. 3: the vault did not answer. 130 (128 and SIGINT, as shells
    /// have it): Ctrl-C.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Client(ClientError::Usage(_)) => 2,
            Self::Client(ClientError::CannotConnect { .. } | ClientError::NoAnswer { .. }) => 3,
            Self::Client(ClientError::Problem(_) | ClientError::Unreadable { .. })
            | Self::Unexpected(_)
            | Self::Job { .. }
            | Self::Write(_)
            | Self::Other(_) => 1,
            Self::Interrupted(_) => 130,
        }
    }

    /// Says on standard error what went wrong, and gives the exit code.
    pub(super) fn report(&self, format: Format) -> ExitCode {
        match (self, format) {
            // The reader went away, as `head` does: nobody is left to be told.
            (Self::Write(error), _) if error.kind() == io::ErrorKind::BrokenPipe => {}
            (_, Format::Text) => eprintln!("error: {}", crate::cli::output::printable(&self.to_string())),
            (Self::Client(error), Format::Json) => eprintln!("{}", error.document()),
            (_, Format::Json) => {
                eprintln!("{}", serde_json::json!({ "code": self.code(), "detail": self.to_string(), "retryable": false }));
            }
        }
        ExitCode::from(self.exit_code())
    }

    /// For a program, where there is no problem document of the vault.
    const fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Job { code, .. } => code,
            Self::Interrupted(_) => "interrupted",
            Self::Client(_) | Self::Unexpected(_) | Self::Write(_) | Self::Other(_) => "failed",
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        Self::Other(error.into())
    }
}
