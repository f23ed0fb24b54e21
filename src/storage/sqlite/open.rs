//! Opens a store: one process for each file, the right vault, the right schema. A file that is refused stays unchanged.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock, atomic::AtomicU64},
};

use refinery::Runner;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};

use super::{
    Mode, OpenStoreError, SqliteConfig, SqliteStore, StoreError, VerifiedState,
    apply::Head,
    backup, chain,
    error::corrupt,
    readers::Readers,
    schema, tree,
    wal::WriteAheadLog,
    writer::{Shared, TreeHead, Writer, WriterThread},
};
use crate::{
    audit::Source,
    crypto::Random,
    domain::{Timestamp, VaultId},
    files,
};

mod migrations {
    refinery::embed_migrations!("migrations/sqlite");
}

impl SqliteStore {
    /// Opens the file, or creates it. `source` is written into every entry; a new store gets its hash key from `random` and its creation
    /// time from `now`. Blocks the thread. If the file must be migrated, it blocks for the duration of a copy.
    ///
    /// # Errors
    /// [`OpenStoreError`]; the file is then as it was.
    pub fn open(
        config: SqliteConfig,
        source: Source,
        vault: &VaultId,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<Self, OpenStoreError> {
        let SqliteConfig { path, mode, commit_timeout, query_time, queue, readers, wal_pages, accept_state, vfs } = config;
        let lock = Arc::new(lock(&path)?);
        let io = |source| OpenStoreError::Io { path: path.clone(), source };
        create_private(&path).map_err(io)?;
        if !looks_like_sqlite(&path).map_err(io)? {
            return Err(OpenStoreError::NotAVault(path));
        }
        let mut db = connect(&path, vfs.as_deref(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let migrations = migrations::migrations::runner();
        let schema = newest(&migrations);
        let (found, introduced) = recognize(&db, &path, vault, mode, &migrations)?;
        prepare_writing(&db)?;
        if found < schema {
            migrate(&mut db, &path, found, &migrations)?;
        }
        if !introduced {
            introduce(&db, vault, mode, random, now)?;
        }
        let (state, tree_head) = establish(&db, &source, now, accept_state)?;
        let hash_key = db.query_row("SELECT hash_key FROM meta", [], |row| row.get(0)).map_err(StoreError::from)?;
        let tree_head = Arc::new(RwLock::new(tree_head));
        let revision = Arc::new(AtomicU64::new(state.revision));
        let state = Arc::new(RwLock::new(state));
        let connections = (0..Readers::connections(readers))
            .map(|_| connect(&path, vfs.as_deref(), OpenFlags::SQLITE_OPEN_READ_ONLY))
            .collect::<Result<Vec<_>, _>>()?;
        let copier = connect(&path, vfs.as_deref(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        prepare_writing(&copier)?;
        // It copies pages and reads none.
        copier.pragma_update(None, "cache_size", -256).map_err(StoreError::from)?;
        let wal = WriteAheadLog::start(&mut db, copier, wal_pages)?;
        let readers = Readers::start(connections, commit_timeout).map_err(io)?;
        let shared = Shared { state: Arc::clone(&state), tree_head: Arc::clone(&tree_head), revision: Arc::clone(&revision) };
        let writer = WriterThread::new(db, source, shared, wal);
        let writer = Writer::start(writer, lock, queue, commit_timeout).map_err(io)?;
        Ok(Self { path, vfs, schema, hash_key, state, tree_head, revision, writer, readers, query_time })
    }
}

/// The verified state and the end of the log. A store of an earlier schema begins its chain here. A broken log begins a new chain and a new
/// incarnation if the operator accepts the state.
fn establish(db: &Connection, source: &Source, now: Timestamp, accept_state: bool) -> Result<(VerifiedState, TreeHead), OpenStoreError> {
    // A new chain would restate what the other logs say, which nobody can continue.
    let accept_state = accept_state && !chain::has_other_logs(db)?;
    let established = match verify_log(db, source, now) {
        Err(error @ (OpenStoreError::BrokenChain { .. } | OpenStoreError::BrokenLog(_))) if accept_state => {
            tracing::error!(%error, "the operator accepts a state that the audit log does not confirm");
            tree::repair(db, source, now)?;
            let incarnation = chain::next_incarnation(db)?;
            chain::begin(db, source, now, "the operator accepted the state of a broken chain", Some(incarnation))?;
            verify_log(db, source, now)
        }
        verified => verified,
    };
    let (state, end) = established?;
    for what in chain::repair_columns(db, &state)? {
        tracing::error!(what, "the database disagrees with the audit log, which counts");
    }
    Ok((state, end))
}

/// Verifies the chain, and adds the hashes of the tree that a store of an earlier schema lacks.
fn verify_log(db: &Connection, source: &Source, now: Timestamp) -> Result<(VerifiedState, TreeHead), OpenStoreError> {
    if chain::is_older(db)? {
        chain::begin(db, source, now, "the store is of an earlier schema", None)?;
    }
    let state = chain::verify(db)?;
    let end_of_log = || -> Result<TreeHead, StoreError> {
        let size = Head::read(db, &state)?.sequence;
        tree::complete(db, size)?;
        Ok(TreeHead { frontier: tree::frontier(db, size)?, state_revision: state.revision, state_head: state.head })
    };
    match end_of_log() {
        Ok(end) => Ok((state, end)),
        Err(StoreError::Corrupt { what, .. }) => Err(OpenStoreError::BrokenLog(what)),
        Err(error) => Err(error.into()),
    }
}

/// The schema of the file (0 for a new one), and whether the file belongs to a vault: this one, or none yet. Writes nothing.
fn recognize(db: &Connection, path: &Path, vault: &VaultId, mode: Mode, migrations: &Runner) -> Result<(u32, bool), OpenStoreError> {
    let (found, known) = (schema_of(db, path)?, newest(migrations));
    if found > known {
        return Err(OpenStoreError::NewerSchema { found, known });
    }
    if found == 0 {
        return Ok((0, false));
    }
    schema::check(db, migrations, found)?;
    Ok((found, check_identity(db, vault, mode)?))
}

/// Whether a start would open the file, as far as that can be known without writing. `false` if the file belongs to no vault yet.
pub(super) fn check_openable(db: &Connection, path: &Path, vault: &VaultId, mode: Mode) -> Result<bool, OpenStoreError> {
    let migrations = migrations::migrations::runner();
    let (found, introduced) = recognize(db, path, vault, mode, &migrations)?;
    if found >= newest(&migrations) && introduced && !chain::is_older(db)? {
        chain::verify(db)?;
    }
    Ok(introduced)
}

/// Whether another process uses the store. Creates no file.
pub fn is_in_use(path: &Path) -> bool {
    let Ok(file) = File::open(with_suffix(path, ".lock")) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
}

/// Whether the file has the newest schema and its structure. Writes nothing, and reads no entry.
pub(super) fn check_newest_schema(db: &Connection, path: &Path) -> Result<(), OpenStoreError> {
    let migrations = migrations::migrations::runner();
    let (found, known) = (schema_of(db, path)?, newest(&migrations));
    if found > known {
        return Err(OpenStoreError::NewerSchema { found, known });
    }
    if found < known {
        let what = format!("the database has schema {found}, which has no tree over the log: start the vault once with this version");
        return Err(StoreError::Failed(what).into());
    }
    schema::check(db, &migrations, found)
}

/// Whether the file has the structure of its schema and an unbroken chain of state changes. Writes nothing.
pub(super) fn check_structure(db: &Connection, path: &Path) -> Result<(), OpenStoreError> {
    let migrations = migrations::migrations::runner();
    let found = schema_of(db, path)?;
    schema::check(db, &migrations, found)?;
    if found >= newest(&migrations) && !chain::is_older(db)? {
        chain::verify(db)?;
    }
    Ok(())
}

/// A connection with the common settings.
pub(super) fn connect(path: &Path, vfs: Option<&str>, access: OpenFlags) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let db = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
        None => Connection::open_with_flags(path, flags)?,
    };
    // 2 s: a connection waits for another one during a checkpoint or a recovery only. 8 MiB of pages for each connection.
    db.execute_batch(
        "PRAGMA busy_timeout = 2000; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -8192; PRAGMA mmap_size = 0;",
    )?;
    schema::defend(&db)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Locks the lock file beside the database, until the returned file is dropped.
pub(super) fn lock(path: &Path) -> Result<File, OpenStoreError> {
    let beside = with_suffix(path, ".lock");
    let io = |source| OpenStoreError::Io { path: beside.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenStoreError::InUse(path.to_owned())),
        Err(errno) => Err(io(errno.into())),
    }
}

/// Creates an empty file that only the owner can read. SQLite uses the same mode for the WAL. The mode of an existing file stays.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether the file is empty or starts like a SQLite database.
pub(super) fn looks_like_sqlite(path: &Path) -> io::Result<bool> {
    let start = files::open(path)?.read_start(16)?;
    Ok(start.is_empty() || start == b"SQLite format 3\0")
}

/// The schema of the file. 0 for a new one.
pub(super) fn schema_of(db: &Connection, path: &Path) -> Result<u32, OpenStoreError> {
    let foreign = || OpenStoreError::NotAVault(path.to_owned());
    let read = || -> rusqlite::Result<(bool, i64)> {
        let empty = db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((empty, db.query_row("PRAGMA application_id", [], |row| row.get(0))?))
    };
    match read() {
        // A crash between these two steps of the creation leaves a file that is still new.
        Ok((true, 0 | APPLICATION_ID)) => Ok(0),
        Ok((false, APPLICATION_ID)) => {
            schema::check_history(db)?;
            db.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0)).map_err(|_| foreign())
        }
        Ok((_, INCOMPLETE_COPY)) => Err(OpenStoreError::IncompleteCopy(path.display().to_string())),
        Ok(_) => Err(foreign()),
        Err(error) => Err(StoreError::from(error).into()),
    }
}

/// Whether the file belongs to this vault. `false` if its creation was interrupted before it belonged to any vault.
fn check_identity(db: &Connection, vault: &VaultId, mode: Mode) -> Result<bool, OpenStoreError> {
    let identity: Option<(String, String)> =
        db.query_row("SELECT vault, mode FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(StoreError::from)?;
    let Some((of_vault, of_mode)) = identity else {
        let used: bool = db
            .query_row("SELECT EXISTS (SELECT 1 FROM audit_entries) OR EXISTS (SELECT 1 FROM keys)", [], |row| row.get(0))
            .map_err(StoreError::from)?;
        return if used { Err(corrupt("meta", "its row is missing").into()) } else { Ok(false) };
    };
    if of_vault != vault.as_str() {
        Err(OpenStoreError::OtherVault { found: of_vault, expected: vault.clone() })
    } else if of_mode != mode.as_str() {
        Err(OpenStoreError::OtherMode { found: of_mode, expected: mode })
    } else {
        Ok(true)
    }
}

/// The settings that make a commit durable and overwrite deleted bytes.
fn prepare_writing(db: &Connection) -> Result<(), StoreError> {
    let journal: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if journal != "wal" {
        return Err(StoreError::Failed(format!("the file system does not carry a write-ahead log (journal mode {journal})")));
    }
    // After a burst, the WAL is truncated to 64 MiB.
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA journal_size_limit = 67108864;")?;
    Ok(())
}

/// Runs all migrations in one transaction, after a copy of the file was made.
fn migrate(db: &mut Connection, path: &Path, found: u32, migrations: &Runner) -> Result<(), OpenStoreError> {
    let known = newest(migrations);
    let kept = with_suffix(path, &format!(".before-v{known}"));
    if found > 0 {
        // The copy of an earlier attempt that failed. It has the same old schema.
        if let Err(source) = std::fs::remove_file(&kept)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(OpenStoreError::Io { path: kept, source });
        }
        backup::copy_from(db, &kept)?;
    }
    db.pragma_update(None, "application_id", APPLICATION_ID).map_err(StoreError::from)?;
    let failed = |error: refinery::Error| OpenStoreError::Migration { known, kept, why: error.to_string() };
    Runner::new(migrations.get_migrations()).set_grouped(true).run(db).map(|_| ()).map_err(failed)
}

/// Inserts the one row of `meta` in a new store.
fn introduce(db: &Connection, vault: &VaultId, mode: Mode, random: &dyn Random, now: Timestamp) -> Result<(), OpenStoreError> {
    let mut hash_key = [0; 32];
    random.fill(&mut hash_key).map_err(|_| OpenStoreError::Random)?;
    db.execute(
        "INSERT INTO meta (only_row, vault, mode, hash_key, created_at, store_revision, frozen) VALUES (1, ?1, ?2, ?3, ?4, 1, 0)",
        params![vault.as_str(), mode.as_str(), hash_key, now.micros()],
    )
    .map_err(StoreError::from)?;
    Ok(())
}

/// Makes the tables of the newest schema in an empty database.
#[cfg(feature = "postgresql")]
pub(super) fn create_tables(db: &mut Connection) -> Result<(), StoreError> {
    let migrations = migrations::migrations::runner();
    Runner::new(migrations.get_migrations()).set_grouped(true).run(db).map(drop).map_err(|error| StoreError::Failed(error.to_string()))
}

/// The schema of a file, with the structure of this program, and the newest schema. Writes nothing, and reads no entry.
#[cfg(feature = "postgresql")]
pub(super) fn known_schema(db: &Connection, path: &Path) -> Result<(u32, u32), OpenStoreError> {
    let migrations = migrations::migrations::runner();
    let (found, known) = (schema_of(db, path)?, newest(&migrations));
    if found > known {
        return Err(OpenStoreError::NewerSchema { found, known });
    }
    schema::check(db, &migrations, found)?;
    Ok((found, known))
}

/// The newest schema of the migrations.
fn newest(migrations: &Runner) -> u32 {
    migrations.get_migrations().iter().filter_map(|migration| u32::try_from(migration.version()).ok()).max().unwrap_or(0)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

/// "CKV1": a file without it belongs to another program.
pub(super) const APPLICATION_ID: i64 = 0x434B_5631;
/// `CKVc` in ASCII: a copy of a store into this file is not complete.
pub(super) const INCOMPLETE_COPY: i64 = 0x434B_5663;

/// An empty database with all migrations, for tests of single statements.
#[cfg(test)]
pub(super) fn migrated_in_memory() -> Connection {
    let mut db = Connection::open_in_memory().unwrap();
    migrations::migrations::runner().run(&mut db).unwrap();
    db
}

#[cfg(test)]
mod tests {
    use refinery::Migration;

    use super::*;

    const FIRST: &str = "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1);";

    fn runner(texts: &[&str]) -> Runner {
        let migrations: Vec<_> =
            (1..).zip(texts).map(|(number, text)| Migration::unapplied(&format!("V{number}__step"), text).unwrap()).collect();
        Runner::new(&migrations)
    }

    fn columns(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("SELECT count(*) FROM pragma_table_info('t')", [], |row| row.get(0)).unwrap()
    }

    fn made(folder: &Path) -> (PathBuf, Connection) {
        let path = folder.join("keyvault.db");
        let mut db = Connection::open(&path).unwrap();
        migrate(&mut db, &path, 0, &runner(&[FIRST])).unwrap();
        (path, db)
    }

    #[test]
    fn a_migration_sets_the_old_file_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut db) = made(folder.path());
        assert!(!with_suffix(&path, ".before-v1").exists(), "a new file has no past");
        migrate(&mut db, &path, 1, &runner(&[FIRST, "ALTER TABLE t ADD COLUMN b INTEGER"])).unwrap();
        assert_eq!(schema_of(&db, &path).unwrap(), 2);
        assert_eq!(columns(&path), 2);
        assert_eq!(columns(&with_suffix(&path, ".before-v2")), 1);
    }

    #[test]
    fn a_migration_that_fails_is_undone_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut db) = made(folder.path());
        let steps = runner(&[FIRST, "ALTER TABLE t ADD COLUMN b INTEGER", "ALTER TABLE missing ADD COLUMN b INTEGER"]);
        for _ in 0..2 {
            let failed = migrate(&mut db, &path, 1, &steps).unwrap_err();
            assert!(matches!(&failed, OpenStoreError::Migration { known: 3, kept, .. } if kept.exists()), "{failed}");
            assert_eq!((schema_of(&db, &path).unwrap(), columns(&path)), (1, 1));
        }
    }
}
