//! The tracer: decides which calls are traced, and queues ended spans. A full queue drops spans and counts them; nothing ever waits for it.

use std::{borrow::Cow, sync::Arc};

use metrics::Counter;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::{
    TraceParent,
    span::{ActiveSpan, Span, SpanId, SpanKind, TraceId},
};
use crate::{
    crypto::Random,
    domain::{Clock, Timestamp},
};

/// Makes spans and queues those that ended.
pub struct Tracer {
    queue: Sender<Box<Span>>,
    /// A trace id is traced if its last 63 bits are below this number.
    below: u64,
    clock: Clock,
    random: Arc<dyn Random>,
    dropped: Counter,
}

impl Tracer {
    /// A tracer of this share of the calls, and the spans that it queues.
    pub(super) fn new(sample_ratio: f64, queue: usize, clock: Clock, random: Arc<dyn Random>) -> (Arc<Self>, Receiver<Box<Span>>) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share, rounded and saturated"
        )]
        let below = (sample_ratio * RANGE as f64) as u64;
        let (sender, receiver) = channel(queue);
        let dropped = metrics::counter!("keyvault_trace_spans_total", "outcome" => "queue_full");
        (Arc::new(Self { queue: sender, below, clock, random, dropped }), receiver)
    }

    /// The first span of a call, if the call is traced: as its caller decided, or the given share of the calls whose caller decided nothing. Without a
    /// caller's trace, the request id (32 hex digits) is the id of the trace.
    pub fn begin(
        self: &Arc<Self>,
        parent: Option<TraceParent<'_>>,
        request_id: &str,
        name: impl Into<Cow<'static, str>>,
    ) -> Option<ActiveSpan> {
        let (trace_id, parent) = match parent {
            Some(parent) => {
                let (trace_id, span_id) = parent.sampled.then(|| parent.ids()).flatten()?;
                (trace_id, Some(span_id))
            }
            None => (self.sampled(request_id)?, None),
        };
        ActiveSpan::begin(self, trace_id, parent, name.into(), SpanKind::Server)
    }

    fn sampled(&self, request_id: &str) -> Option<TraceId> {
        let mut id = [0; 16];
        base16ct::lower::decode(request_id, &mut id).ok()?;
        let random = u64::from_be_bytes(*id.last_chunk()?) >> 1;
        (random < self.below && id != [0; 16]).then_some(TraceId(id))
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A new id, or `None` without randomness. An id of zeros is not valid.
    pub(super) fn new_span_id(&self) -> Option<SpanId> {
        let mut id = [0; 8];
        self.random.fill(&mut id).ok()?;
        (id != [0; 8]).then_some(SpanId(id))
    }

    pub(super) fn ended(&self, span: Box<Span>) {
        // After the end of the exporter nobody counts any more.
        if let Err(TrySendError::Full(_)) = self.queue.try_send(span) {
            self.dropped.increment(1);
        }
    }
}

/// The values of 63 bits.
const RANGE: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;

    fn tracer(ratio: f64, queue: usize) -> (Arc<Tracer>, Receiver<Box<Span>>) {
        Tracer::new(ratio, queue, Arc::new(|| Timestamp::from_micros(7)), Arc::new(SystemRandom::default()))
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    #[test]
    fn the_caller_decides_and_otherwise_the_ratio() {
        for (ratio, flag, traced) in [(0.0, "1", true), (1.0, "0", false), (1.0, "1", true)] {
            let (tracer, mut spans) = tracer(ratio, 4);
            let header = format!("{PARENT}{flag}");
            drop(tracer.begin(TraceParent::parse(&header), "unused", "x"));
            let span = spans.try_recv().ok();
            assert_eq!(span.as_ref().map(|span| span.trace_id.0[0]), traced.then_some(0x4b), "{ratio} {flag}");
            assert_eq!(span.and_then(|span| span.parent), traced.then_some(SpanId([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7])));
        }
        let share = |ratio: f64| {
            let (tracer, _spans) = tracer(ratio, 4);
            // 256 ids over the whole range.
            let id = |number: u32| format!("{}{number:02x}{}", "1".repeat(16), "8".repeat(14));
            (0..256).filter(|number| tracer.begin(None, &id(*number), "x").is_some()).count()
        };
        assert_eq!([0.0, 0.25, 1.0].map(share), [0, 64, 256]);
        let (tracer, _spans) = tracer(1.0, 4);
        assert!(tracer.begin(None, &"0".repeat(32), "x").is_none() && tracer.begin(None, "not hex", "x").is_none());
    }

    #[test]
    fn a_full_queue_drops_the_newest_spans() {
        let (tracer, mut spans) = tracer(1.0, 2);
        for name in ["a", "b", "c"] {
            drop(tracer.begin(None, &"1".repeat(32), name));
        }
        let kept: Vec<_> = std::iter::from_fn(|| spans.try_recv().ok()).map(|span| span.name.into_owned()).collect();
        assert_eq!(kept, ["a", "b"]);
    }
}
