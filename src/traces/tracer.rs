//! The tracer: decides which calls and which work of the vault are traced, and queues ended spans. A full queue drops spans and counts them, and so does
//! a caller's share of it that is used up; nothing ever waits for it.

use std::{borrow::Cow, sync::Arc};

use metrics::Counter;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::{
    TraceParent,
    share::{Place, Share, Shares},
    span::{ActiveSpan, Span, SpanId, SpanKind, Trace, TraceId},
};
use crate::{
    crypto::Random,
    domain::{Clock, Principal, Timestamp},
};

/// Makes spans and queues those that ended.
pub struct Tracer {
    queue: Sender<Queued>,
    shares: Shares,
    /// A trace id is traced if its last 63 bits are below this number.
    below: u64,
    clock: Clock,
    random: Arc<dyn Random>,
    queue_full: Counter,
    share_used: Counter,
}

/// A span in the queue, and the place that it takes there.
struct Queued {
    span: Box<Span>,
    place: Place,
}

/// The end of the queue from which spans are taken.
pub(super) struct SpanQueue {
    queue: Receiver<Queued>,
    taken: Vec<Queued>,
}

impl SpanQueue {
    /// Waits for spans and takes at most `most` of them. Returns 0 once no more can come. If this is dropped before its end, no span is lost.
    #[expect(clippy::vec_box, reason = "the queue has boxes, and a batch takes them as they are")]
    pub(super) async fn take(&mut self, batch: &mut Vec<Box<Span>>, most: usize) -> usize {
        let count = self.queue.recv_many(&mut self.taken, most).await;
        batch.extend(self.taken.drain(..).map(|Queued { span, place }| {
            drop(place);
            span
        }));
        count
    }

    /// Lets no more spans in.
    pub(super) fn close(&mut self) {
        self.queue.close();
    }

    /// Whether no more spans get in.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Tracer {
    /// A tracer of this share of the calls, and the spans that it queues.
    pub(super) fn new(sample_ratio: f64, queue: usize, clock: Clock, random: Arc<dyn Random>) -> (Arc<Self>, SpanQueue) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share, rounded and saturated"
        )]
        let below = (sample_ratio * RANGE as f64) as u64;
        let (sender, receiver) = channel(queue);
        let [queue_full, share_used] =
            ["queue_full", "share_used"].map(|outcome| metrics::counter!("keyvault_trace_spans_total", "outcome" => outcome));
        let tracer = Self { queue: sender, shares: Shares::of_queue(queue), below, clock, random, queue_full, share_used };
        (Arc::new(tracer), SpanQueue { queue: receiver, taken: Vec::new() })
    }

    /// The first span of a call, if the call is traced: as its caller decided, or the given share of the calls whose caller decided nothing. Without a
    /// caller's trace, the request id (32 hex digits) is the id of the trace. All spans of the call count for `caller`.
    pub fn begin(
        self: &Arc<Self>,
        caller: &Principal,
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
        ActiveSpan::begin(self.trace(trace_id, caller), parent, name.into(), SpanKind::Server)
    }

    /// The first span of a piece of work that the vault does without a caller, if it is one of the given share. Its spans count for the vault.
    pub(super) fn begin_work(self: &Arc<Self>, name: &'static str) -> Option<ActiveSpan> {
        let mut id = [0; 16];
        self.random.fill(&mut id).ok()?;
        ActiveSpan::begin(self.trace(self.chosen(id)?, &Principal::system()), None, name.into(), SpanKind::Internal)
    }

    fn trace(self: &Arc<Self>, id: TraceId, caller: &Principal) -> Trace {
        Trace { tracer: Arc::clone(self), id, share: self.shares.of(&caller.name) }
    }

    fn sampled(&self, request_id: &str) -> Option<TraceId> {
        let mut id = [0; 16];
        base16ct::lower::decode(request_id, &mut id).ok()?;
        self.chosen(id)
    }

    /// This id of a trace, if it is one of the given share.
    fn chosen(&self, id: [u8; 16]) -> Option<TraceId> {
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

    pub(super) fn ended(&self, span: Box<Span>, share: &Share) {
        let Some(place) = share.take() else {
            self.share_used.increment(1);
            return;
        };
        // After the end of the exporter nobody counts any more.
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Queued { span, place }) {
            self.queue_full.increment(1);
        }
    }
}

