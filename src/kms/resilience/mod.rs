//! The guard in front of every provider: time limits, retries, rate limit, circuit breakers, failover. Only this module retries KMS calls.
//!
//! A call tries each region once, in order, and pauses before the next round. Only an outage ([`WrapperError::Unavailable`]) leads to the
//! next region or round. A denial is the answer, and is remembered for a second.

mod call_metrics;
mod circuit_breaker;
mod circuits;
mod denial_cache;
mod rate_limit;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    crypto::{Random, SecretBytes},
    domain::{EncryptionContext, KmsRotation, PostureLine, PostureSubject, VaultId, WrapperKey},
    traces::{SpanKind, in_span},
};

use super::{CallLimits, Description, ForeignWrap, Outage, Unwrapped, Wrapped, Wrapper, WrapperError, not_rewrappable};

pub(super) use self::circuit_breaker::CircuitBreaker;
pub(super) use self::circuits::Circuits;
pub(super) use self::denial_cache::DenialCache;
pub(super) use self::rate_limit::CallRateLimit;

pub(super) use self::call_metrics::outcome;

use self::call_metrics::measure;
use self::denial_cache::DeniableCall;

/// A wrapper key behind its guard.
pub(super) struct ResilientWrapper {
    /// How errors name it.
    pub(super) reference: String,
    /// The same key in each region, in the order to try; at least one.
    pub(super) regional_wrappers: Vec<RegionalWrapper>,
    /// Concurrency and rate, shared by all keys of a provider.
    pub(super) rate_limit: Arc<CallRateLimit>,
    /// Time limits and retries.
    pub(super) limits: CallLimits,
    /// Whether the next region is tried after a denial.
    pub(super) failover_on_denied: bool,
    /// For the jitter of pauses.
    pub(super) random: Arc<dyn Random>,
    /// Recent denials.
    pub(super) denial_cache: DenialCache,
}

/// A wrapper key in one region.
pub(super) struct RegionalWrapper {
    /// The label in metrics.
    pub(super) region: Arc<str>,
    /// Shared by all keys in the region.
    pub(super) circuit_breaker: Arc<CircuitBreaker>,
    /// The key, without the guard.
    pub(super) wrapper: Arc<dyn Wrapper>,
}

#[async_trait]
impl Wrapper for ResilientWrapper {
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        if data_key.expose().len() != DATA_KEY_LENGTH {
            return Err(WrapperError::Misconfigured { reference: self.reference.clone(), what: "a data key has 32 bytes".to_owned() });
        }
        let call = DeniableCall::wrap(context);
        self.unless_just_refused(call, self.call("wrap", &self.everywhere(), move |wrapper| wrapper.wrap(data_key, context))).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        let call = DeniableCall::unwrap(wrapped, context);
        let found = self
            .unless_just_refused(call, self.call("unwrap", &self.everywhere(), move |wrapper| wrapper.unwrap(wrapped, context)))
            .await?;
        if found.data_key.expose().len() != DATA_KEY_LENGTH {
            return Err(WrapperError::Invalid { reference: self.reference.clone(), request_id: found.receipt.request_id });
        }
        Ok(found)
    }

    /// Whether there is a region that has both keys.
    fn can_rewrap_from(&self, other: &WrapperKey) -> bool {
        self.regional_wrappers.iter().any(|regional| regional.wrapper.can_rewrap_from(other))
    }

    /// The regions that have both keys, in the order of this key.
    async fn rewrap(&self, from: ForeignWrap<'_>, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        let common: Vec<&RegionalWrapper> =
            self.regional_wrappers.iter().filter(|regional| regional.wrapper.can_rewrap_from(from.key)).collect();
        if common.is_empty() {
            return Err(not_rewrappable(&self.reference, from.key));
        }
        let call = DeniableCall::rewrap(from, context);
        self.unless_just_refused(call, self.call("rewrap", &common, move |wrapper| wrapper.rewrap(from, context))).await
    }

    fn single_round_timeout(&self) -> Duration {
        self.limits.attempt_timeout.saturating_mul(u32::try_from(self.regional_wrappers.len()).unwrap_or(u32::MAX))
    }

    /// Does not use remembered denials, so that it notices when a denial has ended.
    async fn describe(&self) -> Result<Description, WrapperError> {
        self.call("describe", &self.everywhere(), |wrapper| wrapper.describe()).await
    }

    /// Without limits and circuit breakers, because no KMS is called.
    async fn still_there(&self) -> Result<(), WrapperError> {
        for regional in &self.regional_wrappers {
            regional.wrapper.still_there().await?;
        }
        Ok(())
    }

    async fn rotation(&self) -> Result<Option<KmsRotation>, WrapperError> {
        self.call("rotation", &self.everywhere(), |wrapper| wrapper.rotation()).await
    }

    /// Of each region, where regions differ: a replica has a policy of its own. A region that does not answer is a line.
    async fn posture(&self, vault: &VaultId) -> Result<Vec<PostureLine>, WrapperError> {
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for regional in &self.regional_wrappers {
            match self.call("posture", &[regional], |wrapper| wrapper.posture(vault)).await {
                Ok(found) => {
                    let is_whole = found.iter().all(|line| line.region.is_none());
                    lines.extend(found);
                    if is_whole {
                        return Ok(lines);
                    }
                }
                Err(error) => failed.push((error, &regional.region)),
            }
        }
        if lines.is_empty() {
            return Err(failed.into_iter().next().map_or_else(|| self.unavailable(Outage::NotTried), |(error, _)| error));
        }
        lines.extend(failed.into_iter().map(|(error, region)| {
            PostureLine::warning(PostureSubject::State, format!("not assessed: {error}"), error.reason().remedy()).in_region(region)
        }));
        Ok(lines)
    }
}

