//! Mappings of synchronizers: their parameters, mediators and sequencers.

use serde::Serialize;
use serde_json::Value as Json;

use super::{MappingFacts, TopologyError, TopologyFault, positive};
use crate::{
    domain::Hex,
    topology::{UniqueIdentifier, message::Message},
};

/// The parameters of a synchronizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SynchronizerParametersState {
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
    /// Every parameter, in the names of Canton.
    pub parameters: Json,
}

/// The parameters that Canton requires, and whether zero is refused.
const REQUIRED: [(&str, bool); 8] = [
    ("confirmation_response_timeout", false),
    ("mediator_reaction_timeout", false),
    ("assignment_exclusivity_timeout", false),
    ("ledger_time_record_time_tolerance", false),
    ("reconciliation_interval", true),
    ("mediator_deduplication_timeout", false),
    ("sequencer_aggregate_submission_timeout", false),
    ("preparation_time_record_time_tolerance", false),
];

impl SynchronizerParametersState {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        const PARAMETERS: &str = "synchronizer_parameters";
        let synchronizer = synchronizer(message)?;
        let parameters = message.message(PARAMETERS).ok_or_else(|| TopologyError::new(PARAMETERS, TopologyFault::Missing))?;
        check_parameters(parameters).map_err(|error| error.within(PARAMETERS))?;
        Ok(Self { synchronizer, parameters: parameters.to_json() })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.synchronizer).on(&self.synchronizer)
    }
}

fn check_parameters(parameters: &Message) -> Result<(), TopologyError> {
    for (name, positive) in REQUIRED {
        duration(parameters, name, positive)?;
    }
    if parameters.enumeration("onboarding_restriction") == 0 {
        return Err(TopologyError::new("onboarding_restriction", TopologyFault::Missing));
    }
    if parameters.message("participant_synchronizer_limits").is_none() {
        return Err(TopologyError::new("participant_synchronizer_limits", TopologyFault::Missing));
    }
    if let Some(traffic) = parameters.message("traffic_control") {
        let check = duration(traffic, "max_base_traffic_accumulation_duration", true)
            .and_then(|()| duration(traffic, "set_balance_request_submission_window_size", true))
            .and_then(|()| positive(traffic, "read_vs_write_scaling_factor").map(|_| ()));
        check.map_err(|error| error.within("traffic_control"))?;
    }
    if let Some(catch_up) = parameters.message("acs_commitments_catchup") {
        let check = positive(catch_up, "catchup_interval_skip").and_then(|_| positive(catch_up, "nr_intervals_to_trigger_catchup"));
        check.map_err(|error| error.within("acs_commitments_catchup"))?;
    }
    Ok(())
}

/// A `google.protobuf.Duration` that is present and not negative.
fn duration(message: &Message, field: &'static str, positive: bool) -> Result<(), TopologyError> {
    let duration = message.message(field).ok_or_else(|| TopologyError::new(field, TopologyFault::Missing))?;
    let (seconds, nanos) = (duration.number("seconds").unwrap_or(0), duration.number("nanos").unwrap_or(0));
    let valid = seconds >= 0 && (0..1_000_000_000).contains(&nanos) && (!positive || seconds > 0 || nanos > 0);
    if valid { Ok(()) } else { Err(TopologyError::invalid(field, "it is not a valid duration")) }
}

/// The mediators of a synchronizer in one group. The list is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MediatorSynchronizerState {
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
    /// The group.
    pub group: i64,
    /// How many mediators must agree.
    pub threshold: i32,
    /// The active mediators.
    pub active: Vec<UniqueIdentifier>,
    /// The passive ones.
    pub observers: Vec<UniqueIdentifier>,
}

impl MediatorSynchronizerState {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let synchronizer = synchronizer(message)?;
        let (threshold, active, observers) = members(message)?;
        Ok(Self { synchronizer, group: message.number("group").unwrap_or(0), threshold, active, observers })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        let group = i32::try_from(self.group).unwrap_or(i32::MAX);
        MappingFacts::about(&self.synchronizer).unique_number(group).on(&self.synchronizer)
    }
}

/// The sequencers of a synchronizer. The list is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SequencerSynchronizerState {
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
    /// How many sequencers must agree.
    pub threshold: i32,
    /// The active sequencers.
    pub active: Vec<UniqueIdentifier>,
    /// The passive ones.
    pub observers: Vec<UniqueIdentifier>,
}

impl SequencerSynchronizerState {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        let synchronizer = synchronizer(message)?;
        let (threshold, active, observers) = members(message)?;
        Ok(Self { synchronizer, threshold, active, observers })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.synchronizer).on(&self.synchronizer)
    }
}

/// The parameters of the sequencers. Only the ordering layer of the synchronizer knows what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SequencingDynamicParametersState {
    /// The synchronizer.
    pub synchronizer: UniqueIdentifier,
    /// The parameters, hex.
    pub payload_hex: Option<String>,
}

impl SequencingDynamicParametersState {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        const PARAMETERS: &str = "sequencing_parameters";
        let synchronizer = synchronizer(message)?;
        let parameters = message.message(PARAMETERS).ok_or_else(|| TopologyError::new(PARAMETERS, TopologyFault::Missing))?;
        let payload = parameters.bytes("payload").filter(|payload| !payload.is_empty());
        Ok(Self { synchronizer, payload_hex: payload.map(|payload| Hex(payload).to_string()) })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.synchronizer).on(&self.synchronizer)
    }
}

fn synchronizer(message: &Message) -> Result<UniqueIdentifier, TopologyError> {
    UniqueIdentifier::read("synchronizer_id", message.text("synchronizer_id"))
}

type Members = (i32, Vec<UniqueIdentifier>, Vec<UniqueIdentifier>);

/// Threshold, active members and observers.
fn members(message: &Message) -> Result<Members, TopologyError> {
    let read = |field: &'static str| message.texts(field).map(|uid| UniqueIdentifier::read(field, uid)).collect::<Result<Vec<_>, _>>();
    let threshold = positive(message, "threshold")?;
    let (active, observers) = (read("active")?, read("observers")?);
    let all: Vec<&UniqueIdentifier> = active.iter().chain(&observers).collect();
    let twice = |(index, one): (usize, &&UniqueIdentifier)| all.iter().skip(index + 1).any(|other| other == one);
    if all.iter().enumerate().any(twice) {
        // Canton drops the repetition within a list, and refuses a member of both.
        return Err(TopologyError::invalid("active", "a member occurs twice"));
    }
    if usize::try_from(threshold).map_or(true, |threshold| threshold > active.len()) {
        return Err(TopologyError::invalid("threshold", "it is higher than the number of active members"));
    }
    Ok((threshold, active, observers))
}
