//! The kinds of work that calls cause. Each operation of a caller has one, and with it its limits: `docs/limits.md` shows them.

use super::{Operation, text::text_enum};

text_enum!(
    /// What a call costs the vault. `vault::limits` has the limits of each kind.
    WorkKind as "kind of work" {
        /// The use of a key.
        Use = "use",
        /// A new key, or a new data key for one.
        Creation = "creation",
        /// Another change of the state.
        Change = "change",
        /// A switch for incidents: it only takes rights away, and no other work may refuse it.
        Incident = "incident",
        /// A signature over topology transactions, whose answer is long.
        Topology = "topology",
        /// The decoding of a topology transaction, which needs no grant and whose answer is long.
        Decoding = "decoding",
        /// A query of the audit log.
        Query = "query",
        /// An export of the audit log, whose answer is a stream.
        Export = "export",
        /// A list of objects.
        List = "list",
        /// One object.
        Show = "show",
        /// A call that needs no grant.
        Information = "information",
        /// A request without a route.
        NoRoute = "no-route",
    }
);

impl Operation {
    /// The kind of work of a call. `None` for what the vault does without a caller.
    ///
    /// It has no arm for all others, so that a new operation does not compile without its kind.
    pub const fn work_kind(self) -> Option<WorkKind> {
        Some(match self {
            Self::Sign | Self::SignBatch | Self::Decrypt | Self::Encrypt | Self::ExportKey | Self::VerifyKey => WorkKind::Use,
            Self::CreateKey | Self::CreateExportableKey | Self::ImportKey | Self::RotateKey | Self::ResealKey => WorkKind::Creation,
            Self::EnableKey
            | Self::SupersedeKey
            | Self::RestrictSigning
            | Self::DeleteKey
            | Self::CancelDeletion
            | Self::RenameKey
            | Self::WithdrawKey
            | Self::AddWrapperKey
            | Self::ReplicateWrapperKey
            | Self::RenameWrapperKey
            | Self::RetireWrapperKey
            | Self::StartRotation
            | Self::AbortRotation
            | Self::StartReseal
            | Self::AbortReseal
            | Self::Unfreeze
            | Self::RemoveEntries
            | Self::RotateCheckpointKey => WorkKind::Change,
            Self::Freeze | Self::DisableKey => WorkKind::Incident,
            Self::SignTopology => WorkKind::Topology,
            Self::DecodeTopology => WorkKind::Decoding,
            Self::QueryAudit
            | Self::SummarizeAudit
            | Self::ShowAccess
            | Self::MakeCheckpoint
            | Self::ProveInclusion
            | Self::ProveConsistency
            | Self::ReadTiles => WorkKind::Query,
            Self::ExportAudit => WorkKind::Export,
            Self::ListKeys | Self::ListWrapperKeys | Self::ListRotations | Self::ListReseals => WorkKind::List,
            Self::ShowKey
            | Self::ShowWrapperKey
            | Self::ShowPosture
            | Self::ShowRotation
            | Self::ShowReseal
            | Self::ShowCheckpoint
            | Self::ListVerifierKeys => WorkKind::Show,
            Self::Status | Self::Whoami | Self::Authorize | Self::AuthorizeOther => WorkKind::Information,
            Self::NoSuchCall => WorkKind::NoRoute,
            Self::Start
            | Self::Stop
            | Self::Reload
            | Self::RestateState
            | Self::Quarantine
            | Self::DestroyKey
            | Self::BootstrapWrapperKey
            | Self::RecordKmsCalls
            | Self::RewrapKey
            | Self::EndRotation
            | Self::EndReseal
            | Self::CreateCheckpointKey
            | Self::OpenCheckpointKey
            | Self::AcceptRollback
            | Self::RefuseClient
            | Self::StartSink
            | Self::SkipEntries => return None,
        })
    }
}
