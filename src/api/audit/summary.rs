//! `/v1/audit/summary`: how many calls there were, by principal, key, day and so on.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::filters::{CertificateDigest, Day, Dimensions};
use crate::{
    api::{
        Api, Problem,
        extract::{ApiRequest, Nothing},
        problem::{IntoProblem as _, Problems},
    },
    domain::{Dimension, KeyId, NodeName, NodeScope, Operation, Outcome, Timestamp},
    vault::{KeySelector, Total, Totals, TotalsQuery},
};

/// What to count, and by what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct SummaryQuery {
    /// What to count by, separated by commas: `day`, `principal`, `certificate`, `node`, `key`, `operation`, `outcome`.
    #[param(value_type = String)]
    by: Dimensions,
    /// A key by its id, by the beginning of its id, or by its name. It must name one key only.
    #[param(nullable = false, min_length = 1, max_length = 300)]
    key: Option<String>,
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    #[param(nullable = false)]
    principal: Option<String>,
    /// SHA-256 of the client certificate, in hex. Colons are allowed.
    #[param(value_type = Option<String>)]
    certificate: Option<CertificateDigest>,
    operation: Option<Operation>,
    outcome: Option<Outcome>,
    /// From this day, in UTC.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Day>,
    /// Before this day, in UTC.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Day>,
}

/// A summary of the log.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct Summary {
    /// The groups, in the order of their values.
    items: Vec<SummaryItem>,
    /// The last entry that is counted.
    counted_to: u64,
    /// Whether it is the newest entry. If not, the vault has not yet read the log of an earlier version: repeat the call later.
    complete: bool,
}

/// The calls of a group. Only the values that are counted by are present, and only if the calls have one.
#[derive(Default, Serialize, ToSchema)]
pub(in crate::api) struct SummaryItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// The number of calls. An entry of collapsed refusals counts with their number.
    calls: u64,
    /// The number of entries.
    entries: u64,
    /// The time of the first call.
    #[schema(format = DateTime)]
    first_at: String,
    /// The time of the last call.
    #[schema(format = DateTime)]
    last_at: String,
}

impl SummaryItem {
    /// The item of a total by these values.
    pub(super) fn of(by: &[Dimension], total: Total) -> Self {
        let Total { values, calls, entries, first_at, last_at } = total;
        let [first_at, last_at] = [first_at, last_at].map(|time: Timestamp| time.to_string());
        let mut item = Self { calls, entries, first_at, last_at, ..Self::default() };
        for (dimension, value) in by.iter().zip(values) {
            let field = match dimension {
                Dimension::Day => &mut item.day,
                Dimension::Principal => &mut item.principal,
                Dimension::Certificate => &mut item.certificate,
                Dimension::Node => &mut item.node,
                Dimension::Key => &mut item.key_id,
                Dimension::Operation => &mut item.operation,
                Dimension::Outcome => &mut item.outcome,
            };
            *field = value;
        }
        item
    }
}

/// The date of a day.
pub(super) fn date(day: i64) -> String {
    Timestamp::from_micros(day.saturating_mul(24 * 3600 * 1_000_000)).to_string().chars().take(10).collect()
}

/// Count the calls in the log
///
/// Auditors of some nodes count the calls about those nodes. The numbers come from totals that the vault keeps of its log, and from the newest entries.
/// They are derived data: `canton-keyvault audit summary --recount` counts the entries themselves.
#[utoipa::path(get, path = "/v1/audit/summary", operation_id = "audit.summary", tag = "audit", params(SummaryQuery), responses((status = 200, body = Summary, description = "The numbers"), Problems))]
pub(in crate::api) async fn summary(State(api): State<Arc<Api>>, ask: ApiRequest<Nothing, SummaryQuery>) -> Result<Json<Summary>, Problem> {
    let SummaryQuery { by: Dimensions(by), key, node, principal, certificate, operation, outcome, from, to } = ask.query;
    let query = TotalsQuery {
        // The vault replaces these two.
        nodes: NodeScope::Only(std::collections::BTreeSet::new()),
        key: None::<KeyId>,
        by: by.clone(),
        principal,
        certificate: certificate.map(|CertificateDigest(digest)| digest),
        node,
        operation,
        outcome,
        from: from.map(|Day(day)| day),
        to: to.map(|Day(day)| day),
    };
    let totals = api.vault.summarize_audit(&ask.call, key.map(KeySelector::Text), query).await.or_problem(&ask.call)?.into_value();
    let Totals { groups, counted_to, complete } = totals;
    Ok(Json(Summary { items: groups.into_iter().map(|total| SummaryItem::of(&by, total)).collect(), counted_to, complete }))
}
