//! The fields that every log line of a call has: its request id and operation, and the key and node as soon as they are known.
//!
//! They belong to the task of the call, so that a line anywhere below finds them. A call costs one allocation for them, and mostly writes no line.

use std::sync::{Arc, OnceLock};

use crate::domain::{KeyId, NodeName};

/// The fields of one call.
#[derive(Debug)]
pub struct CallFields {
    /// The id of the request.
    pub request_id: Arc<str>,
    /// The name of the operation, or `none`.
    pub operation: &'static str,
    /// The key, once known.
    key: OnceLock<KeyId>,
    /// The node, once known.
    node: OnceLock<NodeName>,
}

tokio::task_local! {
    static CALL: Arc<CallFields>;
}

impl CallFields {
    /// The fields of a call whose path may name a key.
    pub fn new(request_id: Arc<str>, operation: &'static str, key: Option<KeyId>) -> Arc<Self> {
        let fields = Self { request_id, operation, key: OnceLock::new(), node: OnceLock::new() };
        if let Some(key) = key {
            let _ = fields.key.set(key);
        }
        Arc::new(fields)
    }

    /// The key of the call, if it is known.
    pub fn key(&self) -> Option<KeyId> {
        self.key.get().copied()
    }

    /// The node of the call, if it is known.
    pub fn node(&self) -> Option<&NodeName> {
        self.node.get()
    }

    /// Runs a part of the call. The lines of this part have the fields.
    pub fn scope<F: Future>(self: Arc<Self>, part: F) -> impl Future<Output = F::Output> {
        CALL.scope(self, part)
    }

    /// As [`Self::scope`], for a part that does not wait.
    pub fn sync_scope<R>(self: Arc<Self>, part: impl FnOnce() -> R) -> R {
        CALL.sync_scope(self, part)
    }

    /// The fields of the running call. `None` outside a call.
    pub fn current() -> Option<Arc<Self>> {
        CALL.try_with(Arc::clone).ok()
    }
}

/// Adds what a call found out about itself. What is known already stays.
pub(super) fn add(key: Option<KeyId>, node: Option<&NodeName>) {
    let _ = CALL.try_with(|call| {
        if let Some(key) = key {
            let _ = call.key.set(key);
        }
        if let Some(node) = node {
            let _ = call.node.set(node.clone());
        }
    });
}
