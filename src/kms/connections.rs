//! The connected wrapper keys of this process, each connected once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use crate::domain::{WrapperKey, WrapperKeyId};

use super::{Providers, Wrapper, WrapperError};

/// Connected wrapper keys by id.
///
/// An entry is valid for the attributes it was connected with. A row with another identity, reference or other regions is connected again
/// and checked against the configuration again.
pub struct Connections {
    providers: Arc<Providers>,
    connected: Mutex<HashMap<WrapperKeyId, Arc<ConnectionEntry>>>,
}

struct ConnectionEntry {
    key: WrapperKey,
    wrapper: OnceCell<Arc<dyn Wrapper>>,
}

impl Connections {
    /// No connection yet, over `providers`.
    pub fn new(providers: Arc<Providers>) -> Self {
        Self { providers, connected: Mutex::default() }
    }

    /// The wrapper of a registered key. Connects it if needed; concurrent callers share one connect.
    ///
    /// # Errors
    /// As [`Providers::connect`]. A failure is not remembered.
    pub async fn get(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let entry = self.entry(key);
        entry.wrapper.get_or_try_init(|| self.providers.connect(key)).await.cloned()
    }

    /// Removes the connection of `id`. Running calls finish.
    pub fn forget(&self, id: WrapperKeyId) {
        self.connected().remove(&id);
    }

    fn entry(&self, key: &WrapperKey) -> Arc<ConnectionEntry> {
        let fresh = || Arc::new(ConnectionEntry { key: key.clone(), wrapper: OnceCell::new() });
        let mut connected = self.connected();
        let entry = connected.entry(key.id).or_insert_with(fresh);
        if !same_facts(&entry.key, key) {
            *entry = fresh();
        }
        Arc::clone(entry)
    }

    fn connected(&self) -> MutexGuard<'_, HashMap<WrapperKeyId, Arc<ConnectionEntry>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection for one serves the other. State and canary do not matter to it.
fn same_facts(one: &WrapperKey, other: &WrapperKey) -> bool {
    let WrapperKey { id, name: _, provider, identity, reference, regions, state: _, canary: _, created_at: _ } = one;
    (*id, *provider, identity, reference, regions) == (other.id, other.provider, &other.identity, &other.reference, &other.regions)
}
