//! One span: it begins when it is made, and ends when it is dropped. An ended span goes into the queue of its tracer.

use std::{borrow::Cow, sync::Arc};

use super::{share::Share, tracer::Tracer};
use crate::domain::Timestamp;

/// The id of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceId(pub(super) [u8; 16]);

/// The id of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpanId(pub(super) [u8; 8]);

/// What a span is to the parts of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work inside of this process.
    Internal,
    /// A request of a caller.
    Server,
    /// A request to another system.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Cow<'static, str>),
    Number(u64),
    Flag(bool),
}

/// A span that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace_id: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) failed: bool,
}

/// What all spans of a trace have in common.
#[derive(Clone)]
pub(super) struct Trace {
    pub(super) tracer: Arc<Tracer>,
    pub(super) id: TraceId,
    /// Of the caller.
    pub(super) share: Share,
}

/// The place of a span in its trace, to which further spans are attached.
#[derive(Clone)]
pub struct Link {
    trace: Trace,
    id: SpanId,
}

/// A span in progress.
pub struct ActiveSpan {
    trace: Trace,
    /// `None` after its end.
    span: Option<Box<Span>>,
}

impl ActiveSpan {
    /// A span that begins now. `None` if there is no randomness for its id.
    pub(super) fn begin(trace: Trace, parent: Option<SpanId>, name: Cow<'static, str>, kind: SpanKind) -> Option<Self> {
        let (trace_id, id, now) = (trace.id, trace.tracer.new_span_id()?, trace.tracer.now());
        let span = Span { trace_id, id, parent, name, kind, began: now, ended: now, attributes: Vec::new(), failed: false };
        Some(Self { trace, span: Some(Box::new(span)) })
    }

    /// A span inside of another one. As [`Self::begin`].
    pub(super) fn inside(parent: &Link, name: &'static str, kind: SpanKind) -> Option<Self> {
        Self::begin(parent.trace.clone(), Some(parent.id), name.into(), kind)
    }

    /// Its place in the trace.
    pub fn link(&self) -> Option<Link> {
        let span = self.span.as_ref()?;
        Some(Link { trace: self.trace.clone(), id: span.id })
    }

    /// Adds a text: a word of this program or an id, never text of a client.
    pub fn text(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.add(name, Value::Text(value.into()));
    }

    /// Adds a number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        self.add(name, Value::Number(value));
    }

    /// Adds a truth value.
    pub fn flag(&mut self, name: &'static str, value: bool) {
        self.add(name, Value::Flag(value));
    }

    /// Marks it as failed. `reason` is a word from a closed set.
    pub fn failed(&mut self, reason: &'static str) {
        self.text("error.type", reason);
        if let Some(span) = &mut self.span {
            span.failed = true;
        }
    }

    fn add(&mut self, name: &'static str, value: Value) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value));
        }
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            let Trace { tracer, share, .. } = &self.trace;
            span.ended = tracer.now().max(span.began);
            tracer.ended(span, share);
        }
    }
}
