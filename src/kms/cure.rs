//! What ends a fault of a wrapper key: time, an administrator of the KMS, or another configuration. Log lines, the status and the start
//! decide by it.

use super::{Denial, WrapperError};

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// An outage, which may pass by itself.
    Time,
    /// A change in the KMS or of the credentials. It takes effect without a restart.
    Administrator,
    /// A change of the configuration, which needs a restart.
    Configuration,
}

impl WrapperError {
    /// What ends this fault.
    pub const fn cure(&self) -> Cure {
        match self {
            Self::Unavailable { .. } => Cure::Time,
            Self::Denied { denial, .. } => match denial {
                Denial::AccessDenied | Denial::Credentials(_) | Denial::Disabled | Denial::InvalidState | Denial::OldVersion => {
                    Cure::Administrator
                }
                // A key of another region is not found either.
                Denial::NotFound | Denial::WrongKind | Denial::Exportable => Cure::Configuration,
            },
            Self::Invalid { .. } | Self::NotAllowed { .. } | Self::Unfit { .. } | Self::Misconfigured { .. } => Cure::Configuration,
        }
    }

    /// The sentence about a registered wrapper key with this fault.
    pub fn of_registered(&self) -> String {
        format!("a registered wrapper key does not work: {self}; {}. Fix: {}", self.cure().awaited(), self.reason().remedy())
    }

    /// The cause without the name of the key, its account or a path, for readers without a certificate.
    pub fn cause(&self) -> String {
        match self {
            Self::Denied { denial, .. } => denial.to_string(),
            Self::Unavailable { outage, .. } => outage.to_string(),
            Self::Invalid { .. } => "it does not open its canary, so it is another key".to_owned(),
            Self::NotAllowed { .. } => "it matches no pattern of [wrapper] allowed in the configuration".to_owned(),
            Self::Unfit { .. } | Self::Misconfigured { .. } => {
                "its reference, its file or the configuration is not valid. The log has the details".to_owned()
            }
        }
    }
}

impl Cure {
    /// What the vault waits for.
    pub const fn awaited(self) -> &'static str {
        match self {
            Self::Time => "the vault tries again until the KMS answers",
            Self::Administrator => "the vault tries again until the KMS permits it",
            Self::Configuration => "correct the configuration, then restart the vault, or restore the key",
        }
    }
}
