//! All integration tests, in one binary: each more would link the whole tree again.

mod canton_vectors;
mod frozen_envelopes;
mod known;
mod schemes;
mod wycheproof;
