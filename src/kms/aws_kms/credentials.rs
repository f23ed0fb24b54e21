//! The AWS credentials of the process: loaded by one task at a time, used by all regions, and replaced while the vault serves.
//!
//! They are loaded again before they expire, when a shared file changes (looked at once a second), after [`MAX_AGE`] if they have no expiry, and
//! when AWS refuses them. A refused call is repeated once, if there are other credentials. A failure is remembered for a second.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_sdk_kms::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use subtle::ConstantTimeEq as _;
use tokio::time::{Instant, timeout};

use super::{
    credential_error::classify,
    credential_source::{Configured, SLOW, Source, fingerprint, loader, shared_files},
    error::{is_recorded, sort},
};
use crate::kms::{CredentialFault, Denial, KmsCalls, Outage, WrapperError};

/// Why there are no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// A person must act.
    Denied(CredentialFault),
    /// It may pass.
    Outage(Outage),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(fault) => fault.fmt(f),
            Self::Outage(outage) => outage.fmt(f),
        }
    }
}

impl Error for Failure {}

/// The credentials of one configuration.
pub(super) struct AwsCredentials {
    /// Instead of the configured sources.
    given: Option<SharedCredentialsProvider>,
    /// The region of STS, if neither the environment nor the profile names one.
    home: String,
    /// How long a call waits for a load. The load goes on without it.
    patience: Duration,
    /// The settings of all clients. Its clock signs the requests.
    shared: SdkConfig,
    /// Where each request leaves its id.
    calls: Arc<KmsCalls>,
    state: Mutex<State>,
}

/// A call, as CloudTrail names it.
#[derive(Clone, Copy)]
pub(super) struct Action<'a> {
    pub(super) name: &'static str,
    pub(super) region: &'a str,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    loading: Option<Shared<BoxFuture<'static, Result<Credentials, Failure>>>>,
    failed: Option<(Instant, Failure)>,
    /// When the shared files were last compared.
    looked: Option<Instant>,
    /// The last failure in the log.
    told: Option<Failure>,
}

struct Current {
    credentials: Credentials,
    since: Instant,
    renew_at: Instant,
    /// The shared files from which they were loaded.
    files: [u8; 32],
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Accepted,
    /// The shared files differ from those from which they were loaded.
    FilesChanged,
    /// AWS refused them.
    Refused,
}

impl AwsCredentials {
    /// Loads nothing yet. `given` is used instead of the configured sources.
    pub(super) fn new(
        home: String,
        patience: Duration,
        given: Option<SharedCredentialsProvider>,
        shared: SdkConfig,
        calls: Arc<KmsCalls>,
    ) -> Arc<Self> {
        Arc::new(Self { given, home, patience, shared, calls, state: Mutex::default() })
    }

    /// Credentials of the configured sources, for a command.
    pub(super) async fn of_command(region: Option<&str>) -> Arc<Self> {
        let loader = loader().no_credentials();
        let loader = match region {
            Some(region) => loader.region(aws_config::Region::new(region.to_owned())),
            None => loader,
        };
        let shared = loader.load().await;
        let home = shared.region().map_or(ANY_REGION, |region| region.as_ref()).to_owned();
        Self::new(home, Duration::from_secs(30), None, shared, Arc::default())
    }

    /// The settings for clients, with these credentials.
    pub(super) fn client_config(self: &Arc<Self>) -> aws_sdk_kms::config::Builder {
        let provider = SharedCredentialsProvider::new(Provider(Arc::clone(self)));
        aws_sdk_kms::config::Builder::from(&self.shared)
            .credentials_provider(provider)
            // This type keeps them.
            .identity_cache(aws_sdk_kms::config::IdentityCache::no_cache())
    }

