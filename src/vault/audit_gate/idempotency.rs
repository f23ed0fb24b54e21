//! Calls that create, made repeatable: the same `Idempotency-Key` with the same body gives the same thing.

use std::{fmt::Display, str::FromStr, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{
    domain::{KeyId, KeyRecord},
    storage::{Idempotency, IdempotencyRecord, IdempotencyScope},
};

use crate::vault::{CallContext, Vault, VaultError};

/// How long a creating call is remembered.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);

/// A call that asked to happen once.
pub(in crate::vault) struct IdempotentCall {
    scope: IdempotencyScope,
    body_hash: [u8; 32],
}

impl Vault {
    /// The call as one that happens once, if its caller asked for that. `attributes` is its body without secrets.
    pub(in crate::vault) fn idempotent_call(
        &self,
        call: &CallContext,
        route: &str,
        attributes: &impl Serialize,
    ) -> Result<Option<IdempotentCall>, VaultError> {
        let Some(key) = call.idempotency_key.clone() else { return Ok(None) };
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(VaultError::InvalidRequest("Idempotency-Key: 1 to 255 visible ASCII characters".into()));
        }
        let body = serde_json::to_vec(attributes).map_err(|_| VaultError::Internal("a request could not be encoded"))?;
        let mac = Hmac::<Sha256>::new_from_slice(&self.hash_key).map_err(|_| VaultError::Internal("the hash key has a wrong length"))?;
        let body_hash = mac.chain_update(body).finalize().into_bytes().into();
        Ok(Some(IdempotentCall {
            scope: IdempotencyScope { principal: call.principal.name.to_string(), route: route.into(), key },
            body_hash,
        }))
    }

    /// The id of what an earlier call made.
    ///
    /// # Errors
    /// `IdempotencyMismatch` if it had another body.
    pub(in crate::vault) async fn remembered<I: FromStr>(&self, idempotent_call: Option<&IdempotentCall>) -> Result<Option<I>, VaultError> {
        let Some(idempotent_call) = idempotent_call else { return Ok(None) };
        let Some(IdempotencyRecord { body_hash, answer }) = self.store.remembered(&idempotent_call.scope, (self.clock)()).await? else {
            return Ok(None);
        };
        if !bool::from(body_hash.ct_eq(&idempotent_call.body_hash)) {
            return Err(VaultError::IdempotencyMismatch);
        }
        let id = std::str::from_utf8(&answer).ok().and_then(|text| text.parse().ok());
        id.map(Some).ok_or(VaultError::Internal("a remembered answer cannot be read"))
    }

    /// What to store with what this call made.
    pub(in crate::vault) fn remember(&self, idempotent_call: Option<IdempotentCall>, id: &impl Display) -> Option<Idempotency> {
        idempotent_call.map(|IdempotentCall { scope, body_hash }| Idempotency {
            scope,
            remembered: IdempotencyRecord { body_hash, answer: id.to_string().into_bytes() },
            expires_at: (self.clock)().plus(REMEMBERED_FOR),
        })
    }

    /// The stored record of a key that must exist.
    pub(in crate::vault) async fn record(&self, id: KeyId) -> Result<KeyRecord, VaultError> {
        self.store.key(id).await?.map(|stored| stored.record).ok_or(VaultError::KeyNotFound(id))
    }
}
