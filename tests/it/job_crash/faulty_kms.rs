//! A simulated KMS: every call may get any answer that a real KMS may give, and faults are random.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use canton_keyvault::{
    crypto::SecretBytes,
    domain::{EncryptionContext, WrapperKey, WrapperKeyId},
    kms::{Denial, Description, ForeignWrap, Outage, Unwrapped, Wrapped, Wrapper, WrapperError},
};

use crate::storage_disk::{Disk, split_mix};

/// What a call of a KMS may end with, beside success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    TimedOut,
    Throttled,
    Unreachable,
    ServerError,
    NotTried,
    Disabled,
    AccessDenied,
    InvalidState,
}

const FAULTS: [Fault; 8] = [
    Fault::TimedOut,
    Fault::Throttled,
    Fault::Unreachable,
    Fault::ServerError,
    Fault::NotTried,
    Fault::Disabled,
    Fault::AccessDenied,
    Fault::InvalidState,
];

impl Fault {
    fn error(self, key: &WrapperKey) -> WrapperError {
        let (reference, request_id) = (key.reference.clone(), Some("request".to_owned()));
        let outage = |outage| WrapperError::Unavailable { reference: reference.clone(), outage, request_id: None };
        let denial =
            |denial| WrapperError::Denied { reference: reference.clone(), denial, permission: None, request_id: request_id.clone() };
        match self {
            Self::TimedOut => outage(Outage::TimedOut),
            Self::Throttled => outage(Outage::Throttled),
            Self::Unreachable => outage(Outage::Unreachable),
            Self::ServerError => outage(Outage::ServerError),
            Self::NotTried => outage(Outage::NotTried),
            Self::Disabled => denial(Denial::Disabled),
            Self::AccessDenied => denial(Denial::AccessDenied),
            Self::InvalidState => denial(Denial::InvalidState),
        }
    }
}

/// What a KMS does with one call.
enum Fate {
    Well,
    Slow(Duration),
    Refused(Fault),
    /// Done, but the answer is lost.
    Lost(Fault),
}

/// All wrapper keys of one run, over its restarts.
pub(crate) struct FaultyKms {
    seed: Mutex<u64>,
    /// Of a thousand calls so many meet a fault.
    per_mille: AtomicU64,
    /// Whether two wrapper keys meet in one KMS, which re-wraps.
    can_rewrap_from: bool,
    /// Wrapper keys that fail for some calls to come.
    spells: Mutex<HashMap<WrapperKeyId, (u32, Fault)>>,
    /// The wrappers themselves.
    plain: Mutex<HashMap<WrapperKeyId, Arc<dyn Wrapper>>>,
    /// Cuts the power of a disk in so many calls.
    cut: Mutex<Option<(u64, Arc<Disk>)>>,
    /// What happened, for the report.
    pub(crate) met: Mutex<BTreeMap<String, u64>>,
}

impl FaultyKms {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed: Mutex::new(seed),
            per_mille: AtomicU64::new(0),
            can_rewrap_from: seed.is_multiple_of(2),
            spells: Mutex::default(),
            plain: Mutex::default(),
            cut: Mutex::default(),
            met: Mutex::default(),
        })
    }

    /// Sets the rate of faults; 0 also ends current faults.
    pub(crate) fn weather(&self, per_mille: u64) {
        self.per_mille.store(per_mille, Ordering::Relaxed);
        if per_mille == 0 {
            self.spells.lock().unwrap().clear();
        }
    }

    /// From now on a wrapper key fails, until the rate is 0.
    pub(crate) fn fail(&self, key: WrapperKeyId, fault: Fault) {
        self.spells.lock().unwrap().insert(key, (u32::MAX, fault));
    }

    /// The power goes while the call after so many others is under way.
    pub(crate) fn cut_power_after(&self, calls: u64, disk: Arc<Disk>) {
        *self.cut.lock().unwrap() = Some((calls, disk));
    }

    /// The wrapper key without faults.
    pub(crate) fn plain(&self, key: WrapperKeyId) -> Option<Arc<dyn Wrapper>> {
        self.plain.lock().unwrap().get(&key).cloned()
    }

    /// For `Providers::decorated`.
    pub(crate) fn under(self: &Arc<Self>, key: &WrapperKey, plain: Arc<dyn Wrapper>) -> Arc<dyn Wrapper> {
        self.plain.lock().unwrap().insert(key.id, Arc::clone(&plain));
        Arc::new(Under { sky: Arc::clone(self), key: key.clone(), plain })
    }

    fn throw(&self, below: u64) -> u64 {
        split_mix(&mut self.seed.lock().unwrap()) % below
    }

    fn fate(&self, key: WrapperKeyId) -> Fate {
        if let Some((left, disk)) = &mut *self.cut.lock().unwrap() {
            match left {
                0 => disk.cut_power_after(0, self.throw(u64::MAX)),
                left => *left -= 1,
            }
        }
        if let Some((left, fault)) = self.spells.lock().unwrap().get_mut(&key)
            && *left > 0
        {
            *left -= 1;
            return Fate::Refused(*fault);
        }
        if self.throw(1000) >= self.per_mille.load(Ordering::Relaxed) {
            return Fate::Well;
        }
        let fault = FAULTS[usize::try_from(self.throw(FAULTS.len() as u64)).unwrap()];
        match self.throw(8) {
            0 => {
                let calls = u32::try_from(1 + self.throw(60)).unwrap();
                self.spells.lock().unwrap().insert(key, (calls, fault));
                Fate::Refused(fault)
            }
            1 | 2 => Fate::Lost(fault),
            3 => Fate::Slow(Duration::from_micros(self.throw(4_000))),
            _ => Fate::Refused(fault),
        }
    }

    fn note(&self, what: String) {
        *self.met.lock().unwrap().entry(what).or_default() += 1;
    }
}

/// A wrapper key with faults.
struct Under {
    sky: Arc<FaultyKms>,
    key: WrapperKey,
    plain: Arc<dyn Wrapper>,
}

impl Under {
    async fn call<T>(&self, action: &str, work: impl Future<Output = Result<T, WrapperError>> + Send) -> Result<T, WrapperError> {
        match self.sky.fate(self.key.id) {
            Fate::Well => work.await,
            Fate::Slow(time) => {
                tokio::time::sleep(time).await;
                work.await
            }
            Fate::Refused(fault) => {
                self.sky.note(format!("{action} {fault:?}"));
                Err(fault.error(&self.key))
            }
            Fate::Lost(fault) => {
                work.await?;
                self.sky.note(format!("{action} done, answered {fault:?}"));
                Err(fault.error(&self.key))
            }
        }
    }
}

#[async_trait]
impl Wrapper for Under {
    async fn wrap(&self, data_key: &SecretBytes, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        self.call("wrap", self.plain.wrap(data_key, context)).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<Unwrapped, WrapperError> {
        self.call("unwrap", self.plain.unwrap(wrapped, context)).await
    }

    fn can_rewrap_from(&self, _: &WrapperKey) -> bool {
        self.sky.can_rewrap_from
    }

    /// As a KMS does: it opens the one and wraps under the other inside.
    async fn rewrap(&self, from: ForeignWrap<'_>, context: &EncryptionContext) -> Result<Wrapped, WrapperError> {
        let other = self.sky.plain(from.key.id).expect("the vault connects what it re-wraps from");
        self.call("rewrap", async move {
            let unwrapped = other.unwrap(from.wrapped, context).await?;
            self.plain.wrap(&unwrapped.data_key, context).await
        })
        .await
    }

    async fn describe(&self) -> Result<Description, WrapperError> {
        self.plain.describe().await
    }
}
