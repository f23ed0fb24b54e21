//! The current trust: one snapshot of client CAs, revocation lists and deny-list, replaced as a whole while the vault serves requests.
//!
//! A client is checked when it connects, after each replacement of the snapshot, and when the validity of its last decision ends. Therefore
//! a revocation also ends open and resumed connections. Between checks, a request costs two comparisons.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::{
    expiry::{Expiry, ExpiryKind},
    identity::Identity,
    peer::{CachedDecision, Peer},
    refusal::NotAdmitted,
    refusal_log::{RefusalLog, RefusalObserver},
    tls::TlsMaterial,
};
use crate::domain::{Clock, Principal, Timestamp};

/// The current trust. There is one in the process.
pub struct Trust {
    snapshot: ArcSwap<TrustSnapshot>,
    generation: watch::Sender<u64>,
    /// Serializes replacements.
    replacement: Mutex<()>,
    refusal_observer: OnceLock<RefusalObserver>,
    clock: Clock,
}

struct TrustSnapshot {
    generation: u64,
    material: TlsMaterial,
}

impl Trust {
    /// The trust at start.
    pub fn new(material: TlsMaterial, clock: Clock) -> Arc<Self> {
        let snapshot = TrustSnapshot { generation: 1, material };
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: watch::Sender::new(1),
            replacement: Mutex::new(()),
            refusal_observer: OnceLock::new(),
            clock,
        })
    }

    /// Reports every client that is not admitted to `observer`, now and after each replacement. There is one observer.
    pub fn observe_refusals(&self, observer: RefusalObserver) {
        let _lock = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        self.refusals().observe(self.refusal_observer.get_or_init(|| observer));
    }

    /// Replaces the snapshot. Session tickets from before are not resumed, and every open connection is checked again.
    pub fn replace(&self, material: TlsMaterial) {
        let _lock = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(observer) = self.refusal_observer.get() {
            material.refusals.observe(observer);
        }
        let generation = self.snapshot.load().generation + 1;
        self.snapshot.store(Arc::new(TrustSnapshot { generation, material }));
        self.generation.send_replace(generation);
    }

    /// The principal of a client, if it is admitted now.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn admit(&self, peer: &Peer) -> Result<Principal, NotAdmitted> {
        self.admit_at(peer, self.now())
    }

    /// [`Trust::admit`] at a given time.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn admit_at(&self, peer: &Peer, now: Timestamp) -> Result<Principal, NotAdmitted> {
        let snapshot = self.snapshot.load();
        let cached = peer.decision.load();
        if cached.generation == snapshot.generation && now < cached.until {
            return cached.outcome.clone();
        }
        let anchors = &snapshot.material.anchors;
        let decided = anchors.decide(peer, now).and_then(|until| {
            let name = Arc::clone(peer.name().map_err(NotAdmitted::NoIdentity)?);
            Ok((Principal { name, certificate: Some(peer.certificate) }, until))
        });
        let decision = match decided {
            Ok((principal, until)) => CachedDecision { generation: snapshot.generation, until, outcome: Ok(principal) },
            // A refusal is not cached, because a new revocation list can end it.
            Err(reason) => {
                CachedDecision { generation: snapshot.generation, until: Timestamp::from_micros(i64::MIN), outcome: Err(reason) }
            }
        };
        let outcome = decision.outcome.clone();
        peer.decision.store(Arc::new(decision));
        outcome
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// [`TlsMaterial::warnings`] of the current snapshot.
    pub fn warnings(&self) -> Vec<String> {
        self.snapshot.load().material.warnings(self.now())
    }

    /// What clients would refuse of the server certificate.
    pub fn server_certificate_faults(&self) -> Vec<String> {
        self.snapshot.load().material.server_faults.clone()
    }

    /// Whether a client CA may issue certificates for this name.
    pub fn vouches(&self, identity: &Identity) -> bool {
        self.snapshot.load().material.anchors.vouch(identity)
    }

    /// The first expiry of each kind: for the gauge `keyvault_certificate_expiry_seconds`.
    pub fn expiries(&self) -> Vec<Expiry> {
        let (snapshot, now) = (self.snapshot.load(), self.now());
        ExpiryKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let soonest = snapshot.material.expiries.iter().filter(|(of, _)| *of == kind).map(|(_, end)| *end).min()?;
                Some(Expiry { kind, seconds: soonest.at.seconds() - now.seconds(), lifetime: soonest.lifetime })
            })
            .collect()
    }

    /// The log of refused clients.
    pub(super) fn refusals(&self) -> Arc<RefusalLog> {
        Arc::clone(&self.snapshot.load().material.refusals)
    }

    pub(super) fn api_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.snapshot.load().material.api)
    }

    pub(super) fn ops_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.snapshot.load().material.ops)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
