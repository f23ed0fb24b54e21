//! Helpers that several tests use.

pub(crate) mod api;
pub(crate) mod aws_vault;
pub(crate) mod azure_key_vault;
pub(crate) mod cloud_double;
pub(crate) mod gcp_federation;
pub(crate) mod gcp_kms;
pub(crate) mod jobs;
pub(crate) mod kms;
pub(crate) mod listener;
pub(crate) mod openbao;
pub(crate) mod openssl;
pub(crate) mod pki;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod slow_disk;
pub(crate) mod softhsm;
pub(crate) mod vault;
pub(crate) mod verify;
pub(crate) mod wrapper;
