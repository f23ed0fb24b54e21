//! Checkpoints of the log (C2SP tlog-checkpoint): what a signed note says of the tree and of the chain of state changes. Pure functions.
//!
//! The text has one line each for the origin, the number of entries, the root in base64, and the head of the chain of state changes:
//! `state-chain <number of the newest state change> <its leaf hash in base64>`. Source: <https://c2sp.org/tlog-checkpoint>.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::merkle::Hash;

/// What begins the line with the head of the chain of state changes.
const STATE_CHAIN: &str = "state-chain ";

/// The content of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: `<vault>/<instance>/<incarnation>`.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root of the tree of these entries.
    pub root: Hash,
    /// The number of the newest state change among them.
    pub state_revision: u64,
    /// Its leaf hash.
    pub state_head: Hash,
}

/// The text is no checkpoint of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint: expected a line each for the origin, the number of entries, the root in base64 and the head of the state chain")]
pub struct NotACheckpoint;

impl Checkpoint {
    /// The text to sign.
    pub fn text(&self) -> String {
        let Self { origin, size, root, state_revision, state_head } = self;
        let [root, head] = [root, state_head].map(|hash| BASE64_STANDARD.encode(hash));
        format!("{origin}\n{size}\n{root}\n{STATE_CHAIN}{state_revision} {head}\n")
    }

    /// Reads the text of a note. Further lines are extensions of later programs and are ignored.
    ///
    /// # Errors
    /// [`NotACheckpoint`].
    pub fn parse(text: &str) -> Result<Self, NotACheckpoint> {
        let mut lines = text.lines();
        let mut line = || lines.next().ok_or(NotACheckpoint);
        let (origin, size, root, state) = (line()?, line()?, line()?, line()?);
        let (revision, head) = state.strip_prefix(STATE_CHAIN).and_then(|state| state.split_once(' ')).ok_or(NotACheckpoint)?;
        if origin.is_empty() {
            return Err(NotACheckpoint);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size: number(size)?,
            root: hash(root)?,
            state_revision: number(revision)?,
            state_head: hash(head)?,
        })
    }
}

/// A number without sign and leading zeros.
fn number(text: &str) -> Result<u64, NotACheckpoint> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text).ok_or(NotACheckpoint)
}

fn hash(text: &str) -> Result<Hash, NotACheckpoint> {
    BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotACheckpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_as_it_is_written() {
        let checkpoint = Checkpoint { origin: "v/main/1".into(), size: 3, root: [1; 32], state_revision: 2, state_head: [2; 32] };
        let text = checkpoint.text();
        assert_eq!(
            text,
            "v/main/1\n3\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nstate-chain 2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n"
        );
        assert_eq!(Checkpoint::parse(&text), Ok(checkpoint.clone()));
        assert_eq!(Checkpoint::parse(&format!("{text}a line of a later program\n")), Ok(checkpoint));
        for wrong in ["", "v\n3\n", &text.replace("\n3\n", "\n03\n"), &text.replace("state-chain", "chain"), &text.replace("AQEB", "AQE")] {
            assert_eq!(Checkpoint::parse(wrong), Err(NotACheckpoint), "{wrong}");
        }
    }
}
