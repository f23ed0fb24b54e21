//! The log as tiles (C2SP tlog-tiles): hashes of the tree and bundles of entries, as they are stored. A tile that is complete never changes.

use crate::{audit::merkle::TILE, domain::Operation, storage::TreeQuery};

use crate::vault::{AuditedResult, CallContext, Vault, VaultError, audit_gate::Completed};

/// A tile, or the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// What it contains.
    pub kind: TileKind,
    /// Its index in its level.
    pub index: u64,
    /// The number of hashes or entries: 256, or less of a tile that is not complete.
    pub width: u64,
}

/// What a tile contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileKind {
    /// The hashes of complete subtrees of 256^level entries each.
    Hashes {
        /// The level, from 0.
        level: u32,
    },
    /// Entries, each after its length in two bytes, big endian.
    Entries,
}

impl Vault {
    /// The newest checkpoint, as a signed note. One audit entry covers this and [`Vault::read_tile`] for a minute.
    ///
    /// # Errors
    /// As [`Vault::show_checkpoint`].
    pub async fn read_tiled_checkpoint(&self, call: &CallContext) -> Result<AuditedResult<String>, VaultError> {
        let event = self.gate.event(call, Operation::ReadTiles);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            let origin = self.log_origin().await?;
            let newest = self.env.store.newest_checkpoint(&origin).await?.ok_or(VaultError::NotFound("checkpoint"))?;
            Ok(Completed::read(permit, newest.note))
        };
        let result = result.await;
        self.gate.conclude_repeated(event, result).await
    }

    /// A tile of the durable log, in its published form.
    ///
    /// # Errors
    /// `NotFound` if the log is not that long; `Forbidden`, `StorageUnavailable` or `AuditUnavailable`.
    pub async fn read_tile(&self, call: &CallContext, tile: Tile) -> Result<AuditedResult<Vec<u8>>, VaultError> {
        let event = self.gate.event(call, Operation::ReadTiles);
        let result = async {
            let permit = self.gate.permit_vault(&event)?;
            Ok(Completed::read(permit, self.tile(tile).await?))
        };
        let result = result.await;
        self.gate.conclude_repeated(event, result).await
    }

    async fn tile(&self, Tile { kind, index, width }: Tile) -> Result<Vec<u8>, VaultError> {
        const MISSING: VaultError = VaultError::NotFound("tile");
        let entries = self.env.store.log_head().size;
        let from = index.checked_mul(TILE).ok_or(MISSING)?;
        let level = match kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let available = level.checked_mul(8).and_then(|height| entries.checked_shr(height)).unwrap_or(0);
        if from.checked_add(width).is_none_or(|to| to > available) {
            return Err(MISSING);
        }
        match kind {
            TileKind::Hashes { level } => Ok(self.env.store.tree(TreeQuery::Hashes { level, from, count: width }).await?.concat()),
            TileKind::Entries => {
                self.not_removed(from)?;
                bundle(&self.env.store.entry_bytes(from, width).await?)
            }
        }
    }
}

/// Entries with their lengths.
fn bundle(entries: &[Vec<u8>]) -> Result<Vec<u8>, VaultError> {
    let mut all = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 2).sum());
    for entry in entries {
        // The parts of an entry are bounded, and together much shorter.
        let length =
            u16::try_from(entry.len()).map_err(|_| VaultError::Internal("an entry is longer than 65,535 bytes: export the log instead"))?;
        all.extend_from_slice(&length.to_be_bytes());
        all.extend_from_slice(entry);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_the_length_before_each_entry() {
        assert_eq!(
            bundle(&[b"ab".to_vec(), vec![], vec![7; 258]]).unwrap(),
            [&[0, 2, b'a', b'b', 0, 0, 1, 2], [7; 258].as_slice()].concat()
        );
        assert!(bundle(&[vec![0; 65_535]]).is_ok() && bundle(&[vec![0; 65_536]]).is_err());
    }
}
