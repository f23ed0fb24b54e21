//! Topology transactions of Canton: decoding, checking, hashing, and a description in plain words. What is described is all that is signed:
//! bytes with anything else in them are refused.
//!
//! The decoder is stricter than Canton where Canton skips, joins or drops something. Those cases are listed in ARCHITECTURE.md.

mod error;
mod hash;
mod identifiers;
mod keys;
mod mapping;
mod message;
mod schema;
mod signed;
mod text;
mod transaction;
mod warnings;
mod wire;

pub use self::{
    error::{TopologyError, TopologyFault},
    hash::CantonHash,
    identifiers::{Member, Namespace, PhysicalSynchronizer, UniqueIdentifier},
    keys::TopologyKey,
    mapping::{Mapping, MappingFacts},
    signed::{TopologySignature, signed_transaction},
    text::text,
    transaction::{Description, MAX_TRANSACTION, TopologyOperation, TopologyTransaction, combined_hash},
    warnings::{KnownKey, TopologyWarning, WarningReason, warnings},
};