impl ResilientWrapper {
    async fn unless_just_refused<T>(
        &self,
        call: DeniableCall,
        answer: impl Future<Output = Result<T, WrapperError>> + Send,
    ) -> Result<T, WrapperError> {
        if let Some(refusal) = self.denial_cache.recall(call) {
            return Err(refusal);
        }
        let answer = answer.await;
        if let Err(error) = &answer {
            self.denial_cache.remember(call, error);
        }
        answer
    }

    fn everywhere(&self) -> Vec<&RegionalWrapper> {
        self.regional_wrappers.iter().collect()
    }

    /// All rounds over these regions, within the time limit of one call.
    async fn call<'a, T>(
        &'a self,
        operation: &'static str,
        regional_wrappers: &[&'a RegionalWrapper],
        send: impl Fn(&'a dyn Wrapper) -> BoxFuture<'a, Result<T, WrapperError>> + Send + Sync,
    ) -> Result<T, WrapperError> {
        let deadline = Instant::now() + self.limits.timeout;
        let (mut last, mut number) = (self.unavailable(Outage::NotTried), 0);
        for round in 0..=self.limits.retries {
            if round > 0 {
                let pause = self.jittered(BASE_PAUSE.saturating_mul(1 << round.min(6)));
                if Instant::now() + pause >= deadline {
                    break;
                }
                sleep(pause).await;
            }
            for regional in regional_wrappers {
                number += 1;
                match self.attempt(regional, operation, (number, deadline), &send).await {
                    Err(error) if self.goes_on_after(&error) => last = worse(last, error),
                    answer => return answer,
                }
            }
            // Only denials, or circuit breakers that stay open longer than the pause.
            if !matches!(&last, WrapperError::Unavailable { outage, .. } if *outage != Outage::NotTried) {
                break;
            }
        }
        Err(last)
    }

    async fn attempt<'a, T>(
        &'a self,
        regional: &'a RegionalWrapper,
        operation: &'static str,
        (number, deadline): (u64, Instant),
        send: &(impl Fn(&'a dyn Wrapper) -> BoxFuture<'a, Result<T, WrapperError>> + Send + Sync),
    ) -> Result<T, WrapperError> {
        // A pass that is dropped without a result does not count.
        let pass = regional.circuit_breaker.admit();
        let turn = if pass.is_some() { self.rate_limit.turn(deadline).await } else { None };
        let (Some(pass), Some(_turn)) = (pass, turn) else {
            let not_tried = Err(self.unavailable(Outage::NotTried));
            measure(operation, &regional.region, None, &not_tried);
            return not_tried;
        };
        let start = Instant::now();
        let limit = start + self.limits.attempt_timeout;
        let attempt = async {
            timeout_at(deadline.min(limit), send(&*regional.wrapper)).await.unwrap_or_else(|_| Err(self.unavailable(Outage::TimedOut)))
        };
        let answer = in_span("kms call", SpanKind::Client, Box::pin(attempt), |span, answer| {
            span.text("keyvault.kms.operation", operation);
            span.text("keyvault.kms.region", regional.region.to_string());
            span.number("keyvault.kms.attempt", number);
            if answer.is_err() {
                span.failed(outcome(answer));
            }
        })
        .await;
        measure(operation, &regional.region, Some(start.elapsed()), &answer);
        match &answer {
            // The attempt ran out of the time that earlier attempts used. This does not count as an outage of this region.
            Err(WrapperError::Unavailable { outage: Outage::TimedOut, .. }) if deadline < limit => drop(pass),
            Err(WrapperError::Unavailable { .. }) => pass.failed(self.jittered(self.limits.breaker_cooldown)),
            _ => pass.succeeded(),
        }
        answer
    }

    fn goes_on_after(&self, error: &WrapperError) -> bool {
        match error {
            WrapperError::Unavailable { .. } => true,
            WrapperError::Denied { .. } => self.failover_on_denied,
            WrapperError::Invalid { .. }
            | WrapperError::NotAllowed { .. }
            | WrapperError::Unfit { .. }
            | WrapperError::Misconfigured { .. } => false,
        }
    }

    fn unavailable(&self, outage: Outage) -> WrapperError {
        WrapperError::Unavailable { reference: self.reference.clone(), outage, request_id: None }
    }

    /// Between half of `duration` and all of it, so that replicas do not retry at the same instant.
    fn jittered(&self, duration: Duration) -> Duration {
        let mut byte = [0];
        // Without randomness there is no jitter. The call still proceeds.
        let share = self.random.fill(&mut byte).map_or(0, |()| u32::from(byte[0]));
        duration / 2 + duration / 512 * share
    }
}

/// Of two failures, the more useful one: an attempt that was made before one that was not, an outage (which may pass) before a denial.
fn worse(last: WrapperError, new: WrapperError) -> WrapperError {
    let rank = |error: &WrapperError| match error {
        WrapperError::Unavailable { outage: Outage::NotTried, .. } => 0,
        WrapperError::Unavailable { .. } => 2,
        _ => 1,
    };
    if rank(&new) >= rank(&last) { new } else { last }
}

const DATA_KEY_LENGTH: usize = 32;
/// The pause before the second round. It doubles with every round.
const BASE_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{crypto::SystemRandom, kms::Denial};

