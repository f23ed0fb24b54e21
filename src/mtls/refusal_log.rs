//! Refused clients: a log line with who it was and why, at the default level and a bounded rate, and a report to the audit log.
//!
//! Anybody who reaches the port can cause these lines, with text of their own. Each kind of refusal therefore has its own rate, and texts
//! are cut.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{peer::Peer, refusal::NotAdmitted};
use crate::domain::{Clock, Hex};

/// A client that was not admitted. Nothing about it is authenticated.
#[derive(Debug)]
pub struct RefusedCertificate<'a> {
    /// SHA-256 of its certificate, if it sent one.
    pub certificate: Option<[u8; 32]>,
    /// Subject, issuer and serial number in the certificate, each at most 256 bytes.
    pub description: String,
    /// The label of the reason, from a closed set.
    pub reason: &'static str,
    /// The request that was answered with status 401. Empty for a refused handshake.
    pub request_id: &'a str,
}

/// Gets every refused client, and must return at once.
pub type RefusalObserver = Arc<dyn Fn(RefusedCertificate<'_>) + Send + Sync>;

/// Writes the lines. There is one for each state of the trust.
pub(super) struct RefusalLog {
    clock: Clock,
    observer: OnceLock<RefusalObserver>,
    windows: Mutex<HashMap<(Stage, &'static str), Window>>,
}

/// Where a client is refused. A flood of one stage does not hide lines of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// In the handshake.
    Handshake,
    /// At a request, with status 401.
    Request,
}

/// The lines of one kind in one second.
#[derive(Default)]
struct Window {
    second: i64,
    written: u32,
    /// Refusals without a line since the last line.
    omitted: u64,
}

/// A refused request.
pub struct RefusedClient {
    pub(super) log: Arc<RefusalLog>,
    pub(super) peer: Option<Arc<Peer>>,
    /// Why, for the answer.
    pub reason: NotAdmitted,
}

impl RefusedClient {
    /// Writes the log line of a request that was refused with status 401.
    pub fn record(&self, request_id: &str) {
        self.log.certificate(Stage::Request, self.peer.as_deref(), self.reason, request_id);
    }
}

impl RefusalLog {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, observer: OnceLock::new(), windows: Mutex::default() }
    }

    /// Reports every refused client to `observer` from now on. The first observer stays.
    pub(super) fn observe(&self, observer: &RefusalObserver) {
        let _ = self.observer.set(Arc::clone(observer));
    }

    fn report(&self, refused: RefusedCertificate<'_>) {
        if let Some(observer) = self.observer.get() {
            observer(refused);
        }
    }

    /// A client whose certificate is not admitted.
    pub(super) fn certificate(&self, stage: Stage, peer: Option<&Peer>, reason: NotAdmitted, request_id: &str) {
        let (subject, issuer, serial) = peer.map_or(("", "", ""), |peer| (cut(peer.subject()), cut(peer.issuer()), cut(peer.serial())));
        let description =
            if peer.is_some() { format!("subject {subject}, issuer {issuer}, serial {serial}: {reason}") } else { reason.to_string() };
        self.report(RefusedCertificate { certificate: peer.map(|peer| peer.certificate), description, reason: reason.label(), request_id });
        let Some(omitted) = self.admit(stage, reason.label()) else { return };
        let certificate = peer.map(|peer| Hex(&peer.certificate).to_string()).unwrap_or_default();
        let code = reason.label();
        match stage {
            Stage::Handshake => {
                tracing::warn!(subject, issuer, serial, certificate, code, %reason, omitted, "client certificate refused in the handshake");
            }
            Stage::Request => {
                tracing::warn!(request_id, subject, issuer, serial, certificate, code, %reason, omitted, "client certificate refused with status 401");
            }
        }
    }

    /// A certificate in the handshake that cannot be parsed.
    pub(super) fn malformed(&self, certificate: &[u8; 32], problem: &dyn std::fmt::Display) {
        let problem = problem.to_string();
        let (problem, code) = (cut(&problem), "malformed");
        self.report(RefusedCertificate { certificate: Some(*certificate), description: problem.to_owned(), reason: code, request_id: "" });
        let Some(omitted) = self.admit(Stage::Handshake, code) else { return };
        let certificate = Hex(certificate).to_string();
        tracing::warn!(certificate, code, reason = problem, omitted, "client certificate refused in the handshake");
    }

    /// A handshake that failed for another reason than the certificate of the client. The verifier has logged those.
    pub(super) fn handshake(&self, client: Option<SocketAddr>, error: &std::io::Error) {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let (code, reason) = match tls {
            Some(rustls::Error::InvalidCertificate(_)) => return,
            Some(rustls::Error::NoCertificatesPresented) => {
                let (code, description) = (NotAdmitted::NoCertificate.label(), NotAdmitted::NoCertificate.to_string());
                self.report(RefusedCertificate { certificate: None, description: description.clone(), reason: code, request_id: "" });
                (code, description)
            }
            Some(rustls::Error::AlertReceived(alert)) => ("alert", format!("the client ended the handshake with the alert {alert:?}")),
            Some(error) => ("tls", error.to_string()),
            None => ("disconnected", error.to_string()),
        };
        let Some(omitted) = self.admit(Stage::Handshake, code) else { return };
        let client = client.map(|client| client.to_string()).unwrap_or_default();
        tracing::info!(client, code, reason = cut(&reason), omitted, "handshake failed");
    }

    /// The number of refusals of this kind without a line since the last one, if this one gets a line.
    fn admit(&self, stage: Stage, code: &'static str) -> Option<u64> {
        let second = (self.clock)().seconds();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry((stage, code)).or_default();
        if window.second != second {
            (window.second, window.written) = (second, 0);
        }
        if window.written >= PER_SECOND {
            window.omitted += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.omitted))
    }
}

impl std::fmt::Debug for RefusalLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefusalLog")
    }
}

/// At most the first 256 bytes.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(256)).unwrap_or(text)
}

/// Lines of one kind in a second. The metrics count every refusal.
const PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn each_kind_has_its_rate_and_counts_what_it_omits() {
        let now = Arc::new(AtomicI64::new(0));
        let log = RefusalLog::new({
            let now = Arc::clone(&now);
            Arc::new(move || Timestamp::from_micros(now.load(Ordering::SeqCst)))
        });
        let lines = |stage, code| (0..25).filter_map(|_| log.admit(stage, code)).collect::<Vec<_>>();
        assert_eq!(lines(Stage::Handshake, "untrusted"), [0; 10]);
        assert_eq!(lines(Stage::Request, "untrusted"), [0; 10], "the other stage is not affected");
        assert_eq!(lines(Stage::Handshake, "revoked"), [0; 10], "nor is another reason");
        now.store(1_000_000, Ordering::SeqCst);
        assert_eq!(log.admit(Stage::Handshake, "untrusted"), Some(15));
        assert_eq!(log.admit(Stage::Handshake, "untrusted"), Some(0));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(200)).len(), 256);
        assert_eq!(cut(&format!("a{}", "ä".repeat(200))).len(), 255);
        assert_eq!(cut("abc"), "abc");
    }
}
