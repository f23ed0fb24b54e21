//! The span that the running task is in. What runs below finds it here, so that no function passes it on.

use std::sync::Arc;

use super::{
    Tracer,
    span::{ActiveSpan, Link, SpanKind},
};

tokio::task_local! {
    static CURRENT: Option<Link>;
}

/// Runs a part of a call inside a span, or outside of any.
pub fn scope<F: Future>(link: Option<Link>, part: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(link, part)
}

/// Carries the current span into a part that runs in a task of its own.
pub fn carry<F: Future>(part: F) -> impl Future<Output = F::Output> {
    scope(current(), part)
}

/// Runs a part of a traced call in a span of its own, and describes the span by the result. If the part is dropped before its end, the span ends
/// without a description. In a call that is not traced, only the part runs.
///
/// The part is a pointer to a future, because the future of every call would contain it twice.
pub async fn in_span<F: Future + Unpin>(
    name: &'static str,
    kind: SpanKind,
    part: F,
    describe: impl FnOnce(&mut ActiveSpan, &F::Output),
) -> F::Output {
    let Some(mut span) = current().and_then(|parent| ActiveSpan::inside(&parent, name, kind)) else { return part.await };
    let output = CURRENT.scope(span.link(), part).await;
    describe(&mut span, &output);
    output
}

/// Runs work of the vault itself in a trace of its own, and describes its span by the result. If the work is not traced, it runs outside of any span.
pub async fn in_trace<F: Future + Unpin>(
    tracer: Option<&Arc<Tracer>>,
    name: &'static str,
    work: F,
    describe: impl FnOnce(&mut ActiveSpan, &F::Output),
) -> F::Output {
    let mut span = tracer.and_then(|tracer| tracer.begin_work(name));
    let output = CURRENT.scope(span.as_ref().and_then(ActiveSpan::link), work).await;
    if let Some(span) = &mut span {
        describe(span, &output);
    }
    output
}

fn current() -> Option<Link> {
    CURRENT.try_with(Option::clone).ok().flatten()
}
