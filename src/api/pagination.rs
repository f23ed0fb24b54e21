//! Pagination: a cursor and a limit in the query, the items and the next cursor in the response, oldest first.
//!
//! The extractor parses [`Cursor`] and [`PageLimit`], so that a handler gets valid values only.

use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::{
        Ref,
        schema::{Array, ArrayBuilder},
    },
};

use crate::vault::{ItemPage, PageRequest};

/// The limit of a page without `limit`.
const DEFAULT_LIMIT: u32 = 100;
/// The largest limit of a page.
pub const MAX_LIMIT: u32 = 1000;

/// One page of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(bound = "T: ToSchema")]
pub struct List<T> {
    /// The items, oldest first.
    #[schema(schema_with = items::<T>)]
    pub items: Vec<T>,
    /// The cursor of the next page. `null` on the last page.
    pub next_cursor: Option<String>,
}

/// Items by the name of their schema. Derived, the schema of the items would be repeated in that of the list, and a generated client would have
/// two types for a key.
fn items<T: ToSchema>() -> Array {
    ArrayBuilder::new().items(Ref::from_schema_name(T::name())).description(Some("The items, oldest first.")).build()
}

impl<T> List<T> {
    /// The response for a page.
    pub(super) fn of<I: Into<T>>(page: ItemPage<I>) -> Self {
        let ItemPage { items, next } = page;
        Self { items: items.into_iter().map(Into::into).collect(), next_cursor: next.map(|position| position.to_string()) }
    }
}

/// The `cursor` of a list query: a `next_cursor` of an earlier response.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Cursor(u64);

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let position = text.parse().ok().filter(|position| *position < 1 << 62);
        position.map(Self).ok_or("cursor: supply the next_cursor of an earlier response")
    }
}

/// The `limit` of a list query: the maximum number of items, 1 to 1000.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PageLimit(u32);

impl TryFrom<String> for PageLimit {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.map(Self).ok_or("limit: supply 1 to 1000")
    }
}

/// The page that a list query requests.
pub(super) fn page_request(cursor: Option<Cursor>, limit: Option<PageLimit>) -> PageRequest {
    PageRequest { after: cursor.map_or(0, |Cursor(position)| position), limit: limit.map_or(DEFAULT_LIMIT, |PageLimit(limit)| limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_and_limits_out_of_range_are_refused() {
        for text in ["", "-1", "x", "4611686018427387904"] {
            assert!(Cursor::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["", "0", "1001", "-1", "x"] {
            assert!(PageLimit::try_from(text.to_owned()).is_err(), "{text}");
        }
        let page = page_request(Cursor::try_from("7".to_owned()).ok(), None);
        assert_eq!((page.after, page.limit), (7, 100));
    }
}
