//! Whom the vault believes *now*: one snapshot of client CAs, revocation and deny-list, exchanged whole while it serves.
//!
//! A peer is judged when it connects and again whenever the snapshot has changed or a bound of its last judgement has passed, so
//! that open and resumed connections lose what new ones would not get. In between, a request costs two comparisons.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::{admission::NotAdmitted, peer::Peer, tls::Material};
use crate::domain::{Clock, Principal, Timestamp};

/// The live state. One for the process.
pub struct Trust {
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    exchange: Mutex<()>,
    clock: Clock,
}

struct Snapshot {
    generation: u64,
    material: Material,
}

impl Trust {
    /// Starts from what was read at start.
    pub fn new(material: Material, clock: Clock) -> Arc<Self> {
        let snapshot = Snapshot { generation: 1, material };
        Arc::new(Self { snapshot: ArcSwap::from_pointee(snapshot), generation: watch::Sender::new(1), exchange: Mutex::new(()), clock })
    }

    /// Exchanges everything at once. Tickets of before resume nothing; every open connection is judged again.
    pub fn replace(&self, material: Material) {
        let _alone = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.snapshot.load().generation + 1;
        self.snapshot.store(Arc::new(Snapshot { generation, material }));
        self.generation.send_replace(generation);
    }

    /// Says who a peer is, if it may speak now.
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
        let standing = peer.standing.load();
        if standing.generation == snapshot.generation && now < standing.until {
            return standing.outcome.clone();
        }
        let anchors = &snapshot.material.anchors;
        let judged = anchors.judge(peer, now).and_then(|until| {
            let name = Arc::clone(peer.name().map_err(NotAdmitted::NoIdentity)?);
            Ok((Principal { name, certificate: Some(peer.certificate) }, until))
        });
        let standing = match judged {
            Ok((principal, until)) => Standing { generation: snapshot.generation, until, outcome: Ok(principal) },
            // A refusal is judged anew each time: a renewed revocation list may lift it.
            Err(reason) => Standing { generation: snapshot.generation, until: Timestamp::from_micros(i64::MIN), outcome: Err(reason) },
        };
        let outcome = standing.outcome.clone();
        peer.standing.store(Arc::new(standing));
        outcome
    }

    /// What the clock says.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Seconds from now to each expiry, negative if passed: for the gauge `keyvault_certificate_expiry_seconds`.
    pub fn expiries(&self) -> Vec<(ExpiryKind, i64)> {
        let (snapshot, now) = (self.snapshot.load(), self.now());
        ExpiryKind::ALL
            .into_iter()
            .filter_map(|kind| {
                let soonest = snapshot.material.expiries.iter().filter(|(of, _)| *of == kind).map(|(_, at)| *at).min()?;
                Some((kind, soonest.seconds() - now.seconds()))
            })
            .collect()
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

/// Where a peer stood when last judged.
#[derive(Debug)]
pub(super) struct Standing {
    generation: u64,
    until: Timestamp,
    outcome: Result<Principal, NotAdmitted>,
}

impl Standing {
    pub(super) const fn unjudged() -> Self {
        Self { generation: 0, until: Timestamp::from_micros(i64::MIN), outcome: Err(NotAdmitted::Untrusted) }
    }
}

/// What expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryKind {
    /// The server's certificate, or an intermediate of it.
    Server,
    /// A client CA.
    ClientCa,
    /// A revocation list: its next update.
    Crl,
}

impl ExpiryKind {
    const ALL: [Self; 3] = [Self::Server, Self::ClientCa, Self::Crl];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ClientCa => "client-ca",
            Self::Crl => "crl",
        }
    }
}
