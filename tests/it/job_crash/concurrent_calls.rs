//! Random calls that run concurrently with a job. Each may be refused, but never because of a fault of the vault.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use canton_keyvault::{
    crypto::SecretBytes,
    domain::{Algorithm, JobKind, JobState, KeyId, KeySpec, ProviderKind, Purpose},
    vault::{Code, ImportKey, MaterialFormat, NewKey, NewWrapperKey, PageRequest, Vault, VaultError, WrapperKeyOrigin},
};

use crate::storage_disk::{Disk, split_mix};

use super::process::{Scenario, as_};

const ALL: PageRequest = PageRequest { after: 0, limit: 1000 };

/// One caller after the other.
pub(crate) struct ConcurrentCaller {
    pub(crate) world: Arc<Scenario>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) seed: u64,
    pub(crate) answers: Arc<Mutex<BTreeMap<String, u64>>>,
    pub(crate) wrong: Arc<Mutex<Vec<String>>>,
}

impl ConcurrentCaller {
    pub(crate) fn dice(&mut self, below: u64) -> u64 {
        split_mix(&mut self.seed) % below
    }

    /// So many calls on keys, or until the power goes.
    pub(crate) async fn use_keys(mut self, calls: u64) {
        for _ in 0..calls {
            let dice = self.dice(100);
            if let Some(id) = self.some_key() {
                match dice {
                    0..8 => self.create(KeySpec::Aes256).await,
                    8..10 => self.create(KeySpec::EcCurve25519).await,
                    10..16 => self.import().await,
                    16..34 => self.did("disable", self.vault.disable(&as_("key-admin"), id).await.map(drop)),
                    34..52 => self.did("enable", self.vault.enable(&as_("key-admin"), id).await.map(drop)),
                    52..58 => self.did("delete", self.vault.delete(&as_("key-admin"), id, 7).await.map(drop)),
                    58..64 => self.did("cancel deletion", self.vault.cancel_deletion(&as_("key-admin"), id).await.map(drop)),
                    64..66 => {
                        self.world.move_on(Duration::from_hours(8 * 24));
                        self.vault.destroy_due().await;
                    }
                    66..80 => self.did("reseal", self.vault.reseal_key(&as_("key-admin"), id).await.map(drop)),
                    80..83 => {
                        let made = self.vault.rotate(&as_("node"), id, None).await;
                        self.promise("rotate", made.map(|answer| answer.into_value().attributes.id));
                    }
                    _ => self.encrypt(id).await,
                }
            } else {
                self.create(KeySpec::Aes256).await;
            }
            if self.disk.is_off() {
                return;
            }
            tokio::time::sleep(Duration::from_micros(self.dice(1_500))).await;
        }
    }

    /// So many calls on wrapper keys and jobs, or until the power goes.
    pub(crate) async fn use_wrapper_keys(mut self, calls: u64) {
        for _ in 0..calls {
            match self.dice(20) {
                0 | 1 => self.add_wrapper_key().await,
                2..10 => self.start_rotation().await,
                10..13 => self.did("start reseal", self.vault.start_reseal(&as_("key-admin")).await.map(drop)),
                13..15 => self.abort().await,
                15..18 => self.retire().await,
                _ => self.look().await,
            }
            if self.disk.is_off() {
                return;
            }
            tokio::time::sleep(Duration::from_micros(self.dice(12_000))).await;
        }
    }

    fn some_key(&mut self) -> Option<KeyId> {
        let promised = self.world.promised.lock().unwrap().clone();
        // Every other call is on one of the newest, so that callers meet.
        let among = if self.dice(2) == 0 { promised.len() } else { promised.len().min(3) };
        let dice = self.dice(u64::MAX);
        (among > 0).then(|| promised[promised.len() - 1 - usize::try_from(dice % among as u64).unwrap()])
    }

    pub(crate) async fn create(&mut self, spec: KeySpec) {
        let purpose = if spec == KeySpec::Aes256 { Purpose::Symmetric } else { Purpose::Signing };
        let new = NewKey { node: "n1".parse().unwrap(), purpose, spec, usages: None, class: None, name: None, exportable: false };
        let made = self.vault.create_key(&as_("node"), new).await;
        self.promise("create", made.map(|answer| answer.into_value().attributes.id));
    }

