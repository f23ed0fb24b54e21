//! Pages of lists: the vault reads one item more than requested to know whether there is a next page.

use crate::storage::Positioned;

use super::PageRequest;

/// One page of a list.
#[derive(Debug)]
pub struct ItemPage<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// The position after which the next page starts. `None` on the last page.
    pub next: Option<u64>,
}

/// The request to the store for a page and one more item.
pub(super) const fn one_more(page: PageRequest) -> PageRequest {
    PageRequest { after: page.after, limit: page.limit.saturating_add(1) }
}

/// The page, from the items found for [`one_more`].
pub(super) fn item_page<T>(mut found: Vec<Positioned<T>>, page: PageRequest) -> ItemPage<T> {
    let limit = page.limit as usize;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.position);
    ItemPage { items: found.into_iter().map(|found| found.item).collect(), next }
}
