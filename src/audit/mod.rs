//! Audit entries as bytes: one event becomes one canonical, versioned entry with one leaf hash. Pure functions.

mod entry;

pub use self::entry::{Entry, EntryError, Source, StatePosition, WrapperKeyChange, leaf_hash};