    /// Sends a request. If AWS refuses the credentials and there are others by now, or the clock was wrong, it is sent once more.
    ///
    /// # Errors
    /// What the failed call means. `permission` is what an operator must permit for it.
    pub(super) async fn send<T, E, F>(
        self: &Arc<Self>,
        action: Action<'_>,
        reference: &str,
        permission: &'static str,
        call: impl Fn() -> F + Send,
    ) -> Result<T, WrapperError>
    where
        T: RequestId,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    {
        let sent = Instant::now();
        let first = match self.recorded(action, call()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => sort(reference, permission, &error, self.now()),
        };
        let again = match first {
            WrapperError::Denied { denial: Denial::Credentials(CredentialFault::ClockSkew), .. } => {
                tracing::warn!("the clock of this machine differs from that of AWS by more than 5 minutes; set it");
                // The SDK signs with the time of AWS from now on.
                true
            }
            WrapperError::Denied { denial: Denial::Credentials(_), .. } => self.replaced_after(sent).await,
            _ => false,
        };
        if !again {
            return Err(first);
        }
        self.recorded(action, call()).await.map_err(|error| sort(reference, permission, &error, self.now()))
    }

    /// Sends a request once. Its request id reaches the audit log, whatever the answer is, and also if the caller stops waiting for it.
    pub(super) async fn recorded<T, E, F>(&self, action: Action<'_>, call: F) -> Result<T, SdkError<E, HttpResponse>>
    where
        T: RequestId,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    {
        let sent = self.calls.begin(action.name, action.region);
        let answer = call.await;
        match &answer {
            Ok(answer) => sent.answered(answer.request_id()),
            Err(error) if is_recorded(error) => sent.answered(error.request_id()),
            Err(_) => sent.leaves_no_record(),
        }
        answer
    }

    /// The credentials to use.
    async fn current(self: &Arc<Self>) -> Result<Credentials, Failure> {
        self.compare_files().await;
        let loading = {
            let mut state = self.state();
            let now = Instant::now();
            match &state.current {
                Some(current) if current.standing == Standing::Accepted && now < current.renew_at => {
                    return Ok(current.credentials.clone());
                }
                _ => {}
            }
            if let Some((_, failure)) = state.failed.filter(|(at, _)| at.elapsed() < PAUSE) {
                return still_valid(&state, failure, self.now()).ok_or(failure);
            }
            let loading = state.loading.get_or_insert_with(|| Self::begin(Arc::clone(self))).clone();
            // They are renewed early, and this call need not wait for that.
            let early = state.current.as_ref().filter(|current| current.standing == Standing::Accepted);
            if let Some(current) = early.filter(|current| current.credentials.expiry().is_some_and(|expiry| expiry > self.now())) {
                return Ok(current.credentials.clone());
            }
            loading
        };
        timeout(self.patience, loading).await.unwrap_or(Err(SLOW))
    }

    /// Whether there are other credentials than those of a call that was sent then and refused.
    async fn replaced_after(self: &Arc<Self>, sent: Instant) -> bool {
        let refused = {
            let mut state = self.state();
            match &mut state.current {
                Some(current) if current.since > sent => return true,
                Some(current) if current.since.elapsed() >= PAUSE => {
                    current.standing = Standing::Refused;
                    current.credentials.clone()
                }
                _ => return false,
            }
        };
        self.current().await.is_ok_and(|new| !same(&new, &refused))
    }

    /// Lets the credentials be loaded again if a shared file changed. One caller a second reads the files.
    async fn compare_files(&self) {
        let known = {
            let mut state = self.state();
            let due = state.looked.is_none_or(|at| at.elapsed() >= PAUSE);
            match &state.current {
                Some(current) if due && self.given.is_none() => {
                    let files = current.files;
                    state.looked = Some(Instant::now());
                    files
                }
                _ => return,
            }
        };
        let Ok(Ok(found)) = timeout(self.patience, tokio::task::spawn_blocking(fingerprint)).await else { return };
        if let Some(current) = self.state().current.as_mut().filter(|current| current.files == known && found != known) {
            if current.standing == Standing::Accepted {
                current.standing = Standing::FilesChanged;
            }
            tracing::info!(files = %listed(), "the shared AWS files changed; the credentials are read again");
        }
    }

    /// Starts a load that no caller ends. A slow process or server is asked once at a time.
    fn begin(self: Arc<Self>) -> Shared<BoxFuture<'static, Result<Credentials, Failure>>> {
        let task = tokio::spawn(async move {
            let loaded = timeout(LOAD_LIMIT, self.load()).await.unwrap_or(Err(SLOW));
            self.finish(loaded)
        });
        async move { task.await.unwrap_or(Err(SLOW)) }.boxed().shared()
    }

