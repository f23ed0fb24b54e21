//! The operations and the roles: a table lists every operation that a role permits.

use super::text::text_enum;

text_enum!(
    /// All operations of callers and of the vault itself. The texts are stored in the audit log.
    Operation as "operation" {
        /// `POST /v1/keys`
        CreateKey = "keys.create",
        /// `POST /v1/keys` with `exportable`
        CreateExportableKey = "keys.create-exportable",
        /// `POST /v1/keys/import`
        ImportKey = "keys.import",
        /// `GET /v1/keys`
        ListKeys = "keys.list",
        /// `GET /v1/keys/{id}`
        ShowKey = "keys.show",
        /// `POST /v1/keys/{id}/sign`
        Sign = "keys.sign",
        /// `POST /v1/keys/{id}/sign-batch`. Each signature has an entry of `keys.sign`; only refusals before the first one have this name.
        SignBatch = "keys.sign-batch",
        /// `POST /v1/keys/{id}/decrypt`
        Decrypt = "keys.decrypt",
        /// `POST /v1/keys/{id}/encrypt`
        Encrypt = "keys.encrypt",
        /// `POST /v1/keys/{id}/export`
        ExportKey = "keys.export",
        /// `POST /v1/keys/{id}/verify`
        VerifyKey = "keys.verify",
        /// `POST /v1/keys/{id}/enable`
        EnableKey = "keys.enable",
        /// `POST /v1/keys/{id}/disable`
        DisableKey = "keys.disable",
        /// `POST /v1/keys/{id}/rotate`
        RotateKey = "keys.rotate",
        /// `POST /v1/keys/{id}/supersede`
        SupersedeKey = "keys.supersede",
        /// `POST /v1/keys/{id}/sign-topology`
        SignTopology = "keys.sign-topology",
        /// `POST /v1/keys/{id}/signing-restriction`
        RestrictSigning = "keys.restrict-signing",
        /// `DELETE /v1/keys/{id}`
        DeleteKey = "keys.delete",
        /// `POST /v1/keys/{id}/cancel-deletion`
        CancelDeletion = "keys.cancel-deletion",
        /// `POST /v1/keys/{id}/withdraw`
        WithdrawKey = "keys.withdraw",
        /// `POST /v1/keys/{id}/name`
        RenameKey = "keys.rename",
        /// `GET /v1/wrapper-keys`
        ListWrapperKeys = "wrapper-keys.list",
        /// `GET /v1/wrapper-keys/{id}`
        ShowWrapperKey = "wrapper-keys.show",
        /// `GET /v1/wrapper-keys/{id}/posture`
        ShowPosture = "wrapper-keys.show-posture",
        /// `POST /v1/wrapper-keys`
        AddWrapperKey = "wrapper-keys.add",
        /// `POST /v1/wrapper-keys/{id}/replicas`
        ReplicateWrapperKey = "wrapper-keys.replicate",
        /// `POST /v1/wrapper-keys/{id}/name`
        RenameWrapperKey = "wrapper-keys.rename",
        /// `POST /v1/wrapper-keys/{id}/retire`
        RetireWrapperKey = "wrapper-keys.retire",
        /// `POST /v1/wrapper-keys/rotations`
        StartRotation = "rotations.start",
        /// `GET /v1/wrapper-keys/rotations`
        ListRotations = "rotations.list",
        /// `GET /v1/wrapper-keys/rotations/{id}`
        ShowRotation = "rotations.show",
        /// `POST /v1/wrapper-keys/rotations/{id}/abort`
        AbortRotation = "rotations.abort",
        /// `POST /v1/keys/{id}/reseal`
        ResealKey = "keys.reseal",
        /// `POST /v1/keys/reseals`
        StartReseal = "reseals.start",
        /// `GET /v1/keys/reseals`
        ListReseals = "reseals.list",
        /// `GET /v1/keys/reseals/{id}`
        ShowReseal = "reseals.show",
        /// `POST /v1/keys/reseals/{id}/abort`
        AbortReseal = "reseals.abort",
        /// `GET /v1/audit/entries`
        QueryAudit = "audit.query",
        /// `GET /v1/audit/export`
        ExportAudit = "audit.export",
        /// `GET /v1/audit/summary`
        SummarizeAudit = "audit.summary",
        /// `GET /v1/audit/access`
        ShowAccess = "audit.show-access",
        /// `GET /v1/audit/checkpoint`
        ShowCheckpoint = "audit.show-checkpoint",
        /// `POST /v1/audit/checkpoints`
        MakeCheckpoint = "audit.make-checkpoint",
        /// `GET /v1/audit/verifier-keys`
        ListVerifierKeys = "audit.list-verifier-keys",
        /// `POST /v1/audit/verifier-keys`
        RotateCheckpointKey = "audit.rotate-checkpoint-key",
        /// `POST /v1/audit/removals`
        RemoveEntries = "audit.remove-entries",
        /// `GET /v1/audit/proofs/inclusion`
        ProveInclusion = "audit.prove-inclusion",
        /// `GET /v1/audit/proofs/consistency`
        ProveConsistency = "audit.prove-consistency",
        /// `GET /v1/audit/tlog/…`: the log as C2SP tlog-tiles. One entry covers the reads of a principal in one minute.
        ReadTiles = "audit.read-tiles",
        /// `POST /v1/freeze`
        Freeze = "vault.freeze",
        /// `POST /v1/unfreeze`
        Unfreeze = "vault.unfreeze",
        /// `POST /v1/topology/decode`
        DecodeTopology = "topology.decode",
        /// `GET /v1/status`
        Status = "vault.status",
        /// `GET /v1/whoami`
        Whoami = "vault.whoami",
        /// `POST /v1/authorize` about oneself
        Authorize = "vault.authorize",
        /// `POST /v1/authorize` about another principal
        AuthorizeOther = "vault.authorize-other",
        /// A request with a path or a method that the API does not have.
        NoSuchCall = "vault.no-such-call",
        /// The service started.
        Start = "vault.start",
        /// The service stopped.
        Stop = "vault.stop",
        /// Certificates, client CAs, CRL, deny-list, nodes or grants were reloaded.
        Reload = "vault.reload",
        /// The store of an earlier program was opened, or an operator accepted a broken chain: the state is restated in a new chain.
        RestateState = "vault.restate-state",
        /// The key that signs checkpoints of the audit log was created.
        CreateCheckpointKey = "audit.create-checkpoint-key",
        /// The key that signs checkpoints of the audit log was opened.
        OpenCheckpointKey = "audit.open-checkpoint-key",
        /// An operator accepted a store that is older than the newest checkpoint: a new incarnation of the log begins.
        AcceptRollback = "audit.accept-rollback",
        /// A client was not admitted, in its handshake or at a request with status 401. The reason says why.
        RefuseClient = "vault.refuse-client",
        /// An audit sink began or went on. The reason says after which entry.
        StartSink = "audit.start-sink",
        /// Entries were not sent to an audit sink that was too far behind. The reason says which.
        SkipEntries = "audit.sink-gap",
        /// The vault quarantined a key or a wrap.
        Quarantine = "keys.quarantine",
        /// The deletion of a key was due, and the vault destroyed it.
        DestroyKey = "keys.destroy",
        /// The first wrapper key of an empty store was registered.
        BootstrapWrapperKey = "wrapper-keys.bootstrap",
        /// Calls of the KMS that belong to no other entry: probes, refreshes of open keys, calls whose caller is gone.
        RecordKmsCalls = "wrapper-keys.kms-calls",
        /// A key got a wrap under another wrapper key.
        RewrapKey = "keys.rewrap",
        /// A rotation succeeded or failed.
        EndRotation = "rotations.end",
        /// A re-seal of all keys succeeded or failed.
        EndReseal = "reseals.end",
    }
);

