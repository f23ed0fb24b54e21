//! A VFS for SQLite that simulates power loss, a full disk, a failed sync and a disk that does not respond.
//!
//! Every write since the last sync of its file is kept with what it overwrote. When the power goes, each of them survives whole, in part,
//! or not at all, independent of order, as on a real disk; what was synced stays. Making and deleting a file count as durable at once.

#![expect(unsafe_code, reason = "a VFS is a table of C functions; there is no safe way to give SQLite a disk that fails")]

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    fs::OpenOptions,
    mem::size_of,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::PathBuf,
    ptr,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::ffi;

/// A disk of its own, as a VFS of SQLite. Lives as long as the process.
pub(crate) struct Disk(&'static Shared);

impl Disk {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = CString::new(format!("disk-{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap();
        let shared: &'static Shared = Box::leak(Box::new(Shared { name, state: Mutex::default(), released: Condvar::new() }));
        // SAFETY: the default VFS always exists and lives for ever; the copy is leaked, as SQLite demands of a registered VFS.
        unsafe {
            let real = real();
            let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
                szOsFile: c_int::try_from(size_of::<File>()).unwrap() + (*real).szOsFile,
                pNext: ptr::null_mut(),
                zName: shared.name.as_ptr(),
                pAppData: ptr::from_ref(shared).cast_mut().cast(),
                xOpen: Some(open),
                xDelete: Some(delete),
                ..*real
            }));
            assert_eq!(ffi::sqlite3_vfs_register(vfs, 0), ffi::SQLITE_OK);
        }
        Self(shared)
    }

    /// The name for `SqliteConfig::vfs`.
    pub(crate) fn vfs(&self) -> String {
        self.0.name.to_str().unwrap().to_owned()
    }

    /// Cuts the power instead of the write, truncation or sync after so many others; `seed` decides what survives.
    pub(crate) fn cut_power_after(&self, operations: u64, seed: u64) {
        let mut state = self.0.lock();
        (state.until_cut, state.seed) = (Some(operations), seed);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// From now on a sync is answered and not done.
    pub(crate) fn lie_about_syncs(&self) {
        self.0.lock().lies = true;
    }

    /// Whether writes are refused for want of room.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Whether syncs fail.
    pub(crate) fn set_failing(&self, failing: bool) {
        self.0.lock().failing = failing;
    }

    /// Whether syncs hang until this is set to `false`.
    pub(crate) fn set_hanging(&self, hanging: bool) {
        self.0.lock().hanging = hanging;
        self.0.released.notify_all();
    }
}

struct Shared {
    name: CString,
    state: Mutex<State>,
    released: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "switches that are set one by one")]
struct State {
    paths: Vec<PathBuf>,
    /// In the order of writing.
    unsynced: Vec<Unsynced>,
    until_cut: Option<u64>,
    seed: u64,
    off: bool,
    lies: bool,
    full: bool,
    failing: bool,
    hanging: bool,
}

struct Unsynced {
    file: usize,
    old_size: u64,
    offset: u64,
    before: Vec<u8>,
    /// `None` for a truncation to `offset`.
    after: Option<Vec<u8>>,
}

impl State {
    /// Counts an operation that would change the disk; whether there is power to do it.
    fn has_power(&mut self) -> bool {
        match &mut self.until_cut {
            Some(0) if !self.off => self.cut_power(),
            Some(left) => *left = left.saturating_sub(1),
            None => {}
        }
        !self.off
    }

    fn cut_power(&mut self) {
        self.off = true;
        let unsynced = std::mem::take(&mut self.unsynced);
        let file = |number: usize| OpenOptions::new().write(true).open(&self.paths[number]).unwrap();
        for write in unsynced.iter().rev() {
            let file = file(write.file);
            file.write_all_at(&write.before, write.offset).unwrap();
            file.set_len(write.old_size).unwrap();
        }
        for write in &unsynced {
            let fate = split_mix(&mut self.seed) % 4;
            match &write.after {
                Some(after) if fate == 0 => file(write.file).write_all_at(after, write.offset).unwrap(),
                // Torn at a sector.
                Some(after) if fate == 1 => file(write.file).write_all_at(&after[..after.len() / 2 / 512 * 512], write.offset).unwrap(),
                None if fate == 0 => file(write.file).set_len(write.offset).unwrap(),
                _ => {}
            }
        }
    }
}

/// Sebastiano Vigna's `SplitMix64`: seeded, so that a failing round can be run again.
pub(crate) const fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What SQLite sees as its file: our part first, the system's behind it in the same allocation.
#[repr(C, align(8))]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    shared: &'static Shared,
    /// `None` for temporary files, which need not survive.
    number: Option<usize>,
}

fn real() -> *mut ffi::sqlite3_vfs {
    static UNIX: OnceLock<usize> = OnceLock::new();
    // SAFETY: null asks for the default VFS; ours are never made the default.
    *UNIX.get_or_init(|| unsafe { ffi::sqlite3_vfs_find(ptr::null()) } as usize) as *mut ffi::sqlite3_vfs
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives szOsFile bytes, of which ours come first; pAppData was set in `Disk::new`.
    unsafe {
        let shared: &'static Shared = &*(*vfs).pAppData.cast::<Shared>();
        let number = (!name.is_null()).then(|| {
            let path = PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes()));
            let paths = &mut shared.lock().paths;
            paths.iter().position(|known| *known == path).unwrap_or_else(|| {
                paths.push(path);
                paths.len() - 1
            })
        });
        (*file).pMethods = ptr::null();
        let rc = (*real()).xOpen.unwrap()(real(), name, behind(file), flags, out_flags);
        if rc == ffi::SQLITE_OK {
            file.cast::<File>().write(File { methods: &raw const METHODS, shared, number });
        }
        rc
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let shared = &*(*vfs).pAppData.cast::<Shared>();
        let mut state = shared.lock();
        if state.off {
            return ffi::SQLITE_IOERR_DELETE;
        }
        let path = PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes()));
        if let Some(number) = state.paths.iter().position(|known| *known == path) {
            state.unsynced.retain(|write| write.file != number);
        }
        (*real()).xDelete.unwrap()(real(), name, sync)
    }
}

