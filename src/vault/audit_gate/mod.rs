//! The audit gate: authorization before a use, and one way out, through a durable audit entry.

pub(in crate::vault) mod authorization;
pub(in crate::vault) mod commit;
pub(in crate::vault) mod idempotency;
pub(in crate::vault) mod pending_audit;
pub(in crate::vault) mod refusal_throttle;
