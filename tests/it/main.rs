//! All integration tests, in one binary: each more would link the whole tree again.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic; clippy.toml covers test functions, not their helpers")]

mod canton_vectors;
mod frozen_envelopes;
mod known;
mod schemes;
mod wycheproof;
//! All integration tests in one binary: each further file at the top of `tests/` would link the whole tree again.
#![cfg(test)]

mod storage_conformance;
mod storage_crash;
mod storage_disk;
mod storage_fixtures;
mod storage_sqlite;
//! The integration tests, in one binary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod support;
mod wrapper_conformance;
//! The integration tests, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, in its helpers too")]

mod client;
