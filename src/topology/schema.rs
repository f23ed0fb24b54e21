//! The messages of a topology transaction as tables (`protocol/v30/topology.proto`, `synchronizer_parameters.proto`,
//! `traffic_control_parameters.proto`, `sequencing_parameters.proto`, `crypto/v30/crypto.proto` of Canton 3.5).

/// A message type.
pub(super) struct MessageType {
    pub(super) fields: &'static [Field],
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) occurs: Occurs,
}

/// The type of a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Bytes,
    Flag,
    Signed32,
    Unsigned32,
    Signed64,
    Unsigned64,
    Enumeration(&'static [(i64, &'static str)]),
    Message(&'static MessageType),
}

/// How often a field occurs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occurs {
    Once,
    Often,
    /// Once, and without the other members of this oneof.
    OneOf(&'static str),
}

use Kind::{Bytes, Enumeration, Flag, Message, Signed32, Signed64, Text, Unsigned32, Unsigned64};

const fn once(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, occurs: Occurs::Once }
}

const fn often(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, occurs: Occurs::Often }
}

const fn one_of(group: &'static str, number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, occurs: Occurs::OneOf(group) }
}

/// `UntypedVersionedMessage`.
pub(super) static VERSIONED: MessageType = MessageType { fields: &[once(1, "data", Bytes), once(2, "version", Signed32)] };

pub(super) static TOPOLOGY_TRANSACTION: MessageType = MessageType {
    fields: &[once(1, "operation", Enumeration(OPERATIONS)), once(2, "serial", Unsigned32), once(3, "mapping", Message(&TOPOLOGY_MAPPING))],
};

const OPERATIONS: &[(i64, &str)] =
    &[(0, "TOPOLOGY_CHANGE_OP_UNSPECIFIED"), (1, "TOPOLOGY_CHANGE_OP_ADD_REPLACE"), (2, "TOPOLOGY_CHANGE_OP_REMOVE")];

const MAPPING: &str = "mapping";

static TOPOLOGY_MAPPING: MessageType = MessageType {
    fields: &[
        one_of(MAPPING, 1, "namespace_delegation", Message(&NAMESPACE_DELEGATION)),
        one_of(MAPPING, 3, "decentralized_namespace_definition", Message(&DECENTRALIZED_NAMESPACE)),
        one_of(MAPPING, 4, "owner_to_key_mapping", Message(&OWNER_TO_KEY)),
        one_of(MAPPING, 5, "synchronizer_trust_certificate", Message(&TRUST_CERTIFICATE)),
        one_of(MAPPING, 6, "participant_permission", Message(&PARTICIPANT_PERMISSION)),
        one_of(MAPPING, 7, "party_hosting_limits", Message(&HOSTING_LIMITS)),
        one_of(MAPPING, 8, "vetted_packages", Message(&VETTED_PACKAGES)),
        one_of(MAPPING, 9, "party_to_participant", Message(&PARTY_TO_PARTICIPANT)),
        one_of(MAPPING, 11, "synchronizer_parameters_state", Message(&SYNCHRONIZER_PARAMETERS_STATE)),
        one_of(MAPPING, 12, "mediator_synchronizer_state", Message(&MEDIATOR_STATE)),
        one_of(MAPPING, 13, "sequencer_synchronizer_state", Message(&SEQUENCER_STATE)),
        one_of(MAPPING, 15, "sequencing_dynamic_parameters_state", Message(&SEQUENCING_PARAMETERS_STATE)),
        one_of(MAPPING, 16, "party_to_key_mapping", Message(&PARTY_TO_KEY)),
        one_of(MAPPING, 17, "synchronizer_upgrade_announcement", Message(&UPGRADE_ANNOUNCEMENT)),
        one_of(MAPPING, 18, "sequencer_connection_successor", Message(&CONNECTION_SUCCESSOR)),
    ],
};

const RESTRICTION: &str = "restriction";

static NAMESPACE_DELEGATION: MessageType = MessageType {
    fields: &[
        once(1, "namespace", Text),
        once(2, "target_key", Message(&SIGNING_PUBLIC_KEY)),
        once(3, "is_root_delegation", Flag),
        one_of(RESTRICTION, 4, "can_sign_all_mappings", Message(&EMPTY)),
        one_of(RESTRICTION, 5, "can_sign_all_but_namespace_delegations", Message(&EMPTY)),
        // The name is misspelled in Canton's file.
        one_of(RESTRICTION, 6, "can_sign_specific_mapings", Message(&SPECIFIC_MAPPINGS)),
    ],
};

static EMPTY: MessageType = MessageType { fields: &[] };

