//! Tells the service manager (systemd, `Type=notify`) that the vault serves, works, and stops. Without one, nothing happens; a message never delays the vault.
//!
//! The messages are datagrams to `NOTIFY_SOCKET`, as `sd_notify(3)` describes them.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    storage::KeyStore,
    vault::{Code, Vault},
};

/// The service manager that started this process, if there is one.
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The process is ended if it sends no message for this time.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment of the process says. What is not valid there is logged and ignored: it is no reason not to start.
    pub(super) fn from_environment() -> Arc<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| match open(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "the socket of the service manager in NOTIFY_SOCKET cannot be used: it will not know that the vault serves");
                None
            }
        });
        let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
        let watchdog = watchdog(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id());
        Arc::new(Self { socket, watchdog })
    }

    /// The vault serves.
    pub(super) fn ready(&self) {
        self.send("READY=1\nSTATUS=serving");
    }

    /// The vault stops.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping: requests in progress are answered");
    }

    /// Says three times within the time of the watchdog that the vault works, until `stop`.
    pub(super) async fn tell_alive(self: Arc<Self>, vault: Arc<Vault>, store: Arc<dyn KeyStore>, stop: CancellationToken) {
        let (Some(_), Some(limit)) = (&self.socket, self.watchdog) else { return };
        let period = limit / 3;
        let work = async {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if answers(store.state(), period).await || !may_be_restarted(&vault) {
                    self.send("WATCHDOG=1");
                } else {
                    tracing::error!("the store does not answer: the service manager will restart the vault");
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, message, "the service manager did not get a message");
        }
    }
}

/// Whether the store answers in time. An error is an answer: the status has it, and a restart does not cure it.
async fn answers<T>(answer: impl Future<Output = T>, limit: Duration) -> bool {
    timeout(limit, answer).await.is_ok()
}

/// A freeze or a disabled key may be in memory only while the log cannot be written. A restart would undo it.
fn may_be_restarted(vault: &Vault) -> bool {
    !vault.status().reasons.iter().any(|fault| matches!(fault.code, Code::Frozen | Code::AuditUnavailable))
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(OsString::from(name))?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it must start with / or @")),
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not stop the vault.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The time of the watchdog, if it is meant for this process.
fn watchdog(microseconds: Option<u64>, of: Option<u64>, own: u32) -> Option<Duration> {
    let meant = of.is_none_or(|of| of == u64::from(own));
    microseconds.filter(|time| meant && *time > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        assert_eq!(watchdog(Some(3_000_000), None, 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(Some(3_000_000), Some(7), 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(Some(3_000_000), Some(8), 7), None);
        assert_eq!(watchdog(Some(0), None, 7), None);
        assert_eq!(watchdog(None, Some(7), 7), None);
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        assert!(open(OsStr::new("/run/notify")).is_ok());
        assert!(open(OsStr::new("@notify")).is_ok());
        for wrong in ["", "notify", "vsock:2:1234"] {
            assert!(open(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_store_is_an_answer_and_silence_is_none() {
        let limit = Duration::from_secs(1);
        assert!(answers(async { Err::<(), _>("busy") }, limit).await);
        assert!(!answers(std::future::pending::<()>(), limit).await);
    }
}
