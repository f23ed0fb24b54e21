//! The login: by a token in a file, or by a client certificate. One login runs at a time, and a refused token leads to a new login.

use crate::kms::call_error::CallError;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

use super::{
    cluster::Cluster,
    error::UNUSABLE_ANSWER,
    http_client::{OpenbaoRequest, OpenbaoServer, sort},
    token_renewal,
};
use crate::{
    files,
    kms::{CredentialFault, Denial, OpenbaoConfig},
};

/// The kind of login, and the token in use.
pub(super) struct Login {
    pub(super) method: Method,
    /// The path at which a token reads its own attributes.
    pub(super) lookup: String,
    current: Mutex<Option<Arc<Session>>>,
}

/// The kind of login.
pub(super) enum Method {
    /// By the token in this file.
    Token { file: PathBuf, renew: String },
    /// By the client certificate of every connection.
    Certificate { path: String, role: Option<String> },
}

/// A token in use.
pub(super) struct Session {
    pub(super) token: Zeroizing<String>,
    /// The lifetime that the server reported at the login. The lifetime of a token in a file is asked later.
    pub(super) lease: Option<Duration>,
    taken: Instant,
    /// When the server last accepted it although it refused a call.
    accepted: StdMutex<Option<Instant>>,
}

impl Session {
    /// Whether this is its token. Compared in constant time, like every secret.
    pub(super) fn is_of(&self, token: &str) -> bool {
        self.token.as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// Whether the server accepted it a moment ago, so that many denied calls ask only once.
    pub(super) fn was_just_accepted(&self) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.is_some_and(|at| at.elapsed() < BETWEEN_CHECKS)
    }

    /// Records that the server accepts it.
    pub(super) fn accept(&self) {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Login {
    /// Not logged in yet.
    pub(super) fn new(config: &OpenbaoConfig) -> Self {
        let namespace = if config.namespace.is_empty() { String::new() } else { format!("{}/", config.namespace) };
        let auth = |path: &str| format!("/v1/{namespace}auth/{path}");
        let method = match &config.token_file {
            Some(file) => Method::Token { file: file.clone(), renew: auth("token/renew-self") },
            None => Method::Certificate { path: auth(&format!("{}/login", config.auth_mount)), role: config.role.clone() },
        };
        Self { method, lookup: auth("token/lookup-self"), current: Mutex::default() }
    }

    /// Whether this token is still the one in use.
    pub(super) async fn is_current(&self, session: &Arc<Session>) -> bool {
        self.current.lock().await.as_ref().is_some_and(|current| Arc::ptr_eq(current, session))
    }
}

impl Cluster {
    /// The token in use. Concurrent callers share one login.
    pub(super) async fn session(self: &Arc<Self>, server: &OpenbaoServer) -> Result<Arc<Session>, CallError> {
        let mut current = self.login.current.lock().await;
        if let Some(session) = &*current {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.log_in(server).await?);
        *current = Some(Arc::clone(&session));
        token_renewal::keep(self, &session);
        Ok(session)
    }

    /// Another token than `stale`, which is `refused` or about to expire. `None` if there is no other.
    pub(super) async fn session_after(
        self: &Arc<Self>,
        stale: &Arc<Session>,
        refused: bool,
        server: &OpenbaoServer,
    ) -> Result<Option<Arc<Session>>, CallError> {
        let mut current = self.login.current.lock().await;
        if let Some(session) = current.as_ref().filter(|session| !Arc::ptr_eq(session, stale)) {
            return Ok(Some(Arc::clone(session)));
        }
        // A new token has the same permissions. A denial must not cause a login for each call.
        if refused && matches!(self.login.method, Method::Certificate { .. }) && stale.taken.elapsed() < BETWEEN_LOGINS {
            return Ok(None);
        }
        let session = self.log_in(server).await?;
        if stale.is_of(&session.token) {
            return Ok(None);
        }
        let session = Arc::new(session);
        *current = Some(Arc::clone(&session));
        token_renewal::keep(self, &session);
        Ok(Some(session))
    }

    async fn log_in(&self, server: &OpenbaoServer) -> Result<Session, CallError> {
        match &self.login.method {
            Method::Token { file, .. } => {
                let token = token_in(file.clone()).await?;
                Ok(Session { token, lease: None, taken: Instant::now(), accepted: StdMutex::default() })
            }
            Method::Certificate { path, role } => {
                #[derive(Serialize)]
                struct CertificateLoginBody<'a> {
                    #[serde(skip_serializing_if = "Option::is_none")]
                    name: Option<&'a str>,
                }
                let answer = server
                    .send_on_new_connection(&OpenbaoRequest::post(path.clone(), &CertificateLoginBody { name: role.as_deref() }), None)
                    .await?;
                match answer.status {
                    200 => {
                        let auth = answer.read::<serde::de::IgnoredAny>().and_then(|reply| reply.auth).ok_or(UNUSABLE_ANSWER)?;
                        let lease = Duration::from_secs(auth.lease_duration);
                        Ok(Session { token: auth.client_token, lease: Some(lease), taken: Instant::now(), accepted: StdMutex::default() })
                    }
                    // No certificate, no role that accepts it, or no such role.
                    400 | 403 if answer.is_error() => Err(CallError::Denied(Denial::Credentials(CredentialFault::CertificateLoginRefused))),
                    _ => Err(sort(&answer)),
                }
            }
        }
    }
}

/// The token in a file, which only its owner and group may read.
pub(super) async fn token_in(file: PathBuf) -> Result<Zeroizing<String>, CallError> {
    let read = tokio::task::spawn_blocking(move || read_token(&file)).await;
    read.unwrap_or_else(|_| Err("the service is shutting down".to_owned())).map_err(CallError::Misconfigured)
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let wrong = |what: String| format!("token_file {}: {what}", path.display());
    let file = files::open(path).map_err(|error| wrong(error.to_string()))?;
    // Checks the open file, not the path, which could be replaced in between.
    let mode = file.mode();
    if mode & 0o007 != 0 {
        return Err(wrong(format!("everybody may read it (mode {mode:03o}); chmod 600 it, or 640 for an agent of the same group")));
    }
    let bytes = file.read(MAX_TOKEN).map_err(|error| wrong(error.to_string()))?;
    let token = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("holds no token: it needs the token alone, in one line".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// Bytes; the longest tokens (batch tokens) have a few hundred.
const MAX_TOKEN: u64 = 4096;
const BETWEEN_LOGINS: Duration = Duration::from_secs(5);
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_file_is_private_and_holds_one_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_token(&path)
        };
        for (text, mode) in [("s.secret", 0o600), ("s.secret\n", 0o640), ("  s.secret \r\n", 0o400)] {
            assert_eq!(read(text, mode).unwrap().as_str(), "s.secret");
        }
        for (text, mode, says) in [
            ("", 0o600, "no token"),
            ("s.secret s.other", 0o600, "no token"),
            ("s.sécret", 0o600, "no token"),
            ("s.secret", 0o604, "chmod 600"),
        ] {
            let error = read(text, mode).unwrap_err();
            assert!(error.contains(says) && !error.contains("cret"), "{text}: {error}");
        }
        assert!(read_token(&directory.path().join("missing")).unwrap_err().contains("missing"));
    }
}