text_enum!(
    /// The roles.
    Role as "role" {
        /// Creates, shows, uses and rotates the keys of its nodes, and schedules their deletion.
        Node = "node",
        /// Creates, imports and administers keys. It does not use them.
        KeyAdmin = "key-admin",
        /// Exports keys, and nothing else.
        Exporter = "exporter",
        /// Administers wrapper keys, freezes and unfreezes.
        WrapperAdmin = "wrapper-admin",
        /// Reads the audit log and the inventory. It changes nothing.
        Auditor = "auditor",
    }
);

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// One key.
    Key,
    /// One or more nodes.
    Node,
    /// The vault as a whole, or the caller.
    Vault,
}

impl Operation {
    /// Whether a call of this operation can change the state of the vault. Uses of keys and reads only write audit entries.
    pub const fn changes_state(self) -> bool {
        matches!(
            self,
            Self::CreateKey
                | Self::CreateExportableKey
                | Self::ImportKey
                | Self::EnableKey
                | Self::DisableKey
                | Self::RotateKey
                | Self::SupersedeKey
                | Self::RestrictSigning
                | Self::DeleteKey
                | Self::CancelDeletion
                | Self::WithdrawKey
                | Self::RenameKey
                | Self::AddWrapperKey
                | Self::ReplicateWrapperKey
                | Self::RenameWrapperKey
                | Self::RetireWrapperKey
                | Self::StartRotation
                | Self::AbortRotation
                | Self::ResealKey
                | Self::StartReseal
                | Self::AbortReseal
                | Self::Freeze
                | Self::Unfreeze
                | Self::RotateCheckpointKey
                | Self::RemoveEntries
        )
    }
}

