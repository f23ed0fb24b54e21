//! Lists: a cursor in, items and the next cursor out, oldest first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::vault::{PageRequest, VaultError};

/// A part of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// Oldest first.
    pub items: Vec<T>,
    /// Where to continue; `null` at the end.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    pub(super) fn new(items: impl Iterator<Item = T>, next: Option<u64>) -> Self {
        Self { items: items.collect(), next_cursor: next.map(|position| position.to_string()) }
    }
}

/// The two query parameters of every list, as sent.
pub(super) struct ListQuery {
    pub cursor: Option<String>,
    pub limit: Option<String>,
}

impl ListQuery {
    /// # Errors
    /// `InvalidRequest` for a cursor that was not handed out, or a limit out of range.
    pub(super) fn read(&self) -> Result<PageRequest, VaultError> {
        let number = |text: &Option<String>, fallback: u64| match text {
            None => Some(fallback),
            Some(text) => text.parse().ok().filter(|number| *number < 1 << 62),
        };
        let after = number(&self.cursor, 0).ok_or_else(|| VaultError::InvalidRequest("cursor: not one that was handed out".into()))?;
        let limit = number(&self.limit, 100).and_then(|limit| u32::try_from(limit).ok()).filter(|limit| (1..=1000).contains(limit));
        let limit = limit.ok_or_else(|| VaultError::InvalidRequest("limit: 1 to 1000".into()))?;
        Ok(PageRequest { after, limit })
    }
}
