//! Mappings of a synchronizer upgrade: its announcement, and where the sequencers are reached afterwards.

// Addresses only: this layer has no I/O.
use core::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::{MappingFacts, TopologyError, TopologyFault, micros};
use crate::{
    domain::Hex,
    topology::{Member, PhysicalSynchronizer, message::Message},
};

const SUCCESSOR: &str = "successor_physical_synchronizer_id";

/// Announces the upgrade of a synchronizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LsuAnnouncement {
    /// The synchronizer after the upgrade.
    pub successor: PhysicalSynchronizer,
    /// The time of the upgrade, in microseconds since 1970.
    pub upgrade_time_micros: i64,
}

impl LsuAnnouncement {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let successor = PhysicalSynchronizer::read(SUCCESSOR, message.text(SUCCESSOR))?;
        let time = micros(message, "upgrade_time")?;
        let upgrade_time_micros = time.ok_or_else(|| TopologyError::new("upgrade_time", TopologyFault::Missing))?;
        Ok(Self { successor, upgrade_time_micros })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.successor.logical).on(&self.successor.logical)
    }
}

/// Where a sequencer is reached after an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SequencerConnectionSuccessor {
    /// The sequencer.
    pub sequencer: Member,
    /// The synchronizer after the upgrade.
    pub successor: PhysicalSynchronizer,
    /// `http://host:port` or `https://host:port`, all of the same scheme.
    pub endpoints: Vec<String>,
    /// Whether the endpoints use TLS.
    pub tls: bool,
    /// Certificates to trust, hex.
    pub custom_trust_certificates_hex: Option<String>,
}

impl SequencerConnectionSuccessor {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        const CONNECTION: &str = "connection";
        let sequencer = Member::read("sequencer_id", message.text("sequencer_id"))?;
        if sequencer.code != "SEQ" {
            return Err(TopologyError::invalid("sequencer_id", "it is not a sequencer (SEQ::)"));
        }
        let successor = PhysicalSynchronizer::read(SUCCESSOR, message.text(SUCCESSOR))?;
        let connection = message.message(CONNECTION).ok_or_else(|| TopologyError::new(CONNECTION, TopologyFault::Missing))?;
        let endpoints: Vec<String> = connection.texts("endpoints").map(str::to_owned).collect();
        let tls = check_endpoints(&endpoints).map_err(|error| error.within(CONNECTION))?;
        let certificates = connection.bytes("custom_trust_certificates").map(|bytes| Hex(bytes).to_string());
        Ok(Self { sequencer, successor, endpoints, tls, custom_trust_certificates_hex: certificates })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.sequencer.uid).unique_too(&self.successor.logical).on(&self.successor.logical)
    }
}

/// Whether the endpoints use TLS. Stricter than Canton, which reads any URL of the two schemes: host and port only, in one form, without
/// duplicates.
fn check_endpoints(endpoints: &[String]) -> Result<bool, TopologyError> {
    const ENDPOINTS: &str = "endpoints";
    let scheme = |endpoint: &str| {
        let (scheme, authority) = endpoint.split_once("://")?;
        let (host, port) = authority.rsplit_once(':')?;
        let valid = is_host(host) && port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port);
        match scheme {
            "http" if valid => Some(false),
            "https" if valid => Some(true),
            _ => None,
        }
    };
    let schemes: Vec<bool> = endpoints
        .iter()
        .map(|endpoint| scheme(endpoint).ok_or_else(|| TopologyError::invalid(ENDPOINTS, "an endpoint is not http(s)://host:port")))
        .collect::<Result<_, _>>()?;
    let first = *schemes.first().ok_or_else(|| TopologyError::new(ENDPOINTS, TopologyFault::Missing))?;
    if schemes.iter().any(|tls| *tls != first) {
        return Err(TopologyError::invalid(ENDPOINTS, "endpoints with and without TLS are mixed"));
    }
    let twice = |(index, one): (usize, &String)| endpoints.iter().skip(index + 1).any(|other| other == one);
    if endpoints.iter().enumerate().any(twice) {
        return Err(TopologyError::invalid(ENDPOINTS, "an endpoint occurs twice"));
    }
    Ok(first)
}

/// Whether `java.net.URI`, with which Canton reads endpoints, finds a host in this text: an IPv6 address in brackets, an IPv4 address, or labels
/// of letters, digits and inner hyphens, of which the last one starts with a letter.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = host.split('.').all(is_label)
        && host.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_alphabetic()));
    is_name || host.parse::<Ipv4Addr>().is_ok()
}
