//! A wrapper key as registered: which provider, which identity, which regions, in which state.

use super::{Timestamp, WrapperKeyId, text::text_enum};

text_enum!(
    /// Which kind of KMS holds a wrapper key.
    ProviderKind as "wrapper provider" {
        /// A key in a file: for development; elsewhere only where the configuration allows it.
        Local = "local",
        /// AWS KMS.
        AwsKms = "aws-kms",
        /// The transit engine of OpenBao.
        OpenbaoTransit = "openbao-transit",
    }
);

text_enum!(
    /// What a wrapper key is used for now.
    WrapperState as "wrapper key state" {
        /// Wraps new keys, and opens.
        Active = "active",
        /// Kept filled by a job, and opens.
        Standby = "standby",
        /// Opens, never wraps.
        Draining = "draining",
        /// Gets no new wraps; its wraps are about to be dropped.
        Retiring = "retiring",
        /// Holds nothing any more.
        Retired = "retired",
    }
);

text_enum!(
    /// What made a KMS rotate its key.
    KmsRotationKind as "kind of KMS rotation" {
        /// Its calendar.
        Automatic = "automatic",
        /// Somebody.
        OnDemand = "on-demand",
    }
);

/// How a KMS rotates the key material below a wrapper key. What was wrapped before stays wrapped under the older material.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsRotation {
    /// Whether the KMS does it by itself.
    pub automatic: bool,
    /// Days between two automatic rotations.
    pub period_days: Option<u32>,
    /// When the next automatic one is due.
    pub next_at: Option<Timestamp>,
    /// When the last one was, of either kind; `None` if there was none.
    pub last_at: Option<Timestamp>,
    /// Which kind the last one was.
    pub last_kind: Option<KmsRotationKind>,
    /// When one on demand began that is not done yet.
    pub on_demand_since: Option<Timestamp>,
}

/// A registered wrapper key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperKey {
    /// Our own short id.
    pub id: WrapperKeyId,
    /// Which kind of KMS.
    pub provider: ProviderKind,
    /// The identity, never an alias, region apart: `aws:<partition>:<account>:<key id>`,
    /// `openbao:<cluster id>:<mount>:<name>:<second of its making>`, or `local:<16 hex of the key's digest>`.
    pub identity: String,
    /// What was asked for, as resolved: an ARN, a URL, or a file path.
    pub reference: String,
    /// Where it lives, in the order to try; empty for providers without regions.
    pub regions: Vec<String>,
    /// What it is used for.
    pub state: WrapperState,
    /// A random data key wrapped under it at registration: tells a broken wrap from a wrong wrapper key.
    pub canary: Vec<u8>,
    /// When it was registered.
    pub created_at: Timestamp,
}
