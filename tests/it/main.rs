//! All integration tests, in one binary: each more would link the whole tree again.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic; clippy.toml covers test functions, not their helpers")]

mod canton_vectors;
mod frozen_envelopes;
mod known;
mod schemes;
mod wycheproof;