    async fn load(&self) -> Result<(Credentials, [u8; 32], &'static str), Failure> {
        if let Some(given) = &self.given {
            let found = given.provide_credentials().await.map_err(|error| classify(Source::Instance, &error))?;
            return Ok((found, [0; 32], "given"));
        }
        // Before the load, so that a change meanwhile is noticed.
        let files = tokio::task::spawn_blocking(fingerprint).await.map_err(|_| SLOW)?;
        let configured = Configured::find().await?;
        let (source, profile) = (configured.source.as_str(), &configured.profile);
        let loaded = configured.load(&self.home).await.and_then(|credentials| match credentials.expiry() {
            Some(expiry) if expiry <= self.now() => Err(Failure::Denied(CredentialFault::Expired)),
            _ => Ok(credentials),
        });
        if let Err(failure) = &loaded {
            let mut state = self.state();
            if state.told != Some(*failure) {
                state.told = Some(*failure);
                tracing::warn!(source, profile, files = %listed(), error = %failure, "the AWS credentials cannot be loaded; the vault retries");
            }
        }
        Ok((loaded?, files, source))
    }

    fn finish(&self, loaded: Result<(Credentials, [u8; 32], &'static str), Failure>) -> Result<Credentials, Failure> {
        let mut state = self.state();
        (state.loading, state.looked) = (None, Some(Instant::now()));
        match loaded {
            Ok((credentials, files, source)) => {
                let lifetime = credentials.expiry().map(|expiry| expiry.duration_since(self.now()).unwrap_or_default());
                let is_new = state.current.as_ref().is_none_or(|current| !same(&current.credentials, &credentials));
                if self.given.is_none() && (is_new || state.told.is_some()) {
                    let (access_key, seconds) = (credentials.access_key_id(), lifetime.map(|lifetime| lifetime.as_secs()));
                    tracing::info!(source, access_key, seconds, "AWS credentials loaded");
                }
                // A quarter of the lifetime remains for failures, at most five minutes.
                let renew_in = lifetime.map_or(MAX_AGE, |lifetime| lifetime.saturating_sub((lifetime / 4).min(MAX_AGE)));
                let now = Instant::now();
                let renew_at = now + renew_in;
                state.current =
                    Some(Current { credentials: credentials.clone(), since: now, renew_at, files, standing: Standing::Accepted });
                (state.failed, state.told) = (None, None);
                Ok(credentials)
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure));
                still_valid(&state, failure, self.now()).ok_or(failure)
            }
        }
    }

    /// The region that the environment or the profile names.
    pub(super) fn region(&self) -> Option<&aws_config::Region> {
        self.shared.region()
    }

    /// The time with which requests are signed.
    pub(super) fn now(&self) -> SystemTime {
        self.shared.time_source().map_or(SystemTime::UNIX_EPOCH, |source| source.now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The credentials that stay in use after a failed load: those whose issuer says that they are valid, and any during an outage of their
/// source. Never those that AWS refused.
fn still_valid(state: &State, failure: Failure, now: SystemTime) -> Option<Credentials> {
    let current = state.current.as_ref().filter(|current| current.standing != Standing::Refused)?;
    let valid = current.credentials.expiry().map_or(matches!(failure, Failure::Outage(_)), |expiry| expiry > now);
    valid.then(|| current.credentials.clone())
}

fn same(one: &Credentials, other: &Credentials) -> bool {
    let secrets =
        |all: &Credentials| [all.access_key_id(), all.secret_access_key(), all.session_token().unwrap_or_default()].map(str::to_owned);
    let [one, other] = [one, other].map(|all| zeroize::Zeroizing::new(secrets(all).join("\n")));
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn listed() -> String {
    shared_files().iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The interface of the SDK.
struct Provider(Arc<AwsCredentials>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { provider::Result::from(self.0.current().await.map_err(CredentialsError::provider_error)) })
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsCredentials(…)")
    }
}

/// For STS, if nothing names a region.
pub(super) const ANY_REGION: &str = "us-east-1";
/// How often files are compared, refused credentials are replaced, and a failed load is repeated.
const PAUSE: Duration = Duration::from_secs(1);
/// How long credentials without an expiry are used before their source is asked again.
const MAX_AGE: Duration = Duration::from_mins(5);
/// The time limit of one load, with a process and roles.
const LOAD_LIMIT: Duration = Duration::from_mins(1);