    /// Answers every call as configured, and counts the calls.
    struct Fake {
        calls: AtomicU32,
        answer: fn() -> Option<WrapperError>,
        hangs: bool,
    }

    #[async_trait]
    impl Wrapper for Fake {
        async fn wrap(&self, _: &SecretBytes, _: &EncryptionContext) -> Result<Wrapped, WrapperError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            (self.answer)().map_or(Ok(Wrapped { bytes: vec![1], receipt: crate::kms::KmsReceipt::default() }), Err)
        }

        async fn unwrap(&self, _: &[u8], _: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
            Ok(Unwrapped { data_key: SecretBytes::zeroed(31), receipt: crate::kms::KmsReceipt::default() })
        }

        async fn describe(&self) -> Result<Description, WrapperError> {
            Err(WrapperError::NotAllowed { reference: "k".into() })
        }
    }

    fn fake(answer: fn() -> Option<WrapperError>) -> Arc<Fake> {
        Arc::new(Fake { calls: AtomicU32::new(0), answer, hangs: false })
    }

    fn hanging() -> Arc<Fake> {
        Arc::new(Fake { calls: AtomicU32::new(0), answer: || None, hangs: true })
    }

    fn calls(fake: &Fake) -> u32 {
        fake.calls.load(Ordering::Relaxed)
    }

    fn guard(regions: &[&Arc<Fake>]) -> ResilientWrapper {
        let regional = |fake: &&Arc<Fake>| {
            let wrapper: Arc<dyn Wrapper> = Arc::clone(fake) as _;
            RegionalWrapper { region: "r".into(), circuit_breaker: Arc::new(CircuitBreaker::new(5)), wrapper }
        };
        ResilientWrapper {
            reference: "k".into(),
            regional_wrappers: regions.iter().map(regional).collect(),
            rate_limit: Arc::new(CallRateLimit::free()),
            limits: CallLimits::default(),
            failover_on_denied: false,
            random: Arc::new(SystemRandom::default()),
            denial_cache: DenialCache::default(),
        }
    }

    async fn wrap(guard: &ResilientWrapper) -> Result<Wrapped, WrapperError> {
        guard.wrap(&SecretBytes::zeroed(32), &EncryptionContext::new(Vec::new())).await
    }

    const THROTTLED: fn() -> Option<WrapperError> =
        || Some(WrapperError::Unavailable { reference: "k".into(), outage: Outage::Throttled, request_id: None });
    const DENIED: fn() -> Option<WrapperError> =
        || Some(WrapperError::Denied { reference: "k".into(), denial: Denial::AccessDenied, permission: None, request_id: None });

    #[tokio::test(start_paused = true)]
    async fn the_time_of_one_region_does_not_open_the_breaker_of_the_next() {
        let (first, second) = (hanging(), hanging());
        let limits = CallLimits { attempt_timeout: Duration::from_secs(4), retries: 0, ..CallLimits::default() };
        let mut guard = ResilientWrapper { limits, ..guard(&[&first, &second]) };
        guard.regional_wrappers.iter_mut().for_each(|regional| regional.circuit_breaker = Arc::new(CircuitBreaker::new(1)));
        assert!(wrap(&guard).await.is_err());
        assert!(wrap(&guard).await.is_err());
        assert_eq!((calls(&first), calls(&second)), (1, 2), "the second had 2 s of its 4 at first");
    }

    #[tokio::test(start_paused = true)]
    async fn every_region_is_tried_before_one_is_tried_again() {
        let (first, second) = (fake(THROTTLED), fake(|| None));
        let begin = Instant::now();
        assert!(wrap(&guard(&[&first, &second])).await.is_ok());
        assert_eq!((calls(&first), calls(&second), begin.elapsed()), (1, 1, Duration::ZERO));

        let (first, second) = (fake(THROTTLED), fake(THROTTLED));
        let failed = wrap(&guard(&[&first, &second])).await;
        assert!(matches!(failed, Err(WrapperError::Unavailable { outage: Outage::Throttled, .. })), "{failed:?}");
        assert_eq!((calls(&first), calls(&second)), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_in_time_whatever_hangs() {
        let (first, second) = (hanging(), fake(|| None));
        let begin = Instant::now();
        assert!(wrap(&guard(&[&first, &second])).await.is_ok());
        assert_eq!(begin.elapsed().as_secs(), 2, "after the time of one attempt");

        let (first, second) = (hanging(), hanging());
        let begin = Instant::now();
        let late = wrap(&guard(&[&first, &second])).await;
        assert!(matches!(late, Err(WrapperError::Unavailable { outage: Outage::TimedOut, .. })), "{late:?}");
        assert_eq!(begin.elapsed().as_secs(), 6, "after the time of a call");
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_final_and_remembered_for_a_second() {
        let (first, second) = (fake(DENIED), fake(|| None));
        let guard = guard(&[&first, &second]);
        for _ in 0..10 {
            assert_eq!(wrap(&guard).await, Err(DENIED().unwrap()));
        }
        assert_eq!((calls(&first), calls(&second)), (1, 0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(wrap(&guard).await.is_err());
        assert_eq!(calls(&first), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_reported_only_if_every_other_wrap_fails_too() {
        let (denied, down) = (fake(DENIED), fake(THROTTLED));
        let lenient = ResilientWrapper { failover_on_denied: true, ..guard(&[&denied, &down]) };
        assert!(matches!(wrap(&lenient).await, Err(WrapperError::Unavailable { .. })), "the region that is down may allow it");
        let lenient = ResilientWrapper { failover_on_denied: true, ..guard(&[&denied, &denied]) };
        assert_eq!(wrap(&lenient).await, Err(DENIED().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_region_behind_an_open_breaker_costs_nothing() {
        let (first, second) = (fake(THROTTLED), fake(|| None));
        let guard = guard(&[&first, &second]);
        for _ in 0..20 {
            assert!(wrap(&guard).await.is_ok());
        }
        assert_eq!((calls(&first), calls(&second)), (5, 20));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(wrap(&guard).await.is_ok());
        assert_eq!(calls(&first), 6, "one probe after the pause");
    }

    #[tokio::test]
    async fn a_data_key_of_another_length_is_invalid() {
        let unwrapped = guard(&[&fake(|| None)]).unwrap(&[1], &EncryptionContext::new(Vec::new())).await.err();
        assert!(matches!(unwrapped, Some(WrapperError::Invalid { .. })), "{unwrapped:?}");
    }

    #[test]
    fn metrics_count_attempts_by_operation_region_and_outcome() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        metrics::with_local_recorder(&recorder, || runtime.block_on(wrap(&guard(&[&fake(THROTTLED), &fake(|| None)])))).unwrap();
        let text = recorder.handle().render();
        for outcome in ["throttled", "ok"] {
            let line = format!("keyvault_kms_calls_total{{operation=\"wrap\",region=\"r\",outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&line), "{text}");
        }
        assert!(text.contains("keyvault_kms_call_seconds_count{operation=\"wrap\",region=\"r\"} 2"), "{text}");
    }
}