/// The values of 63 bits.
const RANGE: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;

    fn tracer(ratio: f64, queue: usize) -> (Arc<Tracer>, SpanQueue) {
        Tracer::new(ratio, queue, Arc::new(|| Timestamp::from_micros(7)), Arc::new(SystemRandom::default()))
    }

    fn caller(name: &str) -> Principal {
        Principal { name: name.into(), certificate: None }
    }

    /// The names of the spans that wait.
    fn waiting(spans: &mut SpanQueue) -> Vec<String> {
        std::iter::from_fn(|| spans.queue.try_recv().ok()).map(|queued| queued.span.name.into_owned()).collect()
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";

    #[test]
    fn the_caller_decides_and_otherwise_the_ratio() {
        for (ratio, flag, traced) in [(0.0, "1", true), (1.0, "0", false), (1.0, "1", true)] {
            let (tracer, mut spans) = tracer(ratio, 4);
            let header = format!("{PARENT}{flag}");
            drop(tracer.begin(&caller("a"), TraceParent::parse(&header), "unused", "x"));
            let span = spans.queue.try_recv().ok().map(|queued| queued.span);
            assert_eq!(span.as_ref().map(|span| span.trace_id.0[0]), traced.then_some(0x4b), "{ratio} {flag}");
            assert_eq!(span.and_then(|span| span.parent), traced.then_some(SpanId([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7])));
        }
        let share = |ratio: f64| {
            let (tracer, _spans) = tracer(ratio, 4);
            // 256 ids over the whole range.
            let id = |number: u32| format!("{}{number:02x}{}", "1".repeat(16), "8".repeat(14));
            (0..256).filter(|number| tracer.begin(&caller("a"), None, &id(*number), "x").is_some()).count()
        };
        assert_eq!([0.0, 0.25, 1.0].map(share), [0, 64, 256]);
        let (tracer, _spans) = tracer(1.0, 4);
        assert!(["0".repeat(32).as_str(), "not hex"].iter().all(|id| tracer.begin(&caller("a"), None, id, "x").is_none()));
    }

    #[test]
    fn work_without_a_caller_is_traced_by_the_ratio() {
        for (ratio, traced) in [(0.0, false), (1.0, true)] {
            let (tracer, mut spans) = tracer(ratio, 4);
            drop(tracer.begin_work("x"));
            assert_eq!(waiting(&mut spans), if traced { vec!["x"] } else { vec![] });
        }
    }

    #[test]
    fn a_full_queue_drops_the_newest_spans() {
        let (tracer, mut spans) = tracer(1.0, 2);
        for name in ["a", "b", "c"] {
            drop(tracer.begin(&caller(name), None, &"1".repeat(32), name));
        }
        assert_eq!(waiting(&mut spans), ["a", "b"]);
    }

    #[tokio::test]
    async fn the_spans_of_one_caller_leave_room_for_others() {
        let (tracer, mut spans) = tracer(1.0, 8);
        for name in ["a", "a", "a", "b"] {
            drop(tracer.begin(&caller(name), None, &"1".repeat(32), name));
        }
        drop(tracer.begin_work("work"));
        let mut batch = Vec::new();
        assert_eq!(spans.take(&mut batch, 9).await, 4);
        let names = |batch: &[Box<Span>]| batch.iter().map(|span| span.name.clone().into_owned()).collect::<Vec<_>>();
        assert_eq!(names(&batch), ["a", "a", "b", "work"]);
        // A span that was taken has no place any more.
        drop(tracer.begin(&caller("a"), None, &"1".repeat(32), "a"));
        assert_eq!(spans.take(&mut batch, 9).await, 1);
    }
}