unsafe fn behind(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: szOsFile has room for both.
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

/// Our part, the system's part, and the system's functions.
unsafe fn parts(
    file: *mut ffi::sqlite3_file,
) -> (&'static Shared, Option<usize>, *mut ffi::sqlite3_file, &'static ffi::sqlite3_io_methods) {
    // SAFETY: `open` wrote our part and opened the system's.
    unsafe {
        let (ours, theirs) = (&*file.cast::<File>(), behind(file));
        debug_assert!(ptr::eq(ours.methods, &raw const METHODS));
        (ours.shared, ours.number, theirs, &*(*theirs).pMethods)
    }
}

unsafe fn size(theirs: *mut ffi::sqlite3_file, methods: &ffi::sqlite3_io_methods) -> u64 {
    let mut size = 0;
    // SAFETY: an open file and a place for the answer.
    assert_eq!(unsafe { methods.xFileSize.unwrap()(theirs, &raw mut size) }, ffi::SQLITE_OK);
    u64::try_from(size).unwrap()
}

/// The bytes from `offset`, at most `length`, as far as the file reaches.
unsafe fn bytes(theirs: *mut ffi::sqlite3_file, methods: &ffi::sqlite3_io_methods, offset: u64, length: u64) -> Vec<u8> {
    // SAFETY: an open file and a buffer of the length that is asked for.
    unsafe {
        let length = length.min(size(theirs, methods).saturating_sub(offset));
        let mut bytes = vec![0_u8; usize::try_from(length).unwrap()];
        if !bytes.is_empty() {
            let read = methods.xRead.unwrap();
            let rc = read(theirs, bytes.as_mut_ptr().cast(), c_int::try_from(length).unwrap(), i64::try_from(offset).unwrap());
            assert_eq!(rc, ffi::SQLITE_OK);
        }
        bytes
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, length: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite gives an open file and `length` bytes.
    unsafe {
        let (shared, number, theirs, methods) = parts(file);
        if let Some(file) = number {
            let mut state = shared.lock();
            if !state.has_power() {
                return ffi::SQLITE_IOERR_WRITE;
            }
            if state.full {
                return ffi::SQLITE_FULL;
            }
            let after = std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(length).unwrap()).to_vec();
            let start = u64::try_from(offset).unwrap();
            let before = bytes(theirs, methods, start, after.len() as u64);
            let old_size = size(theirs, methods);
            state.unsynced.push(Unsynced { file, old_size, offset: start, before, after: Some(after) });
            return methods.xWrite.unwrap()(theirs, from, length, offset);
        }
        methods.xWrite.unwrap()(theirs, from, length, offset)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, to: i64) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let (shared, number, theirs, methods) = parts(file);
        let mut state = shared.lock();
        if let Some(file) = number {
            if !state.has_power() {
                return ffi::SQLITE_IOERR_TRUNCATE;
            }
            let (old_size, offset) = (size(theirs, methods), u64::try_from(to).unwrap());
            let before = bytes(theirs, methods, offset, old_size);
            state.unsynced.push(Unsynced { file, old_size, offset, before, after: None });
        }
        methods.xTruncate.unwrap()(theirs, to)
    }
}

/// Nothing reaches the system's sync: what survives is decided here.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    let (shared, number, ..) = unsafe { parts(file) };
    let mut state = shared.released.wait_while(shared.lock(), |state| state.hanging).unwrap();
    if !state.has_power() || state.failing {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    if !state.lies {
        state.unsynced.retain(|write| Some(write.file) != number);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, length: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite gives an open file and room for `length` bytes.
    unsafe {
        let (shared, _, theirs, methods) = parts(file);
        if shared.lock().off { ffi::SQLITE_IOERR_READ } else { methods.xRead.unwrap()(theirs, to, length, offset) }
    }
}

/// Functions that only hand over to the system's.
macro_rules! pass_through {
    ($($name:ident as $field:ident ($($arg:ident: $type:ty),*) -> $answer:ty;)+) => {$(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $arg: $type)*) -> $answer {
            // SAFETY: the arguments are handed over as they came.
            unsafe {
                let (_, _, theirs, methods) = parts(file);
                methods.$field.unwrap()(theirs $(, $arg)*)
            }
        }
    )+};
}

pass_through! {
    close as xClose() -> c_int;
    file_size as xFileSize(size: *mut i64) -> c_int;
    lock as xLock(level: c_int) -> c_int;
    unlock as xUnlock(level: c_int) -> c_int;
    check_reserved_lock as xCheckReservedLock(answer: *mut c_int) -> c_int;
    file_control as xFileControl(operation: c_int, argument: *mut c_void) -> c_int;
    sector_size as xSectorSize() -> c_int;
    device_characteristics as xDeviceCharacteristics() -> c_int;
    shm_map as xShmMap(page: c_int, size: c_int, extend: c_int, to: *mut *mut c_void) -> c_int;
    shm_lock as xShmLock(offset: c_int, number: c_int, flags: c_int) -> c_int;
    shm_barrier as xShmBarrier() -> ();
    shm_unmap as xShmUnmap(delete: c_int) -> c_int;
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 2: with shared memory for the WAL, without memory-mapped reads, which would go around us.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
