//! The posture of a wrapper key: what its KMS says of the key and of those who may use it, each with an assessment and a remedy.

use super::text::text_enum;

text_enum!(
    /// The assessment of one line of a posture.
    PostureStatus as "posture status" {
        /// As it should be.
        Ok = "ok",
        /// A person should look at it, or the KMS does not say.
        Warning = "warning",
        /// It endangers the keys.
        Fail = "fail",
    }
);

text_enum!(
    /// What a line of a posture is about.
    PostureSubject as "posture subject" {
        /// The kind of the key: its algorithm and length.
        Spec = "spec",
        /// Who made the key material, and where it is.
        Origin = "origin",
        /// Whether the key can be used now.
        State = "state",
        /// Whether the deletion of the key is scheduled or permitted.
        Deletion = "deletion",
        /// The regions that have the key.
        Regions = "regions",
        /// How the KMS rotates the key material.
        Rotation = "rotation",
        /// Whether the key material can leave the KMS.
        Export = "export",
        /// The attributes of the key that permit other uses than wrapping.
        Usage = "usage",
        /// The tags of the key.
        Tags = "tags",
        /// Whether the key policy is readable.
        Policy = "policy",
        /// Who may decrypt by the key policy.
        PolicyDecrypt = "policy-decrypt",
        /// Whether the key policy demands the encryption context of this vault.
        PolicyContext = "policy-context",
        /// Whether the key policy permits all actions or all principals at once.
        PolicyWildcards = "policy-wildcards",
        /// Whether administrators and users of the key are separate.
        PolicySeparation = "policy-separation",
        /// Who may use the key by a grant, without the key policy.
        Grants = "grants",
    }
);

/// One line of a posture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostureLine {
    /// What it is about.
    pub subject: PostureSubject,
    /// The assessment.
    pub status: PostureStatus,
    /// The region that it is about. `None` if it is about the whole key.
    pub region: Option<String>,
    /// What was found.
    pub detail: String,
    /// What to do about it. Only with `warning` and `fail`.
    pub remedy: Option<String>,
}

impl PostureLine {
    /// A line about something that is as it should be.
    pub fn ok(subject: PostureSubject, detail: impl Into<String>) -> Self {
        Self::new(subject, PostureStatus::Ok, detail.into(), None)
    }

    /// A line about something that a person should look at.
    pub fn warning(subject: PostureSubject, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(subject, PostureStatus::Warning, detail.into(), Some(remedy.into()))
    }

    /// A line about something that endangers the keys.
    pub fn fail(subject: PostureSubject, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(subject, PostureStatus::Fail, detail.into(), Some(remedy.into()))
    }

    /// The same line, about one region.
    #[must_use]
    pub fn in_region(self, region: &str) -> Self {
        Self { region: Some(region.to_owned()), ..self }
    }

    const fn new(subject: PostureSubject, status: PostureStatus, detail: String, remedy: Option<String>) -> Self {
        Self { subject, status, region: None, detail, remedy }
    }
}