    async fn import(&mut self) {
        let material = std::array::from_fn::<u64, 4, _>(|_| self.dice(u64::MAX)).map(u64::to_be_bytes).concat();
        let import = ImportKey {
            node: "n1".parse().unwrap(),
            format: MaterialFormat::Raw,
            material: SecretBytes::from(material),
            password: None,
            purpose: None,
            usages: None,
            class: None,
            name: None,
            exportable: false,
            replace_destroyed: false,
        };
        let made = self.vault.import_key(&as_("key-admin"), import).await;
        self.promise("import", made.map(|answer| answer.into_value().record.attributes.id));
    }

    pub(crate) async fn encrypt(&mut self, id: KeyId) {
        let done = if matches!(id, KeyId::Symmetric(_)) {
            self.vault.encrypt(&as_("node"), id, Algorithm::Aes256Gcm, SecretBytes::copy_of(b"message")).await.map(drop)
        } else {
            self.vault.sign(&as_("node"), id, Algorithm::Ed25519, b"message".to_vec()).await.map(drop)
        };
        self.did("use", done);
    }

    pub(crate) async fn add_wrapper_key(&mut self) {
        if self.wrapper_keys().await.len() >= 6 {
            return;
        }
        let origin = WrapperKeyOrigin::Create { provider: ProviderKind::Local, multi_region: false, regions: Vec::new() };
        let new = NewWrapperKey { name: None, origin };
        let added = self.vault.add_wrapper_key(&as_("wrapper-admin"), new).await;
        self.did("add wrapper key", added.map(drop));
    }

    async fn wrapper_keys(&self) -> Vec<canton_keyvault::vault::WrapperKeyView> {
        self.vault.list_wrapper_keys(&as_("wrapper-admin"), ALL).await.map(|answer| answer.into_value().items).unwrap_or_default()
    }

    async fn start_rotation(&mut self) {
        let keys = self.wrapper_keys().await;
        if keys.is_empty() {
            return;
        }
        let to = keys[usize::try_from(self.dice(keys.len() as u64)).unwrap()].key.id;
        self.did("start rotation", self.vault.start_rotation(&as_("wrapper-admin"), to).await.map(drop));
    }

    async fn retire(&mut self) {
        let keys = self.wrapper_keys().await;
        if keys.is_empty() {
            return;
        }
        let id = keys[usize::try_from(self.dice(keys.len() as u64)).unwrap()].key.id;
        self.did("retire", self.vault.retire_wrapper_key(&as_("wrapper-admin"), id).await.map(drop));
    }

    async fn abort(&mut self) {
        for (kind, who) in [(JobKind::Rotation, "wrapper-admin"), (JobKind::Reseal, "key-admin")] {
            let Ok(jobs) = self.vault.list_jobs(&as_(who), kind, ALL).await else { continue };
            let running = jobs.into_value().items.into_iter().find(|job| job.state == JobState::Running);
            if let Some(job) = running {
                self.did("abort", self.vault.abort_job(&as_(who), kind, job.id).await.map(drop));
            }
        }
    }

    async fn look(&mut self) {
        let jobs = self.vault.list_jobs(&as_("wrapper-admin"), JobKind::Rotation, ALL).await;
        self.did("list", jobs.map(drop));
    }

    fn promise(&self, what: &str, made: Result<KeyId, VaultError>) {
        self.did(what, made.map(|id| self.world.promised.lock().unwrap().push(id)));
    }

    /// Notes an answer; some must not be.
    fn did(&self, what: &str, result: Result<(), VaultError>) {
        let code = result.as_ref().err().map(VaultError::code);
        let answer = code.map_or("ok", Code::as_str);
        *self.answers.lock().unwrap().entry(format!("{what}: {answer}")).or_default() += 1;
        let may_be = matches!(
            code,
            None | Some(
                Code::WrapperDenied
                    | Code::WrapperUnavailable
                    | Code::Conflict
                    | Code::InvalidKeyState
                    | Code::KeyHasSuccessor
                    | Code::KeyDisabled
                    | Code::KeySuperseded
                    | Code::KeyPendingDeletion
                    | Code::KeyDestroyed
                    | Code::JobRunning
                    | Code::JobEnded
                    | Code::InvalidWrapperKeyState
                    | Code::WrapperKeyInUse
            )
        );
        let for_want_of_power = matches!(code, Some(Code::AuditUnavailable | Code::StorageUnavailable)) && self.disk.is_off();
        if let Err(error) = result
            && !may_be
            && !for_want_of_power
        {
            self.wrong.lock().unwrap().push(format!("{what}: {error} ({error:?})"));
        }
    }
}
