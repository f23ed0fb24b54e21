//! The context of one call: the caller and the ids of the request.

use std::sync::Arc;

use crate::domain::Principal;

/// The caller of an operation, and what the request says about itself.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The authenticated caller.
    pub principal: Principal,
    /// The id of the request, assigned by the vault.
    pub request_id: Arc<str>,
    /// What the client says of itself (`User-Agent`), at most 64 visible ASCII characters and spaces. Not authenticated.
    pub client: Option<Arc<str>>,
    /// The W3C trace id, 32 hex digits.
    pub trace_id: Option<Arc<str>>,
    /// The `Idempotency-Key` of the request. Used by operations that create.
    pub idempotency_key: Option<String>,
}
