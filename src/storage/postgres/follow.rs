//! The task that follows other processes over the same database: it extends the verified state by their changes, tells the database that this
//! process is alive, and renews its leases.
//!
//! A change is announced on a connection of its own. The task also looks every [`POLL`], so that a lost announcement delays it at most that long.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use deadpool_postgres::Pool;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_postgres::{AsyncMessage, Config, NoTls, Socket, tls::MakeTlsConnect};

use super::{
    PostgresStore, StoreError, chain,
    connect::{Db, execute, exists, number, rows},
    connector::Connector,
    inspect::{clock, unsafe_settings},
    shared::Shared,
};
use crate::{
    domain::{KeyId, Timestamp},
    storage::{Commit, LEASE_SECONDS, Lease, Replica, Replication},
};

/// What this process knows of the others.
pub(super) struct Known {
    instance: i32,
    readers: Pool,
    seen: Mutex<Seen>,
    followed: AtomicBool,
}

#[derive(Default)]
struct Seen {
    replicas: Vec<Replica>,
    /// Until when this process has each lease at least, by its own clock.
    leases: HashMap<Lease, Instant>,
    /// Since when the database could not be read, and why.
    fault: Option<(Instant, StoreError)>,
}

impl Known {
    pub(super) fn new(instance: i32, readers: Pool) -> Self {
        Self { instance, readers, seen: Mutex::default(), followed: AtomicBool::new(true) }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes or renews a lease. The time is counted from before the request, so that this process never believes in it longer than the database.
    async fn take(&self, lease: Lease) -> Result<bool, StoreError> {
        let began = Instant::now();
        let db = self.readers.get().await?;
        let sql = "INSERT INTO leases (task, holder, until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
                   ON CONFLICT (task) DO UPDATE SET holder = excluded.holder, until = excluded.until
                   WHERE leases.holder = excluded.holder OR leases.until < clock_timestamp()";
        let taken = execute(&db, sql, &[&lease.as_str(), &self.instance, &f64::from(LEASE_SECONDS)]).await? > 0;
        let mut seen = self.lock();
        if taken {
            seen.leases.insert(lease, began + Duration::from_secs(u64::from(LEASE_SECONDS)));
        } else {
            seen.leases.remove(&lease);
        }
        Ok(taken)
    }

    /// Says that this process is alive, renews its leases, and reads who else is alive.
    async fn live(&self, version: &str) -> Result<(), StoreError> {
        let held: Vec<Lease> = self.lock().leases.keys().copied().collect();
        for lease in held {
            self.take(lease).await?;
        }
        let db = self.readers.get().await?;
        execute(&db, "UPDATE instances SET seen_at = clock_timestamp(), version = $2 WHERE number = $1", &[&self.instance, &version])
            .await?;
        let replicas = read_replicas(&db).await?;
        self.lock().replicas = replicas;
        Ok(())
    }

    /// Gives the leases back, so that another process need not wait for their end.
    pub(super) async fn leave(&self) -> Result<(), StoreError> {
        self.followed.store(false, Ordering::Release);
        self.lock().leases.clear();
        let db = self.readers.get().await?;
        execute(&db, "DELETE FROM leases WHERE holder = $1", &[&self.instance]).await?;
        execute(&db, "UPDATE instances SET seen_at = NULL WHERE number = $1", &[&self.instance]).await.map(drop)
    }
}

async fn read_replicas(db: &Db) -> Result<Vec<Replica>, StoreError> {
    let sql = "SELECT name, version, (extract(epoch FROM seen_at) * 1000000)::bigint AS seen_at,
                   coalesce(seen_at > clock_timestamp() - make_interval(secs => $1), false) AS live,
                   ARRAY(SELECT task FROM leases WHERE holder = number AND until > clock_timestamp()) AS tasks
               FROM instances ORDER BY number";
    let replica = |row: &tokio_postgres::Row| {
        let tasks: Vec<&str> = row.try_get("tasks")?;
        Ok(Replica {
            instance: row.try_get("name")?,
            version: row.try_get("version")?,
            seen_at: row.try_get::<_, Option<i64>>("seen_at")?.map(Timestamp::from_micros),
            live: row.try_get("live")?,
            leases: Lease::ALL.into_iter().filter(|lease| tasks.contains(&lease.as_str())).collect(),
        })
    };
    rows(db, sql, &[&f64::from(LEASE_SECONDS)]).await?.iter().map(replica).collect()
}

/// Refuses the commit of a background task whose lease this process has no more. In the transaction of the commit, so that a paused process cannot
/// write late.
pub(super) async fn has_lease(db: &Db, instance: i32, commit: &Commit) -> Result<bool, StoreError> {
    let Some(lease) = Lease::needed_for(commit) else { return Ok(true) };
    let sql = "SELECT 1 FROM leases WHERE task = $1 AND holder = $2 AND until > clock_timestamp()";
    exists(db, sql, &[&lease.as_str(), &instance]).await
}

/// The running task. Ends when it is dropped.
pub(super) struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Starts the task.
    pub(super) fn start(shared: Shared, known: Arc<Known>, connector: Connector, version: String) -> Self {
        Self(tokio::spawn(async move {
            let announced = Arc::new(Notify::new());
            let _listener = Listener(tokio::spawn(listen(connector, Arc::clone(&announced))));
            let mut lived: Option<Instant> = None;
            while known.followed.load(Ordering::Acquire) {
                let mut followed = catch_up(&shared, &known.readers).await;
                if followed.is_ok() && lived.is_none_or(|at| at.elapsed() >= SIGN_OF_LIFE) {
                    followed = known.live(&version).await;
                    // A failed one is tried again at the next look: until then, the database is not in order.
                    if followed.is_ok() {
                        lived = Some(Instant::now());
                    }
                }
                if followed == Err(StoreError::ReadOnly) {
                    // A session keeps what the settings of its database or user were at its start.
                    known.readers.retain(|_, _| false);
                }
                note(&known, followed);
                let _ = tokio::time::timeout(POLL, announced.notified()).await;
            }
        }))
    }
}

