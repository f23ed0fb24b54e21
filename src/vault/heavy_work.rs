//! Heavy computations: RSA, new keys, key files and password derivations. They run on blocking threads, in a fair share for each principal.
//!
//! A principal computes on at most half of the slots at the same time, at least one, so that another one gets the next slot. Its further computations
//! wait among themselves. A derivation of a password takes 12 MiB, so that only [`DERIVATIONS`] run at the same time, whatever the number of cores.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::crypto::with_wiped_stack;

use super::VaultError;

/// Password derivations of all principals at the same time. One principal has one.
pub const DERIVATIONS: usize = 2;

/// A kind of heavy computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heavy {
    /// Up to some hundred milliseconds of a core.
    Computation,
    /// The same, and the memory of a password derivation.
    PasswordDerivation,
}

/// The slots of all principals.
pub(super) struct HeavyWork {
    slots: Arc<Semaphore>,
    /// How many of the slots one principal gets.
    share: usize,
    derivations: Arc<Semaphore>,
}

/// What one principal has of them.
pub(super) struct HeavyShare {
    /// Computations that run or wait.
    admitted: Arc<Semaphore>,
    limit: usize,
    running: Arc<Semaphore>,
    derivations: Arc<Semaphore>,
}

impl HeavyWork {
    /// A slot for each core but one, which stays for short computations: a signature of a few microseconds would wait for RSA keys otherwise.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self::with_slots(cores.saturating_sub(1).max(1))
    }

    fn with_slots(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)), share: (slots / 2).max(1), derivations: Arc::new(Semaphore::new(DERIVATIONS)) }
    }

    /// The share of a principal that may have `limit` computations running or waiting.
    pub(super) fn share(&self, limit: usize) -> HeavyShare {
        HeavyShare {
            admitted: Arc::new(Semaphore::new(limit)),
            limit,
            running: Arc::new(Semaphore::new(self.share)),
            derivations: Arc::new(Semaphore::new(1)),
        }
    }

    /// Runs a computation on a blocking thread, and wipes its stack. It runs to its end, and keeps its slot until then, also if the caller is
    /// dropped.
    ///
    /// # Errors
    /// `TooMany` if the principal has as many computations as it may have; the error of the computation; `Internal` if it was interrupted.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        own: &HeavyShare,
        heavy: Heavy,
        computation: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let too_many = |_| VaultError::too_many("concurrent expensive requests");
        let mut held = vec![Arc::clone(&own.admitted).try_acquire_owned().map_err(too_many)?];
        let derives = heavy == Heavy::PasswordDerivation;
        // The same order everywhere, first what others of this principal hold, so that waiting for oneself costs others nothing.
        if derives {
            held.push(acquire(&own.derivations).await?);
        }
        held.push(acquire(&own.running).await?);
        if derives {
            held.push(acquire(&self.derivations).await?);
        }
        held.push(acquire(&self.slots).await?);
        on_blocking_thread(move || {
            let _held = held;
            computation()
        })
        .await
    }
}

impl HeavyShare {
    /// Whether nothing runs or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.admitted.available_permits() == self.limit
    }
}

/// Runs a computation with secrets on a blocking thread, and wipes its stack.
///
/// # Errors
/// The error of the computation; `Internal` if it was interrupted.
pub(super) async fn on_blocking_thread<T: Send + 'static>(
    computation: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    let computed = tokio::task::spawn_blocking(move || with_wiped_stack(computation)).await;
    computed.map_err(|_| VaultError::Internal("a computation was interrupted"))?
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, VaultError> {
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| VaultError::ShuttingDown)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;

    /// Computations that run until `ends` is dropped.
    struct Started {
        running: Arc<AtomicUsize>,
        ends: Vec<mpsc::Sender<()>>,
        tasks: Vec<tokio::task::JoinHandle<Result<(), VaultError>>>,
    }

    fn start(work: &Arc<HeavyWork>, own: &Arc<HeavyShare>, heavy: Heavy, number: usize) -> Started {
        let running = Arc::new(AtomicUsize::new(0));
        let (mut ends, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..number {
            let (end, ended) = mpsc::channel::<()>();
            let (work, own, counter) = (Arc::clone(work), Arc::clone(own), Arc::clone(&running));
            let computation = move || {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = ended.recv();
                counter.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            tasks.push(tokio::spawn(async move { work.run(&own, heavy, computation).await }));
            ends.push(end);
        }
        Started { running, ends, tasks }
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..6_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}");
    }

    #[tokio::test]
    async fn another_principal_gets_a_slot_at_once() {
        let work = Arc::new(HeavyWork::with_slots(4));
        let (one, other) = (Arc::new(work.share(16)), Arc::new(work.share(16)));
        let Started { running, ends, tasks } = start(&work, &one, Heavy::Computation, 16);
        until("a principal uses its share", || running.load(Ordering::SeqCst) == 2 && one.admitted.available_permits() == 0).await;
        assert!(matches!(work.run(&one, Heavy::Computation, || Ok(())).await, Err(VaultError::TooMany { .. })));
        let done = tokio::time::timeout(Duration::from_mins(1), work.run(&other, Heavy::Computation, || Ok(7))).await;
        assert_eq!(done.expect("the other one waits for the first").unwrap(), 7);
        assert_eq!(running.load(Ordering::SeqCst), 2, "not more than its share");
        drop(ends);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert!(one.is_idle() && other.is_idle());
    }

    #[tokio::test]
    async fn derivations_are_bounded_in_number() {
        let work = Arc::new(HeavyWork::with_slots(64));
        let principals: Vec<_> = (0..4).map(|_| Arc::new(work.share(16))).collect();
        let started: Vec<_> = principals.iter().map(|own| start(&work, own, Heavy::PasswordDerivation, 4)).collect();
        let running = || started.iter().map(|started| started.running.load(Ordering::SeqCst)).collect::<Vec<_>>();
        until("two principals derive", || running().iter().sum::<usize>() == DERIVATIONS).await;
        // Time in which more would start.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(running().iter().sum::<usize>(), DERIVATIONS);
        assert!(running().iter().all(|number| *number <= 1), "one for each principal: {:?}", running());
        let free = Arc::new(work.share(16));
        assert_eq!(work.run(&free, Heavy::Computation, || Ok(7)).await.unwrap(), 7, "other computations go on");
        let (ends, tasks): (Vec<_>, Vec<_>) = started.into_iter().map(|Started { ends, tasks, .. }| (ends, tasks)).unzip();
        // All of them, because some wait for others.
        drop(ends);
        for task in tasks.into_iter().flatten() {
            task.await.unwrap().unwrap();
        }
    }
}