static SPECIFIC_MAPPINGS: MessageType = MessageType { fields: &[often(1, "mappings", Enumeration(MAPPING_CODES))] };

const MAPPING_CODES: &[(i64, &str)] = &[
    (0, "TOPOLOGY_MAPPING_CODE_UNSPECIFIED"),
    (1, "TOPOLOGY_MAPPING_CODE_NAMESPACE_DELEGATION"),
    (3, "TOPOLOGY_MAPPING_CODE_DECENTRALIZED_NAMESPACE_DEFINITION"),
    (4, "TOPOLOGY_MAPPING_CODE_OWNER_TO_KEY_MAPPING"),
    (5, "TOPOLOGY_MAPPING_CODE_SYNCHRONIZER_TRUST_CERTIFICATE"),
    (6, "TOPOLOGY_MAPPING_CODE_PARTICIPANT_PERMISSION"),
    (7, "TOPOLOGY_MAPPING_CODE_PARTY_HOSTING_LIMITS"),
    (8, "TOPOLOGY_MAPPING_CODE_VETTED_PACKAGES"),
    (9, "TOPOLOGY_MAPPING_CODE_PARTY_TO_PARTICIPANT"),
    (11, "TOPOLOGY_MAPPING_CODE_SYNCHRONIZER_PARAMETERS_STATE"),
    (12, "TOPOLOGY_MAPPING_CODE_MEDIATOR_SYNCHRONIZER_STATE"),
    (13, "TOPOLOGY_MAPPING_CODE_SEQUENCER_SYNCHRONIZER_STATE"),
    (17, "TOPOLOGY_MAPPING_CODE_SEQUENCING_DYNAMIC_PARAMETERS_STATE"),
    (18, "TOPOLOGY_MAPPING_CODE_PARTY_TO_KEY_MAPPING"),
    (19, "TOPOLOGY_MAPPING_CODE_LSU_ANNOUNCEMENT"),
    (20, "TOPOLOGY_MAPPING_CODE_SEQUENCER_CONNECTION_SUCCESSOR"),
];

static DECENTRALIZED_NAMESPACE: MessageType =
    MessageType { fields: &[once(1, "decentralized_namespace", Text), once(2, "threshold", Signed32), often(3, "owners", Text)] };

static OWNER_TO_KEY: MessageType = MessageType { fields: &[once(1, "member", Text), often(2, "public_keys", Message(&PUBLIC_KEY))] };

static PARTY_TO_KEY: MessageType = MessageType {
    fields: &[once(1, "party", Text), once(3, "threshold", Unsigned32), often(4, "signing_keys", Message(&SIGNING_PUBLIC_KEY))],
};

static TRUST_CERTIFICATE: MessageType = MessageType {
    fields: &[once(1, "participant_uid", Text), once(2, "synchronizer_id", Text), often(5, "feature_flags", Enumeration(FEATURE_FLAGS))],
};

const FEATURE_FLAGS: &[(i64, &str)] = &[
    (1, "PARTICIPANT_FEATURE_FLAG_PV33_EXTERNAL_SIGNING_LOCAL_CONTRACT_IN_SUBVIEW"),
    (2, "PARTICIPANT_FEATURE_FLAG_ENABLE_MULTI_SYNCHRONIZER"),
];

static PARTICIPANT_PERMISSION: MessageType = MessageType {
    fields: &[
        once(1, "synchronizer_id", Text),
        once(2, "participant_uid", Text),
        once(3, "permission", Enumeration(PERMISSIONS)),
        once(4, "limits", Message(&PARTICIPANT_LIMITS)),
        once(5, "login_after", Signed64),
    ],
};

const PERMISSIONS: &[(i64, &str)] = &[
    (0, "PARTICIPANT_PERMISSION_UNSPECIFIED"),
    (1, "PARTICIPANT_PERMISSION_SUBMISSION"),
    (2, "PARTICIPANT_PERMISSION_CONFIRMATION"),
    (3, "PARTICIPANT_PERMISSION_OBSERVATION"),
];

static PARTICIPANT_LIMITS: MessageType = MessageType { fields: &[once(1, "confirmation_requests_max_rate", Unsigned32)] };

static HOSTING_LIMITS: MessageType = MessageType { fields: &[once(1, "synchronizer_id", Text), once(2, "party", Text)] };

static VETTED_PACKAGES: MessageType = MessageType {
    fields: &[once(1, "participant_uid", Text), often(2, "package_ids", Text), often(4, "packages", Message(&VETTED_PACKAGE))],
};

static VETTED_PACKAGE: MessageType = MessageType {
    fields: &[
        once(1, "package_id", Text),
        once(2, "valid_from_inclusive", Message(&TIMESTAMP)),
        once(3, "valid_until_exclusive", Message(&TIMESTAMP)),
    ],
};

