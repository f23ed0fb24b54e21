//! The page of error codes. Each code is an anchor: the `type` of a problem document points to it.

use maud::html;

use super::{document, prose};
use crate::api::{CODES, CodeInfo};

/// The page.
pub(super) fn page() -> String {
    let body = html! {
        p { a href="/docs" { "All calls" } }
        p { code { "retryable" } " means: the same call may succeed later without anybody changing anything." }
        table {
            caption { "Every code of a problem document" }
            thead { tr { @for name in ["code", "status", "retryable", "what it is", "what to do"] { th scope="col" { (name) } } } }
            tbody {
                @for CodeInfo { code, status, retryable, title, remedy } in CODES {
                    tr id=(code) {
                        th scope="row" { a href={ "#" (code) } { code { (code) } } }
                        td { (status) }
                        td { @if *retryable { "yes" } @else { "no" } }
                        td { (prose(title)) }
                        td { (prose(remedy)) }
                    }
                }
            }
        }
    };
    document("Error codes", &body, false)
}
