//! The audit log as bytes: canonical entries, the Merkle tree over them, and signed checkpoints of the tree. Pure functions.

mod checkpoint;
mod entry;
mod key_rotation;
pub mod merkle;
mod note;
pub mod reconcile;
pub mod report;
pub mod verify;
pub mod witness;

pub use self::checkpoint::{Checkpoint, NotACheckpoint};
pub use self::entry::{Entry, EntryError, Source, StatePosition, WrapperKeyChange, encode_use, leaf_hash};
pub use self::key_rotation::{KeyRotation, NotARotation, checkpoint_key_rotation};
pub use self::note::{KeyType, MAX_NOTE, NoteError, NoteSignature, SignedNote, VerifierKey};
