//! Renews the token of a login in the background, so that an idle vault does not lose it. Ends with the login or with the vault.

use crate::kms::call_error::CallError;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    cluster::Cluster,
    error::UNUSABLE_ANSWER,
    http_client::{Auth, OpenbaoRequest, done},
    login::{Method, Session, token_in},
};

/// Starts the renewal.
pub(super) fn keep(cluster: &Arc<Cluster>, session: &Arc<Session>) {
    let (cluster, session) = (Arc::downgrade(cluster), Arc::downgrade(session));
    tokio::spawn(async move {
        // Ends when the login or the vault is dropped.
        let _ = watch(cluster, session).await;
    });
}

/// When the token must be renewed.
#[derive(Clone, Copy)]
enum Due {
    At(Instant),
    /// It does not expire, or it cannot be renewed.
    Never,
}

async fn watch(cluster: Weak<Cluster>, session: Weak<Session>) -> Option<()> {
    let lease = session.upgrade()?.lease;
    let mut due = match lease {
        Some(lease) => halfway(lease),
        // For a token from a file, the lifetime is asked at once.
        None => Due::At(Instant::now()),
    };
    let mut asked = lease.is_some();
    loop {
        match due {
            Due::At(at) => sleep_until(at.min(Instant::now() + WATCH)).await,
            Due::Never => sleep(WATCH).await,
        }
        let (cluster, session) = (cluster.upgrade()?, session.upgrade()?);
        if !cluster.login.is_current(&session).await {
            return None;
        }
        let is_due = matches!(due, Due::At(at) if at <= Instant::now());
        match &cluster.login.method {
            Method::Certificate { .. } if is_due => match cluster.log_in_again(&session).await {
                Ok(_) => return None,
                Err(kind) => {
                    let error = kind.about("OpenBao");
                    tracing::warn!(reason = %error.reason(), %error, "the login to OpenBao failed; the vault retries");
                    due = Due::At(Instant::now() + (lease.unwrap_or_default() / 16).clamp(RETRY, MAX_RETRY));
                }
            },
            Method::Certificate { .. } => {}
            Method::Token { file, renew } => {
                // The file may be unreadable for a moment. A call that needs a token reports the error.
                let changed = token_in(file.clone()).await.is_ok_and(|token| !session.is_of(&token));
                if changed && matches!(cluster.log_in_again(&session).await, Ok(Some(_))) {
                    return None;
                }
                if is_due && !asked {
                    (due, asked) = looked_up(&cluster.look_up(&cluster.login.lookup, &session).await);
                } else if is_due {
                    due = renewed(&cluster.renew(renew, &session).await);
                }
            }
        }
    }
}

/// What a server reports of a token.
#[derive(Deserialize)]
struct Token {
    /// Seconds; 0 means no limit.
    ttl: u64,
    renewable: bool,
}

fn looked_up(found: &Result<Token, CallError>) -> (Due, bool) {
    match found {
        Ok(Token { ttl: 0, .. }) | Err(CallError::Denied(_)) => (Due::Never, true),
        Ok(Token { ttl, renewable: true }) => (halfway(Duration::from_secs(*ttl)), true),
        Ok(Token { ttl, renewable: false }) => {
            tracing::warn!(seconds = ttl, "the OpenBao token expires and cannot be renewed: write another token to its file before that");
            (Due::Never, true)
        }
        Err(_) => (soon(), false),
    }
}

fn renewed(found: &Result<Auth, CallError>) -> Due {
    match found {
        Ok(Auth { lease_duration, renewable: true, .. }) => halfway(Duration::from_secs(*lease_duration)),
        Ok(Auth { lease_duration, .. }) => {
            tracing::warn!(
                seconds = lease_duration,
                "the OpenBao token ends, and cannot be renewed again: put another one into its file in time"
            );
            Due::Never
        }
        Err(CallError::Denied(_)) => {
            tracing::warn!("OpenBao refuses to renew the token: write another token to its file");
            Due::Never
        }
        Err(_) => soon(),
    }
}

impl Cluster {
    async fn log_in_again(self: &Arc<Self>, session: &Arc<Session>) -> Result<Option<Arc<Session>>, CallError> {
        self.first(|server| async move { self.session_after(session, false, &server).await }).await
    }

    async fn look_up(&self, path: &str, session: &Session) -> Result<Token, CallError> {
        let ask = &OpenbaoRequest::get(path.to_owned());
        let answer = self.first(|server| async move { server.send(ask, Some(&session.token)).await.and_then(done) }).await?;
        answer.read::<Token>().and_then(|reply| reply.data).ok_or(UNUSABLE_ANSWER)
    }

    async fn renew(&self, path: &str, session: &Session) -> Result<Auth, CallError> {
        let ask = &OpenbaoRequest::post(path.to_owned(), &serde_json::json!({}));
        let answer = self.first(|server| async move { server.send(ask, Some(&session.token)).await.and_then(done) }).await?;
        answer.read::<IgnoredAny>().and_then(|reply| reply.auth).ok_or(UNUSABLE_ANSWER)
    }
}

/// Half of the lease remains for failures.
fn halfway(lease: Duration) -> Due {
    if lease.is_zero() { Due::Never } else { Due::At(Instant::now() + (lease / 2).max(Duration::from_millis(500))) }
}

fn soon() -> Due {
    Due::At(Instant::now() + RETRY)
}

/// How often a token file is checked for changes.
const WATCH: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_mins(1);
