//! The options that select entries of the log, and the query that they make.

use clap::Args;

use crate::cli::{
    Failure,
    reference::WrapperKeyReference,
    value_parsers::{Since, certificate, since, time_or_date, words},
};
use crate::client::{Call, Client};
use crate::domain::{JobId, KeyId, NodeName, Operation, Outcome, Timestamp};

/// Which entries.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Filters: all that are given must match")]
pub(super) struct FilterArgs {
    /// Entries about this key: its id, the beginning of its id, or its name
    #[arg(long, value_name = "KEY")]
    pub(super) key_id: Option<String>,
    /// Entries about this node
    #[arg(long)]
    pub(super) node: Option<NodeName>,
    /// Entries of this principal, spiffe://… or dns:…
    #[arg(long)]
    pub(super) principal: Option<String>,
    /// Entries of the client certificate with this SHA-256 in hex
    #[arg(long, value_name = "DIGEST", value_parser = certificate)]
    pub(super) certificate: Option<String>,
    /// Entries of this operation
    #[arg(long, value_parser = words::<Operation>())]
    pub(super) operation: Option<Operation>,
    /// Entries with this result
    #[arg(long, value_parser = words::<Outcome>())]
    pub(super) outcome: Option<Outcome>,
    /// The call with this request id, or for which a KMS assigned it
    #[arg(long, value_name = "ID")]
    pub(super) request_id: Option<String>,
    /// Entries of calls with this W3C trace id
    #[arg(long, value_name = "ID")]
    pub(super) trace_id: Option<String>,
    /// Entries that name this job
    #[arg(long, value_name = "JOB")]
    pub(super) job: Option<JobId>,
    /// Entries that name this wrapper key: its id, wk-…, or the beginning of its id
    #[arg(long, value_name = "WRAPPER_KEY")]
    pub(super) wrapper_key: Option<WrapperKeyReference>,
    /// Not before this time: RFC 3339, or a date (00:00 UTC)
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    pub(super) from: Option<Timestamp>,
    /// Before this time: RFC 3339, or a date (00:00 UTC)
    #[arg(long, value_name = "TIME", value_parser = time_or_date)]
    pub(super) to: Option<Timestamp>,
    /// Not older than this: a duration such as 1d or 12h, by the clock of the vault, or a time as for --from
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    pub(super) since: Option<Since>,
    /// Only entries after this one: continue after the last entry that you have
    #[arg(long, value_name = "SEQUENCE")]
    pub(super) after: Option<u64>,
}

impl FilterArgs {
    /// The filters with the whole id of the wrapper key.
    ///
    /// # Errors
    /// As [`WrapperKeyReference::resolve`].
    pub(super) async fn resolved(&self, client: &Client) -> Result<Self, Failure> {
        let wrapper_key = match &self.wrapper_key {
            Some(key) => Some(WrapperKeyReference::Id(key.resolve(client).await?)),
            None => None,
        };
        Ok(Self { wrapper_key, ..self.clone() })
    }

    /// The call with these filters, all entries after `after`.
    pub(super) fn query(&self, call: Call, after: Option<u64>) -> Call {
        let Self {
            key_id,
            node,
            principal,
            certificate,
            operation,
            outcome,
            request_id,
            trace_id,
            job,
            wrapper_key,
            from,
            to,
            since,
            after: _,
        } = self;
        let (age, time) = match since {
            Some(Since::Age(_, text)) => (Some(text), None),
            Some(Since::Time(time)) => (None, Some(*time)),
            None => (None, None),
        };
        let is_id = key_id.as_ref().is_some_and(|text| text.parse::<KeyId>().is_ok());
        call.query_if(if is_id { "key_id" } else { "key" }, key_id.as_ref())
            .query_if("node", node.as_ref())
            .query_if("principal", principal.as_ref())
            .query_if("certificate", certificate.as_ref())
            .query_if("operation", *operation)
            .query_if("outcome", *outcome)
            .query_if("request_id", request_id.as_ref())
            .query_if("trace_id", trace_id.as_ref())
            .query_if("job", *job)
            .query_if("wrapper_key", wrapper_key.as_ref())
            .query_if("from", (*from).max(time))
            .query_if("to", *to)
            .query_if("since", age)
            .query_if("after", after)
    }
}
