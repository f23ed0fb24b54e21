//! A loaded PKCS#11 library: initialized once for the process, and again after a token failed, because many libraries find a token that came back
//! only then.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use super::{error::Pkcs11Error, token::TokenSession};

/// A library. PKCS#11 permits one initialization for each process, so that all providers of a process share it.
pub(super) struct Library {
    path: PathBuf,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Never unloaded: some libraries do not survive that.
    loaded: Option<Pkcs11>,
    ready: Option<Ready>,
    restarted: Option<Instant>,
}

/// An initialized library, and the sessions that nobody uses now.
pub(super) struct Ready {
    pub(super) context: Pkcs11,
    /// By the label of the token.
    idle: Mutex<HashMap<String, Vec<TokenSession>>>,
}

/// The libraries of this process, by path.
static LIBRARIES: Mutex<BTreeMap<PathBuf, Arc<Library>>> = Mutex::new(BTreeMap::new());

impl Library {
    /// The library at this path. Does not load it yet.
    pub(super) fn at(path: &Path) -> Arc<Self> {
        let mut all = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Self { path: path.to_owned(), state: RwLock::default() });
        Arc::clone(all.entry(path.to_owned()).or_insert_with(new))
    }

    /// Runs `work` with the library, which is not initialized anew meanwhile. Blocks.
    ///
    /// # Errors
    /// Those of `work`; `Misconfigured` for a library that cannot be loaded.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Ready) -> Result<T, Pkcs11Error>) -> Result<T, Pkcs11Error> {
        loop {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(ready) = &state.ready {
                return work(ready);
            }
            drop(state);
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.ready.is_none() {
                let context = match &state.loaded {
                    Some(context) => context.clone(),
                    None => self.load()?,
                };
                state.loaded = Some(context.clone());
                state.ready = Some(initialized(context)?);
            }
        }
    }

    /// Ends all sessions and initializes the library again, unless that was done a moment ago. It is put off while calls run, because one of
    /// them may never end.
    pub(super) fn restart(&self) {
        let began = Instant::now();
        let mut state = loop {
            match self.state.try_write() {
                Ok(state) => break state,
                Err(_) if began.elapsed() > MAX_WAIT => return,
                Err(_) => thread::sleep(MAX_WAIT / 50),
            }
        };
        if state.restarted.is_some_and(|at| at.elapsed() < BETWEEN_RESTARTS) {
            return;
        }
        let Some(Ready { context, idle }) = state.ready.take() else { return };
        state.restarted = Some(Instant::now());
        tracing::warn!(library = %self.path.display(), "a PKCS#11 token failed: the library is initialized again");
        for session in idle.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().flatten() {
            session.close();
        }
        // A failure shows at the next initialization.
        let _ = context.clone().finalize();
        state.ready = initialized(context).ok();
    }

    fn load(&self) -> Result<Pkcs11, Pkcs11Error> {
        let wrong = |what: String| Pkcs11Error::Misconfigured(format!("module {}: {what}", self.path.display()));
        let metadata = fs::metadata(&self.path).map_err(|error| wrong(error.to_string()))?;
        // The code of the library runs with all rights of the vault.
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(wrong(format!("other users can write this file (mode {mode:03o}); run chmod go-w on it")));
        }
        if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(wrong(format!("it belongs to the user {}, neither to root nor to the user of the vault", metadata.uid())));
        }
        Pkcs11::new(&self.path).map_err(|error| wrong(format!("it is not a PKCS#11 library that can be loaded: {error}")))
    }
}

impl Ready {
    /// A session with the token that nobody uses.
    pub(super) fn take(&self, token: &str) -> Option<TokenSession> {
        self.idle().get_mut(token)?.pop()
    }

    /// Keeps a session that works.
    pub(super) fn keep(&self, token: &str, session: TokenSession) {
        self.idle().entry(token.to_owned()).or_default().push(session);
    }

    /// Ends the sessions with the token that nobody uses.
    pub(super) fn close(&self, token: &str) {
        let closed = self.idle().remove(token);
        closed.into_iter().flatten().for_each(TokenSession::close);
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<String, Vec<TokenSession>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn initialized(context: Pkcs11) -> Result<Ready, Pkcs11Error> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Initialized by another part of the process, such as a second path to the same library.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(Ready { context, idle: Mutex::default() }),
        Err(error) => Err(error.into()),
    }
}

/// How long a restart waits for running calls.
const MAX_WAIT: Duration = Duration::from_millis(100);
const BETWEEN_RESTARTS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_file_that_is_no_library_or_that_others_can_write_is_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p11.so");
        let error = || match Library::at(&path).with(|_| Ok(())) {
            Err(Pkcs11Error::Misconfigured(what)) => what,
            other => panic!("{other:?}"),
        };
        assert!(error().contains("No such file"));
        fs::write(&path, "not a library").unwrap();
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(error().contains("chmod go-w"), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(error().contains("not a PKCS#11 library"));
    }
}
