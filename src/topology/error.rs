//! Why bytes are not a topology transaction that the vault can show completely.

use crate::crypto::canton::CantonFileError;

/// A fault, with the field in which it is: `mapping.namespace_delegation.target_key`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct TopologyError {
    /// The field, in the names of Canton's protobuf files, from the outermost message inwards.
    pub field: String,
    /// The fault.
    pub fault: TopologyFault,
}

/// A fault of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyFault {
    /// The input is too long.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// The bytes are not protobuf.
    #[error("it is not a protobuf message")]
    Malformed,
    /// A field that the vault does not know. Canton skips it, so that what is shown would not be all that is signed.
    #[error("it has the unknown field {0}")]
    UnknownField(u64),
    /// The field occurs twice. Canton reads the last one or joins them, so that readers could disagree about what is signed.
    #[error("it occurs more than once")]
    Repeated,
    /// A second member of a oneof, such as a second mapping. Canton reads the last one.
    #[error("it occurs together with another one of {0}")]
    SecondOneOf(&'static str),
    /// The field has another wire type.
    #[error("it has the wrong wire type")]
    WrongWireType,
    /// A number that does not fit, or is not in its shortest form.
    #[error("the number is out of range or not in its shortest form")]
    Number,
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A number that has no meaning in Canton 3.4 to 3.6.
    #[error("the value {0} is not known")]
    UnknownValue(i64),
    /// A field that Canton requires.
    #[error("it is missing")]
    Missing,
    /// Canton refuses the value.
    #[error("{0}")]
    Invalid(&'static str),
    /// The public key is not one that Canton reads.
    #[error("{0}")]
    Key(#[from] CantonFileError),
}

impl TopologyError {
    pub(super) fn new(field: impl Into<String>, fault: TopologyFault) -> Self {
        Self { field: field.into(), fault }
    }

    pub(super) fn invalid(field: impl Into<String>, why: &'static str) -> Self {
        Self::new(field, TopologyFault::Invalid(why))
    }

    /// The same fault, seen from the message that contains the field.
    pub(super) fn within(self, outer: &str) -> Self {
        let field = if self.field.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.field) };
        Self { field, fault: self.fault }
    }
}
