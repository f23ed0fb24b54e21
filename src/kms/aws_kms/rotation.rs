//! How AWS rotates the material of a key, read with `GetKeyRotationStatus` and `ListKeyRotations`.

use aws_sdk_kms::{
    primitives::DateTime,
    types::{RotationType, RotationsListEntry},
};

use crate::domain::{KmsRotation, KmsRotationKind, Timestamp};

use super::region_key::RegionKey;
use crate::kms::WrapperError;

impl RegionKey {
    /// The rotation of the key, with the newest of all past rotations.
    pub(super) async fn rotates(&self) -> Result<KmsRotation, WrapperError> {
        let request = self.client.get_key_rotation_status().key_id(&self.target);
        let status = self
            .credentials
            .send(self.action("GetKeyRotationStatus"), &self.target, "kms:GetKeyRotationStatus", || request.clone().send())
            .await?;
        let last = self.last_rotation().await?;
        Ok(KmsRotation {
            automatic: status.key_rotation_enabled,
            period_days: status.rotation_period_in_days.and_then(|days| u32::try_from(days).ok()),
            next_at: status.next_rotation_date.as_ref().and_then(timestamp),
            last_at: last.map(|(at, _)| at),
            last_kind: last.and_then(|(_, kind)| kind),
            on_demand_since: status.on_demand_rotation_start_date.as_ref().and_then(timestamp),
        })
    }

    /// KMS guarantees no order.
    async fn last_rotation(&self) -> Result<Option<(Timestamp, Option<KmsRotationKind>)>, WrapperError> {
        let (mut newest, mut marker) = (None, None);
        loop {
            let request = self.client.list_key_rotations().key_id(&self.target).set_marker(marker);
            let page = self
                .credentials
                .send(self.action("ListKeyRotations"), &self.target, "kms:ListKeyRotations", || request.clone().send())
                .await?;
            newest = page.rotations().iter().filter_map(told).chain(newest).max_by_key(|(at, _)| *at);
            marker = page.next_marker;
            if !page.truncated || marker.is_none() {
                return Ok(newest);
            }
        }
    }
}

fn told(rotation: &RotationsListEntry) -> Option<(Timestamp, Option<KmsRotationKind>)> {
    let kind = match rotation.rotation_type() {
        Some(RotationType::Automatic) => Some(KmsRotationKind::Automatic),
        Some(RotationType::OnDemand) => Some(KmsRotationKind::OnDemand),
        _ => None,
    };
    Some((timestamp(rotation.rotation_date()?)?, kind))
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    let micros = at.secs().checked_mul(1_000_000)?.checked_add(i64::from(at.subsec_nanos() / 1000))?;
    Some(Timestamp::from_micros(micros))
}
