//! By what the calls in the log are counted together.

use super::text::text_enum;

text_enum!(
    /// What a summary of the log is grouped by.
    Dimension as "dimension" {
        /// The day of the call, in UTC.
        Day = "day",
        /// The principal.
        Principal = "principal",
        /// The client certificate.
        Certificate = "certificate",
        /// The node.
        Node = "node",
        /// The key.
        Key = "key",
        /// The operation.
        Operation = "operation",
        /// The outcome.
        Outcome = "outcome",
    }
);
