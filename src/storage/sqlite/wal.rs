//! The write-ahead log of the database: a thread of its own writes it into the database, so that no commit waits for that, and the writer restarts it
//! before it is too long.
//!
//! SQLite would write it into the database within a commit, which then takes some ten milliseconds, and would restart it only in a moment without
//! readers, which never comes under load.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use super::{StoreError, writer::BUSY_TIMEOUT};

/// Bounds the write-ahead log. Its length is counted in frames: one for each page that a commit wrote.
pub(super) struct WriteAheadLog {
    /// Frames after which they are written into the database.
    limit: u32,
    /// Frames of the log, after the newest commit.
    frames: Arc<AtomicU32>,
    /// Frames from its begin that the database has.
    copied: Arc<AtomicU32>,
    /// Frames of the log at the last attempt to shorten it. While a reader prevents that, the next attempt waits for more of them.
    tried: AtomicU32,
    copier: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl WriteAheadLog {
    /// Observes the commits of `writer`. The thread uses the connection `second`.
    ///
    /// # Errors
    /// If the connection cannot be observed, or the system gives no thread.
    pub(super) fn start(writer: &mut Connection, second: Connection, limit: u32) -> Result<Self, StoreError> {
        let frames = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&frames);
        // In place of the hook by which SQLite itself would copy.
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            counted.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let copied = Arc::new(AtomicU32::new(0));
        let thread = start_copier(second, Arc::clone(&copied)).map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self { limit: limit.max(1), frames, copied, tried: AtomicU32::new(0), copier: Some(thread) })
    }

    /// Looks at the log between two batches of commits.
    pub(super) fn after_commit(&self, writer: &Connection) {
        let frames = self.frames.load(Ordering::Relaxed);
        if frames < self.copied.load(Ordering::Relaxed) {
            // SQLite restarted it.
            self.copied.store(0, Ordering::Relaxed);
        }
        if frames < self.tried.load(Ordering::Relaxed) {
            self.tried.store(0, Ordering::Relaxed);
        }
        if frames < self.tried.load(Ordering::Relaxed).saturating_add(self.limit / 4) {
            return;
        }
        let left = frames.saturating_sub(self.copied.load(Ordering::Relaxed));
        let is_long = frames >= self.limit.saturating_mul(2) && left < self.limit / 4;
        if is_long || frames >= self.limit.saturating_mul(4) {
            self.tried.store(frames, Ordering::Relaxed);
            restart(writer);
        } else if left >= self.limit
            && let Some((wake, _)) = &self.copier
        {
            self.tried.store(frames, Ordering::Relaxed);
            // If the thread is awake already, it copies these frames too.
            let _ = wake.try_send(());
        }
    }

    /// Ends the thread, and writes the whole log into the database, so that the file of the database is complete. A failure loses nothing: the log has
    /// all acknowledged commits.
    pub(super) fn close(mut self, writer: &Connection) {
        self.stop();
        let _ = writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn stop(&mut self) {
        if let Some((wake, thread)) = self.copier.take() {
            drop(wake);
            let _ = thread.join();
        }
    }
}

impl Drop for WriteAheadLog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes the rest of the log into the database, and waits a moment until no reader uses the log, so that the next commit restarts it. If a
/// reader takes longer, the next attempt follows soon.
fn restart(writer: &Connection) {
    let restarted = writer.busy_timeout(WAIT_FOR_READERS).and_then(|()| writer.execute_batch("PRAGMA wal_checkpoint(RESTART)"));
    if let Err(error) = restarted.and_then(|()| writer.busy_timeout(BUSY_TIMEOUT)) {
        tracing::warn!(%error, "the write-ahead log could not be restarted");
    }
}

fn start_copier(db: Connection, copied: Arc<AtomicU32>) -> io::Result<(SyncSender<()>, JoinHandle<()>)> {
    let (wake, woken) = mpsc::sync_channel(1);
    let copy = move || {
        while woken.recv().is_ok() {
            // Copies what no reader prevents, and waits for nobody.
            let copying = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2));
            match copying {
                Ok(frames) => copied.store(u32::try_from(frames).unwrap_or(0), Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "the write-ahead log could not be written into the database; the vault retries"),
            }
        }
    };
    let thread = thread::Builder::new().name("store-checkpoint".into()).spawn(copy)?;
    Ok((wake, thread))
}

/// How long a commit may be delayed by readers of the write-ahead log.
const WAIT_FOR_READERS: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each attempt waits for the reader, and delays the commits behind it.
    #[test]
    fn a_reader_that_stays_causes_few_attempts() {
        const LIMIT: u32 = 40;
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Connection::open(file.path()).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a BLOB)").unwrap();
        let wal = WriteAheadLog::start(&mut writer, Connection::open(file.path()).unwrap(), LIMIT).unwrap();
        let reader = Connection::open(file.path()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        let (mut attempts, mut before) = (0, 0);
        for _ in 0..300 {
            writer.execute("INSERT INTO t VALUES (zeroblob(3000))", []).unwrap();
            wal.after_commit(&writer);
            let tried = wal.tried.load(Ordering::Relaxed);
            attempts += u32::from(tried != before);
            before = tried;
        }
        let frames = wal.frames.load(Ordering::Relaxed);
        assert!(frames > 4 * LIMIT, "{frames} frames: the reader did not stay");
        assert!((1..=frames / (LIMIT / 4)).contains(&attempts), "{attempts} attempts for {frames} frames");
        reader.execute_batch("COMMIT").unwrap();
        while wal.frames.load(Ordering::Relaxed) >= frames {
            writer.execute("INSERT INTO t VALUES (zeroblob(3000))", []).unwrap();
            wal.after_commit(&writer);
        }
        wal.close(&writer);
    }
}
