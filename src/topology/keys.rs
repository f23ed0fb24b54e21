//! The public keys in a mapping, as Canton reads them.

use serde::Serialize;

use super::{TopologyError, message::Message};
use crate::{
    crypto::canton::{PublicKeyMessage, read_public_key, read_usage_numbers},
    domain::{Fingerprint, KeySpec, Purpose, Usage, Usages},
};

/// A public key in a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopologyKey {
    /// The fingerprint.
    #[serde(serialize_with = "as_text")]
    pub fingerprint: Fingerprint,
    /// Signing or encryption.
    pub purpose: Purpose,
    /// The spec.
    pub spec: KeySpec,
    /// The usages of a signing key, in the order of Canton's numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Vec<Usage>>,
    /// The numbers of the usages as Canton writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_wire: Option<Vec<i32>>,
}

fn as_text<S: serde::Serializer>(fingerprint: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(fingerprint)
}

impl TopologyKey {
    /// A `SigningPublicKey`.
    pub(super) fn read_signing(message: &Message) -> Result<Self, TopologyError> {
        let field = |fault: crate::crypto::canton::CantonFileError| TopologyError::new("", fault.into());
        let numbers: Vec<i32> = message.enumerations("usage").filter_map(|number| i32::try_from(number).ok()).collect();
        let usages = read_usage_numbers(&numbers).map_err(field)?;
        let (fingerprint, spec) = read(message, Purpose::Signing)?;
        let usage = [Usage::Namespace, Usage::SequencerAuthentication, Usage::Protocol, Usage::ProofOfOwnership];
        Ok(Self {
            fingerprint,
            purpose: Purpose::Signing,
            spec,
            usage: Some(usage.into_iter().filter(|usage| usages.iter().any(|(_, read)| read == usage)).collect()),
            usage_wire: Some(usages.iter().map(|(number, _)| *number).collect()),
        })
    }

    /// A `PublicKey`: one of both kinds.
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        match message.only() {
            Some((name @ "signing_public_key", key)) => Self::read_signing(key).map_err(|error| error.within(name)),
            Some((name, key)) => {
                let (fingerprint, spec) = read(key, Purpose::Encryption).map_err(|error| error.within(name))?;
                Ok(Self { fingerprint, purpose: Purpose::Encryption, spec, usage: None, usage_wire: None })
            }
            None => Err(TopologyError::new("", super::TopologyFault::Missing)),
        }
    }

    /// The usages as a set.
    pub fn usages(&self) -> Usages {
        self.usage.iter().flatten().copied().collect()
    }
}

fn read(message: &Message, purpose: Purpose) -> Result<(Fingerprint, KeySpec), TopologyError> {
    let number = |name| i32::try_from(message.enumeration(name)).unwrap_or(0);
    let key = PublicKeyMessage {
        purpose,
        format: number("format"),
        bytes: message.bytes("public_key").unwrap_or_default(),
        scheme: number("scheme"),
        key_spec: number("key_spec"),
    };
    let read = read_public_key(&key).map_err(|error| TopologyError::new("public_key", error.into()))?;
    Ok((read.fingerprint, read.spec))
}
