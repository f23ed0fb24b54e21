//! The mapping of a node to its keys.

use serde::Serialize;

use super::{MappingFacts, TopologyError, TopologyKey, read_keys};
use crate::{
    domain::Purpose,
    topology::{Member, message::Message},
};

/// The keys of a node. The list is complete: a key that is not in it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnerToKeyMapping {
    /// The node.
    pub member: Member,
    /// `PAR`, `MED` or `SEQ`.
    pub member_code: &'static str,
    /// All keys of the node.
    pub keys: Vec<TopologyKey>,
}

impl OwnerToKeyMapping {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let member = Member::read("member", message.text("member"))?;
        let keys = read_keys(message, "public_keys", TopologyKey::read)?;
        Ok(Self { member_code: member.code, member, keys })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.member.uid).and_by_keys(self.keys.iter().filter(|key| key.purpose == Purpose::Signing))
    }
}
