//! OpenTelemetry traces of calls and background work, from the request to the KMS: spans are sent to a collector over OTLP/HTTP. They never delay or fail a call.
//!
//! A call is traced or not as a whole: its first span decides, and everything below finds it in the task of the call. Without `[traces]`, and in a
//! call that is not traced, no span is built. Spans have names and attributes from this program and ids; never a secret, a payload or other text of
//! a client.
//!
//! | file | guarantees |
//! |---|---|
//! | `config` | `[traces]` and its first wrong option |
//! | `parent` | the W3C trace context of a caller |
//! | `span` | one span, which ends at the latest when it is dropped |
//! | `current` | the span that the running task is in |
//! | `tracer` | which calls and which work of the vault are traced; a bounded queue that never waits |
//! | `share` | one caller has at most a quarter of the queue |
//! | `otlp` | spans as OTLP/JSON |
//! | `exporter` | batches to the collector; spans that it does not take are counted and forgotten |

mod config;
mod current;
mod exporter;
mod otlp;
mod parent;
mod share;
mod span;
mod tracer;

pub use self::{
    config::TracesConfig,
    current::{carry, in_span, in_trace, scope},
    exporter::{Exporter, OUTCOMES},
    otlp::TraceSource,
    parent::TraceParent,
    share::CALLER_SHARE,
    span::{ActiveSpan, Link, SpanKind},
    tracer::Tracer,
};