/// `google.protobuf.Timestamp`.
static TIMESTAMP: MessageType = MessageType { fields: &[once(1, "seconds", Signed64), once(2, "nanos", Signed32)] };

/// `google.protobuf.Duration`.
pub(super) static DURATION: MessageType = MessageType { fields: &[once(1, "seconds", Signed64), once(2, "nanos", Signed32)] };

static PARTY_TO_PARTICIPANT: MessageType = MessageType {
    fields: &[
        once(1, "party", Text),
        once(2, "threshold", Unsigned32),
        often(3, "participants", Message(&HOSTING_PARTICIPANT)),
        once(6, "party_signing_keys", Message(&SIGNING_KEYS_WITH_THRESHOLD)),
    ],
};

static HOSTING_PARTICIPANT: MessageType = MessageType {
    fields: &[once(1, "participant_uid", Text), once(2, "permission", Enumeration(PERMISSIONS)), once(3, "onboarding", Message(&EMPTY))],
};

static SIGNING_KEYS_WITH_THRESHOLD: MessageType =
    MessageType { fields: &[often(1, "keys", Message(&SIGNING_PUBLIC_KEY)), once(2, "threshold", Unsigned32)] };

static SYNCHRONIZER_PARAMETERS_STATE: MessageType =
    MessageType { fields: &[once(1, "synchronizer_id", Text), once(2, "synchronizer_parameters", Message(&SYNCHRONIZER_PARAMETERS))] };

static SYNCHRONIZER_PARAMETERS: MessageType = MessageType {
    fields: &[
        once(1, "confirmation_response_timeout", Message(&DURATION)),
        once(2, "mediator_reaction_timeout", Message(&DURATION)),
        once(3, "assignment_exclusivity_timeout", Message(&DURATION)),
        once(5, "ledger_time_record_time_tolerance", Message(&DURATION)),
        once(6, "reconciliation_interval", Message(&DURATION)),
        once(7, "mediator_deduplication_timeout", Message(&DURATION)),
        once(8, "max_request_size", Unsigned32),
        once(9, "onboarding_restriction", Enumeration(ONBOARDING_RESTRICTIONS)),
        once(13, "participant_synchronizer_limits", Message(&PARTICIPANT_LIMITS)),
        once(15, "sequencer_aggregate_submission_timeout", Message(&DURATION)),
        once(16, "traffic_control", Message(&TRAFFIC_CONTROL)),
        once(17, "acs_commitments_catchup", Message(&CATCH_UP)),
        once(18, "preparation_time_record_time_tolerance", Message(&DURATION)),
    ],
};

const ONBOARDING_RESTRICTIONS: &[(i64, &str)] = &[
    (0, "ONBOARDING_RESTRICTION_UNSPECIFIED"),
    (1, "ONBOARDING_RESTRICTION_UNRESTRICTED_OPEN"),
    (2, "ONBOARDING_RESTRICTION_UNRESTRICTED_LOCKED"),
    (3, "ONBOARDING_RESTRICTION_RESTRICTED_OPEN"),
    (4, "ONBOARDING_RESTRICTION_RESTRICTED_LOCKED"),
];

static TRAFFIC_CONTROL: MessageType = MessageType {
    fields: &[
        once(1, "max_base_traffic_amount", Unsigned64),
        once(3, "max_base_traffic_accumulation_duration", Message(&DURATION)),
        once(4, "read_vs_write_scaling_factor", Unsigned32),
        once(5, "set_balance_request_submission_window_size", Message(&DURATION)),
        once(6, "enforce_rate_limiting", Flag),
        once(7, "base_event_cost", Unsigned64),
        once(8, "free_confirmation_responses", Flag),
    ],
};

static CATCH_UP: MessageType =
    MessageType { fields: &[once(1, "catchup_interval_skip", Unsigned32), once(2, "nr_intervals_to_trigger_catchup", Unsigned32)] };

static SEQUENCING_PARAMETERS_STATE: MessageType =
    MessageType { fields: &[once(1, "synchronizer_id", Text), once(2, "sequencing_parameters", Message(&SEQUENCING_PARAMETERS))] };

static SEQUENCING_PARAMETERS: MessageType = MessageType { fields: &[once(1, "payload", Bytes)] };

static MEDIATOR_STATE: MessageType = MessageType {
    fields: &[
        once(1, "synchronizer_id", Text),
        once(2, "group", Unsigned32),
        once(3, "threshold", Unsigned32),
        often(4, "active", Text),
        often(5, "observers", Text),
    ],
};

