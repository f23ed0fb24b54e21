//! Remembers recent denials, so that a caller that repeats a refused call does not load the KMS.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::domain::EncryptionContext;

use super::WrapperError;
use crate::kms::{Denial, ForeignWrap};

/// The denials of one wrapper key, each remembered for a second.
#[derive(Default)]
pub(in crate::kms) struct DenialCache(Mutex<HashMap<About, (Instant, WrapperError)>>);

/// One call, with everything that a denial may depend on: direction, ciphertext, context.
#[derive(Clone, Copy)]
pub(super) struct DeniableCall {
    digest: [u8; 32],
    /// Whether another wrapper key takes part, which may be the reason of a denial.
    of_two: bool,
}

/// What a denial applies to.
#[derive(PartialEq, Eq, Hash)]
enum About {
    /// The wrapper key: disabled, deleted, of another kind.
    Key,
    /// This call only: IAM may allow one context and refuse another, and an invalid or old ciphertext does not affect other calls.
    Call([u8; 32]),
}

impl DeniableCall {
    /// A wrap for `context`.
    pub(super) fn wrap(context: &EncryptionContext) -> Self {
        Self::of(Sha256::new().chain_update(b"wrap"), context, false)
    }

    /// An unwrap of `wrapped` for `context`.
    pub(super) fn unwrap(wrapped: &[u8], context: &EncryptionContext) -> Self {
        Self::of(Sha256::new().chain_update(b"unwrap").chain_update(Sha256::digest(wrapped)), context, false)
    }

    /// A re-wrap of what another key wrapped for `context`.
    pub(super) fn rewrap(from: ForeignWrap<'_>, context: &EncryptionContext) -> Self {
        let digest = Sha256::new().chain_update(b"rewrap").chain_update(Sha256::digest(&from.key.identity));
        Self::of(digest.chain_update(Sha256::digest(from.wrapped)), context, true)
    }

    fn of(digest: Sha256, context: &EncryptionContext, of_two: bool) -> Self {
        Self { digest: digest.chain_update(context.canonical_bytes()).finalize().into(), of_two }
    }
}

impl DenialCache {
    /// The denial of this call, or of any call to the key, within the last second.
    pub(super) fn recall(&self, call: DeniableCall) -> Option<WrapperError> {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [About::Key, About::Call(call.digest)]
            .iter()
            .filter_map(|about| refusals.get(about))
            .find(|(at, _)| at.elapsed() < REMEMBERED)
            .map(|(_, error)| error.clone())
    }

    /// Remembers a denial. An outage is not a denial.
    pub(super) fn remember(&self, call: DeniableCall, error: &WrapperError) {
        let about = match error {
            WrapperError::Denied { denial: Denial::AccessDenied | Denial::OldVersion, .. } | WrapperError::Invalid { .. } => {
                About::Call(call.digest)
            }
            WrapperError::Denied { .. } if call.of_two => About::Call(call.digest),
            WrapperError::Denied { .. } => About::Key,
            WrapperError::Unavailable { .. }
            | WrapperError::NotAllowed { .. }
            | WrapperError::Unfit { .. }
            | WrapperError::Misconfigured { .. } => return,
        };
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        if refusals.len() < MAX_REMEMBERED {
            refusals.insert(about, (Instant::now(), error.clone()));
        }
    }
}

/// How long a denial is remembered. An enabled key is used again after this time.
const REMEMBERED: Duration = Duration::from_secs(1);
/// The number of denials that are remembered. The rate limit bounds any further ones.
const MAX_REMEMBERED: usize = 4096;
