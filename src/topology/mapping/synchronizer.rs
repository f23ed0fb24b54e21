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
    /// Every parameter, in the names of Canton. Default values are omitted.
    pub parameters: Json,
    /// The same with the default values, for the text.
    #[serde(skip)]
    pub(in crate::topology) shown: Json,
}

/// The durations that Canton requires besides those that [`check_parameters`] compares.
const REQUIRED: [&str; 5] = [
    "confirmation_response_timeout",
    "mediator_reaction_timeout",
    "assignment_exclusivity_timeout",
    "ledger_time_record_time_tolerance",
    "sequencer_aggregate_submission_timeout",
];

impl SynchronizerParametersState {
    pub(super) fn read(message: &Message) -> Result<Self, TopologyError> {
        const PARAMETERS: &str = "synchronizer_parameters";
        let synchronizer = synchronizer(message)?;
        let parameters = message.message(PARAMETERS).ok_or_else(|| TopologyError::new(PARAMETERS, TopologyFault::Missing))?;
        check_parameters(parameters).map_err(|error| error.within(PARAMETERS))?;
        Ok(Self { synchronizer, parameters: parameters.to_json(), shown: parameters.to_complete_json() })
    }

    pub(super) fn facts(&self) -> MappingFacts {
        MappingFacts::about(&self.synchronizer).on(&self.synchronizer)
    }
}

/// The rules of `DynamicSynchronizerParameters`, `TrafficControlParameters` and `AcsCommitmentsCatchUpParameters`.
fn check_parameters(parameters: &Message) -> Result<(), TopologyError> {
    const DEDUPLICATION: &str = "mediator_deduplication_timeout";
    const RECONCILIATION: &str = "reconciliation_interval";
    for name in REQUIRED {
        duration(parameters, name)?;
    }
    let reconciliation = duration(parameters, RECONCILIATION)?;
    if reconciliation == 0 || reconciliation % NANOS != 0 {
        return Err(TopologyError::invalid(RECONCILIATION, "it is not a positive number of whole seconds"));
    }
    // A request that is prepared at one end of the tolerance can be repeated at the other.
    let twice_the_tolerance = 2 * duration(parameters, "preparation_time_record_time_tolerance")?;
    if twice_the_tolerance > duration(parameters, DEDUPLICATION)? {
        return Err(TopologyError::invalid(DEDUPLICATION, "it is less than twice the preparation_time_record_time_tolerance"));
    }
    if parameters.enumeration("onboarding_restriction") == 0 {
        return Err(TopologyError::new("onboarding_restriction", TopologyFault::Missing));
    }
    if parameters.message("participant_synchronizer_limits").is_none() {
        return Err(TopologyError::new("participant_synchronizer_limits", TopologyFault::Missing));
    }
    let within = |field: &'static str| move |error: TopologyError| error.within(field);
    parameters.message("traffic_control").map_or(Ok(()), check_traffic_control).map_err(within("traffic_control"))?;
    parameters.message("acs_commitments_catchup").map_or(Ok(()), check_catch_up).map_err(within("acs_commitments_catchup"))
}

fn check_traffic_control(traffic: &Message) -> Result<(), TopologyError> {
    for name in ["max_base_traffic_accumulation_duration", "set_balance_request_submission_window_size"] {
        if duration(traffic, name)? == 0 {
            return Err(TopologyError::invalid(name, "it is not positive"));
        }
    }
    positive(traffic, "read_vs_write_scaling_factor").map(|_| ())
}

/// Catch-up over one interval is ambiguous. The product of the two numbers fits into 32 bits.
fn check_catch_up(catch_up: &Message) -> Result<(), TopologyError> {
    const TRIGGER: &str = "nr_intervals_to_trigger_catchup";
    let (skip, trigger) = (positive(catch_up, "catchup_interval_skip")?, positive(catch_up, TRIGGER)?);
    match skip.checked_mul(trigger) {
        Some(1) => Err(TopologyError::invalid(TRIGGER, "it is 1, as the other one")),
        Some(_) => Ok(()),
        None => Err(TopologyError::invalid(TRIGGER, "the product of both is out of range")),
    }
}

const NANOS: i128 = 1_000_000_000;

/// The nanoseconds of a `google.protobuf.Duration` that is present and not negative.
fn duration(message: &Message, field: &'static str) -> Result<i128, TopologyError> {
    let duration = message.message(field).ok_or_else(|| TopologyError::new(field, TopologyFault::Missing))?;
    let (seconds, nanos) = (i128::from(duration.number("seconds").unwrap_or(0)), i128::from(duration.number("nanos").unwrap_or(0)));
    let valid = (0..=MAX_SECONDS).contains(&seconds) && (0..NANOS).contains(&nanos);
    if valid { Ok(seconds * NANOS + nanos) } else { Err(TopologyError::invalid(field, "it is not a valid duration")) }
}

/// The longest `google.protobuf.Duration`: 10,000 years (`duration.proto`). Canton reads longer ones, until a sum of two overflows.
const MAX_SECONDS: i128 = 315_576_000_000;

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
