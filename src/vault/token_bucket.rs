//! A token bucket: the rate limit of one kind of work for one principal.

use std::time::Instant;

/// A token bucket: it gains `per_second` tokens each second, up to `capacity`.
pub(super) struct TokenBucket {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket that holds `burst_seconds` worth of tokens, at least one.
    pub(super) fn new(per_second: f64, burst_seconds: f64) -> Self {
        let capacity = (per_second * burst_seconds).max(1.0);
        Self { per_second, capacity, tokens: capacity, at: Instant::now() }
    }

    /// Takes tokens, or says in how many whole seconds there are enough. More than it holds are taken when it is full.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of seconds, at most one hour")]
    pub(super) fn take(&mut self, now: Instant, tokens: f64) -> Result<(), u32> {
        self.refill(now);
        let tokens = tokens.min(self.capacity);
        if self.tokens >= tokens {
            self.tokens -= tokens;
            return Ok(());
        }
        Err(((tokens - self.tokens) / self.per_second).ceil().clamp(1.0, 3600.0) as u32)
    }

    /// Whether it has gained all that was taken.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.capacity
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.capacity);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_bucket_refills_up_to_its_capacity() {
        let mut bucket = TokenBucket::new(2.0, 1.0);
        let start = bucket.at;
        assert_eq!([bucket.take(start, 1.0), bucket.take(start, 1.0), bucket.take(start, 1.0)], [Ok(()), Ok(()), Err(1)]);
        assert!(bucket.take(start + Duration::from_millis(500), 1.0).is_ok());
        let later = start + Duration::from_secs(100);
        assert_eq!([bucket.take(later, 1.0), bucket.take(later, 1.0), bucket.take(later, 1.0)], [Ok(()), Ok(()), Err(1)]);
        assert_eq!(bucket.take(later + Duration::from_secs(1), 2.0), Ok(()), "two at once");
        let mut slow = TokenBucket::new(2.0 / 60.0, 60.0);
        assert_eq!([slow.take(slow.at, 1.0), slow.take(slow.at, 1.0), slow.take(slow.at, 1.0)], [Ok(()), Ok(()), Err(30)]);
    }
}