impl Operation {
    /// What the operation is about.
    pub fn concerns(self) -> Concern {
        match self {
            Self::CreateKey
            | Self::CreateExportableKey
            | Self::ImportKey
            | Self::ListKeys
            | Self::QueryAudit
            | Self::ExportAudit
            | Self::SummarizeAudit
            | Self::ShowAccess => Concern::Node,
            key if key.as_str().starts_with("keys.") => Concern::Key,
            _ => Concern::Vault,
        }
    }

    /// Whether the operation gives a caller something that only the private key can make, or the key itself.
    pub const fn uses_key(self) -> bool {
        matches!(self, Self::Sign | Self::SignBatch | Self::SignTopology | Self::Decrypt | Self::Encrypt | Self::ExportKey)
    }
}

impl Role {
    /// All operations that the role permits. Everything else is denied.
    pub const fn operations(self) -> &'static [Operation] {
        use Operation as O;
        match self {
            Self::Node => &[
                O::CreateKey,
                O::ListKeys,
                O::ShowKey,
                O::Sign,
                O::SignBatch,
                O::SignTopology,
                O::VerifyKey,
                O::Decrypt,
                O::Encrypt,
                O::RotateKey,
                O::DeleteKey,
            ],
            Self::KeyAdmin => &[
                O::CreateKey,
                O::CreateExportableKey,
                O::ImportKey,
                O::ListKeys,
                O::ShowKey,
                O::VerifyKey,
                O::EnableKey,
                O::DisableKey,
                O::SupersedeKey,
                O::RestrictSigning,
                O::DeleteKey,
                O::CancelDeletion,
                O::WithdrawKey,
                O::RenameKey,
                O::ResealKey,
                O::StartReseal,
                O::ListReseals,
                O::ShowReseal,
                O::AbortReseal,
                O::Freeze,
            ],
            Self::Exporter => &[O::ExportKey],
            Self::WrapperAdmin => &[
                O::ListWrapperKeys,
                O::ShowWrapperKey,
                O::ShowPosture,
                O::AddWrapperKey,
                O::ReplicateWrapperKey,
                O::RenameWrapperKey,
                O::RetireWrapperKey,
                O::StartRotation,
                O::ListRotations,
                O::ShowRotation,
                O::AbortRotation,
                O::ListVerifierKeys,
                O::RotateCheckpointKey,
                O::RemoveEntries,
                O::Freeze,
                O::Unfreeze,
            ],
            Self::Auditor => &[
                O::ListKeys,
                O::ShowKey,
                O::ListWrapperKeys,
                O::ShowWrapperKey,
                O::ShowPosture,
                O::ListRotations,
                O::ShowRotation,
                O::ListReseals,
                O::ShowReseal,
                O::QueryAudit,
                O::ExportAudit,
                O::SummarizeAudit,
                O::ShowAccess,
                O::ShowCheckpoint,
                O::MakeCheckpoint,
                O::ListVerifierKeys,
                O::ProveInclusion,
                O::ProveConsistency,
                O::ReadTiles,
                O::AuthorizeOther,
            ],
        }
    }
}

impl Operation {
    /// Operations that every client with an accepted certificate may call.
    pub(super) const FOR_ANYBODY: &'static [Self] = &[Self::Status, Self::Whoami, Self::Authorize, Self::DecodeTopology];

    /// Whether the operation concerns the vault as a whole. A grant on some nodes does not permit it.
    pub const fn is_vault_wide(self) -> bool {
        matches!(
            self,
            Self::ListWrapperKeys
                | Self::ShowWrapperKey
                | Self::ShowPosture
                | Self::AddWrapperKey
                | Self::ReplicateWrapperKey
                | Self::RenameWrapperKey
                | Self::RetireWrapperKey
                | Self::StartRotation
                | Self::ListRotations
                | Self::ShowRotation
                | Self::AbortRotation
                | Self::StartReseal
                | Self::ListReseals
                | Self::ShowReseal
                | Self::AbortReseal
                | Self::Freeze
                | Self::Unfreeze
                | Self::AuthorizeOther
                | Self::ShowCheckpoint
                | Self::MakeCheckpoint
                | Self::ListVerifierKeys
                | Self::RotateCheckpointKey
                | Self::RemoveEntries
                | Self::ProveInclusion
                | Self::ProveConsistency
                | Self::ReadTiles
        )
    }
}
