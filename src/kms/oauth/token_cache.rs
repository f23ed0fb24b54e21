//! The access token in use. One task requests a token; a token that is about to expire is replaced in the background while it still serves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderValue;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::kms::{Outage, call_error::CallError};

/// A bearer token. Not shown by `Debug` or an error.
pub(in crate::kms) struct AccessToken {
    value: Zeroizing<String>,
    requested: Instant,
    lifetime: Duration,
}

/// Where tokens come from.
#[async_trait]
pub(in crate::kms) trait TokenSource: Send + Sync {
    /// Requests a new token.
    ///
    /// # Errors
    /// A denial of the credentials, an outage of their source, or a file that cannot be used.
    async fn request(&self) -> Result<AccessToken, CallError>;
}

/// The token in use, shared by all calls with the same credentials.
pub(in crate::kms) struct TokenCache {
    source: Box<dyn TokenSource>,
    current: Mutex<Option<Arc<AccessToken>>>,
    /// When a token that still serves may be renewed again after a failure.
    retry_at: Mutex<Option<Instant>>,
    /// Held by the task that requests a token.
    requesting: Arc<tokio::sync::Mutex<()>>,
}

impl AccessToken {
    /// A token that was requested at `requested`, before the answer came.
    pub(in crate::kms) const fn new(value: Zeroizing<String>, requested: Instant, lifetime: Duration) -> Self {
        Self { value, requested, lifetime }
    }

