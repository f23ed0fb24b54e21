//! The URLs of a vault in their order of preference. A URL that failed is tried last for ten seconds, and then preferred as before.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{ClientError, Connection, Endpoint, error::Tried};

/// How long a URL that failed is tried last. The Canton driver has the same pause.
const PAUSE: Duration = Duration::from_secs(10);

/// One or more URLs of a vault: its replicas. They must have the same keys. Clones share what they know about failures.
#[derive(Clone)]
pub struct Endpoints {
    preferred: Arc<Candidate>,
    others: Vec<Arc<Candidate>>,
}

/// One of the URLs, and when it failed.
pub struct Candidate {
    endpoint: Endpoint,
    failed_at: Mutex<Option<Instant>>,
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint, [])
    }
}

impl Endpoints {
    /// The URLs in the order of preference.
    pub fn new(preferred: Endpoint, others: impl IntoIterator<Item = Endpoint>) -> Self {
        let candidate = |endpoint| Arc::new(Candidate { endpoint, failed_at: Mutex::new(None) });
        Self { preferred: candidate(preferred), others: others.into_iter().map(candidate).collect() }
    }

    /// The same URLs, with a full TLS handshake for every connection.
    #[must_use]
    pub fn without_resumption(&self) -> Self {
        let mut all = self.all().map(|candidate| candidate.endpoint.clone().without_resumption());
        all.next().map_or_else(|| self.clone(), |preferred| Self::new(preferred, all))
    }

    /// Whether there is more than one URL.
    pub fn are_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// The first URL.
    pub fn preferred(&self) -> &Endpoint {
        &self.preferred.endpoint
    }

    /// All URLs in the order of preference, separated by commas.
    pub fn urls(&self) -> String {
        self.all().map(|candidate| candidate.endpoint.url()).collect::<Vec<_>>().join(",")
    }

    /// All URLs in the order to try them: those that did not fail lately by preference, then the others.
    pub fn order(&self) -> Vec<Arc<Candidate>> {
        let now = Instant::now();
        let (mut order, failed): (Vec<_>, Vec<_>) = self.all().cloned().partition(|candidate| candidate.is_due(now));
        order.extend(failed);
        order
    }

    /// Opens a connection to the first URL in this order that accepts one.
    ///
    /// # Errors
    /// [`ClientError::CannotConnect`], or [`ClientError::NoneDid`] with all URLs.
    pub async fn connect(&self) -> Result<(Arc<Candidate>, Connection), ClientError> {
        let mut tried = Vec::new();
        for candidate in self.order() {
            match candidate.endpoint.connect().await {
                Ok(connection) => return Ok((candidate, connection)),
                Err(error) => {
                    candidate.failed();
                    tried.push(Tried { url: candidate.endpoint.url().to_owned(), error });
                }
            }
        }
        Err(ClientError::none_did(tried))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Candidate>> {
        std::iter::once(&self.preferred).chain(&self.others)
    }
}

impl Candidate {
    /// How to reach it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Records that it answered.
    pub fn answered(&self) {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Records that it failed.
    pub fn failed(&self) {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it did not fail, or its pause is over. Only the first caller after the pause tries it: the others go on without it until it has
    /// answered.
    fn is_due(&self, now: Instant) -> bool {
        let mut failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        match *failed_at {
            None => true,
            Some(at) if now.duration_since(at) < PAUSE => false,
            Some(_) => {
                *failed_at = Some(now);
                true
            }
        }
    }
}