/// Remembers since when the database cannot be read.
fn note(known: &Known, followed: Result<(), StoreError>) {
    let mut seen = known.lock();
    match followed {
        Ok(()) => {
            if seen.fault.take().is_some_and(|(since, _)| since.elapsed() >= TOLERATED) {
                tracing::info!("PostgreSQL can be read again");
            }
        }
        Err(error) => {
            if seen.fault.is_none() {
                tracing::warn!(%error, "the changes of other replicas cannot be read from PostgreSQL; the vault retries");
            }
            let since = seen.fault.take().map_or_else(Instant::now, |(since, _)| since);
            seen.fault = Some((since, error));
        }
    }
}

/// Extends the verified state by the changes that other processes made.
pub(super) async fn catch_up(shared: &Shared, readers: &Pool) -> Result<(), StoreError> {
    let db = readers.get().await?;
    let stored = number(&db, "SELECT store_revision FROM meta", &[]).await?;
    if stored <= shared.revision.load(Ordering::Acquire) {
        return Ok(());
    }
    let mut state = shared.state.write().await;
    chain::catch_up(&db, &mut state).await?;
    shared.publish(&state);
    Ok(())
}

struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Wakes the task for each announcement. Connects again after an error.
async fn listen(connector: Connector, announced: Arc<Notify>) {
    loop {
        let settings = connector.current().await;
        let ended = match connector.tls() {
            Some(tls) => listen_once(&settings, tls, &announced).await,
            None => listen_once(&settings, NoTls, &announced).await,
        };
        if let Err(error) = ended {
            tracing::debug!(error = super::with_causes(&error), "the connection for announcements ended");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn listen_once<T>(config: &Config, tls: T, announced: &Notify) -> Result<(), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
{
    let (client, mut connection) = config.connect(tls).await?;
    let command = client.batch_execute("LISTEN canton_keyvault");
    let mut command = std::pin::pin!(command);
    let mut listening = false;
    loop {
        let message = poll_fn(|cx| connection.poll_message(cx));
        tokio::select! {
            done = &mut command, if !listening => {
                done?;
                listening = true;
                // A change before this had no listener.
                announced.notify_one();
            }
            message = message => match message {
                Some(Ok(AsyncMessage::Notification(_))) => announced.notify_one(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }
}

#[async_trait]
impl Replication for PostgresStore {
    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    async fn holds(&self, lease: Lease) -> bool {
        let held = self.known.lock().leases.get(&lease).is_some_and(|until| Instant::now() < *until);
        held || self.known.take(lease).await.unwrap_or(false)
    }

    fn replicas(&self) -> Vec<Replica> {
        self.known.lock().replicas.clone()
    }

    async fn key_revision(&self, id: KeyId) -> Option<u64> {
        self.shared.state.read().await.key(id).map(|key| key.change.revision)
    }

    async fn unsafe_settings(&self) -> Result<Vec<String>, StoreError> {
        unsafe_settings(&*self.readers.get().await?).await
    }

    async fn clock(&self) -> Result<Timestamp, StoreError> {
        clock(&*self.readers.get().await?).await
    }

    fn fault(&self) -> Option<StoreError> {
        let seen = self.known.lock();
        seen.fault.as_ref().filter(|(since, _)| since.elapsed() >= TOLERATED).map(|(_, error)| error.clone())
    }
}

/// How often the task looks for changes without an announcement.
const POLL: Duration = Duration::from_millis(500);
/// How often the process says that it is alive. Several times within the time of a lease.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How long the database may be out of reach before that is a fault.
const TOLERATED: Duration = Duration::from_secs(1);
