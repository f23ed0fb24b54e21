//! One token: its slot, the login, and sessions that are bounded in number. Calls run on blocking threads. A lost session is opened again once; a token
//! that failed is looked for again.

use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
};
use tokio::sync::Semaphore;

use super::{
    config::Pkcs11Config,
    error::Pkcs11Error,
    library::{Library, Ready},
    pin::PinFile,
};
use crate::kms::{
    CallLimits, CredentialFault, Denial, Outage,
    resilience::{CallRateLimit, CircuitBreaker},
};

/// A token of the configuration.
pub(super) struct Token {
    library: Arc<Library>,
    pub(super) label: String,
    pin: PinFile,
    /// One login at a time: concurrent logins with a wrong PIN would lock the token.
    login: Mutex<()>,
    turns: Arc<Semaphore>,
    pub(super) circuit_breaker: Arc<CircuitBreaker>,
    pub(super) rate_limit: Arc<CallRateLimit>,
    /// The label in metrics.
    pub(super) region: Arc<str>,
}

/// A session with a token, logged in as its user.
pub(super) struct TokenSession {
    pub(super) session: Session,
    context: Pkcs11,
    slot: Slot,
    /// The serial number of the token.
    pub(super) serial: String,
}

impl Token {
    /// The token of an entry, the `number`th of the configuration. Loads nothing yet.
    pub(super) fn new(config: &Pkcs11Config, number: usize, limits: &CallLimits) -> Self {
        Self {
            library: Library::at(&config.module),
            label: config.token.clone(),
            pin: PinFile::new(config.pin_file.clone()),
            login: Mutex::default(),
            turns: Arc::new(Semaphore::new(config.sessions)),
            circuit_breaker: Arc::new(CircuitBreaker::new(limits.breaker_failures)),
            rate_limit: Arc::new(CallRateLimit::bounded(limits.max_concurrency, limits.rate_limit)),
            region: format!("pkcs11-{number}").into(),
        }
    }

    /// Runs `work` in a session. If the session is lost, runs it again in a new one. A caller that gives up does not end the call: it keeps
    /// its turn until the library returns.
    ///
    /// # Errors
    /// Those of `work`, of the login and of the library.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Fn(&TokenSession) -> Result<T, Pkcs11Error> + Send + 'static,
    ) -> Result<T, Pkcs11Error> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Pkcs11Error::Outage(Outage::NotTried))?;
        let token = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            token.run_blocking(&work)
        });
        // A task is lost only at the end of the process.
        done.await.unwrap_or(Err(Pkcs11Error::Outage(Outage::NotTried)))
    }

    fn run_blocking<T>(&self, work: &impl Fn(&TokenSession) -> Result<T, Pkcs11Error>) -> Result<T, Pkcs11Error> {
        let once = || self.library.with(|ready| self.in_session(ready, work));
        let result = match once() {
            Err(Pkcs11Error::Lost) => once(),
            result => result,
        };
        if let Err(Pkcs11Error::Lost | Pkcs11Error::Outage(Outage::TokenAbsent | Outage::ServerError)) = &result {
            self.library.restart();
        }
        result
    }

    fn in_session<T>(&self, ready: &Ready, work: impl Fn(&TokenSession) -> Result<T, Pkcs11Error>) -> Result<T, Pkcs11Error> {
        let session = match ready.take(&self.label) {
            Some(session) => session,
            None => self.open(&ready.context)?,
        };
        let result = work(&session);
        match &result {
            Ok(_) | Err(Pkcs11Error::Denied(_) | Pkcs11Error::NotPermitted(_) | Pkcs11Error::Misconfigured(_)) => {
                ready.keep(&self.label, session);
            }
            Err(Pkcs11Error::Lost) => {
                session.close();
                ready.close(&self.label);
            }
            // An operation may still be active in the session.
            Err(Pkcs11Error::Invalid | Pkcs11Error::Ambiguous | Pkcs11Error::Outage(_)) => session.close(),
        }
        result
    }

    fn open(&self, context: &Pkcs11) -> Result<TokenSession, Pkcs11Error> {
        let (slot, info) = self.find(context)?;
        let session = context.open_ro_session_no_drop(slot)?;
        let session = TokenSession { session, context: context.clone(), slot, serial: info.serial_number().to_owned() };
        match self.log_in(&session.session, &info) {
            Ok(()) => Ok(session),
            Err(error) => {
                session.close();
                Err(error)
            }
        }
    }

    /// The slot of the token.
    fn find(&self, context: &Pkcs11) -> Result<(Slot, TokenInfo), Pkcs11Error> {
        // A slot whose token fails is not the reason of another token.
        let infos = context.get_slots_with_token()?.into_iter().filter_map(|slot| Some((slot, context.get_token_info(slot).ok()?)));
        let mut found = infos.filter(|(_, info)| info.label() == self.label);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Pkcs11Error::Outage(Outage::TokenAbsent)),
            (Some(_), Some(_)) => Err(Pkcs11Error::Misconfigured(format!(
                "the library has several tokens with the label {:?}; give each another one",
                self.label
            ))),
        }
    }

    fn log_in(&self, session: &Session, info: &TokenInfo) -> Result<(), Pkcs11Error> {
        let refused = |fault| Err(Pkcs11Error::Denied(Denial::Credentials(fault)));
        let _one_at_a_time = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        // All sessions of a process share one login.
        let logged_in = matches!(session.get_session_info()?.session_state(), SessionState::RoUser | SessionState::RwUser);
        if logged_in || !info.login_required() {
            return Ok(());
        }
        if info.user_pin_locked() {
            return refused(CredentialFault::PinLocked);
        }
        if info.user_pin_final_try() {
            return refused(CredentialFault::PinLastTry);
        }
        let pin = self.pin.read()?;
        match session.login_with_raw(UserType::User, &pin.for_login()) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => {
                let error = Pkcs11Error::from(error);
                if error == Pkcs11Error::Denied(Denial::Credentials(CredentialFault::PinRefused)) {
                    self.pin.refuse(pin);
                }
                Err(error)
            }
        }
    }
}

impl TokenSession {
    /// Whether the token is still in its slot. Without it, some libraries report that it has no objects.
    ///
    /// # Errors
    /// `TokenAbsent`.
    pub(super) fn token_is_present(&self) -> Result<(), Pkcs11Error> {
        let same = self.context.get_token_info(self.slot).is_ok_and(|info| info.serial_number() == self.serial);
        if same { Ok(()) } else { Err(Pkcs11Error::Outage(Outage::TokenAbsent)) }
    }

    /// Runs `work` in a session of its own that may write.
    ///
    /// # Errors
    /// Those of `work` and of the library.
    pub(super) fn writing<T>(&self, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Pkcs11Error> {
        let session = self.context.open_rw_session(self.slot)?;
        Ok(work(&session)?)
    }

    /// Ends the session. It may have ended already.
    pub(super) fn close(self) {
        let _ = self.session.close();
    }
}
