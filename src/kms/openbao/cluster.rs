//! The OpenBao clusters of a configuration: their servers, a circuit breaker for each server, and the login.

use crate::kms::call_error::CallError;
use std::sync::Arc;

use super::key_reference::{KeyPath, OpenbaoKey};
use super::{
    http_client::{OpenbaoRequest, OpenbaoResponse, OpenbaoServer},
    login::{Login, Session},
    transit_key::TransitKey,
};
use crate::client::connector::TlsFiles;
use crate::kms::http::{Address, ServerAddress};
use crate::kms::{
    CallLimits, CredentialFault, Denial, KmsCalls, Outage, WrapperConfig,
    resilience::{CallRateLimit, CircuitBreaker, RegionalWrapper},
};

/// One cluster: servers that know the same keys and tokens.
pub(super) struct Cluster {
    members: Vec<Member>,
    pub(super) login: Login,
    pub(super) rate_limit: Arc<CallRateLimit>,
    pub(super) limits: CallLimits,
    /// The mount in which new keys are created.
    pub(super) mount: String,
}

struct Member {
    server: Arc<OpenbaoServer>,
    circuit_breaker: Arc<CircuitBreaker>,
    label: Arc<str>,
}

/// All clusters of a checked configuration. Calls none of them.
pub(super) fn clusters(config: &WrapperConfig, calls: &Arc<KmsCalls>) -> Vec<Arc<Cluster>> {
    let WrapperConfig { openbao, limits, .. } = config;
    // Metrics number the servers in the order of the configuration, which is a closed set.
    let mut number = 0;
    let mut cluster = |entry: &crate::kms::OpenbaoConfig| {
        let files = TlsFiles { ca: entry.ca.clone(), client: entry.certificate.clone().zip(entry.key.clone()) };
        let mut member = |address| {
            number += 1;
            Member {
                server: Arc::new(OpenbaoServer::new(
                    ServerAddress { address, files: files.clone(), connect_timeout: limits.connect_timeout },
                    Arc::clone(calls),
                )),
                circuit_breaker: Arc::new(CircuitBreaker::new(limits.breaker_failures)),
                label: format!("openbao-{number}").into(),
            }
        };
        Arc::new(Cluster {
            members: entry.check().unwrap_or_default().into_iter().map(&mut member).collect(),
            login: Login::new(entry),
            rate_limit: Arc::new(CallRateLimit::bounded(limits.max_concurrency, limits.rate_limit)),
            limits: limits.clone(),
            mount: entry.mount.clone(),
        })
    };
    openbao.iter().map(&mut cluster).collect()
}

impl Cluster {
    /// Whether a server has this address.
    pub(super) fn is_at(&self, address: &Address) -> bool {
        self.servers().any(|server| server.address() == address)
    }

    /// Its servers, in the order to try.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Arc<OpenbaoServer>> {
        self.members.iter().map(|member| &member.server)
    }

    /// The key as each server has it. `registered` is the expected key, if that is known.
    pub(super) fn regional_wrappers(
        self: &Arc<Self>,
        path: &KeyPath,
        reference: &str,
        registered: Option<&OpenbaoKey>,
    ) -> Vec<RegionalWrapper> {
        let regional = |member: &Member| {
            let key = TransitKey {
                cluster: Arc::clone(self),
                server: Arc::clone(&member.server),
                path: path.clone(),
                reference: reference.to_owned(),
                registered: registered.cloned(),
            };
            RegionalWrapper {
                region: Arc::clone(&member.label),
                circuit_breaker: Arc::clone(&member.circuit_breaker),
                wrapper: Arc::new(key),
            }
        };
        self.members.iter().map(regional).collect()
    }

    /// Calls one server with the token of the login. A refused token is replaced once, if there is another.
    pub(super) async fn ask(self: &Arc<Self>, server: &OpenbaoServer, ask: &OpenbaoRequest) -> Result<OpenbaoResponse, CallError> {
        let session = self.session(server).await?;
        let answer = server.send(ask, Some(&session.token)).await?;
        // OpenBao gives the same answer for an expired token and for a missing permission.
        if answer.status != 403 || !answer.is_error() {
            return Ok(answer);
        }
        let (answer, session) = match self.session_after(&session, true, server).await? {
            Some(session) => (server.send(ask, Some(&session.token)).await?, session),
            None => (answer, session),
        };
        if answer.status == 403 && answer.is_error() && !session.was_just_accepted() {
            self.check(&session, server).await?;
        }
        Ok(answer)
    }

    /// Whether the server accepts the token in use.
    ///
    /// # Errors
    /// `TokenRefused`, or why the server cannot be asked.
    pub(super) async fn check_token(self: &Arc<Self>, server: &OpenbaoServer) -> Result<(), CallError> {
        let session = self.session(server).await?;
        self.check(&session, server).await
    }

    /// A token that may not even read its own attributes has expired or was revoked.
    async fn check(&self, session: &Session, server: &OpenbaoServer) -> Result<(), CallError> {
        let looked = server.send(&OpenbaoRequest::get(self.login.lookup.clone()), Some(&session.token)).await?;
        if looked.status == 403 && looked.is_error() {
            return Err(CallError::Denied(Denial::Credentials(CredentialFault::TokenRefused)));
        }
        if looked.status == 200 {
            session.accept();
        }
        Ok(())
    }

    /// Runs `work` on the first server that is not out of order.
    pub(super) async fn first<T, F: Future<Output = Result<T, CallError>> + Send>(
        &self,
        work: impl Fn(Arc<OpenbaoServer>) -> F,
    ) -> Result<T, CallError> {
        let mut last = CallError::Outage(Outage::Unreachable);
        for server in self.servers() {
            let attempt = tokio::time::timeout(self.limits.attempt_timeout, work(Arc::clone(server))).await;
            match attempt.unwrap_or(Err(CallError::Outage(Outage::TimedOut))) {
                Err(outage @ CallError::Outage(_)) => last = outage,
                done => return done,
            }
        }
        Err(last)
    }
}
