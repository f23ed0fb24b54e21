//! Idempotency of requests that create: a repeated `Idempotency-Key` with the same body returns the earlier result.

use std::{fmt::Display, str::FromStr, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::storage::{IdempotencyRecord, IdempotencyScope, NewIdempotencyRecord};

use super::AuditGate;
use crate::vault::{CallContext, VaultError};

/// How long the store keeps an idempotency record.
const RETENTION: Duration = Duration::from_hours(24);

/// A request that carries an `Idempotency-Key`.
pub(in crate::vault) struct IdempotentCall {
    scope: IdempotencyScope,
    body_hash: [u8; 32],
}

impl AuditGate {
    /// The request as an idempotent call, if it carries an `Idempotency-Key`. `body` is the request without secrets.
    ///
    /// # Errors
    /// `InvalidRequest` if the key does not consist of 1 to 255 visible ASCII characters.
    pub(in crate::vault) fn idempotent_call(
        &self,
        call: &CallContext,
        route: &str,
        body: &impl Serialize,
    ) -> Result<Option<IdempotentCall>, VaultError> {
        let Some(key) = call.idempotency_key.clone() else { return Ok(None) };
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(VaultError::InvalidRequest("Idempotency-Key: supply 1 to 255 visible ASCII characters".into()));
        }
        let body = serde_json::to_vec(body).map_err(|_| VaultError::Internal("a request could not be encoded"))?;
        let mac = Hmac::<Sha256>::new_from_slice(&self.idempotency_hash_key)
            .map_err(|_| VaultError::Internal("the idempotency hash key has a wrong length"))?;
        let body_hash = mac.chain_update(body).finalize().into_bytes().into();
        Ok(Some(IdempotentCall {
            scope: IdempotencyScope { principal: call.principal.name.to_string(), route: route.into(), key },
            body_hash,
        }))
    }

    /// The id of the object that an earlier request with the same key created.
    ///
    /// # Errors
    /// `IdempotencyMismatch` if the earlier request had another body.
    pub(in crate::vault) async fn earlier_result<I: FromStr>(&self, call: Option<&IdempotentCall>) -> Result<Option<I>, VaultError> {
        let Some(call) = call else { return Ok(None) };
        let found = self.env.store.idempotency_record(&call.scope, self.env.now()).await?;
        let Some(IdempotencyRecord { body_hash, answer }) = found else { return Ok(None) };
        if !bool::from(body_hash.ct_eq(&call.body_hash)) {
            return Err(VaultError::IdempotencyMismatch);
        }
        let id = std::str::from_utf8(&answer).ok().and_then(|text| text.parse().ok());
        id.map(Some).ok_or(VaultError::Internal("an idempotency record cannot be read"))
    }

    /// The record to store with the object that this request created.
    pub(in crate::vault) fn idempotency_record(&self, call: Option<IdempotentCall>, id: &impl Display) -> Option<NewIdempotencyRecord> {
        call.map(|IdempotentCall { scope, body_hash }| NewIdempotencyRecord {
            scope,
            record: IdempotencyRecord { body_hash, answer: id.to_string().into_bytes() },
            expires_at: self.env.now().plus(RETENTION),
        })
    }
}
