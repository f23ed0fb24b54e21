//! The log as bytes: one event becomes one canonical, versioned entry with one leaf hash. Pure.

mod entry;

pub use self::entry::{Entry, EntryError, Source, leaf_hash};
