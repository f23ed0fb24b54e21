//! The limit of open files, raised to what the system allows: without a file descriptor, a listener serves nobody.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::mtls::ConnectionLimits;

/// Files besides connections: the database, connections to the KMS, the files of a reload.
const OTHERS: usize = 256;

/// Raises the limit. Warns if it is too low for the connections that the configuration allows.
pub(super) fn raise_limit(limits: &ConnectionLimits) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // A limit that cannot be raised is reported below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let needed = limits.total.saturating_add(limits.handshakes).saturating_add(limits.ops).saturating_add(OTHERS);
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed as u64) {
        tracing::warn!(limit, needed, "the limit of open files is too low for [connections]: raise LimitNOFILE, or lower `total`");
    }
}