    /// The value of the header `Authorization`, which is not shown in logs.
    ///
    /// # Errors
    /// `Misconfigured` for a token that a header cannot have.
    pub(in crate::kms) fn header(&self) -> Result<HeaderValue, CallError> {
        let text = Zeroizing::new(format!("Bearer {}", self.value.as_str()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| CallError::Misconfigured("the access token contains characters that an HTTP header cannot have".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn serves(&self) -> bool {
        self.requested.elapsed() + (self.lifetime / 10).min(LATE) < self.lifetime
    }

    fn is_due(&self) -> bool {
        self.requested.elapsed() + (self.lifetime / 4).min(EARLY) >= self.lifetime
    }
}

impl TokenCache {
    /// No token yet.
    pub(in crate::kms) fn new(source: Box<dyn TokenSource>) -> Arc<Self> {
        Arc::new(Self { source, current: Mutex::default(), retry_at: Mutex::default(), requesting: Arc::default() })
    }

    /// A token that has not expired. Concurrent callers share one request.
    ///
    /// # Errors
    /// As [`TokenSource::request`].
    pub(in crate::kms) async fn token(self: &Arc<Self>) -> Result<Arc<AccessToken>, CallError> {
        if let Some(token) = self.serving() {
            if token.is_due() {
                self.renew_in_background();
            }
            return Ok(token);
        }
        let _requesting = self.requesting.lock().await;
        match self.serving() {
            Some(token) => Ok(token),
            None => self.request().await,
        }
    }

    /// Another token than the one that the KMS refused. `None` if there is none, or if the refused one is new: a denial must not cause a
    /// request for each call.
    ///
    /// # Errors
    /// As [`TokenSource::request`].
    pub(in crate::kms) async fn token_after(self: &Arc<Self>, refused: &Arc<AccessToken>) -> Result<Option<Arc<AccessToken>>, CallError> {
        let _requesting = self.requesting.lock().await;
        if let Some(token) = self.serving().filter(|token| !Arc::ptr_eq(token, refused)) {
            return Ok(Some(token));
        }
        if refused.requested.elapsed() < BETWEEN_REQUESTS {
            return Ok(None);
        }
        self.request().await.map(Some)
    }

    async fn request(&self) -> Result<Arc<AccessToken>, CallError> {
        let requested = timeout(REQUEST_LIMIT, self.source.request()).await;
        let token = Arc::new(requested.unwrap_or(Err(CallError::Outage(Outage::CredentialsUnavailable)))?);
        *locked(&self.current) = Some(Arc::clone(&token));
        Ok(token)
    }

    fn renew_in_background(self: &Arc<Self>) {
        let waits = locked(&self.retry_at).is_some_and(|at| Instant::now() < at);
        let Ok(requesting) = Arc::clone(&self.requesting).try_lock_owned() else { return };
        if waits {
            return;
        }
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let renewed = cache.request().await;
            *locked(&cache.retry_at) = renewed.is_err().then(|| Instant::now() + BETWEEN_REQUESTS);
            if let Err(error) = renewed {
                let error = error.about("the access token");
                tracing::warn!(reason = %error.reason(), %error, "the access token cannot be renewed; the vault uses the current one until it expires, and retries");
            }
            drop(requesting);
        });
    }

    fn serving(&self) -> Option<Arc<AccessToken>> {
        locked(&self.current).as_ref().filter(|token| token.serves()).map(Arc::clone)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token is renewed this long before it expires. Metadata servers give a new one only in the last minutes of the old one.
const EARLY: Duration = Duration::from_mins(4);
/// A token is not used this long before it expires, so that it does not expire on its way.
const LATE: Duration = Duration::from_secs(10);
const BETWEEN_REQUESTS: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Gives tokens of an hour, numbered from 1, each after a second. Fails while `down`.
    #[derive(Default)]
    struct Numbered {
        requests: Arc<AtomicU32>,
        down: Arc<std::sync::atomic::AtomicBool>,
    }

    #[async_trait]
    impl TokenSource for Numbered {
        async fn request(&self) -> Result<AccessToken, CallError> {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.down.load(Ordering::SeqCst) {
                return Err(CallError::Outage(Outage::CredentialsUnavailable));
            }
            Ok(AccessToken::new(Zeroizing::new(number.to_string()), Instant::now(), Duration::from_hours(1)))
        }
    }

    async fn value(cache: &Arc<TokenCache>) -> String {
        cache.token().await.unwrap().value.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_one_request_and_an_old_token_serves_while_it_is_renewed() {
        let source = Numbered::default();
        let (requests, down) = (Arc::clone(&source.requests), Arc::clone(&source.down));
        let cache = TokenCache::new(Box::new(source));
        let all = futures_util::future::join_all((0..10).map(|_| value(&cache))).await;
        assert!(all.iter().all(|value| value == "1") && requests.load(Ordering::SeqCst) == 1);
        tokio::time::advance(Duration::from_mins(55)).await;
        assert_eq!((value(&cache).await.as_str(), requests.load(Ordering::SeqCst)), ("1", 1));
        tokio::time::advance(Duration::from_secs(90)).await;
        down.store(true, Ordering::SeqCst);
        let begin = Instant::now();
        assert_eq!((value(&cache).await.as_str(), begin.elapsed()), ("1", Duration::ZERO), "nobody waits for the renewal");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((value(&cache).await.as_str(), requests.load(Ordering::SeqCst)), ("1", 2), "a failure is not repeated at once");
        tokio::time::sleep(BETWEEN_REQUESTS).await;
        down.store(false, Ordering::SeqCst);
        assert_eq!(value(&cache).await, "1");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((value(&cache).await.as_str(), requests.load(Ordering::SeqCst)), ("3", 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_not_used_and_a_refused_one_is_replaced_once() {
        let source = Numbered::default();
        let down = Arc::clone(&source.down);
        let cache = TokenCache::new(Box::new(source));
        let first = cache.token().await.unwrap();
        assert!(cache.token_after(&first).await.unwrap().is_none(), "it is new: the refusal has another reason");
        tokio::time::advance(BETWEEN_REQUESTS).await;
        let second = cache.token_after(&first).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&second, &cache.token_after(&first).await.unwrap().unwrap()), "others get the same");
        tokio::time::advance(Duration::from_hours(1)).await;
        down.store(true, Ordering::SeqCst);
        assert_eq!(cache.token().await.err(), Some(CallError::Outage(Outage::CredentialsUnavailable)));
    }

    #[test]
    fn a_header_does_not_show_the_token() {
        let token = AccessToken::new(Zeroizing::new("hidden".to_owned()), Instant::now(), Duration::from_secs(1));
        assert!(!format!("{:?}", token.header().unwrap()).contains("hidden"));
    }
}