static SEQUENCER_STATE: MessageType = MessageType {
    fields: &[once(1, "synchronizer_id", Text), once(2, "threshold", Unsigned32), often(3, "active", Text), often(4, "observers", Text)],
};

static UPGRADE_ANNOUNCEMENT: MessageType =
    MessageType { fields: &[once(1, "successor_physical_synchronizer_id", Text), once(2, "upgrade_time", Message(&TIMESTAMP))] };

static CONNECTION_SUCCESSOR: MessageType = MessageType {
    fields: &[
        once(1, "sequencer_id", Text),
        once(2, "successor_physical_synchronizer_id", Text),
        once(3, "connection", Message(&SEQUENCER_CONNECTION)),
    ],
};

static SEQUENCER_CONNECTION: MessageType =
    MessageType { fields: &[often(1, "endpoints", Text), once(2, "custom_trust_certificates", Bytes)] };

const KEY: &str = "key";

static PUBLIC_KEY: MessageType = MessageType {
    fields: &[
        one_of(KEY, 1, "signing_public_key", Message(&SIGNING_PUBLIC_KEY)),
        one_of(KEY, 2, "encryption_public_key", Message(&ENCRYPTION_PUBLIC_KEY)),
    ],
};

static SIGNING_PUBLIC_KEY: MessageType = MessageType {
    fields: &[
        once(2, "format", Enumeration(KEY_FORMATS)),
        once(3, "public_key", Bytes),
        once(4, "scheme", Enumeration(SIGNING_SCHEMES)),
        often(5, "usage", Enumeration(USAGES)),
        once(6, "key_spec", Enumeration(SIGNING_SPECS)),
    ],
};

static ENCRYPTION_PUBLIC_KEY: MessageType = MessageType {
    fields: &[
        once(2, "format", Enumeration(KEY_FORMATS)),
        once(3, "public_key", Bytes),
        once(4, "scheme", Enumeration(ENCRYPTION_SCHEMES)),
        once(5, "key_spec", Enumeration(ENCRYPTION_SPECS)),
    ],
};

const KEY_FORMATS: &[(i64, &str)] = &[
    (2, "CRYPTO_KEY_FORMAT_DER"),
    (3, "CRYPTO_KEY_FORMAT_RAW"),
    (4, "CRYPTO_KEY_FORMAT_DER_X509_SUBJECT_PUBLIC_KEY_INFO"),
    (5, "CRYPTO_KEY_FORMAT_DER_PKCS8_PRIVATE_KEY_INFO"),
];

const SIGNING_SCHEMES: &[(i64, &str)] = &[
    (0, "SIGNING_KEY_SCHEME_UNSPECIFIED"),
    (1, "SIGNING_KEY_SCHEME_ED25519"),
    (2, "SIGNING_KEY_SCHEME_EC_DSA_P256"),
    (3, "SIGNING_KEY_SCHEME_EC_DSA_P384"),
];

const SIGNING_SPECS: &[(i64, &str)] = &[
    (0, "SIGNING_KEY_SPEC_UNSPECIFIED"),
    (1, "SIGNING_KEY_SPEC_EC_CURVE25519"),
    (2, "SIGNING_KEY_SPEC_EC_P256"),
    (3, "SIGNING_KEY_SPEC_EC_P384"),
    (4, "SIGNING_KEY_SPEC_EC_SECP256K1"),
];

const USAGES: &[(i64, &str)] = &[
    (1, "SIGNING_KEY_USAGE_NAMESPACE"),
    (2, "SIGNING_KEY_USAGE_IDENTITY_DELEGATION"),
    (3, "SIGNING_KEY_USAGE_SEQUENCER_AUTHENTICATION"),
    (4, "SIGNING_KEY_USAGE_PROTOCOL"),
    (5, "SIGNING_KEY_USAGE_PROOF_OF_OWNERSHIP"),
];

const ENCRYPTION_SCHEMES: &[(i64, &str)] = &[
    (0, "ENCRYPTION_KEY_SCHEME_UNSPECIFIED"),
    (1, "ENCRYPTION_KEY_SCHEME_ECIES_P256_HKDF_HMAC_SHA256_AES128GCM"),
    (2, "ENCRYPTION_KEY_SCHEME_ECIES_P256_HMAC_SHA256A_ES128CBC"),
    (3, "ENCRYPTION_KEY_SCHEME_RSA2048_OAEP_SHA256"),
];

const ENCRYPTION_SPECS: &[(i64, &str)] =
    &[(0, "ENCRYPTION_KEY_SPEC_UNSPECIFIED"), (1, "ENCRYPTION_KEY_SPEC_EC_P256"), (2, "ENCRYPTION_KEY_SPEC_RSA_2048")];
